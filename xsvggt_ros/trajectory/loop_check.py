"""Whether two keyframes see the same: features that match, one pose, one scale, one depth."""

from dataclasses import dataclass

import numpy as np

from xsvggt_ros.geometry.similarity import inverse_similarity
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.keyframe import coarse_depth_at, coarse_points, Keyframe
from xsvggt_ros.trajectory.matching import Matcher
from xsvggt_ros.trajectory.pose import find_pose, fit_pose
from xsvggt_ros.trajectory.projection import NEAREST, project

_RANSAC_PIXELS = 2.0     # at 320 pixels
_FEWEST_SCALED = 8       # landmarks of both that tell the scale
_LEAST = np.array([0.004] * 3 + [0.01] * 3 + [0.015])   # sigmas; of depth where they are lengths
_PLENTY = 80             # inliers below which a loop is less sure than its geometry says
_LARGEST_SCALE = 1.0     # of the logarithm of the scale between two keyframes
_AGREES = 0.3            # of log depth
_SEEN = 0.15             # share of a keyframe's coarse depth that must be seen


@dataclass(frozen=True)
class Loop:
    """
    Two keyframes that see the same.

    first_from_second [4, 4]: a similarity. sigma [7]: of a step behind it. inliers: features.
    """

    first: int
    second: int
    first_from_second: np.ndarray
    sigma: np.ndarray
    inliers: int


class LoopCheck:
    """Compares a new keyframe with old ones."""

    def __init__(self, config: TrajectoryConfig) -> None:
        """Take the limits of a configuration."""
        self._config = config
        self._matcher = Matcher(1)

    def loop(self, old: Keyframe, new: Keyframe) -> Loop | str:
        """Return the loop between two keyframes, or why there is none."""
        here, there = self._matcher.match(new.features, old.features)
        known = np.isfinite(old.points[there, 2])
        here, there = here[known], there[known]
        config = self._config
        if len(here) < config.loop_inliers:
            return 'few matches'
        pixels = new.features.pixels[here].astype(np.float64)
        points = old.points[there]
        scale = config.scaled(new.size[0])
        initial = find_pose(points, pixels, new.camera, _RANSAC_PIXELS * scale)
        if initial is None:
            return 'no pose'
        fit = fit_pose(points, points, old.variance[there], pixels, new.camera, initial,
                       config.pixel_sigma * scale, config.huber, config.outlier)
        if fit is None or fit.inliers.sum() < max(config.loop_inliers,
                                                  config.loop_share * len(here)):
            return 'few inliers'
        inside = points[fit.inliers] @ fit.pose[:3, :3] - fit.pose[:3, 3] @ fit.pose[:3, :3]
        told = scale_between(inside[:, 2], new.points[here[fit.inliers], 2])
        if told is None or abs(told[0]) > _LARGEST_SCALE:
            return 'no scale'
        log_scale, scale_sigma = told
        similarity = fit.pose.copy()
        similarity[:3, :3] *= np.exp(log_scale)
        if not depths_agree(old, new, similarity):
            return 'depths disagree'
        inliers = int(fit.inliers.sum())
        sigma = _sigma(fit.information, float(np.median(inside[:, 2])), scale_sigma)
        sigma *= max(1.0, _PLENTY / inliers)
        sigma[3:6] *= np.exp(-log_scale)
        return Loop(old.id, new.id, similarity, sigma, inliers)


def scale_between(old: np.ndarray, new: np.ndarray) -> tuple[float, float] | None:
    """Return the logarithm of the scale from depths [n] of both, and its standard deviation."""
    good = (old > NEAREST) & (new > NEAREST)
    if good.sum() < _FEWEST_SCALED:
        return None
    ratio = np.log(old[good] / new[good])
    middle = float(np.median(ratio))
    spread = 1.4826 * float(np.median(np.abs(ratio - middle)))
    return middle, 1.25 * spread / np.sqrt(good.sum())


def _sigma(information: np.ndarray, depth: float, scale_sigma: float) -> np.ndarray:
    """Return the standard deviations [7] of a loop."""
    values, vectors = np.linalg.eigh(0.5 * (information + information.T))
    covariance = (vectors / np.maximum(values, 1e-9 * max(values.max(), 1e-9))) @ vectors.T
    sigma = np.append(2 * np.sqrt(np.diag(covariance)), 2 * scale_sigma)
    least = _LEAST.copy()
    least[3:6] *= depth
    return np.hypot(sigma, least)


def depths_agree(old: Keyframe, new: Keyframe, old_from_new: np.ndarray) -> bool:
    """Return whether the old keyframe's coarse depth, seen by the new one, is that one's own."""
    new_from_old = inverse_similarity(old_from_new)
    points = coarse_points(old) @ new_from_old[:3, :3].T + new_from_old[:3, 3]
    points = points[points[:, 2] > NEAREST]
    seen = coarse_depth_at(new, project(points, new.camera))
    both = np.isfinite(seen) & (seen > NEAREST)
    if both.sum() < _SEEN * old.depth.size:
        return False
    return float(np.median(np.abs(np.log(points[both, 2] / seen[both])))) < _AGREES
