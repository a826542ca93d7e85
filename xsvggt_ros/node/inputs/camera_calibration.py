"""The calibration that comes on `camera_info`, and the camera it makes of an image's sender."""

from collections import deque
from collections.abc import Callable, Hashable
import threading

from sensor_msgs.msg import CameraInfo

from xsvggt_ros.geometry.camera_model import CameraError, CameraModel, PlaceholderError
from xsvggt_ros.geometry.frame_names import nanoseconds
from xsvggt_ros.node.status.stream_statistics import RateMeter

WAIT = 1.0  # seconds the first image waits for its calibration, if somebody publishes one
REMEMBERED = 4  # messages
SYNCHRONOUS = 1_000_000_000  # nanoseconds between an image and its calibration, at most
SAME = 0.25  # pixels; cameras that differ by less have one map: an autofocus lens never rests
CHANGE = 0.02  # of the image's width; calibrations that differ by less are one camera's


class CameraCalibration:
    """
    One camera's CameraInfo, its images' camera, and whether that has become another one.

    `on_message` runs in the executor's thread, all else in the worker's. A message that cannot
    be used changes nothing but `fault`. One that differs by less than SAME from the camera in use
    changes nothing either, however many there are: it is compared with the camera that the map
    was made for, so that no drift escapes.
    """

    def __init__(
        self, topic: str, image_topic: str, use: bool, rectify: bool,
        is_published: Callable[[], bool],
    ) -> None:
        """Expect messages on ``topic``; ``is_published`` tells whether anybody sends them."""
        self._topic = topic
        self._image_topic = image_topic
        self._use = use
        self._rectify = rectify
        self._is_published = is_published
        self.meter = RateMeter()
        self._messages: deque[CameraInfo] = deque(maxlen=REMEMBERED)
        self._came = threading.Event()
        self._waited = not use
        self._key: Hashable = None  # of what `camera` was made of
        self._camera: CameraModel | None = None
        self._stream_camera: CameraModel | None = None  # with which the stream goes on
        self.fault: str | None = None  # what is wrong with the newest message
        self.description = 'none' if use else 'none: use_camera_info is false'

    def on_message(self, message: CameraInfo) -> None:
        """Keep the newest calibration."""
        self.meter.tick()
        if self._use:
            self._messages.append(message)
            self._came.set()

    @property
    def focal(self) -> tuple[float, float] | None:
        """Return the focal lengths fx, fy in pixels of the images; None without calibration."""
        camera = self._camera
        if camera is None:
            return None
        return float(camera.rectified_matrix[0, 0]), float(camera.rectified_matrix[1, 1])

    def wait(self) -> None:
        """Wait once, before the first image is looked at, for a calibration that is to come."""
        if not self._waited:
            self._waited = True
            if self._is_published():
                self._came.wait(WAIT)

    def camera(
        self, frame_id: str, width: int, height: int, stamp_ns: int = 0,
    ) -> CameraModel | None:
        """Return the camera of an image of this frame, size and time; None if it is not known."""
        message = self._of(stamp_ns)
        if message is None:
            return None
        key = (frame_id, width, height, *_content(message))
        if key == self._key:
            return self._camera
        camera, kept, self.fault = None, self._camera, None
        if kept is not None and (kept.width, kept.height) != (width, height):
            kept = None
        try:
            camera, description = self._build(message, frame_id, width, height)
        except PlaceholderError as error:
            what = 'a placeholder' if message.k.any() else 'zero'
            description = f'none: K is {what}, the camera is not calibrated'
            if kept is not None:
                self.fault = f'camera_info on {self._topic} is not used any more: {error}'
        except (ValueError, ArithmeticError) as error:  # a CameraError is one, and says more
            description = f'none: messages on {self._topic} are not usable'
            self.fault = f'camera_info on {self._topic} is not used: {error}'
        self._key = key
        if kept is not None and (camera is None or kept.shift_to(camera) < SAME):
            return kept
        self._camera, self.description = camera, description
        return camera

    def restart_reason(self) -> str | None:
        """
        Return why the stream cannot go on with the camera of the last call of `camera`, or None.

        A stream must not mix raw and rectified images, nor clouds of different focal lengths. What
        is returned once is taken as done.
        """
        before, now = self._stream_camera, self._camera
        if now is before:
            return None
        if before is None:
            self._stream_camera = now
            return f'the calibration on {self._topic} has come ({self.description})'
        if now is not None and before.shift_to(now) < CHANGE * now.width:
            return None  # and the next one is compared with the same, so that no drift is missed
        self._stream_camera = now
        return f'the calibration on {self._topic} has changed ({self.description})'

    def _of(self, stamp_ns: int) -> CameraInfo | None:
        """
        Return the calibration that belongs to an image of this time: the newest, as a rule.

        If two cameras share the topics, each with a clock of its own, it is the one whose clock
        is the image's.
        """
        messages = list(self._messages)
        if not messages:
            return None

        def distance(message: CameraInfo) -> int:
            return abs(nanoseconds(message.header) - stamp_ns)

        nearest = min(reversed(messages), key=distance)
        has_stamps = nanoseconds(messages[-1].header) != 0
        return nearest if has_stamps and distance(nearest) <= SYNCHRONOUS else messages[-1]

    def _build(
        self, message: CameraInfo, frame_id: str, width: int, height: int,
    ) -> tuple[CameraModel, str]:
        """Return the images' camera, and what it is in words; raise CameraError."""
        if not message.k.any():
            raise PlaceholderError('K is zero, the camera is not calibrated')
        sender = message.header.frame_id
        if sender and frame_id and sender != frame_id:
            raise CameraError(
                f"its frame_id is '{sender}', but that of the images is '{frame_id}': another "
                'camera? Remap camera_info, or let the driver give both the same frame_id')
        window = message.roi
        calibrated = CameraModel.calibrated(
            (message.width, message.height), message.k, message.d, message.r, message.p,
            message.distortion_model, (message.binning_x, message.binning_y),
            (window.x_offset, window.y_offset, window.width, window.height))
        camera = calibrated.for_images(width, height)
        if not self._rectify:
            camera = camera.rectified()
            words = 'pinhole, images are taken as rectified, since rectify is false'
        elif camera.needs_rectification:
            words = f'{camera.lens}, images are rectified'
            if 'image_rect' in self._image_topic:
                self.fault = (
                    f'images on {self._image_topic} are rectified already, going by its name, but '
                    f'{self._topic} describes raw ones (D is not zero), so they are rectified '
                    'again; if its name tells the truth, set rectify:=false')
        else:
            words = 'pinhole'
        if (calibrated.width, calibrated.height) != (width, height):
            words += f', scaled from {calibrated.width}x{calibrated.height} to {width}x{height}'
        return camera, words


def _content(message: CameraInfo) -> tuple[Hashable, ...]:
    """Return all that a calibration consists of."""
    window = message.roi
    return (message.header.frame_id, message.width, message.height, message.distortion_model,
            bytes(message.d), *(matrix.tobytes() for matrix in (message.k, message.r, message.p)),
            message.binning_x, message.binning_y,
            window.x_offset, window.y_offset, window.width, window.height)
