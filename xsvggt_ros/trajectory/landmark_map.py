"""A map in which a later stream finds itself: keyframes with what they are recognised by."""

from dataclasses import dataclass, replace

import numpy as np

from xsvggt_ros.geometry.similarity import apply_to_pose, scales
from xsvggt_ros.trajectory.keyframe import Keyframe
from xsvggt_ros.trajectory.matching import Features


@dataclass(frozen=True)
class KeptKeyframes:
    """
    Keyframes that a stream has kept, at one moment.

    nodes [K, 4, 4]: similarities, the stream's map from each of them.
    """

    keyframes: tuple[Keyframe, ...]
    nodes: np.ndarray

    @classmethod
    def none(cls) -> 'KeptKeyframes':
        """Return no keyframes."""
        return cls((), np.empty((0, 4, 4)))


    def moved(self, similarity: np.ndarray) -> 'KeptKeyframes':
        """Return them in another map, which a similarity [4, 4] takes from the stream's."""
        return KeptKeyframes(self.keyframes, similarity @ self.nodes)


@dataclass(frozen=True)
class LandmarkMap:
    """
    Keyframes in one frame and one unit, that of the map's points.

    poses [K, 4, 4]: rigid, map_from_keyframe, keyframes in their cameras' optical frames. Places
    have landmarks and coarse depth in the map's unit, and no features without a landmark.
    is_metric: whether that unit is the metre.
    """

    keyframes: tuple[Keyframe, ...]
    poses: np.ndarray
    is_metric: bool

    @property
    def landmarks(self) -> int:
        """Return how many landmarks there are, those of several keyframes several times."""
        return sum(len(keyframe.points) for keyframe in self.keyframes)


def landmark_map(kept: KeptKeyframes, map_from_stream: np.ndarray, metres: float,
                 is_metric: bool) -> LandmarkMap:
    """
    Return a stream's keyframes as they are in the frame of its points.

    metres: units of that frame for one of the stream's. map_from_stream [4, 4]: rigid, in the
    frame's unit. Keyframes without a landmark are left out.
    """
    nodes = apply_to_pose(kept.nodes, np.eye(4))
    nodes[:, :3, 3] *= metres
    larger = metres * scales(kept.nodes)
    scaled = [_scaled(keyframe, factor)
              for keyframe, factor in zip(kept.keyframes, larger.tolist())]
    used = [row for row, keyframe in enumerate(scaled) if len(keyframe.points)]
    return LandmarkMap(tuple(scaled[row] for row in used), (map_from_stream @ nodes)[used],
                       is_metric)


def _scaled(keyframe: Keyframe, factor: float) -> Keyframe:
    """Return a keyframe in another unit, without the features that have no landmark."""
    points, variance = keyframe.points, keyframe.variance
    known = np.isfinite(points).all(1) & (points[:, 2] > 0) & (variance > 0)
    seen = keyframe.features
    features = Features(seen.keyframe, seen.pixels[known], seen.descriptors[known],
                        seen.ids[known])
    return replace(keyframe, features=features, points=factor * points[known],
                   variance=variance[known], depth=np.float32(factor) * keyframe.depth)
