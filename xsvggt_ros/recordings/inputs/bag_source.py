"""A camera's images from a bag of ROS 2 or ROS 1, with its CameraInfo. Works without ROS."""

from collections.abc import Iterator
import logging
from pathlib import Path

import numpy as np

from xsvggt_ros.geometry.camera_model import CameraError, CameraModel, PlaceholderError
from xsvggt_ros.recordings.calibration import Calibration, load_calibration
from xsvggt_ros.recordings.inputs.bag import Bag
from xsvggt_ros.recordings.inputs.bag_hints import BagHints, HintChoice
from xsvggt_ros.recordings.inputs.bag_images import base_topic, choose_topic, frame_of, read_images
from xsvggt_ros.recordings.inputs.bag_types import BagError
from xsvggt_ros.recordings.inputs.pace import paced_frames
from xsvggt_ros.recordings.inputs.skipped import Skipped
from xsvggt_ros.recordings.source_frame import SourceFrame

CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
DEFAULT_RATE = 10.0   # Hz, of a bag with one image

_log = logging.getLogger(__name__)


class BagSource:
    """
    The images of one topic, by their header stamps.

    rate: how many a second are used at most. Without `calibration` the CameraInfo beside the
    topic counts, as in the node.
    """

    def __init__(self, path: Path, topic: str | None = None, rate: float | None = None,
                 count: int | None = None, calibration: Path | None = None,
                 hints: HintChoice | None = None) -> None:
        """
        Open a bag and look at its first image; raises ToolError.

        hints: what else is wanted with each image.
        """
        self._bag = Bag(path)
        self.topic = choose_topic(self._bag, topic)
        self.skipped = Skipped(f'{path.name} {self.topic.name}')
        self._wanted_rate, self._limit = rate, count
        first = next(self._images(), None)
        if first is None:
            why = '; '.join([self.skipped.describe(), *self._bag.faults]).strip('; ')
            raise BagError(f'{path}: none of the {self.topic.count} messages on '
                           f'{self.topic.name} can be read as an image. {why}')
        for fault in self._bag.faults:
            _log.warning('%s', fault)
        self._size = first[1].shape[1], first[1].shape[0]
        self.calibration = self._calibrate(calibration)
        self.hints = None if hints is None else BagHints(self._bag, self.topic.name, hints)
        span_ns = max(self._bag.span[1] - self._bag.span[0], 1)
        there = self.topic.count
        own = (there - 1) / span_ns * 1e9 if there > 1 else DEFAULT_RATE
        self.rate = min(rate or own, own)
        self.duration_ns = span_ns + round(1e9 / own)   # to the frame that would follow the last
        used = round(there * self.rate / own)
        self.count: int | None = max(1, min(used, count or used))

    def frames(self) -> Iterator[SourceFrame]:
        """Yield the frames of one pass."""
        self.skipped.clear()
        frames = paced_frames(self._images(), self._size, self._wanted_rate, self._limit,
                              self.skipped)
        yield from frames if self.hints is None else self.hints.attached(frames)

    def describe_skipped(self) -> str:
        """Return what was left out so far, and what is wrong with the files; or nothing."""
        return '\n'.join(filter(None, [self.skipped.describe(), *self._bag.faults]))

    def _images(self) -> Iterator[tuple[int, np.ndarray]]:
        return read_images(self._bag, self.topic, self.skipped)

    # Calibration ---------------------------------------------------------------------------------

    def _calibrate(self, given: Path | None) -> Calibration | None:
        if given is not None:
            return load_calibration(given).for_images(*self._size)
        name = self._info_topic()
        if name is None:
            return None
        message = self._bag.first(name)
        if message is None:
            _log.warning('%s: is not used: %s', name, self._bag.unread.get(name, 'it is empty'))
            return None
        try:
            return self._from_info(name, message)
        except PlaceholderError as error:
            _log.warning('%s: %s', name, error)
        except (CameraError, ValueError, ArithmeticError, AttributeError) as error:
            _log.warning('%s: is not used: %s', name, error)
        return None

    def _info_topic(self) -> str | None:
        """Return where the calibration comes: beside the image, or the only one of a bag."""
        infos = [name for name, topic in self._bag.topics.items()
                 if topic.type == CAMERA_INFO and topic.count and not topic.fault]
        beside = f"{base_topic(self.topic.name).rpartition('/')[0]}/camera_info"
        if beside in infos:
            return beside
        first = self._bag.first
        return infos[0] if len(infos) == 1 and frame_of(first(infos[0])) in (
            '', frame_of(first(self.topic.name))) else None

    def _from_info(self, name: str, message: object) -> Calibration:
        """Return what a CameraInfo says, for the images; raises CameraError."""
        # ROS 1 has the matrices' names in capitals.
        k, d, r, p = (getattr(message, letter, getattr(message, letter.upper(), ()))
                      for letter in 'kdrp')
        if not np.any(k):
            raise PlaceholderError('K is zero, the camera is not calibrated')
        window = message.roi                                          # type: ignore[attr-defined]
        camera = CameraModel.calibrated(
            (message.width, message.height), k, d, r, p,              # type: ignore[attr-defined]
            message.distortion_model,                                 # type: ignore[attr-defined]
            (message.binning_x, message.binning_y),                   # type: ignore[attr-defined]
            (window.x_offset, window.y_offset, window.width, window.height))
        camera = camera.for_images(*self._size)
        projection = np.hstack([camera.rectified_matrix, np.zeros((3, 1))])
        return Calibration(camera.width, camera.height, camera.camera_matrix, camera.lens,
                           camera.coefficients, camera.rectified_from_raw, projection, name)
