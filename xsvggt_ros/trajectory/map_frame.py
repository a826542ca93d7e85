"""Where the odometry frame is in the map that closed loops make, and what they move in it."""

from dataclasses import dataclass, replace

import numpy as np

from xsvggt_ros.trajectory.corrections import Corrections
from xsvggt_ros.trajectory.projection import inverse


@dataclass(frozen=True)
class MapFrame:
    """
    The map at one frame of a stream; both frames begin as the first camera's optical frame.

    corrections: of the loops closed so far. map_from_odom [4, 4]: rigid. metres: of one unit of
    the trajectory, by which lengths are multiplied in what is published. is_localized: whether
    the map is a saved one, in whose frame it is then; None if it is not to be one.
    """

    corrections: Corrections
    map_from_odom: np.ndarray
    metres: float = 1.0
    is_localized: bool | None = None

    @classmethod
    def none(cls) -> 'MapFrame':
        """Return that of a stream without loops: both frames are one."""
        return cls(Corrections.none(), np.eye(4))

    def scaled(self, metres: float) -> 'MapFrame':
        """Return the same with lengths multiplied."""
        return replace(self, metres=self.metres * metres)

    @property
    def metric_map_from_odom(self) -> np.ndarray:
        """Return map_from_odom [4, 4] in the unit of what is published."""
        return self._lengthened(self.map_from_odom)

    def odom_from_map(self, poses: np.ndarray) -> np.ndarray:
        """Return poses [K, 4, 4] in the map as they are published in the odometry frame."""
        return self._lengthened(inverse(self.map_from_odom) @ poses)

    def moves(self, before: 'MapFrame', keyframes: np.ndarray) -> np.ndarray:
        """
        Return by which similarities [K, 4, 4] what keyframes [K] saw moved since `before`.

        In the odometry frame, in the unit of what is published: there the newest keyframe stays,
        and the past moves.
        """
        old, new = before.corrections.at(keyframes), self.corrections.at(keyframes)
        moved = inverse(self.map_from_odom) @ new @ np.linalg.inv(old) @ before.map_from_odom
        return self._lengthened(moved)

    def _lengthened(self, transforms: np.ndarray) -> np.ndarray:
        result = transforms.copy()
        result[..., :3, 3] *= self.metres
        return result
