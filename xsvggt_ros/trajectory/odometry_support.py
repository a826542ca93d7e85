"""What an odometry from elsewhere adds: motions through darkness, and between keyframes."""

from collections import deque, OrderedDict
from dataclasses import dataclass

import numpy as np

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.gaps import Gap
from xsvggt_ros.trajectory.motion_factors import MotionFactors
from xsvggt_ros.trajectory.projection import inverse, nearest_pose
from xsvggt_ros.trajectory.relative_odometry import RelativeMotion, RelativeOdometry, View

_SEGMENT = 0.5           # seconds of the trajectory, at least, that tell the length of a metre
_SHORTEST = 0.03         # metres of it
_ENOUGH = 0.2            # metres, from which a segment does not count for more
_FEWEST = 3              # segments
_CHANCE = 0.05           # relative sigma of what one of them tells, at least
_MOST_PENDING = 20       # segments
_UNSURE = 0.1            # relative sigma of that length from which it is not known
_SUREST = 0.01
_GIVEN_SIGMA = 0.1       # of a length by scale.mode
_GAP_UNIT = 0.1          # sigma of the unit's logarithm over a gap


@dataclass(frozen=True)
class UnitsPerMetre:
    """How many units of the trajectory a metre is, and the relative standard deviation of that."""

    value: float
    sigma: float


@dataclass(frozen=True)
class OdometryStep:
    """
    The motion from the last frame to this one by the odometry, in the trajectory's unit.

    step [4, 4]; without a known metre it is a rotation alone, and covariance is None. covariance
    [6, 6]: as of `RelativeMotion`. is_exact: see there.
    """

    step: np.ndarray
    covariance: np.ndarray | None
    is_exact: bool

    def guess(self, last: np.ndarray, fallback: np.ndarray) -> np.ndarray:
        """Return the pose after one at `last`; the position of `fallback` where none is known."""
        pose = nearest_pose(last @ self.step)
        if self.covariance is None:
            pose[:3, 3] = fallback[:3, 3]
        return pose


@dataclass(eq=False)
class _Pair:
    """Two images: when they were, and what lies between, by the odometry and as it was tracked."""

    before: View
    after: View
    seen: np.ndarray                        # before_from_after [4, 4], the trajectory's unit
    motion: RelativeMotion | None = None


class OdometrySupport:
    """
    Motions of an odometry from elsewhere, for one stream.

    They are told from the last frame whose pose is sure, not from frame to frame: what was guessed
    because the odometry came late is put right by the next frame. The length of a metre is the
    median over the newest segments of the trajectory that were tracked.
    """

    def __init__(self, relative: RelativeOdometry, config: TrajectoryConfig) -> None:
        """Begin without a frame."""
        self._relative = relative
        self._config = config
        self._anchor: View | None = None
        self._believed = np.eye(4)       # anchor_from_last
        self._last: View | None = None
        self._carried = 0.0              # metres since a frame was located
        self._view: View | None = None   # of the last keyframe
        self._pairs: OrderedDict[int, _Pair] = OrderedDict()   # by the later keyframe
        self._segment: _Pair | None = None    # that goes on, while frames are located
        self._segments: deque[_Pair] = deque(maxlen=_MOST_PENDING)   # for which odometry is late
        # Units in a metre, and the weight of that.
        self._told: deque[tuple[float, float]] = deque(maxlen=config.odometry_segments)
        self._learned: UnitsPerMetre | None = None
        self.given: float | None = None  # units in a metre, by scale.mode

    @property
    def units_per_metre(self) -> UnitsPerMetre | None:
        """Return how many units of the trajectory a metre is; None while it is not known."""
        if self._learned is not None or self.given is None:
            return self._learned
        return UnitsPerMetre(self.given, _GIVEN_SIGMA)

    def predict(self, view: View | None) -> OdometryStep | None:
        """Return the motion since the last frame; None where the odometry does not tell it."""
        if view is None:
            return None
        for start, believed in ((self._anchor, self._believed), (self._last, np.eye(4))):
            motion = None if start is None else self._relative.between(start, view, ahead=True)
            if motion is not None:
                pose, covariance = self._in_units(motion, self._carried)
                return OdometryStep(inverse(believed) @ pose, covariance, motion.is_exact)
        return None

    def add_step(self, view: View | None, step: np.ndarray, located: bool,
                 carried: OdometryStep | None) -> None:
        """Take the step [4, 4] that was made to a frame. carried: where that was by odometry."""
        metre = self.units_per_metre
        if metre is not None:
            self._carried = 0.0 if located else (
                self._carried + float(np.linalg.norm(step[:3, 3])) / metre.value)
        if located or view is not None and carried is not None and carried.is_exact:
            self._anchor, self._believed = view, np.eye(4)
        else:
            self._believed = nearest_pose(self._believed @ step)
        self._last = view
        self._follow(view if located else None, step)

    def add_keyframe(self, keyframe: int, view: View | None) -> None:
        """Take a new keyframe."""
        if view is not None and self._view is not None:
            self._pairs[keyframe] = _Pair(self._view, view, np.eye(4))
            if len(self._pairs) > 2 * self._config.window:
                self._pairs.popitem(last=False)
        self._view = view

    def factors(self, keyframes: np.ndarray) -> MotionFactors | None:
        """Return what is known of the motions between keyframes [K]; None if there is nothing."""
        rows = {int(keyframe): row for row, keyframe in enumerate(keyframes)}
        found = []
        for keyframe, pair in self._pairs.items():
            motion = self._motion(pair)
            if motion is not None and {keyframe - 1, keyframe} <= rows.keys():
                pose, covariance = self._in_units(motion)
                information = np.zeros((6, 6))
                if covariance is not None:
                    information = np.linalg.inv(covariance)
                else:
                    information[:3, :3] = np.linalg.inv(motion.covariance[:3, :3])
                found.append((rows[keyframe - 1], rows[keyframe], pose, information))
        if not found:
            return None
        before, after, measured, informations = zip(*found)
        return MotionFactors(np.array(before), np.array(after), np.array(measured),
                             np.array(informations), self._config.odometry_cauchy)

    def gap(self, keyframe: int, before: np.ndarray, after: np.ndarray) -> Gap | None:
        """
        Return how a keyframe that was carried to is joined to the one before; None if it is not.

        before, after: world_from_camera [4, 4] of both.
        """
        pair = self._pairs.get(keyframe)
        motion = None if pair is None else self._motion(pair)
        covariance = None if motion is None else self._in_units(motion)[1]
        if covariance is None:
            return None
        sigma = np.append(np.sqrt(np.diag(covariance)), _GAP_UNIT)
        return Gap(keyframe, inverse(before) @ after, sigma)

    # Parts ---------------------------------------------------------------------------------------

    def _follow(self, view: View | None, step: np.ndarray) -> None:
        """Go on with a segment to an image that was located; None: it ends."""
        segment = self._segment
        if view is None:
            self._segment = None
        elif segment is None:
            self._segment = _Pair(view, view, np.eye(4))
        else:
            segment.seen = nearest_pose(segment.seen @ step)
            if view.stamp_ns - segment.before.stamp_ns >= _SEGMENT * 1e9:
                segment.after = view
                self._segments.append(segment)
                self._segment = _Pair(view, view, np.eye(4))
        if any(self._motion(pair) is not None for pair in self._segments):
            self._learn()

    def _learn(self) -> None:
        """Learn the length of a metre from the segments for which odometry has come by now."""
        for segment in [pair for pair in self._segments if pair.motion is not None]:
            self._segments.remove(segment)
            assert segment.motion is not None   # it was chosen by that
            metres = segment.motion.before_from_after[:3, 3]
            length = float(np.linalg.norm(metres))
            if length > _SHORTEST:
                self._told.append((float(segment.seen[:3, 3] @ metres) / length ** 2,
                                   min(length, _ENOUGH)))
        if len(self._told) < _FEWEST:
            return
        told, weights = np.array(self._told).T
        middle = _median(told, weights)
        deviation = 1.4826 * _median(np.abs(told - middle), weights)
        error = max(_CHANCE * middle, 1.2533 * deviation) * np.sqrt(weights.max() / weights.sum())
        if 0 < error < _UNSURE * middle:
            self._learned = UnitsPerMetre(middle, max(_SUREST, float(error / middle)))

    def _motion(self, pair: _Pair) -> RelativeMotion | None:
        """Return what lies between, as soon as the odometry has come that far."""
        if pair.motion is None:
            pair.motion = self._relative.between(pair.before, pair.after)
        return pair.motion

    def _in_units(self, motion: RelativeMotion, carried: float = 0.0,
                  ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return a motion and its covariance in the trajectory's unit; else a rotation, None."""
        pose, metre = motion.before_from_after.copy(), self.units_per_metre
        if metre is None:
            pose[:3, 3] = 0
            return pose, None
        covariance = motion.covariance.copy()
        along = pose[:3, :3].T @ pose[:3, 3]
        # A wrong length of the metre is the same one throughout: not as by chance.
        length = float(np.linalg.norm(along))
        more = 1 + 2 * carried / length if length > 0 else 1.0
        covariance[3:, 3:] += metre.sigma ** 2 * more * np.outer(along, along)
        lengths = np.repeat([1.0, metre.value], 3)
        pose[:3, 3] *= metre.value
        return pose, covariance * lengths * lengths[:, None]


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the value with half of the weight below it."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])
