"""Where the cameras of a rig are, by TF, by their calibration, or as the network sees them."""

from collections.abc import Sequence

import numpy as np
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from xsvggt_ros.engine.stream_engine import FrameResult
from xsvggt_ros.geometry.se3 import invert_transform
from xsvggt_ros.mapping.transform_tree import LookupError_
from xsvggt_ros.node.inputs.tf_listener import TfListener

REMEMBERED = 64  # calibrations; a driver that counts its frame_id up must not fill the memory


class RigGeometry:
    """
    The cameras' poses in the optical frame of the first one, the reference; in metres.

    Calibration comes from the executor's thread, all else is asked for by the worker's.
    """

    def __init__(self, tf: TfListener) -> None:
        """Look transforms up in ``tf``."""
        self._tf = tf
        self._infos: dict[str, CameraInfo] = {}  # by frame_id
        self.fault = ''  # why the last question had no answer

    def on_camera_info(self, message: CameraInfo) -> None:
        """Remember a camera's calibration, of the cameras heard last."""
        self._infos.pop(message.header.frame_id, None)
        self._infos[message.header.frame_id] = message
        if len(self._infos) > REMEMBERED:
            del self._infos[next(iter(self._infos))]

    def description(self) -> str:
        """Return where the cameras' positions come from, in words."""
        return f'positions as predicted: {self.fault}' if self.fault else (
            'positions by TF once the scale is metric')

    def transforms(self, headers: Sequence[Header]) -> list[np.ndarray] | None:
        """Return reference_from_camera [4, 4] of each image by TF; None, and the fault, if not."""
        reference = headers[0].frame_id
        if reference in [header.frame_id for header in headers[1:]]:
            self.fault = (f"two cameras have the frame_id '{reference}'; give each its own in the "
                          'camera driver')
            return None
        try:
            known = [self._tf.lookup(reference, header.frame_id, None) for header in headers[1:]]
        except LookupError_ as error:
            self.fault = str(error)
            return None
        self.fault = ''
        return [np.eye(4), *known]

    def positions(self, headers: Sequence[Header]) -> np.ndarray | None:
        """
        Return the positions [K, 3] of all cameras but the reference; None, and the fault, if not.

        What TF does not know may follow from the projections P of a calibrated stereo pair.
        """
        known = self.transforms(headers)
        if known is not None:
            positions = np.stack([transform[:3, 3] for transform in known[1:]])
            if not positions.any():
                self.fault = 'TF has all cameras of the rig at one position'
                return None
            return positions
        calibrated = [self._calibrated(headers[0], header) for header in headers[1:]]
        positions_known = [position for position in calibrated if position is not None]
        if len(positions_known) < len(calibrated):
            self.fault += ("; publish the static transform between the cameras' optical frames, "
                           'or camera_info of a stereo calibration')
            return None
        self.fault = ''
        return np.stack(positions_known)

    def _calibrated(self, reference: Header, other: Header) -> np.ndarray | None:
        """Return a camera's position [3] by the projections of a rectified pair."""
        frames = reference.frame_id, other.frame_id
        infos = [self._infos[frame] for frame in frames if frame in self._infos]
        if len(infos) < 2 or not all(
                np.isfinite(info.p).all() and min(info.p[0], info.p[5]) > 0 for info in infos):
            return None
        # P is [fx' 0 cx' Tx; 0 fy' cy' Ty; 0 0 1 0] with Tx = -fx' * (the camera's x in the
        # rectified frame of the pair), and Ty likewise.
        positions = [np.array([-p[3] / p[0], -p[7] / p[5], 0.0]) for p in (i.p for i in infos)]
        rectified_from_camera = np.array(infos[0].r).reshape(3, 3)
        if (positions[0] == positions[1]).all() or not np.allclose(  # each is calibrated by itself
                rectified_from_camera @ rectified_from_camera.T, np.eye(3), atol=1e-3):
            return None
        return rectified_from_camera.T @ (positions[1] - positions[0])


def seen_transforms(results: Sequence[FrameResult]) -> list[np.ndarray]:
    """Return reference_from_camera [4, 4] of each image as the network predicted it."""
    poses = [result.camera_from_world.double().cpu() for result in results]
    return [(poses[0] @ invert_transform(pose)).numpy() for pose in poses]


def set_transforms(
    rig: RigGeometry | None, results: Sequence[FrameResult], headers: Sequence[Header],
    is_metric: bool,
) -> list[np.ndarray]:
    """Return reference_from_camera [4, 4] of each image of a set, in the unit of the results."""
    if rig is None or len(results) == 1:
        return [np.eye(4)]
    known = rig.transforms(headers) if is_metric else None
    return known if known is not None else seen_transforms(results)
