"""The robot that carries the camera, and what that makes of the poses of a run."""

from collections.abc import Sequence

import numpy as np

from xsvggt_ros.geometry.se3 import flu_from_optical
from xsvggt_ros.mapping.trajectory import StampedPose


class BaseFrame:
    """Where the camera sits on the robot, and what that makes of the odometry frame."""

    def __init__(self) -> None:
        """Begin without a robot: the odometry frame is at the first camera."""
        self.base_from_camera: np.ndarray | None = None   # of the newest frame, in metres
        self._by_stamp: dict[int, np.ndarray] = {}
        self._first: np.ndarray | None = None

    @property
    def odom_from_optical(self) -> np.ndarray:
        """Return the odometry frame [4, 4] from the first camera's optical one, in metres."""
        if self._first is not None:
            return self._first
        odom_from_optical = np.eye(4)
        odom_from_optical[:3, :3] = flu_from_optical().numpy()
        return odom_from_optical

    def take(self, stamp_ns: int, base_from_camera: np.ndarray | None) -> None:
        """Take where the camera is at a frame; None: where it was before."""
        if base_from_camera is None:
            return
        if self._first is None:
            self._first = base_from_camera
        if self.base_from_camera is None or not np.array_equal(
                self.base_from_camera, base_from_camera):
            self._by_stamp[stamp_ns] = base_from_camera   # where it changes
        self.base_from_camera = base_from_camera

    def placed(self, pose: StampedPose, metres: float) -> StampedPose:
        """
        Return a camera's pose in the odometry frame, which begins at the base if there is one.

        pose: in the network's unit, in the frame that is level at the first camera.
        """
        matrix = pose.matrix()
        matrix[:3, 3] *= metres
        if self._first is not None:
            optical_from_flu = np.eye(4)
            optical_from_flu[:3, :3] = flu_from_optical().numpy().T
            matrix = self._first @ optical_from_flu @ matrix
        elif metres == 1.0:
            return pose
        return StampedPose.from_matrix(pose.stamp_ns, matrix)

    def poses(self, cameras: Sequence[StampedPose]) -> list[StampedPose] | None:
        """Return the base's poses for those of the camera; None without a base."""
        if self._first is None:
            return None
        found, there = [], self._first
        for pose in cameras:
            there = self._by_stamp.get(pose.stamp_ns, there)
            found.append(StampedPose.from_matrix(
                pose.stamp_ns, pose.matrix() @ np.linalg.inv(there)))
        return found
