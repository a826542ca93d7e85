"""Where the camera was: poses with their times, and a trajectory of bounded length. No torch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xsvggt_ros.geometry.quaternions import (
    pose_matrix,
    quaternion_from_matrix,
    quaternion_products,
    quaternions_from_matrices,
)
from xsvggt_ros.geometry.similarity import scales

MAX_POSES = 2 ** 17   # 8 MB; 72 minutes of every frame at 30 Hz
_BLOCK = 4096         # poses that are moved at a time


@dataclass(frozen=True)
class StampedPose:
    """Where the camera was: position and quaternion (x, y, z, w) in the odometry frame."""

    stamp_ns: int
    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]

    def matrix(self) -> np.ndarray:
        """Return odom_from_camera [4, 4], float64; NaN if the quaternion is no rotation."""
        return pose_matrix(self.position, self.quaternion)

    @staticmethod
    def from_matrix(stamp_ns: int, matrix: np.ndarray) -> 'StampedPose':
        """Return the pose whose transform is `matrix` [4, 4]."""
        x, y, z = (float(value) for value in matrix[:3, 3])
        return StampedPose(stamp_ns, (x, y, z), quaternion_from_matrix(matrix[:3, :3]))


def move_poses(poses: np.ndarray, keyframes: np.ndarray,
               similarities: Callable[[np.ndarray], np.ndarray]) -> None:
    """
    Move poses [N, 7] (position, quaternion x, y, z, w) in place, each with its keyframe [N].

    similarities: from keyframes [K], all different, to transforms [K, 4, 4].
    """
    different, which = np.unique(keyframes, return_inverse=True)
    moves = similarities(different)
    turns = quaternions_from_matrices(moves[:, :3, :3] / scales(moves)[:, None, None])
    moves = moves[which]
    poses[:, :3] = (moves[:, :3, :3] @ poses[:, :3, None])[..., 0] + moves[:, :3, 3]
    poses[:, 3:] = quaternion_products(turns[which], poses[:, 3:])


class Trajectory:
    """
    The poses of a stream, never more than a fixed number.

    When there is no room left, every second pose is forgotten, and from then on half as many
    are remembered: all of it stays, ever more coarsely, in arrays that are allocated once.
    """

    def __init__(self, max_poses: int = MAX_POSES) -> None:
        """Allocate an empty trajectory of at most `max_poses` poses, an even number."""
        # Filled with ones, so that all of the memory is taken now, not little by little.
        self._stamps = np.ones(max_poses, np.int64)
        self._numbers = np.ones((max_poses, 7))  # position, quaternion
        self._keyframes = np.ones(max_poses, np.int64)
        self.clear()

    def clear(self) -> None:
        """Forget all poses."""
        self._count = 0
        self._stride = 1   # frames per pose that is remembered
        self._frames = 0

    def __len__(self) -> int:
        """Return how many poses there are."""
        return self._count

    @property
    def stride(self) -> int:
        """Return how many frames there are to a pose: 1 until poses had to be forgotten."""
        return self._stride

    def add(self, pose: StampedPose, keyframe: int = 0) -> None:
        """
        Remember the newest frame's pose, or pass it over when its turn has not come.

        keyframe: with which `move` is to move it.
        If time goes back behind the last pose alone, that one's stamp was wrong: it is forgotten,
        so that it stays in the order of time.
        """
        if (self._count > 1 and pose.stamp_ns < self._stamps[self._count - 1]
                and self._stamps[self._count - 2] <= pose.stamp_ns):
            self._count -= 1
        turn = self._frames % self._stride == 0
        self._frames += 1
        if not turn:
            return
        if self._count == len(self._stamps):
            half = self._count // 2
            self._stamps[:half] = self._stamps[::2]
            self._numbers[:half] = self._numbers[::2]
            self._keyframes[:half] = self._keyframes[::2]
            self._count = half
            self._stride *= 2
        self._stamps[self._count] = pose.stamp_ns
        self._numbers[self._count] = (*pose.position, *pose.quaternion)
        self._keyframes[self._count] = keyframe
        self._count += 1

    def move(self, similarities: Callable[[np.ndarray], np.ndarray]) -> None:
        """Move all poses; similarities: from keyframes [K] to transforms [K, 4, 4]."""
        for begin in range(0, self._count, _BLOCK):
            block = slice(begin, min(begin + _BLOCK, self._count))
            move_poses(self._numbers[block], self._keyframes[block], similarities)

    def rescale(self, factor: float) -> None:
        """Multiply all positions by `factor`, which another unit of length asks for."""
        self._numbers[:self._count, :3] *= factor

    def poses(self) -> list[StampedPose]:
        """Return the poses, oldest first."""
        stamps, numbers = self._stamps[:self._count].tolist(), self._numbers[:self._count].tolist()
        return [StampedPose(stamp, tuple(row[:3]), tuple(row[3:]))
                for stamp, row in zip(stamps, numbers)]
