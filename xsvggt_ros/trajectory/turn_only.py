"""
Whether a camera only turned while much of its image moved by itself.

A camera that stands still, or nearly, in front of something large that moves: against depths that
are known to 15 % only, one translation explains both, badly. A turn explains what stands still to
a fraction of a pixel.
"""

from dataclasses import dataclass

import numpy as np

from xsvggt_ros.trajectory.projection import rays
from xsvggt_ros.trajectory.tracker import cells_of, SPREAD_CELLS

_PIXELS = 0.75        # by which a turn may miss, at 320 pixels
_SHARE = 0.35         # of the tracks, at least, that it explains
_AREA = 0.6           # of the area that it does not explain, at least, that it does
_ROUNDS = 100         # of RANSAC, two tracks each
_REFINEMENTS = 2


@dataclass(frozen=True)
class Turn:
    """last_from_camera: a rotation [3, 3]; agrees: which tracks it explains, bool [n]."""

    last_from_camera: np.ndarray
    agrees: np.ndarray


def find_turn(before: np.ndarray, now: np.ndarray, moving: np.ndarray, camera: np.ndarray,
              shape: tuple[int, ...], pixel_scale: float) -> Turn | None:
    """
    Return the turn that explains most tracks from pixels `before` to `now`, [n, 2] each.

    None if that are few, or if they fill less of the image (height, width: `shape`) than the
    others and what is known to move, at pixels `moving` [m, 2]: what passes by keeps its shape in
    the image and looks like a turn, too, but is in one place. pixel_scale: as
    TrajectoryConfig.scaled.
    """
    if len(now) < 2:
        return None
    last, new = (_directions(pixels, camera) for pixels in (before, now))
    limit = _PIXELS * pixel_scale / camera[0, 0]
    pairs = np.random.default_rng(0).integers(0, len(now), (_ROUNDS, 2))
    turns = _rotations(last[pairs], new[pairs])
    off = np.linalg.norm(np.einsum('kij,nj->kni', turns, new) - last, axis=-1)
    agrees = off[(off < limit).sum(1).argmax()] < limit
    turn = np.eye(3)
    for _ in range(_REFINEMENTS):
        turn = _rotations(last[agrees][None], new[agrees][None])[0]
        agrees = np.linalg.norm(new @ turn.T - last, axis=-1) < limit
    if agrees.sum() < _SHARE * len(now):
        return None
    cells = cells_of(np.concatenate([now, moving]), shape)
    if not _fills(cells, np.append(agrees, np.zeros(len(moving), bool))):
        return None
    return Turn(turn, agrees)


def _directions(pixels: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Return unit vectors [n, 3] of pixels [n, 2]."""
    found = rays(pixels.astype(np.float64), camera)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def _rotations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return [k, 3, 3] that bring directions second [k, n, 3] to first (Kabsch, 1976)."""
    left, _, right = np.linalg.svd(np.einsum('kni,knj->kij', first, second))
    left[:, :, 2] *= np.linalg.det(left @ right)[:, None]
    return left @ right


def _fills(cells: np.ndarray, agrees: np.ndarray) -> bool:
    """Return whether tracks in cells [n] that agree have enough of the image for themselves."""
    count = np.bincount(cells, minlength=SPREAD_CELLS)
    most = 2 * np.bincount(cells[agrees], minlength=SPREAD_CELLS) > count
    return bool(most.sum() >= _AREA * ((count > 0) & ~most).sum())
