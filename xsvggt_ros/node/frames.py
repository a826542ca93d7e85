"""From the network's world to the frames of REP-103 and REP-105."""

from dataclasses import dataclass

import numpy as np
import torch

from xsvggt_ros.engine.frame_result import ResultError
from xsvggt_ros.geometry.quaternions import quaternion_from_matrix
from xsvggt_ros.geometry.se3 import flu_from_optical, make_transform
from xsvggt_ros.trajectory.projection import inverse, nearest_pose


@dataclass(frozen=True)
class Pose:
    """A rigid transform as ROS writes it."""

    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float]  # x, y, z, w, unit length

    @classmethod
    def from_matrix(cls, matrix: np.ndarray) -> 'Pose':
        """Return the pose of a rigid transform [4, 4]."""
        return cls(position=tuple(matrix[:3, 3].tolist()),
                   orientation=quaternion_from_matrix(matrix[:3, :3]))


def world_from_optical(camera_from_world: np.ndarray) -> np.ndarray:
    """
    Return a camera's pose [4, 4] in the network's world, fp64, from its inverse.

    A rotation of fp32 is one to 1e-7 only, micrometres at some metres from the origin: it is made
    one here, so that transforms that follow from each other agree. Raises ResultError if it is not
    finite, as in a unit that is none.
    """
    if not np.isfinite(camera_from_world).all():
        raise ResultError('the pose', lost=True)
    return inverse(nearest_pose(camera_from_world.astype(np.float64)))


def level_from_optical() -> np.ndarray:
    """Return the turn [4, 4] from a camera's optical axes to x forward, y left, z up (REP-103)."""
    rotation = flu_from_optical()
    return make_transform(rotation, torch.zeros(3, dtype=rotation.dtype)).numpy()


class OdometryFrame:
    """
    Where the network's world is in the odometry frame, whatever happens to the stream.

    The network's world is the first camera's optical frame. The first stream begins at the origin
    of the odometry frame; a new stream, and a stream whose unit changes, go on from where the
    camera was last, so that poses in the odometry frame have no jumps (REP-105). The jump goes
    to the map frame, which begins where the stream began.
    """

    def __init__(self) -> None:
        """Wait for the first stream."""
        self._origin: np.ndarray | None = None  # of the stream: origin_from_world
        self._odom_from_world: np.ndarray | None = None
        self._last: np.ndarray | None = None  # odom_from_camera

    @property
    def is_placed(self) -> bool:
        """Return whether the stream has been placed."""
        return self._odom_from_world is not None

    def begin_stream(self) -> None:
        """Forget where the stream is; the next `place` chooses it."""
        self._odom_from_world = None

    def place(self, body_from_optical: np.ndarray, world_from_camera: np.ndarray) -> None:
        """
        Place a stream that begins in the odometry frame.

        body_from_optical [4, 4]: the camera on the body (x forward, y left, z up) whose pose in
        the first image is the origin of the first stream; world_from_camera [4, 4]: where the
        network sees the camera now.
        """
        self._origin = body_from_optical
        self._odom_from_world = (body_from_optical if self._last is None
                                 else self._last @ np.linalg.inv(world_from_camera))

    def odom_from_camera(self, world_from_camera: np.ndarray) -> np.ndarray:
        """Return the pose [4, 4] of an optical frame in the odometry frame, and remember it."""
        self._last = self._placed(self._odom_from_world) @ world_from_camera
        return self._last

    def rescale(self, factor: float) -> np.ndarray:
        """
        Have the next poses come in a unit ``factor`` times shorter; the camera stays where it is.

        Returns the point [3] of the odometry frame about which all else is to be scaled.
        """
        centre = np.zeros(3) if self._last is None else self._last[:3, 3].copy()
        if self._odom_from_world is not None:
            moved = self._odom_from_world.copy()
            moved[:3, 3] = centre + factor * (moved[:3, 3] - centre)
            self._odom_from_world = moved
        return centre

    def map_from_odom(self, correction: np.ndarray | None = None,
                      is_placed: bool = False) -> np.ndarray:
        """
        Return the odometry frame [4, 4] in a map frame that begins where the stream began.

        correction [4, 4]: of closed loops, in the network's world. is_placed: it leads to a map
        frame that is where it is, a saved map's, already.
        """
        world_from_odom = np.linalg.inv(self._placed(self._odom_from_world))
        if correction is not None:
            world_from_odom = correction @ world_from_odom
        if is_placed:
            return world_from_odom
        return self._placed(self._origin) @ world_from_odom

    def in_odom(self, transforms: np.ndarray) -> np.ndarray:
        """Return what moves points of the network's world [..., 4, 4] as it moves odometry's."""
        odom_from_world = self._placed(self._odom_from_world)
        return odom_from_world @ transforms @ np.linalg.inv(odom_from_world)

    def placed(self, poses: np.ndarray) -> np.ndarray:
        """Return poses [..., 4, 4] in the network's world in the odometry frame."""
        return self._placed(self._odom_from_world) @ poses

    def _placed(self, transform: np.ndarray | None) -> np.ndarray:
        if transform is None:
            raise RuntimeError('the stream has not been placed in the odometry frame yet')
        return transform
