"""What another odometry says of the camera's position, at the time of an image."""

from collections import deque
import threading

import numpy as np

MOST = 2000  # messages remembered: ten seconds of a fast odometry
LONGEST_GAP = 0.5  # seconds between two messages across which a position is interpolated


class OdometryHint:
    """The newest positions; filled by the executor's thread, read by the worker's."""

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.Lock()
        self._stamps: deque[int] = deque(maxlen=MOST)
        self._positions: deque[tuple[float, float, float]] = deque(maxlen=MOST)

    def add(self, stamp_ns: int, position: tuple[float, float, float]) -> None:
        """Remember a position in metres; if time went back, forget the others."""
        with self._lock:
            if self._stamps and stamp_ns <= self._stamps[-1]:
                self._stamps.clear()
                self._positions.clear()
            self._stamps.append(stamp_ns)
            self._positions.append(position)

    def at(self, stamp_ns: int) -> np.ndarray | None:
        """Return the position [3] at a time, interpolated; None if it is not known."""
        with self._lock:
            if not self._stamps or not self._stamps[0] <= stamp_ns <= self._stamps[-1]:
                return None
            stamps, positions = np.array(self._stamps), np.array(self._positions)
        after = int(np.searchsorted(stamps, stamp_ns))
        if stamps[after] == stamp_ns:
            return positions[after]
        start, end = int(stamps[after - 1]), int(stamps[after])
        if end - start > LONGEST_GAP * 1e9:
            return None
        part = (stamp_ns - start) / (end - start)
        return (1 - part) * positions[after - 1] + part * positions[after]
