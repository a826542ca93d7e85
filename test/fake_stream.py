"""A pipeline with its worker, between a fake engine and fake publishers: no node, no network."""

import logging
import threading
import time
from types import SimpleNamespace

from stream_harness import make_image
import torch

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.frame_result import check_results, FrameResult, ResultError
from xsvggt_ros.engine.stream_engine import CacheStats, PendingStats
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.node.inputs.camera_calibration import CameraCalibration
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
        return SimpleNamespace(synchronize=lambda: self._arrive(pairs))

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

    def hold(self, index):
        """Send an image and wait until it is about to be published, which it is on `release`."""
        self.gates.close(('publish', index))
        self.send(index)
        self.gates.wait_for('publish', index)

    def release(self, index):
        self.gates.open(('publish', index))

    def rest(self):
        """Wait until the images that were sent are done with, whatever became of them."""
        for _ in range(2):      # a command comes before an image that waits
            self.worker.run(self.pipeline.publish_map_if_due, PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while self.worker.work is not None:     # it answers a little before it is idle
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def unaccounted(self):
        """Return received - (processed + dropped + rejected + skipped) when nothing is in work."""
        self.rest()
        intake, statistics = self.pipeline.intake, self.pipeline.statistics
        return intake.received - (
            statistics.processed + intake.dropped + statistics.rejected + intake.skipped)

    def statuses(self):
        return self.topics['status'].messages

    def in_thread(self, call):
        """Call a function in a thread; return the thread and the list its result comes in."""
        result = []
        thread = threading.Thread(target=lambda: result.append(call()), daemon=True)
        thread.start()
        return thread, result


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
