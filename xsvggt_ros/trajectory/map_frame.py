"""Where the odometry frame is in the map that closed loops make, and what they move in it."""

from dataclasses import dataclass, field, replace

import numpy as np

from xsvggt_ros.geometry.similarity import inverse_similarity
from xsvggt_ros.trajectory.corrections import Corrections
from xsvggt_ros.trajectory.projection import inverse

_MOST_OF_ONE = 16   # placements of one keyframe


@dataclass(frozen=True)
class MapFrame:
    """
    The map at one frame of a stream; both frames begin as the first camera's optical frame.

    corrections: of the loops closed so far. map_from_odom [4, 4]: rigid, of now. placed: the same
    at each placement of a keyframe (`Placements`), similarities, of what was seen then; behind the
    last one that of now. metres:
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

    def moves(self, before: 'MapFrame', placements: np.ndarray) -> np.ndarray:
        """
        Return by which similarities [K, 4, 4] what belongs to placements [K] moved since `before`.

        In the odometry frame, in the unit of what is published: there the newest camera stays,
        and the past moves.
        """
        old, new = before.placed.at(placements), self.placed.at(placements)
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
    brings them into the map is not the loops' corrections alone. A keyframe is put once more when
    a loop is closed: what comes after that is seen from where the camera is then, in another
    unit. Frames belong to the placement that is the newest when they come, and the map knows none
    that is newer than itself: it may follow loops at any later time, several at once.
    """

    def __init__(self) -> None:
        """Begin without keyframes."""
        self._put: dict[int, tuple[int, np.ndarray]] = {}   # keyframe, odom_from_keyframe
        self._count = 0

    @property
    def newest(self) -> int:
        """Return the number of the newest placement; 0 before the first, too."""
        return max(0, self._count - 1)

    def add(self, keyframe: int, odom_from_camera: np.ndarray, unit: float,
            keyframe_from_camera: np.ndarray | None = None) -> None:
        """
        Put a keyframe where a pose [4, 4], as it is published, sees it.

        unit: of depth that is published from then on. keyframe_from_camera [4, 4], in the
        trajectory's unit: None if the pose is that of the keyframe.
        """
        similarity = odom_from_camera.copy()
        similarity[:3, :3] *= unit
        if keyframe_from_camera is not None:
            similarity = similarity @ inverse(keyframe_from_camera)
        self._put[self._count] = keyframe, similarity
        self._count += 1
        same = [number for number, (other, _) in self._put.items() if other == keyframe]
        if len(same) > _MOST_OF_ONE:   # a camera that stands still while a scale is measured
            del self._put[same[1]]     # what belongs to it goes with the first

    def in_map(self, nodes: Corrections, map_from_odom: np.ndarray,
               map_from_nodes: np.ndarray | None = None) -> Corrections:
        """
        Return what brings each placement from the odometry frame into the map.

        nodes: from each keyframe's own frame, to the map, or to what `map_from_nodes` [4, 4] takes
        to it. map_from_odom [4, 4]: of now, for what comes after them.
        """
        kept = set(nodes.keyframes.tolist())
        self._put = {number: (keyframe, put) for number, (keyframe, put) in self._put.items()
                     if keyframe in kept or keyframe > nodes.keyframes[-1]}
        known = {number: (keyframe, put) for number, (keyframe, put) in self._put.items()
                 if keyframe in kept}
        there = nodes.at(np.array([keyframe for keyframe, _ in known.values()], np.int64))
        if map_from_nodes is not None:
            there = map_from_nodes @ there
        put = np.array([put for _, put in known.values()]).reshape(-1, 4, 4)
        numbers = [*known, max(known, default=-1) + 1]
        return Corrections(np.array(numbers), np.concatenate(
            [there @ inverse_similarity(put), map_from_odom[None]]))
