"""How a pose that was tracked came about, and how sure it is."""

from dataclasses import dataclass, field, replace

import numpy as np

from xsvggt_ros.geometry.similarity import scales
from xsvggt_ros.trajectory.landmark_map import KeptKeyframes
from xsvggt_ros.trajectory.loop_closer import LoopReport
from xsvggt_ros.trajectory.map_frame import MapFrame


@dataclass(frozen=True)
class Localization:
    """
    What is known at an image of where the stream is in a saved map.

    since_ns: stamp of the image from which it is known, None before. confirmations: keyframes
    that agree; refused: those that were not recognised, by reason. is_metric: whether the map is
    in metres.
    """

    since_ns: int | None
    confirmations: int
    refused: dict[str, int]
    is_metric: bool

    def describe(self) -> str:
        """Return in words what is known."""
        refused = ', '.join(f'{reason} {count}' for reason, count in self.refused.items())
        told = f'keyframes that were not recognised: {refused or "none"}'
        if self.since_ns is not None:
            return f'{self.confirmations} keyframes agree; {told}'
        return ('not localised in the saved map yet, and no transform from its frame: show the '
                f'camera what was seen when it was saved ({told})')


@dataclass(frozen=True)
class OdometryCorrection:
    """What is told of map_frame -> robot_odom_frame: its state in words, and what is wrong."""

    state: str
    fault: str = ''


@dataclass(frozen=True)
class LoopState:
    """
    What closed loops say at an image, and a saved map.

    keyframe: the number of the one that the image is a part of. keyframes [K, 4, 4]: where all
    that are kept are in the map, in the trajectory's unit; kept: what they see. localization:
    None without a saved map. placement: the number of the one of that keyframe, with which what
    the image saw moves when later loops are closed (`Placements`).
    """

    map_frame: MapFrame
    keyframe: int
    report: LoopReport
    keyframes: np.ndarray
    kept: KeptKeyframes = field(default_factory=KeptKeyframes.none)
    localization: Localization | None = None
    placement: int = 0

    @property
    def map_metres(self) -> float | None:
        """Return the metres of the results' unit by a saved map in metres; None: not in one."""
        if not self.map_frame.is_localized or (
                self.localization is None or not self.localization.is_metric):
            return None
        return float(scales(self.map_frame.corrections.at(self.keyframe)))


@dataclass(frozen=True)
class TrackedPose:
    """
    How a pose came about, in the unit of the results.

    source: 'first', 'tracks', 'matches', 'odometry', 'network', 'motion' or 'hold'; inliers:
    landmarks that agree; error: their median reprojection error in pixels. covariance: [6, 6] of a
    small motion (rotation, translation) in the camera's axes, of the pose since the stream began.
    velocity: [6] in the same order, rad/s and units/s, with its covariance; None where it is not
    known. loops: None where none are looked for.
    """

    source: str
    inliers: int
    error: float
    covariance: np.ndarray
    velocity: np.ndarray | None
    velocity_covariance: np.ndarray | None
    loops: LoopState | None = None

    def scaled(self, metres: float) -> 'TrackedPose':
        """Return the same with lengths multiplied."""
        factors = np.array([1, 1, 1, metres, metres, metres])
        square = factors[:, None] * factors
        loops = self.loops and replace(self.loops, map_frame=self.loops.map_frame.scaled(metres))
        if self.velocity is None:
            return replace(self, loops=loops, covariance=self.covariance * square)
        return replace(self, loops=loops, covariance=self.covariance * square,
                       velocity=self.velocity * factors,
                       velocity_covariance=self.velocity_covariance * square)
