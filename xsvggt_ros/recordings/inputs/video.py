"""A video file as a camera's stream: the container's time stamps, upright pictures. No ROS."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.recordings.calibration import Calibration, FILE_NAMES, load_calibration
from xsvggt_ros.recordings.inputs.pace import paced_frames
from xsvggt_ros.recordings.inputs.skipped import Skipped
from xsvggt_ros.recordings.inputs.video_decoder import need_av, rgb_of
from xsvggt_ros.recordings.source_frame import SourceFrame

DEFAULT_RATE = 30.0   # Hz, where a container says nothing


class VideoError(ToolError):
    """A video that cannot be read; says what is wrong."""


class VideoSource:
    """
    The frames of a video file, with the times that its container gives them.

    Times count from where the container's do, mostly 0. Frames that an edit list cuts off are not
    there; a rotation that the container asks for is applied. rate: how many frames a second are
    used at most.
    """

    def __init__(self, path: Path, rate: float | None = None, count: int | None = None,
                 calibration: Path | None = None) -> None:
        """Open a video and look at its first frame; raises ToolError."""
        self.path = path
        self.skipped = Skipped(path.name)
        self._wanted_rate, self._limit = rate, count
        self._av = need_av('reading a video')
        first = next(self._pictures(), None)
        if first is None:
            raise VideoError(f'{path}: not one frame can be decoded. {self.skipped.describe()}')
        self._size = first[1].shape[1], first[1].shape[0]
        file = calibration or next(
            (path.parent / name for name in FILE_NAMES if (path.parent / name).is_file()), None)
        self.calibration: Calibration | None = (
            None if file is None else load_calibration(file).for_images(*self._size))
        self._describe()

    def frames(self) -> Iterator[SourceFrame]:
        """Yield the frames of one pass."""
        self.skipped.clear()
        yield from paced_frames(self._pictures(), self._size, self._wanted_rate, self._limit,
                                self.skipped)

    def describe_skipped(self) -> str:
        """Return how many frames were left out so far, and why; or nothing."""
        return self.skipped.describe()

    def _describe(self) -> None:
        """Find rate, number of frames and duration, as far as the container says them."""
        with self._opened() as container:
            stream = container.streams.best('video')
            seconds = float(stream.duration * stream.time_base if stream.duration
                            else Fraction(container.duration or 0, 10 ** 6))
            own = float(stream.average_rate or DEFAULT_RATE)
            there = stream.frames or round(seconds * own)
        self.rate = min(self._wanted_rate or own, own)
        used = round(there * self.rate / own)
        self.duration_ns = round(seconds * 1e9) or round(1e9 / self.rate)
        self.count: int | None = min(used, self._limit or used) or self._limit

    def _opened(self) -> Any:
        """Return the open container; raises VideoError."""
        try:
            container = self._av.open(str(self.path))
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            words = getattr(error, 'strerror', None) or str(error)
            raise VideoError(f'{self.path}: cannot be read as a video: {words}') from error
        stream = container.streams.best('video')   # covers of songs are streams too
        # PyAV has no context for a codec that it lacks, and crashes when asked to decode it.
        if stream is None or stream.codec_context is None:
            container.close()
            what = 'no video' if stream is None else 'video of a codec that PyAV does not decode'
            raise VideoError(f'{self.path}: has {what} in it')
        return container

    def _pictures(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield stamp in ns and pixels of all frames that can be decoded, by their stamps."""
        newest: int | None = None
        with self._opened() as container:
            stream = container.streams.best('video')
            stream.thread_type = 'AUTO'
            period = round(1e9 / float(stream.average_rate or DEFAULT_RATE))
            for frame in self._decoded(container, stream):
                pts = frame.pts if frame.pts is not None else frame.dts
                if pts is None:
                    stamp = 0 if newest is None else newest + period
                else:
                    stamp = round(Fraction(pts) * frame.time_base * 10 ** 9)
                if newest is not None and stamp <= newest:
                    self.skipped.add('the time of a frame before it')
                    continue
                try:
                    pixels = rgb_of(frame)
                except ValueError as error:
                    self.skipped.add(str(error))
                    continue
                newest = stamp
                yield stamp, pixels

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """Yield the frames; a damaged packet costs its frames, a damaged file what follows."""
        try:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()   # the last, empty packet empties the decoder
                except self._av.error.FFmpegError as error:
                    self.skipped.add(f'cannot be decoded: {error.strerror}')
                    continue
                for frame in frames:
                    if frame.is_corrupt:
                        self.skipped.add('is damaged')
                    else:
                        yield frame
        except self._av.error.FFmpegError as error:
            self.skipped.add(f'the file is damaged from there on: {error.strerror}')
