"""Where the odometry frame is in the map that closed loops make, and what they move in it."""

from dataclasses import dataclass, field, replace

import numpy as np

from xsvggt_ros.geometry.similarity import inverse_similarity
from xsvggt_ros.trajectory.corrections import Corrections
from xsvggt_ros.trajectory.projection import inverse


@dataclass(frozen=True)
class MapFrame:
    """
    The map at one frame of a stream; both frames begin as the first camera's optical frame.

    corrections: of the loops closed so far. map_from_odom [4, 4]: rigid, of now. placed: the same
    at each keyframe, similarities, of what was seen then; behind the last one that of now. metres:
    of one unit of the trajectory, by which lengths are multiplied in what is published.
    is_localized: whether the map is a saved one, in whose frame it is then; None if it is not to
    be one.
    """

    corrections: Corrections
    map_from_odom: np.ndarray
    metres: float = 1.0
    is_localized: bool | None = None
    placed: Corrections = field(default_factory=Corrections.none)

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
        old, new = before.placed.at(keyframes), self.placed.at(keyframes)
        moved = inverse(self.map_from_odom) @ new @ np.linalg.inv(old) @ before.map_from_odom
        return self._lengthened(moved)

    def _lengthened(self, transforms: np.ndarray) -> np.ndarray:
        result = transforms.copy()
        result[..., :3, 3] *= self.metres
        return result


class Placements:
    """
    Where keyframes were put in the odometry frame when they came, in bounded memory.

    The odometry keeps them there, while the window goes on to move them in its own world: what
    brings them into the map is not the loops' corrections alone.
    """

    def __init__(self) -> None:
        """Begin without keyframes."""
        self._odom_from_keyframe: dict[int, np.ndarray] = {}

    def add(self, keyframe: int, odom_from_camera: np.ndarray, unit: float) -> None:
        """Take a keyframe's pose [4, 4] as it is published; unit: of depth that is published."""
        similarity = odom_from_camera.copy()
        similarity[:3, :3] *= unit
        self._odom_from_keyframe[keyframe] = similarity

    def in_map(self, nodes: Corrections, map_from_odom: np.ndarray,
               map_from_nodes: np.ndarray | None = None) -> Corrections:
        """
        Return what brings each keyframe from where it was put into the map.

        nodes: from each keyframe's own frame, to the map, or to what `map_from_nodes` [4, 4] takes
        to it. map_from_odom [4, 4]: of now, for what comes after them.
        """
        kept = set(nodes.keyframes.tolist())
        known = self._odom_from_keyframe = {
            keyframe: pose for keyframe, pose in self._odom_from_keyframe.items()
            if keyframe in kept or keyframe > nodes.keyframes[-1]}
        rows = [row for row, keyframe in enumerate(nodes.keyframes.tolist()) if keyframe in known]
        keyframes = nodes.keyframes[rows]
        there = nodes.similarities[rows]
        if map_from_nodes is not None:
            there = map_from_nodes @ there
        put = np.array([known[keyframe] for keyframe in keyframes.tolist()]).reshape(-1, 4, 4)
        return Corrections(np.append(keyframes, nodes.keyframes[-1] + 1), np.concatenate(
            [there @ inverse_similarity(put), map_from_odom[None]]))
