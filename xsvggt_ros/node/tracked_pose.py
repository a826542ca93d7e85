"""How a pose that was tracked came about, and how sure it is."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class TrackedPose:
    """
    How a pose came about, in the unit of the results.

    source: 'first', 'tracks', 'matches', 'network' or 'hold'; inliers: landmarks that agree;
    error: their median reprojection error in pixels. covariance: [6, 6] of a small motion
    (rotation, translation) in the camera's axes. velocity: [6] in the same order, rad/s and
    units/s, with its covariance; None where it is not known.
    """

    source: str
    inliers: int
    error: float
    covariance: np.ndarray
    velocity: np.ndarray | None
    velocity_covariance: np.ndarray | None

    def scaled(self, metres: float) -> 'TrackedPose':
        """Return the same with lengths multiplied."""
        factors = np.array([1, 1, 1, metres, metres, metres])
        square = factors[:, None] * factors
        if self.velocity is None:
            return replace(self, covariance=self.covariance * square)
        return replace(self, covariance=self.covariance * square,
                       velocity=self.velocity * factors,
                       velocity_covariance=self.velocity_covariance * square)
