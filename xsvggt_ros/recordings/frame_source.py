"""Where a stream's frames come from: the synthetic world, a folder, a video or a bag. No ROS."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
import sys
import threading
import time
from typing import Protocol, TYPE_CHECKING

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.recordings.calibration import Calibration
from xsvggt_ros.recordings.image_folder import ImageFolder, SUFFIXES
from xsvggt_ros.recordings.source_frame import Motion, SourceFrame
from xsvggt_ros.world.synthetic_world import DEMO_SEED, SyntheticWorld

if TYPE_CHECKING:
    from xsvggt_ros.recordings.inputs.bag_hints import HintChoice

DEFAULT_SIZE = (320, 240)
WORLD_RATE = 10.0       # Hz
AHEAD_BYTES = 128 * 2 ** 20
_HEADROOM = 0.7         # frames made in this share of their period leave time for publishing


class FrameSource(Protocol):
    """A stream that can be played from its beginning, any number of times."""

    rate: float                         # Hz
    calibration: Calibration | None
    count: int | None                   # frames in all, as far as known before; None: endless
    duration_ns: int                    # of one pass, 0 if endless

    def frames(self) -> Iterator[SourceFrame]:
        """Yield the frames of one pass."""

    def describe_skipped(self) -> str:
        """Return how many images were left out so far, and why; nothing if there were none."""


class WorldSource:
    """The synthetic world as a camera sees it, `rate` times a second."""

    def __init__(self, seed: int = DEMO_SEED, size: tuple[int, int] = DEFAULT_SIZE,
                 rate: float | None = None, count: int | None = None) -> None:
        self.world = SyntheticWorld(seed, *size)
        self.rate = rate or WORLD_RATE
        self.count = count
        self.duration_ns = self._offset_ns(count or 0)
        self.calibration: Calibration | None = Calibration.pinhole(
            *size, self.world.intrinsics.matrix(), source=f'synthetic world {seed}')

    def frames(self) -> Iterator[SourceFrame]:
        """Yield the frames of one pass."""
        index = 0
        while self.count is None or index < self.count:
            seconds = index / self.rate
            frame = self.world.frame(seconds)
            motion = Motion(frame.world_from_camera, *self.world.velocity(seconds))
            yield SourceFrame(frame.image, self._offset_ns(index), motion=motion)
            index += 1

    def describe_skipped(self) -> str:
        """Return nothing: all is drawn."""
        return ''

    def _offset_ns(self, index: int) -> int:
        return round(index * 1e9 / self.rate)


class FolderSource:
    """The first `count` images of a folder."""

    def __init__(self, folder: ImageFolder, count: int | None = None) -> None:
        self.folder = folder
        self.rate = folder.rate
        self.count: int | None = min(count or len(folder), len(folder))
        self.duration_ns = folder.duration_ns
        self.calibration = folder.calibration

    def frames(self) -> Iterator[SourceFrame]:
        """Yield the frames of one pass."""
        for number, frame in enumerate(self.folder.frames()):
            if number == self.count:
                return
            yield SourceFrame(frame.pixels, frame.offset_ns, frame.stamp_ns)

    def describe_skipped(self) -> str:
        """Return how many images were left out so far, some names and why; or nothing."""
        return self.folder.describe_skipped()


def open_source(path: Path | None = None, seed: int = DEMO_SEED, rate: float | None = None,
                count: int | None = None, size: tuple[int, int] | None = None,
                calibration: Path | None = None, topic: str | None = None,
                hints: 'HintChoice | None' = None) -> FrameSource:
    """
    Return the frames of a folder, a video, a bag or a camera, or the world number `seed`.

    rate: of folders without times of their own; of the others, how many a second are used at
    most. topic: of a bag; hints: what else of it comes with its images. size: of the world, or
    asked of a camera. Raises ToolError.
    """
    if path is None:
        return WorldSource(seed, size or DEFAULT_SIZE, rate, count)
    from xsvggt_ros.recordings.inputs.camera import camera_device, CameraSource

    device = camera_device(str(path))
    if device is not None:
        return CameraSource(device, rate, count, size, calibration)
    if size is not None:
        print(f'--size has no effect: {path} is a recording, whose images have their size',
              file=sys.stderr, flush=True)
    from xsvggt_ros.recordings.inputs.bag import is_bag

    if path.exists() and is_bag(path):
        from xsvggt_ros.recordings.inputs.bag_source import BagSource
        return BagSource(path, topic, rate, count, calibration, hints)
    if topic is not None:
        raise ToolError(f'--input-topic {topic}: {path} is no bag; only bags have topics')
    if not path.is_file():
        return FolderSource(ImageFolder(path, rate, calibration), count)
    if path.suffix.lower() in SUFFIXES:
        raise ToolError(f'{path}: is one image; give the folder that holds the images')
    from xsvggt_ros.recordings.inputs.video import VideoSource
    return VideoSource(path, rate, count, calibration)


def looped(source: FrameSource) -> Iterator[SourceFrame]:
    """Yield the frames of `source` over and over; times go on where the pass before ended."""
    shift = 0
    while True:
        for frame in source.frames():
            stamp = None if frame.stamp_ns is None else frame.stamp_ns + shift
            yield SourceFrame(frame.pixels, frame.offset_ns + shift, stamp, frame.motion)
        shift += source.duration_ns


def frames_ahead(source: FrameSource) -> 'FramesAhead':
    """Return a source's frames, made ahead; of a camera no more than the next one waits."""
    return FramesAhead(source.frames(), 1 if getattr(source, 'is_live', False) else AHEAD_BYTES)


class FramesAhead:
    """Makes frames in a thread of its own, ahead of their use, in bounded memory."""

    def __init__(self, frames: Iterator[SourceFrame], max_bytes: int = AHEAD_BYTES) -> None:
        self._frames = frames
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._ready: deque[SourceFrame] = deque()
        self._bytes = 0
        self._made = 0
        self._seconds = 0.0             # spent on making them
        self._finished = False
        self._stopped = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._make, name='frames ahead', daemon=True)
        self._thread.start()

    def wait_until_steady(self, rate: float) -> None:
        """Wait until `rate` Hz can be held: by making frames fast enough, or from the store."""
        def steady() -> bool:
            quick = self._made >= 5 and self._seconds / self._made < _HEADROOM / rate
            return quick or self._finished or self._bytes >= self._max_bytes
        with self._changed:
            self._changed.wait_for(steady)

    def __iter__(self) -> Iterator[SourceFrame]:
        """Yield all frames, waiting for those that are not made yet."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._finished)
                if not self._ready:
                    break
                frame = self._ready.popleft()
                self._bytes -= _size(frame)
                self._changed.notify_all()
            yield frame
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(timeout=1.0)

    def _make(self) -> None:
        try:
            while True:
                start = time.perf_counter()
                frame = next(self._frames, None)
                seconds = time.perf_counter() - start
                with self._changed:
                    if frame is None or self._stopped:
                        break
                    self._ready.append(frame)
                    self._bytes += _size(frame)
                    self._made += 1
                    self._seconds += seconds
                    self._changed.notify_all()
                    self._changed.wait_for(
                        lambda: self._bytes < self._max_bytes or self._stopped)
        except Exception as error:   # handed to the thread that uses the frames
            self._error = error
        finally:
            with self._changed:
                self._finished = True
                self._changed.notify_all()


def _size(frame: SourceFrame) -> int:
    depth = None if frame.hints is None else frame.hints.depth
    return frame.pixels.nbytes + (0 if depth is None else depth.nbytes)
