"""Features of keyframes, and poses of images that see the same from elsewhere."""

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from xsvggt_ros.trajectory.tracker import SMALLEST

_PATCH = 31              # pixels of an ORB feature
_RATIO = 0.85            # of the best match's distance over the second one's
_FARTHEST = 64           # bits by which a match may differ


@dataclass(frozen=True)
class Features:
    """What an image is recognised by: pixels [n, 2], descriptors [n, 32], landmarks' numbers."""

    keyframe: int
    pixels: np.ndarray
    descriptors: np.ndarray
    ids: np.ndarray


class Matcher:
    """ORB features at corners that are known, and of the last keyframes."""

    def __init__(self, keyframes: int) -> None:
        """Remember so many keyframes."""
        self._make()
        self.recent: deque[Features] = deque(maxlen=keyframes)

    def _make(self) -> None:
        self._orb = cv2.ORB_create(  # type: ignore[attr-defined]
            patchSize=_PATCH, edgeThreshold=_PATCH // 2 + 1, nlevels=1)
        self._pairs = cv2.BFMatcher(cv2.NORM_HAMMING)

    def __getstate__(self) -> dict[str, object]:
        return {'recent': self.recent}   # OpenCV's objects cannot be saved, and remember nothing

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._make()

    def describe(self, image: np.ndarray, pixels: np.ndarray,
                 ids: np.ndarray | None = None, keyframe: int = -1) -> Features:
        """Return the features of a grey image at pixels [n, 2]; those at its border are none."""
        count = len(pixels)
        ids = np.full(count, -1) if ids is None else ids
        nothing = Features(keyframe, np.empty((0, 2), np.float32), np.empty((0, 32), np.uint8),
                           np.empty(0, np.int64))
        if not count or min(image.shape) < max(SMALLEST, 2 * _PATCH):
            return nothing
        points = [cv2.KeyPoint(float(x), float(y), _PATCH, 0, 0, 0, index)
                  for index, (x, y) in enumerate(pixels.tolist())]
        points, descriptors = self._orb.compute(image, points)
        if descriptors is None:
            return nothing
        which = np.array([point.class_id for point in points])
        return Features(keyframe, pixels[which], descriptors, ids[which])

    def match(self, features: Features, known: Features) -> tuple[np.ndarray, np.ndarray]:
        """Return indices [m] into `features` and into `known` of what looks the same."""
        if len(features.ids) < 2 or len(known.ids) < 2:
            return np.empty(0, int), np.empty(0, int)
        there = self._pairs.knnMatch(features.descriptors, known.descriptors, 2)
        good = [(pair[0].queryIdx, pair[0].trainIdx) for pair in there if len(pair) == 2
                and pair[0].distance < _RATIO * pair[1].distance
                and pair[0].distance <= _FARTHEST]
        nearest = self._nearest(known, features)
        good = [(index, known_index) for index, known_index in good
                if nearest[known_index] == index]
        found = np.array(good, int).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    def _nearest(self, first: Features, second: Features) -> np.ndarray:
        """Return for each of the first the index of the second that looks most like it."""
        nearest = np.full(len(first.ids), -1)
        for pair in self._pairs.match(first.descriptors, second.descriptors):
            nearest[pair.queryIdx] = pair.trainIdx
        return nearest
