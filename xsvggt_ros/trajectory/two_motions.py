"""
Two rigid motions in one image: the scene's, by the camera, and that of something large.

Against depths that are known to 15 % only, one pose explains both, badly. Where a track's epipolar
line goes does not depend on its depth: there, two motions are told apart to a third of a pixel.
"""

import cv2
import numpy as np

from xsvggt_ros.trajectory.tracker import cells_of, SPREAD_CELLS

_PIXELS = 0.3         # from an epipolar line, at 320 pixels
_FEWEST = 12          # tracks of either motion
_MIXED = 0.2          # of the cells that have tracks of either, at most, that have some of both
_ROUNDS = 500         # of RANSAC
_FEWEST_IN_CELL = 2   # tracks, that are not there by chance


def find_two_motions(before: np.ndarray, now: np.ndarray, camera: np.ndarray,
                     shape: tuple[int, ...],
                     pixel_scale: float) -> tuple[np.ndarray, np.ndarray] | None:
    """
    Return which tracks from pixels `before` to `now`, [n, 2] each, have which of two motions.

    Two masks, bool [n] each, the commoner motion first; tracks of neither are in none. None where
    there is one motion. Each is an essential matrix by RANSAC (Nister, 2004), the second of what
    the first leaves over. Two motions are in two places of the image (height, width: `shape`);
    noise and what is tracked wrongly are everywhere. pixel_scale: as TrajectoryConfig.scaled.
    """
    before, now = before.astype(np.float64), now.astype(np.float64)
    limit = _PIXELS * pixel_scale
    first = _epipolar_errors(before, now, np.ones(len(now), bool), camera, limit)
    if first is None:
        return None
    second = _epipolar_errors(before, now, first >= limit, camera, limit)
    if second is None:
        return None
    cells = cells_of(now, shape)
    alone = (first < limit) & (second >= limit), (second < limit) & (first >= limit)
    here, there = (np.bincount(cells[mask], minlength=SPREAD_CELLS) for mask in alone)
    if ((here > 0) & (there > 0)).sum() > _MIXED * (here + there > 0).sum():
        return None
    # What either explains has the motion of what is around it.
    here, there = here[cells], there[cells]
    is_first = np.where(here == there, first <= second, here > there)
    masks = (first < limit) & is_first, (second < limit) & ~is_first
    return None if min(mask.sum() for mask in masks) < _FEWEST else masks


def spanned_area(pixels: np.ndarray, shape: tuple[int, ...]) -> float:
    """
    Return the area in square pixels of the convex hull of pixels [n, 2].

    Without those that are nearly alone in their part of the image (height, width: `shape`).
    """
    cells = cells_of(pixels, shape)
    kept = pixels[np.bincount(cells, minlength=SPREAD_CELLS)[cells] >= _FEWEST_IN_CELL]
    if not len(kept):
        return 0.0
    return float(cv2.contourArea(cv2.convexHull(kept.astype(np.float32))))


def _epipolar_errors(before: np.ndarray, now: np.ndarray, chosen: np.ndarray, camera: np.ndarray,
                     limit: float) -> np.ndarray | None:
    """Return how far all tracks are from the motion of most `chosen` ones, pixels [n]; or None."""
    if chosen.sum() < _FEWEST:
        return None
    found, _ = cv2.findEssentialMat(now[chosen], before[chosen], camera, cv2.RANSAC, 0.999, limit,
                                    _ROUNDS)
    if found is None or len(found) < 3:
        return None
    return sampson_errors(found[:3], before, now, camera)


def sampson_errors(essential: np.ndarray, before: np.ndarray, now: np.ndarray,
                   camera: np.ndarray) -> np.ndarray:
    """
    Return how far tracks [n, 2] are from before^T essential [3, 3] now = 0, in pixels [n].

    To the first order (Sampson, 1982).
    """
    inverted = np.linalg.inv(camera)
    fundamental = inverted.T @ essential @ inverted
    one = np.ones((len(now), 1))
    first, second = np.hstack([before, one]), np.hstack([now, one])
    lines, back = second @ fundamental.T, first @ fundamental
    length = np.sqrt((lines[:, :2] ** 2).sum(1) + (back[:, :2] ** 2).sum(1))
    return np.abs((first * lines).sum(1)) / np.maximum(length, 1e-12)
