"""One image is published while the network has the next: with a fake engine, without a node."""

import logging
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from stream_harness import make_image
import torch

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.frame_result import check_results, FrameResult, ResultError
from xsvggt_ros.engine.host_copy import HostCopy
from xsvggt_ros.engine.stream_engine import CacheStats, PendingStats
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.msg import StreamStatus
from xsvggt_ros.node import frame_processor
from xsvggt_ros.node.inputs.camera_calibration import CameraCalibration
from xsvggt_ros.node.outputs.publishing import Publishing
from xsvggt_ros.node.pipeline import Pipeline
from xsvggt_ros.node.settings import DEFAULTS
from xsvggt_ros.node.status.fault_log import FaultLog
from xsvggt_ros.node.worker import Worker

HEIGHT, WIDTH = 56, 70
PATIENCE = 100  # seconds; nothing takes that long
TOPICS = ('points', 'depth', 'depth_info', 'rgb', 'rgb_info', 'confidence', 'odometry', 'pose',
          'path', 'map_points', 'occupancy', 'cache_status', 'status', 'tf')


class Gates:
    """What happened, in order; and places where a thread waits until a test lets it pass."""

    def __init__(self):
        self.log = []
        self._condition = threading.Condition()
        self._closed = set()
        self.threads = {}

    def close(self, event):
        self._closed.add(event)

    def open(self, event):
        with self._condition:
            self._closed.discard(event)
            self._condition.notify_all()

    def pass_through(self, *event):
        with self._condition:
            self.log.append(event)
            self.threads.setdefault(event[0], set()).add(threading.current_thread().name)
            self._condition.notify_all()
            assert self._condition.wait_for(lambda: event not in self._closed, PATIENCE), event

    def wait_for(self, *event, times=1):
        with self._condition:
            assert self._condition.wait_for(
                lambda: self.log.count(event) >= times, PATIENCE), (event, self.log)

    def order(self, *events):
        """Return whether these happened one after the other, the first time each."""
        places = [self.log.index(event) for event in events]
        return places == sorted(places)


class FakeEngine:
    """Answers at once, with maps full of the index that is in the image's first pixel."""

    def __init__(self, gates, first_frames=1):
        self.gates = gates
        self.config = EngineConfig(first_frames=first_frames)
        self.frames = 0
        self.open = 0       # how many frames can be undone
        self.resize = None
        self.lost = set()  # indices for which there is no pose
        self.limits = []

    def want_points(self, wanted):
        pass

    def prepare(self, height, width):
        self.resize = Resize.plan(height, width, None, 14)

    def step(self, pixels, camera, remember, joins):
        self.gates.pass_through('step', int(pixels[0, 0, 0]))
        self.open = 1
        return self._result(pixels)

    def begin(self, frames, cameras):
        assert self.frames == 0 and len(frames) == len(cameras) == self.config.first_frames
        self.gates.pass_through('begin', *(int(pixels[0, 0, 0]) for pixels in frames))
        self.open = len(frames)
        return [self._result(pixels) for pixels in frames]

    def _result(self, pixels):
        index = int(pixels[0, 0, 0])
        pose = torch.eye(4)
        pose[0, 3] = torch.nan if index in self.lost else -float(index)
        self.frames += 1
        return FrameResult(
            frame_index=self.frames - 1, image=torch.full((HEIGHT, WIDTH, 3), index).byte(),
            pose_encoding=torch.eye(9)[6], camera_from_world=pose, intrinsics=torch.eye(3),
            predicted_intrinsics=torch.eye(3), depth=torch.full((HEIGHT, WIDTH), 1.0 + index),
            depth_confidence=torch.full((HEIGHT, WIDTH), 2.0), points=None,
            points_confidence=None, upload_seconds=0.0)

    def accept(self, results):
        try:
            return check_results(results)
        except ResultError:
            self.discard_frame()
            raise

    def discard_frame(self):
        self.frames -= self.open
        self.open = 0

    def finish_frame(self):
        self.open = 0
        self.gates.pass_through('finish', self.frames - 1)

    def pending_stats(self):
        stats = CacheStats(self.frames, 25, (25,), 100, 0.25, 0, 0, 0, None, 0, 0, None, 100)
        return PendingStats(stats, torch.tensor([25.0, 0.0, 1.0, 1.0]))

    def limit_tokens(self, tokens):
        self.limits.append(tokens)

    def exhausted(self, frames):
        return None

    def reset(self):
        self.gates.pass_through('reset')
        self.frames = self.open = 0

    def budget_description(self):
        return 'fake'

    def budget_warning(self):
        return None


class FakePublisher:
    """Takes messages; to publish is an event with the index of the image that it belongs to."""

    def __init__(self, topic, gates):
        self.topic, self.gates = topic, gates
        self.messages = []
        self.error = None

    def get_subscription_count(self):
        return self.topic in ('points', 'depth', 'status')

    def publish(self, message):
        if self.topic == 'points':
            self.gates.pass_through('publish', message.header.stamp.sec - 1700000000)
            if self.error is not None:
                error, self.error = self.error, None
                raise error
        if self.topic == 'status':
            self.gates.pass_through('status', message.header.stamp.sec - 1700000000)
        self.messages.append(message)


class LateCopies:
    """A backend that spoils its target at once, and copies when it is waited for."""

    def __init__(self, gates):
        self.gates = gates

    def allocate(self, like):
        return torch.zeros_like(like)

    def copy(self, pairs):
        for _, target in pairs:
            target.fill_(77)
        return SimpleNamespace(query=lambda: False, synchronize=lambda: self._arrive(pairs))

    def _arrive(self, pairs):
        self.gates.threads.setdefault('arrive', set()).add(threading.current_thread().name)
        for source, target in pairs:
            target.copy_(source)
        pairs.clear()


class Stream:
    """A pipeline with its worker, between a fake engine and fake publishers."""

    def __init__(self, overlaps, first_frames=1, **changes):
        self.gates = Gates()
        self.engine = FakeEngine(self.gates, first_frames)
        self.topics = {name: FakePublisher(name, self.gates) for name in TOPICS}
        self.told = []
        # A small map: hundreds of streams in one process wait for the collector of cycles.
        settings = DEFAULTS.changed({'cloud.confidence_percentile': 0.0, 'map.max_points': 16384,
                                     'trajectory.mode': 'network'} | changes)
        loaded = SimpleNamespace(
            engine=self.engine, description='fake', random_weights=False, device_name='fake',
            device=torch.device('cpu'), depth_errors=None)
        tf = SimpleNamespace(expect=lambda *edges: None, other_parent=lambda child: None)
        self.pipeline = Pipeline(
            loaded, SimpleNamespace(**self.topics), FaultLog(self.told.append),
            logging.getLogger('test'), settings,
            [CameraCalibration('camera_info', 'image', False, False, lambda: False)], ['image'],
            None, tf)
        self.pipeline.overlaps = overlaps
        self.worker = Worker(self.pipeline.process, self.pipeline.on_error, self.pipeline.end,
                             self.pipeline.on_crash)
        self.pipeline.begin(self.worker.mailbox)

    def send(self, index, **changes):
        message = make_image(index)
        message.data[:3] = message.data[:1].__class__('B', [index] * 3)
        for name, value in changes.items():
            setattr(message, name, value)
        self.pipeline.intake.on_image(message)

    def process(self, *indices):
        for index in indices:
            self.send(index)
            self.gates.wait_for('status', index)

    def rest(self):
        """Wait until the images that were sent are done with, whatever became of them."""
        for _ in range(2):      # a command comes before an image that waits
            self.worker.run(self.pipeline.publish_map_if_due, PATIENCE)

    def statuses(self):
        return self.topics['status'].messages

    def in_thread(self, call):
        """Call a function in a thread; return the thread and the list its result comes in."""
        result = []
        thread = threading.Thread(target=lambda: result.append(call()), daemon=True)
        thread.start()
        return thread, result


@pytest.fixture
def make_stream(monkeypatch):
    monkeypatch.setattr(rclpy, 'ok', lambda: True)
    streams = []

    def make(overlaps=True, **changes):
        streams.append(Stream(overlaps, **changes))
        return streams[-1]

    yield make
    for stream in streams:
        assert stream.worker.stop(PATIENCE)
        names = {thread.name for thread in threading.enumerate()}
        assert not names & {'xsvggt_worker', 'xsvggt_publishing'}


def test_an_image_is_published_while_the_network_has_the_next(make_stream):
    stream = make_stream()
    gates = stream.gates
    gates.close(('publish', 0))
    stream.send(0)
    gates.wait_for('publish', 0)
    gates.wait_for('finish', 0)
    stream.send(1)
    gates.wait_for('step', 1)
    assert ('status', 0) not in gates.log
    stream.send(2)      # waits, and gives way to the next
    stream.send(3)
    gates.open(('publish', 0))
    for index in (0, 1, 3):
        gates.wait_for('status', index)
    assert gates.order(('step', 0), ('publish', 0), ('step', 1), ('status', 0), ('publish', 1),
                       ('status', 1), ('publish', 3), ('status', 3))
    assert gates.order(('status', 0), ('step', 3))      # one image ahead, no more
    assert gates.threads['step'] == {'xsvggt_worker'}
    assert gates.threads['publish'] == gates.threads['status'] == {'xsvggt_publishing'}
    last = stream.statuses()[-1]
    assert (last.frames_received, last.frames_processed, last.frames_dropped) == (4, 3, 1)
    assert [s.frames_processed for s in stream.statuses()] == [1, 2, 3]


def test_without_overlap_all_is_done_in_the_workers_thread(make_stream):
    stream = make_stream(overlaps=False)
    stream.process(0, 1)
    assert stream.gates.log == [('reset',)] + [
        (event, index) for index in (0, 1) for event in ('step', 'publish', 'finish', 'status')]
    assert stream.gates.threads['publish'] == {'xsvggt_worker'}


@pytest.mark.parametrize('overlaps', [False, True])
def test_every_message_has_its_own_images_values(make_stream, overlaps):
    stream = make_stream(overlaps)
    stream.process(*range(8))
    for index in range(8):
        depth, cloud = (stream.topics[name].messages[index] for name in ('depth', 'points'))
        assert (np.frombuffer(depth.data, np.float32) == 1 + index).all()
        rows = np.frombuffer(cloud.data, np.float32).reshape(-1, 5)
        assert len(rows) == HEIGHT * WIDTH and (rows[:, 2] == 1 + index).all()
        assert cloud.header.stamp == depth.header.stamp == stream.statuses()[index].header.stamp
        assert stream.topics['odometry'].messages[index].pose.pose.position.y == -index
        assert stream.topics['cache_status'].messages[index].frame_index == index
        assert stream.statuses()[index].points_published == HEIGHT * WIDTH
        assert stream.statuses()[index].confidence_mean == 2.0


def test_the_parts_of_the_latency_are_within_the_whole(make_stream):
    stream = make_stream()
    stream.process(*range(4))
    for status in stream.statuses():
        parts = [getattr(status, f'latency_{name}')
                 for name in ('decode', 'upload', 'inference', 'pack', 'publish')]
        assert min(parts) >= 0 and sum(parts) <= status.latency_total + 1e-6


def test_copies_stay_until_their_image_is_published(make_stream):
    stream = make_stream()
    stream.pipeline.processor._copies = HostCopy(LateCopies(stream.gates))
    clouds = []
    stream.pipeline.outputs.map.add = lambda header, make_cloud, *rest: clouds.append(
        make_cloud().copy())
    for index in range(0, 8, 2):
        stream.gates.close(('publish', index))
        stream.send(index)
        stream.gates.wait_for('publish', index)
        stream.send(index + 1)
        stream.gates.wait_for('step', index + 1)    # its copy begins while the other is read
        stream.gates.open(('publish', index))
        stream.gates.wait_for('status', index + 1)
    stream.rest()
    assert stream.gates.threads['arrive'] == {'xsvggt_publishing'}
    assert [set(cloud[:, 2]) for cloud in clouds] == [{1.0 + index} for index in range(8)]
    for index, depth in enumerate(stream.topics['depth'].messages):
        assert (np.frombuffer(depth.data, np.float32) == 1 + index).all()


def test_a_reset_waits_for_the_image_that_is_being_published(make_stream):
    stream = make_stream()
    stream.gates.close(('publish', 0))
    stream.send(0)
    stream.gates.wait_for('publish', 0)
    thread, _ = stream.in_thread(lambda: stream.worker.run(stream.pipeline.reset, PATIENCE))
    stream.gates.wait_for('finish', 0)
    assert stream.gates.log.count(('reset',)) == 1      # that of the beginning
    stream.gates.open(('publish', 0))
    thread.join(PATIENCE)
    assert stream.gates.log[-2:] == [('status', 0), ('reset',)]
    assert stream.pipeline.statistics.report is None
    assert stream.pipeline.outputs.map.report.fill.points == 0
    stream.process(1)
    status = stream.statuses()[-1]
    assert (status.reset_count, status.frames_processed) == (1, 2)
    # The new stream goes on where the other one was.
    assert stream.topics['odometry'].messages[-1].pose.pose.position.y == 0.0


def test_a_stream_that_begins_by_itself_waits_too(make_stream):
    stream = make_stream()
    stream.gates.close(('publish', 9))
    stream.send(9)
    stream.gates.wait_for('publish', 9)
    stream.send(1)      # its stamp is older: a new stream
    stream.gates.open(('publish', 9))
    stream.gates.wait_for('status', 1)
    log = stream.gates.log
    assert log.index(('status', 9)) < log.index(('reset',), 1) < log.index(('step', 1))
    assert [message.frame_index for message in stream.topics['cache_status'].messages] == [0, 0]
    assert stream.statuses()[-1].reset_count == 1


def test_a_saved_map_has_all_images_so_far(make_stream, tmp_path):
    stream = make_stream(**{'map.save_directory': str(tmp_path)})
    stream.process(0, 1)
    stream.gates.close(('publish', 2))
    stream.send(2)
    stream.gates.wait_for('publish', 2)
    save = stream.pipeline.outputs.map.save
    stream.pipeline.outputs.map.save = lambda *values, **more: (
        stream.gates.pass_through('save'), save(*values, **more))[1]

    def ask():
        stream.gates.pass_through('asked')
        return stream.pipeline.save_map()

    thread, answer = stream.in_thread(lambda: stream.worker.run(ask, PATIENCE))
    stream.gates.wait_for('asked')
    stream.gates.open(('publish', 2))
    thread.join(PATIENCE)
    assert stream.gates.order(('status', 2), ('save',))
    assert '(3 poses)' in answer[0]
    assert stream.worker.stop(PATIENCE)
    assert '(3 poses)' in stream.pipeline.save_map()    # and without a worker


@pytest.mark.parametrize('overlaps', [False, True])
def test_what_cannot_be_published_is_counted_and_said_and_the_next_image_comes(
        make_stream, overlaps):
    stream = make_stream(overlaps)
    stream.process(0)
    stream.topics['points'].error = RuntimeError('no such middleware')
    stream.send(1)
    stream.gates.wait_for('finish', 1)      # it was remembered all the same
    stream.rest()
    assert 'no such middleware' in stream.told[-1] and 'RuntimeError' in stream.told[-1]
    assert stream.pipeline._faults.get('frame') is not None
    stream.process(2)
    status = stream.statuses()[-1]
    assert (status.frames_received, status.frames_processed, status.frames_rejected) == (3, 2, 1)
    assert ('status', 1) not in stream.gates.log
    assert stream.pipeline._faults.get('frame') is None
    assert [message.frame_index for message in stream.topics['cache_status'].messages] == [0, 2]


def test_a_broken_image_is_said_after_the_one_before_was_published(make_stream):
    stream = make_stream()
    stream.gates.close(('publish', 0))
    stream.send(0)
    stream.gates.wait_for('publish', 0)
    stream.send(1, encoding='yuv999')
    stream.gates.open(('publish', 0))
    stream.gates.wait_for('status', 0)
    stream.rest()
    assert 'yuv999' in stream.pipeline._faults.get('image').message     # not cleared by image 0
    assert stream.pipeline.statistics.rejected == 1
    stream.process(2)
    assert stream.pipeline._faults.get('image') is None


def test_a_lost_pose_begins_a_new_stream_after_the_image_before(make_stream):
    stream = make_stream(**{'reset.on_lost': True})
    stream.engine.lost.add(1)
    stream.gates.close(('publish', 0))
    stream.send(0)
    stream.gates.wait_for('publish', 0)
    stream.send(1)
    stream.gates.wait_for('step', 1)
    stream.gates.open(('publish', 0))
    stream.gates.wait_for('reset', times=2)
    assert stream.gates.order(('step', 1), ('status', 0))
    assert stream.gates.log[-1] == ('reset',)
    stream.process(2)
    status = stream.statuses()[-1]
    assert (status.frames_processed, status.frames_rejected, status.reset_count) == (2, 1, 1)


@pytest.mark.parametrize('overlaps', [False, True])
def test_a_unit_that_changes_with_an_image_that_is_refused_is_not_lost(make_stream, overlaps):
    stream = make_stream(overlaps, **{'scale.mode': 'fixed', 'scale.value': 1.0})
    stream.process(0, 1)
    stream.engine.lost.add(2)
    stream.pipeline.settings = stream.pipeline.settings.changed({'scale.value': 2.0})
    stream.send(2)
    stream.gates.wait_for('step', 2)
    stream.process(3)
    places = [message.pose.pose.position.y for message in stream.topics['odometry'].messages]
    # Where the camera was stays there; from there it went two units, which are four metres now.
    assert places == [0.0, -1.0, -5.0]
    assert [status.scale for status in stream.statuses()] == [1.0, 1.0, 2.0]


def test_the_deadline_hears_of_every_image_published(make_stream):
    stream = make_stream(deadline_ms=1.0, **{'map.enable': False})
    seconds = []
    stream.pipeline.deadline.update = lambda took, *rest: seconds.append(took)
    stream.process(0, 1, 2)
    stream.rest()
    assert len(seconds) == 3 and min(seconds) > 0


def test_the_end_waits_for_what_is_being_published_and_no_longer_than_it_may(make_stream):
    stream = make_stream()
    stream.gates.close(('publish', 0))
    stream.send(0)
    stream.gates.wait_for('publish', 0)
    stream.gates.wait_for('finish', 0)
    assert not stream.worker.stop(0.05)
    stream.gates.open(('publish', 0))
    assert stream.worker.stop(PATIENCE)
    assert stream.gates.log[-1] == ('status', 0)


def test_a_process_that_ends_complains_of_nothing(make_stream, monkeypatch):
    stream = make_stream()
    stream.process(0)
    monkeypatch.setattr(rclpy, 'ok', lambda: False)
    stream.topics['points'].error = RuntimeError('the context is invalid')
    stream.send(1)
    stream.gates.wait_for('finish', 1)
    assert stream.worker.stop(PATIENCE)
    assert stream.told == [] and stream.pipeline.statistics.rejected == 0


# Whatever raises wherever ------------------------------------------------------------------------

def failing(function, error, times=1, when='before'):
    """Return a function that raises for so many calls, before or after it does its work."""
    left = [times]

    def fail(*arguments, **named):
        raises, left[0] = left[0] > 0, left[0] - 1
        result = None if raises and when == 'before' else function(*arguments, **named)
        if raises:
            raise error
        return result

    return fail


STAGES = {
    'begin to process': lambda s: (s.pipeline.stream, 'repair'),
    'decode': lambda s: (frame_processor, 'decode_set'),
    'step': lambda s: (s.engine, 'step'), 'accept': lambda s: (s.engine, 'accept'),
    'scale': lambda s: (s.pipeline.scale, 'apply'),
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


def count_at_rest(stream):
    """Return received - (processed + dropped + rejected + skipped) when nothing is in work."""
    stream.rest()
    intake, statistics = stream.pipeline.intake, stream.pipeline.statistics
    return intake.received - (
        statistics.processed + intake.dropped + statistics.rejected + intake.skipped)


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
    stream.rest()
    assert count_at_rest(stream) == 0
    monkeypatch.undo()
    monkeypatch.setattr(rclpy, 'ok', lambda: True)
    stream.process(2, 3)
    assert count_at_rest(stream) == 0
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
        stream.rest()
        assert count_at_rest(stream) == 0
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


# The thread by itself ----------------------------------------------------------------------------

@pytest.fixture(params=[False, True])
def publishing(request):
    publishing = Publishing(request.param)
    yield publishing
    publishing.close()


def test_parts_come_in_order_and_not_after_one_that_failed(publishing):
    done, errors = [], []

    def fail():
        raise ValueError('bad part')

    publishing.submit(lambda: done.append(1), errors.append)
    publishing.then(lambda: done.append(2))
    publishing.join()
    assert done == [1, 2]
    publishing.submit(fail, errors.append)
    publishing.then(lambda: done.append(3))
    publishing.submit(lambda: done.append(4), errors.append)
    publishing.then(fail)
    publishing.join()
    assert done == [1, 2, 4]
    assert [str(error) for error in errors] == ['bad part'] * 2


@pytest.mark.parametrize('error', [SystemExit(3), GeneratorExit(), ValueError('bad')], ids=repr)
def test_no_part_ends_the_thread_and_nor_does_who_is_told(publishing, error):
    done, told = [], []

    def fail():
        raise error

    def listen(raised):
        told.append(raised)
        raise SystemExit(1)

    for number in range(2):
        publishing.submit(fail, listen)
        publishing.then(lambda: done.append('never'))
        publishing.submit(lambda number=number: done.append(number), listen)
        publishing.join()
    assert done == [0, 1] and told == [error, error]
