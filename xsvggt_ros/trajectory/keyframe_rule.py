"""When a new keyframe is needed."""

import numpy as np

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.projection import project, rays
from xsvggt_ros.trajectory.tracker import Tracks


class KeyframeRule:
    """Compares what is tracked with what the last keyframe saw."""

    def __init__(self, config: TrajectoryConfig) -> None:
        """Begin without a keyframe."""
        self._config = config
        self._seen = Tracks.none()
        self._rotation = np.eye(3)

    def begin(self, tracks: Tracks, pose: np.ndarray) -> None:
        """Take the tracks and the pose of a new keyframe."""
        self._seen, self._rotation = tracks, pose[:3, :3]

    def is_needed(self, tracks: Tracks, pose: np.ndarray, camera: np.ndarray, width: int) -> bool:
        """Return whether a frame at `pose`, in which these tracks are left, is to be one."""
        survivors = len(tracks) / max(1, len(self._seen))
        return (survivors < self._config.survivors
                or len(tracks) < self._config.corners * self._config.inlier_share
                or self._parallax(tracks, pose, camera) > self._config.parallax * width)

    def _parallax(self, tracks: Tracks, pose: np.ndarray, camera: np.ndarray) -> float:
        """Return by how many pixels the tracks moved, the median, the rotation taken out."""
        both, here, there = np.intersect1d(tracks.ids, self._seen.ids, assume_unique=True,
                                           return_indices=True)
        if not len(both):
            return float('inf')
        turned = rays(tracks.pixels[here].astype(np.float64), camera)
        turned = turned @ (self._rotation.T @ pose[:3, :3]).T
        expected = project(turned, camera)
        return float(np.median(np.linalg.norm(expected - self._seen.pixels[there], axis=1)))
