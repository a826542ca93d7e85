"""A stream that begins with several images, which the network sees together: fake engine."""

from fake_stream import failing, PATIENCE
import numpy as np
import pytest

from xsvggt_ros.msg import StreamStatus

FIRST = 3


@pytest.fixture(params=[False, True], ids=['in turn', 'overlapping'])
def stream(make_stream, request):
    return make_stream(request.param, first_frames=FIRST)


def collect(stream, *indices, **changes):
    """Send images that are to be collected, or refused; return the newest status."""
    for index in indices:
        stream.send(index, **changes)
        stream.rest()
    return stream.statuses()[-1]


def published(stream):
    return [message.header.stamp.sec - 1700000000
            for message in stream.topics['odometry'].messages]


def tracked(stream):
    return [s for s in stream.statuses() if s.state == StreamStatus.TRACKING]


def counts(status):
    """Return what became of the images; all that came are in one of the numbers."""
    numbers = (status.frames_processed, status.frames_dropped, status.frames_rejected,
               status.frames_skipped, status.frames_collected)
    assert status.frames_received == sum(numbers)
    return numbers


def test_they_are_collected_and_then_published_each_under_its_stamp(stream):
    for index in (0, 1):
        status = collect(stream, index)
        assert status.state == StreamStatus.WARMING_UP
        assert (status.frames_collected, status.frames_to_collect) == (index + 1, FIRST)
        assert counts(status) == (0, 0, 0, 0, index + 1)
    assert published(stream) == [] and stream.engine.frames == 0
    collect(stream, 2)
    assert ('begin', 0, 1, 2) in stream.gates.log and published(stream) == [0, 1, 2]
    assert [s.header.stamp.sec - 1700000000 for s in tracked(stream)] == [0, 1, 2]
    assert counts(stream.statuses()[-1]) == (3, 0, 0, 0, 0)
    assert stream.statuses()[-1].frames_to_collect == 0
    for s in tracked(stream):   # that the first ones have waited is in no part of the latency
        parts = (s.latency_decode, s.latency_upload, s.latency_inference, s.latency_pack,
                 s.latency_publish)
        assert min(parts) >= 0 and sum(parts) <= s.latency_total + 1e-6
    stream.process(3)
    assert published(stream) == [0, 1, 2, 3] and ('step', 3) in stream.gates.log
    positions = [m.pose.pose.position for m in stream.topics['odometry'].messages]
    assert np.allclose([abs(p.x) + abs(p.y) + abs(p.z) for p in positions], range(4))


def test_a_reset_lets_go_of_those_that_wait(stream):
    collect(stream, 0, 1)
    stream.worker.run(stream.pipeline.reset, PATIENCE)
    status = collect(stream, 2, 3)
    assert counts(status) == (0, 0, 0, 2, 2) and status.reset_count == 1
    collect(stream, 4)
    assert published(stream) == [2, 3, 4] and counts(stream.statuses()[-1]) == (3, 0, 0, 2, 0)
    stream.worker.run(stream.pipeline.reset, PATIENCE)     # the next stream begins likewise
    status = collect(stream, 5)
    assert status.state == StreamStatus.WARMING_UP and counts(status) == (3, 0, 0, 2, 1)
    collect(stream, 6, 7)
    assert published(stream) == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize('changes', [
    {'encoding': 'nonsense'}, {'width': 28, 'height': 28, 'step': 84}, {'step': 3}])
def test_an_image_that_is_refused_is_not_one_of_them(stream, changes):
    collect(stream, 0)
    stream.send(1, **changes)
    stream.rest()
    assert 'image refused' in stream.told[-1]
    if 'height' in changes:
        assert 'began with 70x56' in stream.told[-1] and '~/reset' in stream.told[-1]
    assert counts(collect(stream, 2)) == (0, 0, 1, 0, 2)
    collect(stream, 3)
    assert published(stream) == [0, 2, 3] and counts(stream.statuses()[-1]) == (3, 0, 1, 0, 0)


def test_an_image_that_gave_way_to_a_newer_one_is_not_missed(stream):
    stream.gates.close(('status', -1700000000))   # the worker says that it has collected one
    stream.send(0)
    stream.gates.wait_for('status', -1700000000)
    stream.send(1)      # waits, and gives way to the next
    stream.send(2)
    stream.gates.open(('status', -1700000000))
    stream.rest()
    collect(stream, 3)
    assert published(stream) == [0, 2, 3] and counts(stream.statuses()[-1]) == (3, 1, 0, 0, 0)


def test_another_camera_begins_anew(stream, monkeypatch):
    collect(stream, 0, 1)
    calibrations = stream.pipeline.calibrations
    monkeypatch.setattr(calibrations, 'select', lambda *_: ([None], 'the calibration has changed'))
    status = collect(stream, 2)
    monkeypatch.undo()
    assert counts(status) == (0, 0, 0, 2, 1) and status.reset_count == 1
    collect(stream, 3, 4)
    assert published(stream) == [2, 3, 4]


def test_stamps_that_jump_back_begin_anew(make_stream):
    stream = make_stream(False, first_frames=FIRST)
    collect(stream, 20, 21)
    for index in range(4):
        status = collect(stream, index)
    assert status.reset_count == 1 and published(stream)[:3] in ([0, 1, 2], [1, 2, 3])
    assert counts(status)[3] == 2


def test_what_is_no_reconstruction_is_refused_with_all_of_them(stream):
    stream.engine.lost = {1}
    collect(stream, 0, 1, 2)
    assert published(stream) == [] and stream.engine.frames == 0
    assert 'the pose is not finite' in stream.told[-1]
    status = collect(stream, 3)
    assert counts(status) == (0, 0, 3, 0, 1)
    collect(stream, 4, 5)
    assert published(stream) == [3, 4, 5] and stream.engine.frames == 3


def test_one_that_cannot_be_published_takes_no_other_with_it(stream):
    collect(stream, 0, 1)
    stream.topics['points'].error = RuntimeError('no middleware')
    collect(stream, 2)
    assert len(tracked(stream)) == 2 and stream.engine.frames == 3
    assert counts(tracked(stream)[-1]) == (2, 0, 1, 0, 0)
    stream.process(3)
    assert counts(stream.statuses()[-1]) == (3, 0, 1, 0, 0)


@pytest.mark.parametrize('error', [RuntimeError('no memory'), SystemExit(3)])
def test_a_failure_of_the_network_is_survived(stream, monkeypatch, error):
    monkeypatch.setattr(stream.engine, 'begin', failing(stream.engine.begin, error))
    collect(stream, 0, 1, 2)
    monkeypatch.undo()
    status = collect(stream, 3)
    assert counts(status) == (0, 0, 3, 0, 1)
    collect(stream, 4, 5)
    assert published(stream) == [3, 4, 5]


def test_one_that_cannot_be_located_is_left_out(stream, monkeypatch):
    processor = stream.pipeline.processor
    find, failed = processor._find_scale, []

    def fail(results, images, *others):
        if images[0].stamp_ns // 10 ** 9 == 1700000001 and not failed:
            failed.append(images)
            raise RuntimeError('no place')
        return find(results, images, *others)

    monkeypatch.setattr(processor, '_find_scale', fail)
    collect(stream, 0, 1, 2)
    assert published(stream) == [0, 2] and stream.engine.frames == 3
    assert counts(stream.statuses()[-1]) == (2, 0, 1, 0, 0)
    assert 'no place' in ' '.join(stream.told)


def test_the_end_says_what_was_not_reconstructed(stream, caplog):
    collect(stream, 0, 1)
    caplog.set_level('INFO', logger='test')
    assert stream.worker.stop(PATIENCE)
    assert '2 images at the beginning of a stream were not reconstructed' in caplog.text
