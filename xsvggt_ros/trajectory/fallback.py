"""Where the camera is when its tracks are lost: what was right lately at gaps of that length."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from xsvggt_ros.trajectory.projection import inverse, nearest_pose

_FEWEST = 5          # gaps that are compared before a guess is believed
_AVERAGED = 5       # frames
_LATELY = 12        # gaps that tell, at most: who stands still now may have been on the way before
_GOES_ON = 5        # frames for which a lost camera goes on as before; then it stands still
_BEYOND = 3.0       # times the network's error from which its motion is believed
_TURN = 0.5          # metres, in units of typical motion, that a radian counts


@dataclass(frozen=True)
class Located:
    """A frame whose pose is known by tracks: index, its pose, and the network's."""

    index: int
    pose: np.ndarray
    network: np.ndarray
    scale: float      # units of the trajectory for one of the network


class Fallback:
    """Chooses between the network's motion, the camera's own, gone on with, and standing still."""

    def __init__(self, frames: int) -> None:
        """Judge by the last `frames` frames that were located."""
        self._located: deque[Located] = deque(maxlen=frames)

    def add(self, frame: Located) -> None:
        """Remember a frame that was located by its tracks."""
        if self._located and frame.index <= self._located[-1].index:
            self._located.clear()
        self._located.append(frame)

    def guess(self, index: int, network: np.ndarray, blind: bool) -> tuple[np.ndarray, str]:
        """
        Return the pose of frame `index`, and what it is: 'network', 'motion' or 'hold'.

        network: its world_from_camera by the network. blind: the image shows nothing, so neither
        does the network's pose.
        """
        if not self._located:
            return np.eye(4), 'hold'
        last = self._located[-1]
        gap = index - last.index
        best = 'hold' if blind else self._best(gap, network)
        if best == 'network':
            return self.network(network), best
        if best == 'motion':
            return nearest_pose(_gone_on(self._located[-2].pose, last.pose, gap)), best
        return last.pose, best

    def network(self, network: np.ndarray) -> np.ndarray:
        """
        Return where the network's motion since the last frames that were located leads.

        The mean over some of them: each of the network's poses has an error of its own.
        """
        last = list(self._located)[-_AVERAGED:]
        poses = np.array([one.pose @ network_step(one.network, network, one.scale)
                          for one in last])
        return nearest_pose(poses.mean(0))

    def _best(self, gap: int, network: np.ndarray) -> str:
        """
        Return which was nearest to the truth over gaps of so many frames.

        Who has jumped is not held: the network's motion is then far beyond its errors.
        """
        frames = list(self._located)
        gap = max(1, min(gap, len(frames) // 2))
        if len(frames) < _FEWEST + gap:
            return 'network'
        off: dict[str, list[float]] = {'hold': [], 'network': [], 'motion': []}
        for number in range(max(0, len(frames) - gap - _LATELY), len(frames) - gap):
            before, after = frames[number], frames[number + gap]
            true = inverse(before.pose) @ after.pose
            step = network_step(before.network, after.network, before.scale)
            off['hold'].append(_difference(np.eye(4), true))
            off['network'].append(_difference(step, true))
            if number and _follow(frames[number - 1], before):
                led = _gone_on(frames[number - 1].pose, before.pose, gap)
                off['motion'].append(_difference(inverse(before.pose) @ led, true))
        last = frames[-1]
        moved = _difference(network_step(last.network, network, last.scale), np.eye(4))
        if moved > _BEYOND * np.median(off['network']):
            return 'network'
        if not off['motion'] or not _follow(*frames[-2:]):   # of more than a frame
            del off['motion']
        return min(off, key=lambda one: np.median(off[one]))


def _follow(before: Located, after: Located) -> bool:
    """Return whether two frames are next to each other."""
    return after.index == before.index + 1


def _gone_on(before: np.ndarray, last: np.ndarray, times: int) -> np.ndarray:
    """Return where the motion between two poses leads so many frames later; see _GOES_ON."""
    step = inverse(before) @ last
    return last @ np.linalg.matrix_power(step, min(times, _GOES_ON))


def network_step(before: np.ndarray, after: np.ndarray, scale: float) -> np.ndarray:
    """Return the network's motion between two of its poses, in the trajectory's units."""
    step = inverse(before) @ after
    step[:3, 3] *= scale
    return step


def _difference(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Return how far apart two motions are, length and turn together."""
    cosine = (np.trace(estimate[:3, :3].T @ truth[:3, :3]) - 1) / 2
    return float(np.linalg.norm(estimate[:3, 3] - truth[:3, 3])
                 + _TURN * np.arccos(np.clip(cosine, -1, 1)))
