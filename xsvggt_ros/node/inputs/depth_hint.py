"""Depth images of another sensor, registered to the camera's, at the times of its images."""

from collections import deque
import threading
import time

import numpy as np
from sensor_msgs.msg import Image

from xsvggt_ros.images.image_limit import check_pixels
from xsvggt_ros.node.inputs.image_codec import ImageError

MAX_IMAGES = 10  # images remembered
MAX_OFFSET = 50_000_000  # nanoseconds between an image and its depth, at most

# Encoding: type of a sample, metres of its unit.
_ENCODINGS = {'16UC1': (np.uint16, 1e-3), 'mono16': (np.uint16, 1e-3), '32FC1': (np.float32, 1.0)}


def decode_depth(message: Image) -> np.ndarray:
    """
    Return depth in metres, float32 [height, width]; what is not positive is unknown (REP 118).

    So is the largest number of 16 bits, NaN here: sensors write it where they saw nothing.

    Raises ImageError for an encoding that is no depth, and for too little data.
    """
    if message.encoding not in _ENCODINGS:
        raise ImageError(
            f"encoding '{message.encoding}' is no depth image; 16UC1 (millimetres) and 32FC1 "
            '(metres) are')
    try:
        check_pixels(message.width, message.height)
    except ValueError as error:
        raise ImageError(f'a depth image of {error}') from error
    kind, metres = _ENCODINGS[message.encoding]
    dtype = np.dtype(kind).newbyteorder('>' if message.is_bigendian else '<')
    height, width, row = message.height, message.width, message.width * dtype.itemsize
    if 0 in (height, width) or message.step < row or len(message.data) < message.step * height:
        raise ImageError(
            f'a depth image of {width}x{height} in {message.encoding} cannot have {message.step} '
            f'bytes a row and {len(message.data)} in all')
    data = np.frombuffer(message.data, np.uint8)[:message.step * height]
    rows = np.ascontiguousarray(data.reshape(height, message.step)[:, :row]).view(dtype)
    depth = rows.astype(np.float32) * np.float32(metres)
    if kind is np.uint16:
        depth[rows == np.iinfo(np.uint16).max] = np.nan
    return depth


class DepthHint:
    """The newest depth images; filled by the executor's thread, read by the worker's."""

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.Lock()
        self._images: deque[tuple[int, Image]] = deque(maxlen=MAX_IMAGES)
        self.received = 0
        self.heard: float | None = None  # when an image came last, seconds of the steady clock

    def add(self, stamp_ns: int, message: Image) -> None:
        """Remember an image; if time went back, forget the others."""
        with self._lock:
            if self._images and stamp_ns < self._images[-1][0]:
                self._images.clear()
            self._images.append((stamp_ns, message))
            self.received += 1
        self.heard = time.monotonic()

    def at(self, stamp_ns: int) -> Image | None:
        """Return the image nearest to a time, None if it is half a period away, or MAX_OFFSET."""
        with self._lock:
            images = list(self._images)
        if not images:
            return None
        stamps = np.array([stamp for stamp, _ in images])
        nearest = int(np.argmin(np.abs(stamps - stamp_ns)))
        allowed = MAX_OFFSET
        if len(stamps) > 1:
            allowed = min(allowed, np.median(np.diff(stamps)) / 2)
        return images[nearest][1] if abs(int(stamps[nearest]) - stamp_ns) <= allowed else None

    def distance(self, stamp_ns: int) -> float | None:
        """Return the seconds between a time and the nearest image; None if there is none."""
        with self._lock:
            return min((abs(stamp - stamp_ns) * 1e-9 for stamp, _ in self._images), default=None)
