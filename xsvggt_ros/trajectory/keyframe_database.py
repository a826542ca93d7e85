"""All keyframes of a map, and which of them look like a picture."""

import numpy as np

from xsvggt_ros.trajectory.keyframe import Keyframe

_SHIFTS = (4, 3)         # columns and rows by which thumbnails are shifted to compare them


class KeyframeDatabase:
    """Keyframes, searched by appearance."""

    def __init__(self) -> None:
        """Begin without keyframes."""
        self._keyframes: dict[int, Keyframe] = {}
        self._thumbnails: np.ndarray | None = None

    def __len__(self) -> int:
        """Return how many keyframes there are."""
        return len(self._keyframes)

    def __contains__(self, keyframe_id: int) -> bool:
        """Return whether there is a keyframe with that id."""
        return keyframe_id in self._keyframes

    def __getitem__(self, keyframe_id: int) -> Keyframe:
        """Return a keyframe by its id."""
        return self._keyframes[keyframe_id]

    @property
    def keyframes(self) -> tuple[Keyframe, ...]:
        """Return all keyframes."""
        return tuple(self._keyframes.values())

    def add(self, keyframe: Keyframe) -> None:
        """Add a keyframe, or replace the one with its id."""
        self._keyframes[keyframe.id] = keyframe
        self._thumbnails = None

    def remove(self, keyframe_id: int) -> None:
        """Forget a keyframe."""
        del self._keyframes[keyframe_id]
        self._thumbnails = None

    def scores(self, thumbnail: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return all ids [n] and how much their keyframes look like a thumbnail [n], at most 1."""
        ids = np.array(list(self._keyframes), np.int64)
        if not len(ids):
            return ids, np.empty(0)
        if self._thumbnails is None:
            self._thumbnails = np.stack([keyframe.thumbnail.ravel()
                                         for keyframe in self._keyframes.values()])
        return ids, (self._thumbnails @ _shifted(thumbnail)).max(1)


def _shifted(thumbnail: np.ndarray) -> np.ndarray:
    """Return a thumbnail shifted by all of _SHIFTS, [300, n]: what both see decides."""
    across, down = _SHIFTS
    padded = np.pad(thumbnail, ((down, down), (across, across)))
    rows, columns = thumbnail.shape
    shifted = np.stack([padded[y:y + rows, x:x + columns].ravel()
                        for y in range(2 * down + 1) for x in range(2 * across + 1)], -1)
    return shifted / np.maximum(np.linalg.norm(shifted, axis=0), 0.5)
