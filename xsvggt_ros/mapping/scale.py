"""
From the network's unit to metres, by what is known in both: a way, a depth image, a baseline.

Estimators take one observation after the other and hold their scale still until a newer estimate
differs from it by more than it is sure of: each change scales everything that is published anew.
An estimate that is less sure than a bound is never taken, and neither is one that no camera has.
"""

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
import torch
from torch import Tensor

from xsvggt_ros.images.preprocess import Resize

WINDOW = 120          # newest positions or baselines that count: odometry drifts, too
DEPTH_WINDOW = 30     # newest depth images that count: each says enough by itself
MIN_OBSERVATIONS = 5            # observations
MIN_TRAVEL = 0.2    # metres, RMS spread of the positions: below, noise would decide
MIN_PIXELS = 100   # of a depth image that must be known in both units
MAX_UNCERTAINTY = 0.1  # relative: what is less sure gives no scale, unless another bound is given
METRES = (1e-6, 1e6)  # in a unit of the network, at least and at most
MAX_BASELINE_ANGLE = 0.5       # rad between a baseline's directions: beyond, one of them is wrong
DEPTHS = (0.01, 1000.0)  # metres that a depth image can know; all else is no measurement
MIN_CORRELATION = 0.1          # correlation of depths below which they do not show the same
_VARIED = 0.05        # deviation of log depths from which on that can be told
_INDEPENDENT = 30     # errors in a depth image: they go over things and surfaces, not pixels
_ITERATIONS = 20      # of reweighting, at most
_SETTLED = 1e-7       # relative change of a scale after which it is not reweighted again
_CAUCHY = 2.385       # residuals of so many deviations count for half (95 % efficiency)
_OUTLIER = 6              # deviations from which on a position does not count
_NARROW = 1.5         # pixels off by more deviations do not count
_MAX_PIXELS = 20_000   # of a depth image that are looked at
_SAME_SHAPE = 0.02    # relative difference of two aspect ratios that are the same
_SUSPECT_JUMP = 4       # times as far as mostly from one point to the next: maybe a jump
_MIN_BEND = 0.25         # of the spread of a way: a smaller jump hardly bends it
_CLEAR_JUMP = 20        # times as far: a jump, if splitting there makes the fit no worse
_MIN_SPLIT_GAIN = 40   # by so much two pieces must be likelier than one (-2 log likelihood)
_MAX_SPLITS = 8      # at once


@dataclass(frozen=True)
class Scale:
    """
    How long the network's unit is; uncertainty: one standard deviation of the fit, relative.

    The drift of what it was compared with is not in it.
    """

    metres: float
    uncertainty: float


class NoScale(ValueError):
    """
    What was observed so far says nothing, and why.

    waits: nothing is wrong; a scale that is known already is as good as before.
    """

    def __init__(self, reason: str, waits: bool = False) -> None:
        """Give the reason in words."""
        super().__init__(reason)
        self.waits = waits


class SteadyScale:
    """A scale that stays as it is while estimates differ from it by less than they are sure."""

    def __init__(self, steady: float) -> None:
        """Begin unknown; steady: relative, smaller changes never move the scale."""
        self._steady = steady
        self.known: Scale | None = None

    def forget(self) -> None:
        """Begin anew: the network's unit is another one."""
        self.known = None

    def follow(self, estimate: Scale) -> None:
        """Take one more estimate."""
        known = self.known
        if known is None or abs(np.log(estimate.metres / known.metres)) > max(
                self._steady, 2 * estimate.uncertainty):
            self.known = estimate


class ScaleEstimator(ABC):
    """What the three ways to a scale have in common: when an estimate is taken."""

    def __init__(self, steady: float) -> None:
        """Begin without an observation; steady: see `SteadyScale`."""
        self._steady = SteadyScale(steady)
        self._refusal = ''

    @property
    def refusal(self) -> str:
        """Return why there is no newer scale, empty if there is one or nothing is wrong."""
        return self._refusal

    def forget(self) -> None:
        """Begin anew: the network's unit is another one."""
        self._steady.forget()
        self._refusal = ''

    def scale(self, bound: float = MAX_UNCERTAINTY) -> Scale | None:
        """
        Return the scale; None if it has not been known yet.

        bound: relative; an estimate that is less sure is not taken, and `refusal` says so.
        """
        try:
            estimate = self._estimate()
            if not METRES[0] <= estimate.metres <= METRES[1]:
                raise NoScale(f'{estimate.metres:.3g} m in a unit of the network cannot be')
            if not estimate.uncertainty <= bound:
                raise NoScale(
                    f'{self._unsure()}: {estimate.metres:.3g} m a unit +- '
                    f'{100 * min(estimate.uncertainty, 99):.0f} %, and scale.max_uncertainty '
                    f'allows {100 * bound:.3g} %')
        except NoScale as error:
            self._refusal = '' if error.waits and self._steady.known else str(error)
        else:
            self._refusal = ''
            self._steady.follow(estimate)
        return self._steady.known

    @abstractmethod
    def _estimate(self) -> Scale:
        """Return the newest estimate; raise NoScale."""

    @abstractmethod
    def _unsure(self) -> str:
        """Return what an unsure estimate mostly comes from."""


class TrajectoryScale(ScaleEstimator):
    """
    Compares the camera's way in the network's unit with the same way in metres.

    A robust similarity fit over the newest positions (Umeyama, PAMI 1991, with Cauchy weights, so
    that slips and outliers do not pull). The network's positions are fitted to the odometry and
    not the other way round: theirs is the larger noise, and noise on the side that is fitted
    leaves the scale unbiased.

    Where one of the two ways breaks off and goes on elsewhere, the window is split: each piece has
    its own place and direction, and all have one scale. Breaks that are known come with the
    positions, as other numbers of the piece; others show as residuals that jump.
    """

    def __init__(self) -> None:
        """Begin without any position."""
        super().__init__(0.01)
        # Each with the number of its piece, which is another one than it was given with.
        self._pairs: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=WINDOW)
        self._given: int | None = None  # with the newest pair
        self._numbers = count()
        self._piece = next(self._numbers)  # of the pairs that come now

    def forget(self) -> None:
        """Begin anew: the network's unit is another one."""
        super().forget()
        self._pairs.clear()
        self._given = None

    def add(self, position: np.ndarray, metric_position: np.ndarray, piece: int = 0) -> None:
        """
        Take a camera position [3] in the network's world, and in metres in any world.

        piece: another number than the one before says that these metres are of another world.
        """
        if not (np.isfinite(position).all() and np.isfinite(metric_position).all()):
            return
        if piece != self._given:
            self._given, self._piece = piece, next(self._numbers)
        self._pairs.append((self._piece, np.asarray(position, np.float64),
                            np.asarray(metric_position, np.float64)))

    def _unsure(self) -> str:
        return "the camera's way by the network does not follow that by the odometry"

    def _estimate(self) -> Scale:
        numbers = np.array([number for number, *_ in self._pairs], np.intp)
        names, pieces, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
        used = np.flatnonzero(sizes[pieces] >= MIN_OBSERVATIONS)
        if not len(used):
            broken = f' in {len(names)} pieces' if len(names) > 1 else ''
            raise NoScale(f'{len(numbers)} positions compared so far{broken}, and '
                          f'{MIN_OBSERVATIONS} without a break are needed', waits=True)
        positions, metric = (np.stack(side)[used] for side in list(zip(*self._pairs))[1:])
        fit = self._fit(positions, metric, numbers, used)
        if fit.spread < MIN_TRAVEL:
            raise NoScale(
                f'by the odometry the camera has moved {fit.spread:.2g} m (RMS) without a break, '
                f'and {MIN_TRAVEL} m are needed; drive on', waits=True)
        if fit.units <= 0:
            raise NoScale('the two ways have nothing in common')
        return Scale(1 / fit.units, fit.uncertainty)

    def _fit(self, positions: np.ndarray, metric: np.ndarray, numbers: np.ndarray,
             used: np.ndarray) -> '_Fit':
        """Fit the pairs [N, 3] that are used, after splits where one way has jumped."""
        fit = _Fit.to(positions, metric, numbers[used])
        for _ in range(_MAX_SPLITS):
            found = fit.likely_jump()
            if found is None:
                break
            jump, is_plain = found
            split, new = numbers.copy(), next(self._numbers)
            split[used[jump]:][numbers[used[jump]:] == numbers[used[jump]]] = new
            better = _Fit.to(positions, metric, split[used])
            gain = fit.cost(better.deviation) - better.cost(better.deviation)
            bends = fit.jump(jump, better.units) > _MIN_BEND * better.spread
            if gain < (0 if is_plain else _MIN_SPLIT_GAIN) or better.units <= 0 or not bends:
                break
            if self._piece == numbers[used[jump]]:
                self._piece = new
            fit, numbers = better, split
            for index, (_, *pair) in enumerate(self._pairs):
                self._pairs[index] = (int(split[index]), *pair)
        return fit


class DepthScale(ScaleEstimator):
    """
    Compares the network's depth with a depth image in metres of the same camera.

    Of each image the location of the pixels' log ratios is taken that neither holes nor many
    outliers on one side move (`_location`), of the newest images the median. Depths that do not
    rise and fall together are not of the same things: they give no scale, however many they are.
    """

    def __init__(self) -> None:
        """Begin without any image."""
        super().__init__(0.005)
        self._logs: deque[float] = deque(maxlen=DEPTH_WINDOW)
        self._errors: deque[float] = deque(maxlen=DEPTH_WINDOW)
        self._likeness: deque[float] = deque(maxlen=DEPTH_WINDOW)  # correlations that can be told

    def forget(self) -> None:
        """Begin anew: the network's unit is another one."""
        super().forget()
        self._logs.clear()
        self._errors.clear()
        self._likeness.clear()

    @torch.inference_mode()
    def add(self, depth: Tensor, confidence: Tensor, metric_depth: np.ndarray,
            resize: Resize) -> int:
        """
        Take a frame's depth [H, W] in the network's unit and the same in metres.

        confidence [H, W]: the surer half of the pixels counts. metric_depth: float [h, w], NaN or
        outside of DEPTHS where unknown, of the source image that `resize` describes, with its or
        any other resolution. Returns how many pixels were known in both; fewer than MIN_PIXELS
        tell nothing. Raises ValueError if the shapes of the images differ.
        """
        rows, columns = _source_pixels(resize, *metric_depth.shape)
        here, there, sure = _known_logs(
            depth.cpu().numpy(), metric_depth[rows[:, None], columns], confidence.cpu().numpy())
        if len(here) < MIN_PIXELS:
            return len(here)
        chosen = sure >= np.median(sure)
        step = int(chosen.sum()) // _MAX_PIXELS + 1
        here, there = here[chosen][::step], there[chosen][::step]
        location, error = _location(there - here)
        self._logs.append(location)
        self._errors.append(error)
        if min(here.std(), there.std()) > _VARIED:
            self._likeness.append(float(np.corrcoef(here, there)[0, 1]))
        return len(sure)

    def _unsure(self) -> str:
        return "the depth images do not agree with the network's depth"

    def _estimate(self) -> Scale:
        if len(self._logs) < MIN_OBSERVATIONS:
            raise NoScale(f'{len(self._logs)} of {MIN_OBSERVATIONS} depth images compared so far',
                          waits=True)
        if self._likeness and np.mean(self._likeness) < MIN_CORRELATION:
            raise NoScale(
                'the depth images do not show what the network sees: the two correlate by '
                f'{np.mean(self._likeness):.2f}, of {MIN_CORRELATION} at least; are they '
                'registered to the images, and of the same moment?')
        middle, error = _median(np.array(self._logs))
        # Images that follow each other have the same errors: they do not average out.
        return Scale(float(np.exp(middle)), float(np.hypot(error, np.median(self._errors))))


class BaselineScale(ScaleEstimator):
    """
    Compares where the network sees the other cameras of a rig with where they are.

    Both are positions in the reference camera's optical frame. They are compared along the known
    direction, where the network's noise averages out over the window; the length of a noisy
    baseline would always be too long.
    """

    def __init__(self) -> None:
        """Begin without any set of images."""
        super().__init__(0.01)
        # Of each set: the predicted positions along the known ones per metre, and the rest.
        self._units: deque[float] = deque(maxlen=WINDOW)
        self._across: deque[np.ndarray] = deque(maxlen=WINDOW)

    def forget(self) -> None:
        """Begin anew: the network's unit is another one."""
        super().forget()
        self._units.clear()
        self._across.clear()

    def add(self, positions: np.ndarray, metric_positions: np.ndarray) -> None:
        """Take the other cameras' positions [K, 3], the network's and in metres."""
        known = np.asarray(metric_positions, np.float64).ravel()
        seen = np.asarray(positions, np.float64).ravel()
        length = known @ known
        if not np.isfinite(seen).all() or not np.isfinite(known).all() or length == 0:
            return
        units = (seen @ known) / length
        self._units.append(units)
        self._across.append((seen - units * known) / np.sqrt(length))

    def _unsure(self) -> str:
        return 'the network does not see the baseline well enough'

    def _estimate(self) -> Scale:
        if len(self._units) < MIN_OBSERVATIONS:
            raise NoScale(f'{len(self._units)} of {MIN_OBSERVATIONS} sets of images so far')
        units, error = _median(np.array(self._units))
        if units <= 0:
            raise NoScale(
                f'{self._unsure()}: {units:.3g} +- {error:.2g} of its units a metre over '
                f'{len(self._units)} sets')
        across = np.linalg.norm(np.median(np.stack(self._across), axis=0))
        if across > np.tan(MAX_BASELINE_ANGLE) * units and error <= MAX_UNCERTAINTY * units:
            raise NoScale(
                f'the network sees the cameras {np.degrees(np.arctan2(across, units)):.0f} '
                'degrees from where they are known to be; check their frames in TF and the order '
                'of image_topics')
        return Scale(float(1 / units), float(error / units))


@dataclass(frozen=True)
class _Fit:
    """A similarity of N positions, with one scale, and a place and direction for each piece."""

    positions: np.ndarray  # [N, 3], in units of the network
    metric: np.ndarray  # [N, 3], metres
    units: float  # of the network, in a metre
    residuals: np.ndarray  # [N, 3], in units
    weights: np.ndarray  # [N]
    spread: float  # metres, RMS within the pieces
    deviation: float  # of most residuals, an axis
    pieces: np.ndarray  # [N], numbers

    @classmethod
    def to(cls, positions: np.ndarray, metric: np.ndarray, pieces: np.ndarray) -> '_Fit':
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
        Return the index of the first pair behind a jump of one of the ways; None if none is.

        And whether it is plain: one way by itself goes on elsewhere there.
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
        """Return how many metres one way goes farther than the other to this pair."""
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


def _median(values: np.ndarray) -> tuple[float, float]:
    """Return the median and its standard error, by the values' own spread."""
    middle = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - middle))
    return float(middle), float(1.2533 * deviation / np.sqrt(len(values)))


def _source_pixels(resize: Resize, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows [H] and columns [W], of an image of the source, nearest to model pixels."""
    shape = (width / height) / (resize.source_width / resize.source_height)
    if abs(np.log(shape)) > _SAME_SHAPE:
        raise ValueError(
            f'it is {width}x{height}, but the image {resize.source_width}x'
            f'{resize.source_height}: depth must be registered to the image')
    source_from_model = np.linalg.inv(resize.model_from_source().numpy())

    def nearest(axis: int, count: int, ratio: float, size: int) -> np.ndarray:
        source = source_from_model[axis, axis] * np.arange(count) + source_from_model[axis, 2]
        return np.clip(np.rint((source + 0.5) * ratio - 0.5), 0, size - 1).astype(np.intp)

    return (nearest(1, resize.height, height / resize.source_height, height),
            nearest(0, resize.width, width / resize.source_width, width))


def _known_logs(depth: np.ndarray, metric: np.ndarray, confidence: np.ndarray,
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log depths in units and in metres, and how sure they are, of the N known pixels."""
    depth, metric = depth.astype(np.float64), metric.astype(np.float64)
    with np.errstate(invalid='ignore'):
        known = (depth > 0) & np.isfinite(depth) & np.isfinite(confidence)
        known &= (metric >= DEPTHS[0]) & (metric <= DEPTHS[1])
    return np.log(depth[known]), np.log(metric[known]), confidence[known]


def _location(values: np.ndarray) -> tuple[float, float]:
    """
    Return where most values lie, and its standard error; fewer than half may lie elsewhere.

    A median gives way to outliers that are all on one side (by 0.57 deviations if they are 30 %),
    so this begins in the shortest half of the values and weights with a narrow biweight. That
    wastes values, of which an image has thousands; but their errors are those of _INDEPENDENT.
    """
    ordered = np.sort(values)
    half = (len(ordered) + 1) // 2
    begin = int(np.argmin(ordered[half - 1:] - ordered[:len(ordered) - half + 1]))
    inner = ordered[begin:begin + half]
    location = np.median(inner)
    # Half of a normal distribution lies within 0.6745 deviations.
    deviation = max(0.5 * (inner[-1] - inner[0]) / 0.6745, 1e-6)
    for _ in range(_ITERATIONS):
        reduced = (ordered - location) / (_NARROW * deviation)
        weights = np.where(np.abs(reduced) < 1, (1 - reduced ** 2) ** 2, 0.0)
        location = weights @ ordered / weights.sum()
    return float(location), float(deviation / np.sqrt(_INDEPENDENT * weights.mean()))


def _first_weights(metric: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return weights that leave positions far from all others out of the first fit."""
    weights = np.zeros(len(metric))
    for piece in range(order.max() + 1):
        places = metric[order == piece]
        away = np.linalg.norm(places - np.median(places, axis=0), axis=1)
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
    left, values, right = np.linalg.svd((share[:, None] * positions.T) @ metric)
    signs = np.ones_like(values)
    signs[:, 2] = np.where(np.linalg.det(left @ right) < 0, -1.0, 1.0)
    variance = weights @ (metric ** 2).sum(axis=1)
    units = float((values * signs).sum() / max(variance, 1e-18))
    turns = (left * signs[:, None]) @ right
    turned = (turns[order] @ metric[:, :, None])[..., 0]
    return units, positions - units * turned, float(np.sqrt(variance / weights.sum()))
