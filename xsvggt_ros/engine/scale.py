"""
From the network's unit to metres, by what is known in both: a way, a depth image, a baseline.

Estimators take one observation after the other and hold their scale still until a newer estimate
differs from it by more than it is sure of: each change scales everything that is published anew.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xsvggt_ros.engine.preprocess import Resize

WINDOW = 120          # newest positions or baselines that count: odometry drifts, too
DEPTH_WINDOW = 30     # newest depth images that count: each says enough by itself
FEWEST = 5            # observations
SHORTEST_WAY = 0.2    # metres, RMS spread of the positions: below, noise would decide
FEWEST_PIXELS = 100   # of a depth image that must be known in both units
UNSURE = 0.1          # relative: a baseline that is less sure gives no scale
WRONG_WAY = 0.5       # rad between a baseline's directions: beyond, one of them is wrong
_ITERATIONS = 20      # of reweighting
_CAUCHY = 2.385       # residuals of so many deviations count for half (95 % efficiency)
_NARROW = 1.5         # pixels off by more deviations do not count
_MOST_PIXELS = 20_000   # of a depth image that are looked at
_SAME_SHAPE = 0.02    # relative difference of two aspect ratios that are the same


@dataclass(frozen=True)
class Scale:
    """
    How long the network's unit is; uncertainty: one standard deviation of the fit, relative.

    The drift of what it was compared with is not in it.
    """

    metres: float
    uncertainty: float


class SteadyScale:
    """A scale that stays as it is while estimates differ from it by less than they are sure."""

    def __init__(self, steady: float) -> None:
        """Begin unknown; steady: relative, smaller changes never move the scale."""
        self._steady = steady
        self._scale: Scale | None = None

    def forget(self) -> None:
        """Begin anew: the network's unit is another one."""
        self._scale = None

    def follow(self, estimate: Scale | None) -> Scale | None:
        """Return the scale after one more estimate; None if there has been none yet."""
        known = self._scale
        if estimate is not None and (known is None or abs(
                np.log(estimate.metres / known.metres)) > max(
                    self._steady, 2 * estimate.uncertainty)):
            self._scale = estimate
        return self._scale


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
        self._steady = SteadyScale(0.01)

    def forget(self) -> None:
        """Begin anew: the network's unit is another one."""
        self._pairs.clear()
        self._steady.forget()

    def add(self, position: np.ndarray, metric_position: np.ndarray) -> None:
        """Take a camera position [3] in the network's world, and in metres in any world."""
        if np.isfinite(position).all() and np.isfinite(metric_position).all():
            self._pairs.append((np.asarray(position, np.float64),
                                np.asarray(metric_position, np.float64)))

    def scale(self) -> Scale | None:
        """Return the scale, None if the camera has not moved enough yet."""
        return self._steady.follow(self._estimate())

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


class DepthScale:
    """
    Compares the network's depth with a depth image in metres of the same camera.

    Of each image the location of the pixels' log ratios is taken that neither holes nor many
    outliers on one side move (`_location`), of the newest images the median.
    """

    def __init__(self) -> None:
        """Begin without any image."""
        self._logs: deque[float] = deque(maxlen=DEPTH_WINDOW)
        self._errors: deque[float] = deque(maxlen=DEPTH_WINDOW)
        self._steady = SteadyScale(0.005)

    def forget(self) -> None:
        """Begin anew: the network's unit is another one."""
        self._logs.clear()
        self._errors.clear()
        self._steady.forget()

    @torch.inference_mode()
    def add(self, depth: Tensor, confidence: Tensor, metric_depth: np.ndarray,
            resize: Resize) -> int:
        """
        Take a frame's depth [H, W] in the network's unit and the same in metres.

        confidence [H, W]: the surer half of the pixels counts. metric_depth: float [h, w], NaN,
        infinite or not positive where unknown, of the source image that `resize` describes, with
        its or any other resolution. Returns how many pixels were known in both; fewer than
        FEWEST_PIXELS tell nothing. Raises ValueError if the shapes of the images differ.
        """
        rows, columns = _source_pixels(resize, *metric_depth.shape)
        metric = metric_depth[rows[:, None], columns]
        ratios, sure = _log_ratios(depth.cpu().numpy(), confidence.cpu().numpy(), metric)
        known = np.isfinite(ratios)
        count = int(known.sum())
        if count < FEWEST_PIXELS:
            return count
        chosen = ratios[known & (sure >= np.median(sure[known]))]
        location, error = _location(chosen[::len(chosen) // _MOST_PIXELS + 1])
        self._logs.append(location)
        self._errors.append(error)
        return count

    def scale(self) -> Scale | None:
        """Return the scale, None before FEWEST images."""
        return self._steady.follow(self._estimate())

    def _estimate(self) -> Scale | None:
        if len(self._logs) < FEWEST:
            return None
        middle, error = _median(np.array(self._logs))
        error = np.hypot(error, np.median(self._errors) / np.sqrt(len(self._logs)))
        return Scale(float(np.exp(middle)), float(error))


class BaselineScale:
    """
    Compares where the network sees the other cameras of a rig with where they are.

    Both are positions in the reference camera's optical frame. They are compared along the known
    direction, where the network's noise averages out over the window; the length of a noisy
    baseline would always be too long.
    """

    def __init__(self) -> None:
        """Begin without any set of images."""
        # Of each set: the predicted positions along the known ones per metre, and the rest.
        self._units: deque[float] = deque(maxlen=WINDOW)
        self._across: deque[np.ndarray] = deque(maxlen=WINDOW)
        self._steady = SteadyScale(0.01)
        self._refusal = f'0 of {FEWEST} sets of images so far'

    def forget(self) -> None:
        """Begin anew: the network's unit is another one."""
        self._units.clear()
        self._across.clear()
        self._steady.forget()
        self._refusal = f'0 of {FEWEST} sets of images so far'

    @property
    def refusal(self) -> str:
        """Return why there is no newer scale, empty if there is one."""
        return self._refusal

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

    def scale(self) -> Scale | None:
        """Return the scale; None before the baseline is surer than UNSURE."""
        return self._steady.follow(self._estimate())

    def _estimate(self) -> Scale | None:
        if len(self._units) < FEWEST:
            self._refusal = f'{len(self._units)} of {FEWEST} sets of images so far'
            return None
        units, error = _median(np.array(self._units))
        across = np.median(np.stack(self._across), axis=0)
        self._refusal = ''
        if units <= 0 or error > UNSURE * units:
            self._refusal = (
                'the network does not see the baseline well enough: '
                f'{units:.3g} +- {error:.2g} of its units a metre over {len(self._units)} sets')
        elif np.linalg.norm(across) > np.tan(WRONG_WAY) * units:
            angle = np.degrees(np.arctan2(np.linalg.norm(across), units))
            self._refusal = (
                f'the network sees the cameras {angle:.0f} degrees from where they are known to '
                'be; check their frames in TF and the order of image_topics')
        return None if self._refusal else Scale(float(1 / units), float(error / units))


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


def _log_ratios(depth: np.ndarray, confidence: np.ndarray,
                metric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return log(metres / unit) [N], NaN where one of them is unknown, and how sure [N]."""
    depth, metric = depth.astype(np.float64).ravel(), metric.astype(np.float64).ravel()
    known = (depth > 0) & (metric > 0) & np.isfinite(depth) & np.isfinite(metric)
    known &= np.isfinite(confidence.ravel())
    ratios = np.full(depth.shape, np.nan)
    ratios[known] = np.log(metric[known] / depth[known])
    return ratios, confidence.ravel()


def _location(values: np.ndarray) -> tuple[float, float]:
    """
    Return where most values lie, and its standard error; fewer than half may lie elsewhere.

    A median gives way to outliers that are all on one side (by 0.57 deviations if they are 30 %),
    so this begins in the shortest half of the values and weights with a narrow biweight. That
    wastes values, of which an image has thousands.
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
    return float(location), float(deviation / np.sqrt(weights.sum()))


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
