"""Depth images of another sensor, registered to the camera's, at the times of its images."""

from collections import deque
import threading
import time
from typing import Any

import numpy as np

MAX_IMAGES = 10  # images remembered
MAX_OFFSET = 50_000_000  # nanoseconds between an image and its depth, at most


class DepthHint:
    """The newest depth images; filled by the executor's thread, read by the worker's."""

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.Lock()
        self._images: deque[tuple[int, Any]] = deque(maxlen=MAX_IMAGES)
        self.received = 0
        self.heard: float | None = None  # when an image came last, seconds of the steady clock

    def add(self, stamp_ns: int, message: Any) -> None:
        """Remember an image; if time went back, forget the others."""
        with self._lock:
            if self._images and stamp_ns < self._images[-1][0]:
                self._images.clear()
            self._images.append((stamp_ns, message))
            self.received += 1
        self.heard = time.monotonic()

    def at(self, stamp_ns: int) -> Any | None:
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
