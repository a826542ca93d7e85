"""Frames that stand for a run in bounded memory: far enough apart, and thinned when too many."""

from typing import Generic, TypeVar

import numpy as np

STEP = 0.03      # of the median depth, between keyframes
TURN = 3.0       # degrees, between keyframes

Item = TypeVar('Item')


class Keyframes(Generic[Item]):
    """
    Items of frames that lie a step or a turn apart.

    When there are more than `most`, every second is forgotten and from then on half as many are
    taken: the whole path stays, ever more coarsely.
    """

    def __init__(self, most: int) -> None:
        """Begin with none, and keep `most` at most."""
        self.items: list[Item] = []
        self._most = most
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
                self._forget(dropped)
            self.items = self.items[::2]
            self._stride *= 2

    def _forget(self, item: Item) -> None:
        """Do what is to be done when an item is left out later."""
