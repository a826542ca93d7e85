"""From the network's unit to metres: what a trajectory in metres says about the network's."""

from collections import deque
from dataclasses import dataclass

import numpy as np

WINDOW = 120          # newest positions that count: odometry drifts, too
FEWEST = 5            # positions
SHORTEST_WAY = 0.2    # metres, RMS spread of the positions: below, noise would decide
_ITERATIONS = 20      # of reweighting
_CAUCHY = 2.385       # residuals of so many deviations count for half (95 % efficiency)
_STEADY = 0.01        # relative: smaller changes of the estimate leave the scale as it is


@dataclass(frozen=True)
class Scale:
    """
    How long the network's unit is; uncertainty: one standard deviation of the fit, relative.

    The drift of what it was compared with is not in it.
    """

    metres: float
    uncertainty: float


class TrajectoryScale:
    """
    Compares the camera's way in the network's unit with the same way in metres.

    A robust similarity fit over the newest positions (Umeyama, PAMI 1991, with Cauchy weights, so
    that slips and outliers do not pull). The network's positions are fitted to the odometry and
    not the other way round: theirs is the larger noise, and noise on the side that is fitted
    leaves the scale unbiased.
    """

    def __init__(self) -> None:
        """Begin without any position."""
        self._pairs: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=WINDOW)
        self._scale: Scale | None = None

    def forget(self) -> None:
        """Begin anew: the network's unit is another one."""
        self._pairs.clear()
        self._scale = None

    def add(self, position: np.ndarray, metric_position: np.ndarray) -> None:
        """Take a camera position [3] in the network's world, and in metres in any world."""
        if np.isfinite(position).all() and np.isfinite(metric_position).all():
            self._pairs.append((np.asarray(position, np.float64),
                                np.asarray(metric_position, np.float64)))

    def scale(self) -> Scale | None:
        """
        Return the scale, None if the camera has not moved enough yet.

        It stays as it is while estimates differ from it by less than they are sure.
        """
        estimate = self._estimate()
        if estimate is None:
            return self._scale
        known = self._scale
        if known is None or abs(np.log(estimate.metres / known.metres)) > max(
                _STEADY, 2 * estimate.uncertainty):
            self._scale = estimate
        return self._scale

    def _estimate(self) -> Scale | None:
        if len(self._pairs) < FEWEST:
            return None
        positions, metric = (np.stack(side) for side in zip(*self._pairs))
        weights = _first_weights(metric)
        for _ in range(_ITERATIONS):
            units, residuals, spread = _fit(positions, metric, weights)
            deviation = 1.4826 * np.median(residuals) / np.sqrt(3) + 1e-12
            weights = 1 / (1 + (residuals / (np.sqrt(3) * _CAUCHY * deviation)) ** 2)
        if spread < SHORTEST_WAY or units <= 0:
            return None
        count = weights.sum()
        error = np.sqrt((weights * residuals ** 2).sum() / count / 3)
        return Scale(1 / units, float(error / (units * spread * np.sqrt(count))))


def _first_weights(metric: np.ndarray) -> np.ndarray:
    """Return weights that leave positions far from all others out of the first fit."""
    away = np.linalg.norm(metric - np.median(metric, axis=0), axis=1)
    return (away <= 4 * np.median(away) + 1e-9).astype(np.float64)


def _fit(positions: np.ndarray, metric: np.ndarray,
         weights: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Return network units per metre, what remains [N], and the RMS spread of `metric`."""
    share = weights / weights.sum()
    positions, metric = positions - share @ positions, metric - share @ metric
    left, values, right = np.linalg.svd((share[:, None] * positions).T @ metric)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right)) or 1.0])
    variance = share @ (metric ** 2).sum(axis=1)
    units = float((values * signs).sum() / max(variance, 1e-18))
    turned = units * metric @ (left @ np.diag(signs) @ right).T
    return units, np.linalg.norm(positions - turned, axis=1), float(np.sqrt(variance))
