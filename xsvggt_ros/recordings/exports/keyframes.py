"""Frames that stand for a run in bounded memory: far enough apart, and thinned when too many."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from xsvggt_ros.recordings.exports.export import FrameOutput

STEP = 0.03      # of the median depth, between keyframes
TURN = 3.0       # degrees, between keyframes
_LEAST_SURE = 0.2   # share of a frame's depths that is left out, as in the map

Item = TypeVar('Item')


class Keyframes(Generic[Item]):
    """
    Items of frames that lie a step or a turn apart.

    When there are more than `most`, every second is forgotten and from then on half as many are
    taken: the whole way stays, ever more coarsely.
    """

    def __init__(self, most: int, forget: Callable[[Item], None] | None = None) -> None:
        """Begin with none; forget: is called with what is left out later."""
        self.items: list[Item] = []
        self._most, self._forget = most, forget
        self._last: np.ndarray | None = None
        self._stride = 1
        self._turn = 0

    def takes(self, pose: np.ndarray, depth: float) -> bool:
        """Return whether a frame at odom_from_camera [4, 4] that sees `depth` far is one."""
        if self._last is not None:
            moved = float(np.linalg.norm(pose[:3, 3] - self._last[:3, 3]))
            cosine = (np.trace(pose[:3, :3].T @ self._last[:3, :3]) - 1) / 2
            turned = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
            if moved < STEP * depth and turned < TURN:
                return False
        self._last = pose
        self._turn += 1
        return (self._turn - 1) % self._stride == 0

    def add(self, item: Item) -> None:
        """Keep an item of a frame that was taken."""
        self.items.append(item)
        if len(self.items) > self._most:
            for dropped in self.items[1::2]:
                if self._forget is not None:
                    self._forget(dropped)
            self.items = self.items[::2]
            self._stride *= 2


@dataclass(frozen=True)
class DepthGrid:
    """
    A few depths of a frame, on a regular grid of pixels.

    pixels: [rows, columns, 2], x and y in the model image; depth: [rows, columns] along the
    optical axis, NaN where it is not known or least sure; colours: uint8 [rows, columns, 3].
    """

    pixels: np.ndarray
    depth: np.ndarray
    colours: np.ndarray
    intrinsics: np.ndarray   # [3, 3], of the model image

    @staticmethod
    def sample(frame: FrameOutput, columns: int, rows: int) -> 'DepthGrid':
        """Take at most so many columns and rows of a frame."""
        height, width = frame.depth.shape
        across = _even(width, columns)
        down = _even(height, rows)
        depth = frame.depth[np.ix_(down, across)].astype(np.float32)
        confidence = frame.confidence[np.ix_(down, across)]
        known = np.isfinite(depth) & (depth > 0) & (confidence > 0)
        if known.any():
            known &= confidence >= np.quantile(confidence[known], _LEAST_SURE)
        pixels = np.stack(np.meshgrid(across, down), axis=-1).astype(np.float32)
        return DepthGrid(pixels, np.where(known, depth, np.nan),
                         frame.image[np.ix_(down, across)], frame.intrinsics)

    def median(self) -> float:
        """Return the median depth; 0 if none is known."""
        known = self.depth[np.isfinite(self.depth)]
        return float(np.median(known)) if len(known) else 0.0

    def points(self) -> np.ndarray:
        """Return the points [rows, columns, 3] in the camera's optical frame; NaN if unknown."""
        ones = np.ones_like(self.depth)
        rays = np.dstack([self.pixels.astype(np.float64), ones]) @ np.linalg.inv(
            self.intrinsics).T
        return rays * self.depth[..., None]


def _even(length: int, most: int) -> np.ndarray:
    """Return at most `most` pixels of a row of `length`, evenly spread, from its edge inwards."""
    count = min(length, most)
    return np.floor((np.arange(count) + 0.5) * length / count).astype(int)
