"""Whatever raises wherever: with a fake engine, without a node."""

from fake_stream import failing, PATIENCE
import pytest
import rclpy

from xsvggt_ros.msg import StreamStatus
from xsvggt_ros.node import frame_processor

STAGES = {
    'begin to process': lambda s: (s.pipeline.stream, 'repair'),
    'decode': lambda s: (frame_processor, 'decode_set'),
    'step': lambda s: (s.engine, 'step'), 'accept': lambda s: (s.engine, 'accept'),
    'scale': lambda s: (s.pipeline.scale, 'update'),
    'location': lambda s: (s.pipeline.outputs, 'locate'),
    'completion': lambda s: (s.pipeline.processor, '_complete'),
    'copy': lambda s: (frame_processor, 'host_makers'),
    'outputs': lambda s: (s.pipeline.outputs, 'publish'),
    'poses': lambda s: (s.pipeline.outputs._poses, 'publish'),
    'points': lambda s: (s.topics['points'], 'publish'),
    'finish': lambda s: (s.engine, 'finish_frame'),
    'statistics': lambda s: (s.engine, 'pending_stats'),
    'account': lambda s: (s.pipeline.outputs, 'account'),
    'status': lambda s: (s.topics['status'], 'publish'),
    'cache status': lambda s: (s.topics['cache_status'], 'publish'),
    'map': lambda s: (s.pipeline.outputs.map, 'add'),
    'on_error': lambda s: (s.pipeline, 'on_error'),
    'undo': lambda s: (s.engine, 'discard_frame')}


@pytest.mark.parametrize('error', [RuntimeError('boom'), MemoryError(), SystemExit(3)], ids=repr)
@pytest.mark.parametrize('when', ['before', 'after'])
@pytest.mark.parametrize('stage', STAGES)
@pytest.mark.parametrize('overlaps', [False, True])
def test_each_image_is_counted_once_whatever_raises_where(
        make_stream, monkeypatch, overlaps, stage, when, error):
    stream = make_stream(overlaps)
    stream.process(0)
    place, name = STAGES[stage](stream)
    monkeypatch.setattr(place, name, failing(getattr(place, name), error, when=when))
    if stage in ('on_error', 'undo'):
        stream.send(1, encoding='yuv999')
    else:
        stream.send(1)
    assert stream.unaccounted() == 0
    monkeypatch.undo()
    monkeypatch.setattr(rclpy, 'ok', lambda: True)
    stream.process(2, 3)
    assert stream.unaccounted() == 0
    p = stream.pipeline
    assert (p.intake.received, p.statistics.processed + p.statistics.rejected) == (4, 4)
    assert p.statistics.processed >= 3 and stream.engine.frames >= 3
    assert stream.worker.work is None and p.statistics.resets == 0
    assert stream.statuses()[-1].frames_processed == p.statistics.processed


@pytest.mark.parametrize('overlaps', [False, True])
def test_what_would_end_the_worker_is_an_error_with_its_traceback(
        make_stream, monkeypatch, overlaps):
    stream = make_stream(overlaps)
    stream.process(0)
    monkeypatch.setattr(stream.engine, 'step', failing(stream.engine.step, SystemExit(3)))
    stream.send(1)
    stream.rest()
    assert 'started again; SystemExit: 3' in stream.told[-1]
    assert 'Traceback' in stream.told[-1] and 'in step' not in stream.told[-1].splitlines()[0]
    assert stream.pipeline._faults.last('worker').message == stream.told[-1].splitlines()[0]
    assert stream.statuses()[-1].state == StreamStatus.DEGRADED
    stream.process(2)
    assert stream.statuses()[-1].state == StreamStatus.TRACKING
    assert stream.topics['cache_status'].messages[-1].frame_index == 1      # the stream was kept


def test_a_stream_that_cannot_be_kept_takes_its_map_with_it(make_stream, monkeypatch):
    stream = make_stream()
    stream.process(0, 1)

    discard = stream.engine.discard_frame

    def lose():
        monkeypatch.setattr(stream.engine, 'discard_frame', discard)
        stream.engine.frames = 0
        raise RuntimeError('no memory')

    monkeypatch.setattr(stream.engine, 'discard_frame', lose)
    monkeypatch.setattr(stream.engine, 'step', failing(stream.engine.step, SystemExit(3)))
    for index in (2, 3):    # what is left over is set right before the next image, in vain
        stream.send(index)
        stream.rest()
    stream.process(4)
    status = stream.statuses()[-1]
    assert (status.reset_count, status.frames_rejected) == (1, 2)
    assert stream.topics['cache_status'].messages[-1].frame_index == 0
    assert len(stream.pipeline.outputs.map._trajectory) == 1
    assert any('stream reset' in line for line in stream.told)


def test_a_reset_that_fails_half_way_is_completed_before_the_next_image(make_stream, monkeypatch):
    stream = make_stream()
    stream.process(0, 1)
    forget = stream.pipeline.outputs.map.forget
    monkeypatch.setattr(
        stream.pipeline.outputs.map, 'forget', failing(forget, RuntimeError('boom')))
    with pytest.raises(RuntimeError, match='boom'):
        stream.worker.run(stream.pipeline.reset, PATIENCE)
    stream.process(2)
    assert stream.statuses()[-1].reset_count == 1
    assert len(stream.pipeline.outputs.map._trajectory) == 1       # that of the new stream


@pytest.mark.parametrize('most, resets', [(3, [0, 0, 1, 1, 1, 2]), (0, [0] * 6)])
def test_images_that_keep_failing_begin_a_new_stream(make_stream, most, resets):
    stream = make_stream(**{'reset.on_failures': most})
    stream.process(0, 1)
    stream.engine.lost.update(range(2, 8))
    for index, expected in zip(range(2, 8), resets):
        stream.send(index)
        assert stream.unaccounted() == 0
        assert stream.pipeline.statistics.resets == expected
    assert stream.pipeline.statistics.rejected == 6 and stream.pipeline.statistics.processed == 2
    assert any('images in a row' in line for line in stream.told) == bool(most)
    assert 'the pose is not finite' in stream.pipeline._faults.last('frame').message
    stream.process(8)
    index = stream.topics['cache_status'].messages[-1].frame_index
    assert index == (0 if most else 2)      # those that were refused are no part of the stream


def test_images_that_fail_now_and_then_do_not(make_stream):
    stream = make_stream(**{'reset.on_failures': 2})
    stream.engine.lost.update({1, 3, 5, 7})
    for index in range(8):
        stream.send(index)
        stream.rest()
    assert stream.pipeline.statistics.resets == 0 and stream.pipeline.statistics.processed == 4
    assert all('nan' not in str(message.pose.pose.position.y)
               for message in stream.topics['odometry'].messages)


def test_broken_images_are_no_failures_of_the_network(make_stream):
    stream = make_stream(**{'reset.on_failures': 1})
    stream.process(0)
    stream.send(1, encoding='yuv999')
    stream.rest()
    assert (stream.pipeline.statistics.resets, stream.pipeline.statistics.rejected) == (0, 1)
