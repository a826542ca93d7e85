"""What closed loops say about keyframes: similarities that bring the odometry's poses right."""

from dataclasses import dataclass

import numpy as np

from xsvggt_ros.geometry.similarity import apply_to_pose


@dataclass(frozen=True)
class Corrections:
    """
    Similarities [K, 4, 4], map_from_world or from another frame, at keyframes [K], ascending.

    A keyframe between two of them, and one behind the last, has that of the one before it.
    """

    keyframes: np.ndarray
    similarities: np.ndarray

    @classmethod
    def none(cls) -> 'Corrections':
        """Return those that leave everything where it is."""
        return cls(np.zeros(1, np.int64), np.eye(4)[None])

    def at(self, keyframes: np.ndarray | int) -> np.ndarray:
        """Return the similarities [..., 4, 4] at keyframes [...]."""
        rows = np.searchsorted(self.keyframes, keyframes, 'right') - 1
        return self.similarities[np.maximum(rows, 0)]

    def moved(self, similarity: np.ndarray) -> 'Corrections':
        """Return those to another map, which a similarity [4, 4] takes from this one."""
        return Corrections(self.keyframes, similarity @ self.similarities)

    def pose(self, keyframe: int, world_from_camera: np.ndarray) -> np.ndarray:
        """Return where a pose [4, 4], a part of a keyframe, is in the map."""
        return apply_to_pose(self.at(keyframe), world_from_camera)
