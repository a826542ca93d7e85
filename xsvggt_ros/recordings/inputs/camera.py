"""A camera of this machine (Video4Linux2) as a source of frames, without ROS."""

from collections.abc import Iterator
from pathlib import Path
import sys
import time
from typing import Any

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.launch_arguments import is_camera
from xsvggt_ros.recordings.calibration import Calibration, load_calibration
from xsvggt_ros.recordings.inputs.pace import Pace
from xsvggt_ros.recordings.inputs.skipped import Skipped
from xsvggt_ros.recordings.inputs.video_decoder import need_av, rgb_of
from xsvggt_ros.recordings.source_frame import SourceFrame

DEFAULT_RATE = 30.0   # Hz, where the driver says nothing
_REOPEN_PERIOD = 0.5  # seconds between looks for a camera that has stopped


class CameraError(ToolError):
    """A camera that cannot be opened or has stopped."""


def camera_device(name: str) -> str | None:
    """Return the device that 'camera:N' or '/dev/videoN' names; None for another name."""
    return name.replace('camera:', '/dev/video') if is_camera(name) else None


class CameraSource:
    """
    The images of a camera from now on, until `count` of them or Ctrl-C.

    Stamps are the driver's, since 1970. Images that come while the network is busy are lost, as
    on a robot. size: width and height to ask for; rate: how many a second are used at most.
    reconnects: whether a camera that stops is opened again, as often as it takes; stderr is told.
    """

    is_live = True
    reconnects = False

    def __init__(self, device: str, rate: float | None = None, count: int | None = None,
                 size: tuple[int, int] | None = None, calibration: Path | None = None,
                 driver: str = 'v4l2') -> None:
        """Open a camera; driver: FFmpeg's name of what reads it. Raises ToolError."""
        self._av = need_av('reading a camera')
        self._device, self._driver, self._wanted_rate = device, driver, rate
        self._options = {'ts': 'abs'} if driver == 'v4l2' else {}
        if size is not None:
            self._options['video_size'] = f'{size[0]}x{size[1]}'
        self.count = count
        self.duration_ns = 0
        self.skipped = Skipped(device)
        with self._opened() as container:
            stream = container.streams.video[0]
            own = float(stream.average_rate or DEFAULT_RATE)
            shape = stream.codec_context.width, stream.codec_context.height
        self.rate = min(rate or own, own)
        self.calibration: Calibration | None = (
            None if calibration is None else load_calibration(calibration).for_images(*shape))

    def frames(self) -> Iterator[SourceFrame]:
        """Yield frames as they come."""
        self.skipped.clear()
        pace = Pace(self._wanted_rate)
        start: int | None = None
        number = 0
        for frame in self._kept_open() if self.reconnects else self._images():
            stamp = round(frame.pts * frame.time_base * 10 ** 9)
            if not pace.takes(stamp):
                continue
            start = stamp if start is None else start
            yield SourceFrame(rgb_of(frame), stamp - start, stamp)
            number += 1
            if number == self.count:
                return

    def describe_skipped(self) -> str:
        """Return how many frames could not be decoded, and why; or nothing."""
        return self.skipped.describe()

    def _kept_open(self) -> Iterator[Any]:
        """Yield images for ever: a camera that was unplugged may be plugged in again."""
        told = ''   # why there are no images
        while True:
            words = f'{self._device}: the camera has stopped; is it still plugged in?'
            try:
                for frame in self._images():
                    if told:
                        _tell(f'{self._device}: the camera is back')
                        told = ''
                    yield frame
            except CameraError as error:
                words = str(error)
            if words != told:
                _tell(words if told else f'{words} Plug it in again: images go on then.')
                told = words
            time.sleep(_REOPEN_PERIOD)

    def _images(self) -> Iterator[Any]:
        """Yield decoded images until the camera stops; raises CameraError."""
        with self._opened() as container:
            yield from self._decoded(container)

    def _decoded(self, container: Any) -> Iterator[Any]:
        try:
            for packet in container.demux(video=0):
                try:
                    yield from packet.decode()
                except self._av.error.FFmpegError as error:   # the first JPEG of many webcams
                    self.skipped.add(f'cannot be decoded: {error.strerror}')
        except self._av.error.FFmpegError as error:
            raise CameraError(f'{self._device}: the camera has stopped: {error.strerror}; is it '
                              'still plugged in?') from error

    def _opened(self) -> Any:
        try:
            return self._av.open(self._device, format=self._driver, options=self._options)
        except (self._av.error.FFmpegError, ValueError) as error:
            words = getattr(error, 'strerror', None) or str(error)
            raise CameraError(
                f'{self._device}: cannot be opened as a camera: {words}; v4l2-ctl --list-devices '
                'lists those that there are, and the group video may use them') from error


def _tell(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
