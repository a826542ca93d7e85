"""A few depths of a frame, which is all that is kept of it."""

from dataclasses import dataclass

import numpy as np

from xsvggt_ros.recordings.exports.export import FrameOutput

_LEAST_SURE = 0.2   # share of a frame's depths that is left out, as in the map


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
