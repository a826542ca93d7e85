"""
Gaps: where a keyframe is joined to the one before by nothing that was tracked.

The network's pose of one frame errs by much, and mostly by chance: all frames before a gap and all
frames after it together tell better where the camera went meanwhile than the two beside it.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from xsvggt_ros.trajectory.projection import inverse, nearest_pose, rotation_vector

_MOST = 30               # frames on either side
_LEAST = np.array([0.03] * 3 + [0.05] * 3 + [0.1])   # sigmas; of a metre where they are lengths
_CHANCE = 0.7            # of the errors, that many frames do not take out
_ALONE = np.array([0.15, 0.3])   # sigmas of one frame's rotation and position until they are known


@dataclass(frozen=True)
class Gap:
    """
    What is known of the motion over a gap.

    keyframe: behind it. before_from_keyframe [4, 4]: in the keyframe before; sigma [7]: of a step
    behind that.
    """

    keyframe: int
    before_from_keyframe: np.ndarray
    sigma: np.ndarray


@dataclass(frozen=True)
class _Sample:
    pose: np.ndarray
    network: np.ndarray


class GapWatch:
    """Compares the tracked poses on both sides of the last gap with the network's."""

    def __init__(self) -> None:
        """Begin without frames."""
        self._before: deque[_Sample] = deque(maxlen=_MOST)
        self._after: deque[_Sample] = deque(maxlen=_MOST)
        self._behind: list[_Sample] | None = None    # the first ones after a gap
        self._keyframe = -1
        self._changed = False

    def add(self, pose: np.ndarray, network: np.ndarray, scale: float) -> None:
        """Take a frame: world_from_camera by tracks, and by the network with its unit's length."""
        network = network.copy()
        network[:3, 3] *= scale
        sample = _Sample(pose, network)
        self._after.append(sample)
        if self._behind is not None and len(self._behind) < _MOST:
            self._behind.append(sample)
            self._changed = True

    def begin(self, keyframe: int) -> None:
        """Begin a new stretch with a keyframe that is a guess by the network's motion."""
        self._before, self._after = self._after, deque(maxlen=_MOST)
        self._behind, self._keyframe = [], keyframe

    def forget(self) -> None:
        """Begin a new stretch of which the network says nothing."""
        self._before, self._after = deque(maxlen=_MOST), deque(maxlen=_MOST)
        self._behind = None

    def gap(self, before: np.ndarray, keyframe: np.ndarray) -> Gap | None:
        """
        Return what is newly known of the last gap; None: nothing.

        before, keyframe: world_from_camera [4, 4] of the keyframes on its two sides.
        """
        if not self._changed or not self._behind or not self._before:
            return None
        self._changed = False
        first, first_spread = _alignment(list(self._before))
        second, second_spread = _alignment(self._behind)
        moved = first @ inverse(second)   # what was believed after the gap, into what was before
        spread = np.maximum(first_spread, second_spread)
        # The network's errors are not all chance: more frames do not make it sure.
        share = max(_CHANCE, np.sqrt(1 / len(self._before) + 1 / len(self._behind)))
        sigma = _LEAST.copy()
        sigma[:3] += spread[0] * share
        sigma[3:6] += spread[1] * share
        return Gap(self._keyframe, inverse(before) @ moved @ keyframe, sigma)

    @property
    def keyframe(self) -> int:
        """Return the keyframe behind the last gap; -1: there was none."""
        return self._keyframe


def _alignment(samples: list[_Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Return tracked_from_network [4, 4], and how far single frames are off: rad, length."""
    turns = np.array([one.pose[:3, :3] @ one.network[:3, :3].T for one in samples])
    result = np.eye(4)
    result[:3, :3] = turns.mean(0)
    result = nearest_pose(result)
    tracked = np.array([one.pose[:3, 3] for one in samples])
    told = np.array([one.network[:3, 3] for one in samples]) @ result[:3, :3].T
    result[:3, 3] = np.median(tracked - told, axis=0)
    if len(samples) < 3:
        return result, _ALONE
    off = tracked - told - result[:3, 3]
    angles = [np.linalg.norm(rotation_vector(result[:3, :3].T @ turn)) for turn in turns]
    return result, np.array([np.median(angles), np.median(np.linalg.norm(off, axis=1))])
