"""Pictures and depth maps of data sets."""

from pathlib import Path

import numpy as np

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.images.pictures import opened_picture


def read_colour(path: Path) -> np.ndarray:
    """Return [H, W, 3] uint8 RGB."""
    return _read_pixels(path, 'RGB')


def read_depth(path: Path, per_metre: float, unknown: int = 0) -> np.ndarray:
    """Return [H, W] float32 metres, 0 where the file has 0 or `unknown`."""
    raw = _read_pixels(path)
    if raw.dtype.itemsize < 2:   # more than one channel, too: PIL has those at 8 bits only
        raise ToolError(f'{path}: not a depth map, which has one channel of 16 bits; use the '
                        'original file of the data set')
    return np.where(raw == unknown, 0.0, raw / per_metre).astype(np.float32)


def _read_pixels(path: Path, mode: str | None = None) -> np.ndarray:
    """Return the pixels of a picture, in PIL's `mode` if given."""
    try:
        with opened_picture(path) as image:
            return np.array(image.convert(mode) if mode else image)
    except ValueError as error:  # PictureError, and Pillow's for modes that it cannot convert
        raise ToolError(f'{path}: cannot be read as a picture ({error}); unpack it again'
                        ) from error


def resample(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the nearest values of a depth map [h, w] at the pixels of a picture [H, W]."""
    rows = (2 * np.arange(height) + 1) * depth.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * depth.shape[1] // (2 * width)
    return depth[rows[:, None], columns]
