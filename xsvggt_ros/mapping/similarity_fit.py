"""A robust similarity between two trajectories that may both break off and go on elsewhere."""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from xsvggt_ros.geometry.similarity import rotation_between
from xsvggt_ros.mapping.scale import MIN_OBSERVATIONS

_ITERATIONS = 20  # of reweighting, at most
_SETTLED = 1e-7  # relative change of a scale after which it is not reweighted again
_CAUCHY = 2.385  # residuals of so many deviations count for half (95 % efficiency)
_OUTLIER = 6  # deviations from which on a position does not count
_SUSPECT_JUMP = 4  # times as far as mostly from one point to the next: maybe a jump
_CLEAR_JUMP = 20  # times as far: a jump, if splitting there makes the fit no worse


@dataclass(frozen=True)
class SimilarityFit:
    """A similarity of N positions: one scale, a translation and a rotation for each piece."""

    positions: np.ndarray  # [N, 3], in units of the network
    metric: np.ndarray  # [N, 3], metres
    units: float  # of the network, in a metre
    residuals: np.ndarray  # [N, 3], in units
    weights: np.ndarray  # [N]
    spread: float  # metres, RMS within the pieces
    deviation: float  # of most residuals, an axis
    pieces: np.ndarray  # [N], numbers

    @classmethod
    def to(cls, positions: np.ndarray, metric: np.ndarray, pieces: np.ndarray) -> 'SimilarityFit':
        """Fit positions in units and in metres, [N, 3] each, of the pieces with these numbers."""
        _, order = np.unique(pieces, return_inverse=True)
        weights, before = _first_weights(metric, order), 0.0
        for _ in range(_ITERATIONS):
            units, residuals, spread = _similarity(positions, metric, weights, order)
            if abs(units - before) < _SETTLED * abs(units):
                break
            before, away = units, np.sqrt((residuals ** 2).sum(axis=1))
            deviation = 1.4826 * np.median(away) / np.sqrt(3) + 1e-12
            away = away / (np.sqrt(3) * deviation)
            # Positions far away would turn the fit to them, were they weighted ever so little.
            weights = np.where(away < _OUTLIER, 1 / (1 + (away / _CAUCHY) ** 2), 0.0)
        return cls(positions, metric, units, residuals, weights, spread, float(deviation), pieces)

    @property
    def uncertainty(self) -> float:
        """Return one standard deviation of the scale, relative."""
        count = self.weights.sum()
        freedom = 3 * count - 6 * len(np.unique(self.pieces)) - 1
        if freedom <= 0:
            return float('inf')
        error = np.sqrt((self.weights * (self.residuals ** 2).sum(axis=1)).sum() / freedom)
        return float(error / (self.units * self.spread * np.sqrt(count)))

    def cost(self, deviation: float) -> float:
        """Return -2 log likelihood, but for a constant, of residuals that mostly deviate so."""
        away = np.linalg.norm(self.residuals, axis=1) / (np.sqrt(3) * _CAUCHY * deviation)
        return float(2 * np.log1p(away ** 2).sum())

    def likely_jump(self) -> tuple[int, bool] | None:
        """
        Return the index of the first pair behind a jump of a trajectory; None if none is.

        And whether it is plain: one trajectory by itself goes on elsewhere there.
        """
        best, found = _SUSPECT_JUMP, None
        for points in (self.metric, self.positions, self.residuals):
            steps = self._steps(points)
            inner = steps.any(axis=0)
            if not inner.any():
                return None
            usual = np.median(steps[:, inner], axis=1, keepdims=True).clip(1e-12)
            farther = (steps / usual).min(axis=0)
            at = int(np.argmax(farther))
            if farther[at] > best:
                best = farther[at]
                found = at, points is not self.residuals and best > _CLEAR_JUMP
        return found

    def jump(self, index: int, units: float) -> float:
        """Return how many metres one trajectory goes farther than the other to this pair."""
        metric, seen = (self._steps(points)[:, index] for points in (self.metric, self.positions))
        return float(abs(metric - seen / max(units, 1e-12)).min())

    def _steps(self, points: np.ndarray) -> np.ndarray:
        """
        Return how far points [N, 3] step to each from the one before, [2, N], 0 near ends.

        And from what is usual before to what is usual behind, where a few outliers make no step.
        """
        steps = np.zeros((2, len(points)))
        for piece in np.unique(self.pieces):
            indices = np.flatnonzero(self.pieces == piece)
            inner = indices[MIN_OBSERVATIONS:len(indices) - MIN_OBSERVATIONS + 1]
            if not len(inner):
                continue
            here = points[indices]
            single = np.linalg.norm(np.diff(here, axis=0), axis=1)
            usual = np.median(sliding_window_view(here, MIN_OBSERVATIONS, axis=0), axis=-1)
            smooth = np.linalg.norm(usual[MIN_OBSERVATIONS:] - usual[:-MIN_OBSERVATIONS], axis=1)
            inner_single = single[MIN_OBSERVATIONS - 1:len(single) - MIN_OBSERVATIONS + 1]
            steps[:, inner] = inner_single, smooth
        return steps


def _first_weights(metric: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return weights that leave positions far from all others out of the first fit."""
    weights = np.zeros(len(metric))
    for piece in range(order.max() + 1):
        points = metric[order == piece]
        away = np.linalg.norm(points - np.median(points, axis=0), axis=1)
        weights[order == piece] = away <= 4 * np.median(away) + 1e-9
    return weights


def _similarity(positions: np.ndarray, metric: np.ndarray, weights: np.ndarray,
                order: np.ndarray) -> tuple[float, np.ndarray, float]:
    """
    Return network units per metre, what remains [N, 3], and the RMS spread of `metric`.

    order [N]: which piece each position belongs to, counted from 0.
    """
    share = (np.arange(order.max() + 1)[:, None] == order) * weights  # [pieces, N]
    middle = share / share.sum(axis=1, keepdims=True).clip(1e-12)  # of a piece far off, nothing
    positions = positions - (middle @ positions)[order]
    metric = metric - (middle @ metric)[order]
    rotations, traces = rotation_between((share[:, None] * positions.T) @ metric)
    variance = weights @ (metric ** 2).sum(axis=1)
    units = float(traces.sum() / max(variance, 1e-18))
    rotated = (rotations[order] @ metric[:, :, None])[..., 0]
    return units, positions - units * rotated, float(np.sqrt(variance / weights.sum()))
