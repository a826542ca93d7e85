"""The scale by depth images in metres of the same camera."""

from collections import deque

import numpy as np
import torch
from torch import Tensor

from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.mapping.scale import (
    median_and_error,
    MIN_OBSERVATIONS,
    NoScale,
    Scale,
    ScaleEstimator,
)

DEPTH_WINDOW = 30  # newest depth images that count: each says enough by itself
MIN_PIXELS = 100  # of a depth image that must be known in both units
DEPTHS = (0.01, 1000.0)  # metres that a depth image can know; all else is no measurement
MIN_CORRELATION = 0.1  # correlation of depths below which they do not show the same
_VARIED = 0.05  # deviation of log depths from which on that can be told
_INDEPENDENT = 30  # errors in a depth image: they go over things and surfaces, not pixels
_ITERATIONS = 20  # of reweighting, at most
_NARROW = 1.5  # pixels off by more deviations do not count
_MAX_PIXELS = 20_000  # of a depth image that are looked at
_SAME_SHAPE = 0.02  # relative difference of two aspect ratios that are the same


class DepthScale(ScaleEstimator):
    """
    Compares the network's depth with a depth image in metres of the same camera.

    Of each image the location of the pixels' log ratios is taken that neither holes nor many
    outliers on one side move (`_location`), of the newest images the median. Depths that do not
    rise and fall together are not of the same things: they give no scale, however many they are.
    """

    def __init__(self, window: int = DEPTH_WINDOW) -> None:
        """Begin without any image; window: how many count, the newest."""
        super().__init__(0.005)
        self._logs: deque[float] = deque(maxlen=window)
        self._errors: deque[float] = deque(maxlen=window)
        self._likeness: deque[float] = deque(maxlen=window)  # correlations that can be told

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
        middle, error = median_and_error(np.array(self._logs))
        # Images that follow each other have the same errors: they do not average out.
        return Scale(float(np.exp(middle)), float(np.hypot(error, np.median(self._errors))))


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
