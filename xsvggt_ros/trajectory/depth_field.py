"""
The network's depth brought into agreement with the landmarks: a smooth field of log factors.

A Gaussian process over the image (Rasmussen and Williams, 2006, chapter 2) on the log ratios of
the landmarks' depths to the network's. How much it may bend follows from how much both disagree:
where the network is right, its own depth is left as it is.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

_LENGTH = 0.2            # of the image's width, over which the field is smooth
_QUIET = 0.03            # spread of the log ratios up to which the network's depth is left alone
_LOUDEST = 0.5           # of the field's standard deviation
_NOISE = 0.05            # standard deviation of a log ratio beyond the landmark's own
_FEWEST = 20             # landmarks
_MOST = 160              # that are used
_GRID = 16               # columns at which the field is computed


@dataclass(frozen=True)
class LandmarkRatios:
    """
    Landmarks in a frame.

    pixels [n, 2] of the image; log_ratio [n]: of their depth to the network's there; variance [n]
    of their log depth.
    """

    pixels: np.ndarray
    log_ratio: np.ndarray
    variance: np.ndarray


def depth_correction(seen: LandmarkRatios, log_scale: float, size: tuple[int, int],
                     depth_from_image: np.ndarray, image_width: int) -> np.ndarray:
    """
    Return factors, float32 [h, w], for a depth map of `size` (h, w).

    log_scale: of the whole map, where the landmarks say nothing. depth_from_image: [3, 3].
    """
    flat = np.full(size, np.exp(log_scale), np.float32)
    good = np.isfinite(seen.log_ratio) & np.isfinite(seen.variance)
    if good.sum() < _FEWEST:
        return flat
    ratio, variance, pixels = seen.log_ratio[good], seen.variance[good], seen.pixels[good]
    surest = np.argsort(variance, kind='stable')[:_MOST]
    ratio, variance = ratio[surest] - log_scale, variance[surest]
    amplitude = _amplitude(ratio)
    if amplitude == 0.0:
        return flat
    # In single precision: the noise keeps the matrix far from singular.
    scale = float(depth_from_image[0, 0]) * _LENGTH * image_width   # pixels of the map
    places = pixels[surest] @ depth_from_image[:2, :2].T + depth_from_image[:2, 2]
    x, y = (places.T / scale).astype(np.float32)
    clipped = np.clip(ratio, -3 * amplitude, 3 * amplitude)   # of outliers, little
    covariance = _kernel(x, x)
    covariance *= amplitude ** 2 * _kernel(y, y)
    covariance[np.diag_indices(len(ratio))] += (variance + _NOISE ** 2).astype(np.float32)
    # OpenCV's solver: numpy's does not know that the matrix is symmetric.
    is_solved, solved = cv2.solve(covariance, clipped.astype(np.float32),
                                  flags=cv2.DECOMP_CHOLESKY)
    if not is_solved:
        return flat
    # On a grid the kernel is a product of one over columns and one over rows.
    columns, rows, across, down = _grid(size)
    field = (_kernel(rows / scale, y) * (amplitude ** 2 * solved[:, 0])) @ _kernel(
        columns / scale, x).T
    return np.exp(log_scale + cv2.remap(field, across, down, cv2.INTER_LINEAR))


def _amplitude(ratio: np.ndarray) -> float:
    """Return how far the field may bend, by how far the log ratios spread about the scale."""
    spread = 1.4826 * float(np.median(np.abs(ratio - np.median(ratio))))
    return float(min(np.sqrt(max(0.0, spread ** 2 - _QUIET ** 2)), _LOUDEST))


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * np.subtract.outer(first, second) ** 2)


@lru_cache(maxsize=4)
def _grid(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """
    Return columns [n] and rows [m] of a map of `size` (h, w) at which the field is computed.

    Then where on that grid, [h, w] each, across and down, the map's pixels are: its corners are
    the map's corner pixels.
    """
    height, width = size
    count = max(2, round(_GRID * height / width))
    columns = np.linspace(0, width - 1, _GRID, dtype=np.float32)
    rows = np.linspace(0, height - 1, count, dtype=np.float32)
    across, down = np.meshgrid(np.linspace(0, _GRID - 1, width, dtype=np.float32),
                               np.linspace(0, count - 1, height, dtype=np.float32))
    return columns, rows, across, down
