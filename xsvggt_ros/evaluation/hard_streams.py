"""Streams of a synthetic room in which something is hard for a camera that is to be located."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from xsvggt_ros.evaluation.datasets.sequence import TrueFrame
from xsvggt_ros.recordings.frame_source import DEFAULT_SIZE
from xsvggt_ros.world.path import Path
from xsvggt_ros.world.synthetic_world import SPLITS, SyntheticWorld

_BEGINS = 5.0        # seconds after which it gets hard
_BLUR = 0.06         # seconds of an exposure


@dataclass(frozen=True)
class HardStream:
    """
    What is hard, and for how long.

    seconds, rate: of the stream, from its first frame on. time: which moment of the undisturbed
    way is seen at a time. turn: by which angle (rad) the camera is turned about the vertical then.
    hidden: whether the picture shows nothing at a time; level: what it shows then.
    """

    name: str
    seconds: float
    rate: float = 5.0
    time: Callable[[float], float] = lambda time: time
    turn: Callable[[float], float] = lambda time: 0.0
    hidden: Callable[[float], bool] = lambda time: False
    level: int = 0
    blurred: bool = False
    moving: bool = False


def _pause(seconds: float) -> Callable[[float], float]:
    return lambda time: min(time, _BEGINS) + max(0.0, time - _BEGINS - seconds)


def _during(seconds: float) -> Callable[[float], bool]:
    return lambda time: _BEGINS <= time < _BEGINS + seconds


STREAMS = {one.name: one for one in (
    HardStream('stands still for a minute', 75.0, time=_pause(60.0)),
    HardStream('turns in place', 22.0, time=_pause(10.0),
               turn=lambda time: 2 * np.pi * np.clip((time - _BEGINS) / 10.0, 0, 1)),
    HardStream('looks at a blank wall for 2 s', 20.0, hidden=_during(2.0), level=150),
    HardStream('is covered for 1 s', 20.0, hidden=_during(1.0)),
    HardStream('is covered for 5 s', 20.0, hidden=_during(5.0)),
    HardStream('jumps 3 s ahead, twice', 20.0, time=lambda time: time + 3 * (time // 7)),
    HardStream('2 Hz', 40.0, rate=2.0),
    HardStream('motion blur', 20.0, blurred=True),
    HardStream('a third of the image moves', 20.0, moving=True),
    HardStream('stands still for 8 s while a third moves, then goes', 20.0,
               time=lambda time: max(0.0, time - 8.0), moving=True),
)}


class _HardPath:
    """A path that is taken at other times, and turned."""

    def __init__(self, path: Path, hard: HardStream) -> None:
        self.floor_path = path.floor_path
        self._path, self._hard = path, hard

    def world_from_camera(self, time: float) -> np.ndarray:
        pose = self._path.world_from_camera(self._hard.time(time))
        angle = self._hard.turn(time)
        turned = pose.copy()
        cos, sin = np.cos(angle), np.sin(angle)
        turned[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ pose[:3, :3]
        return turned


class HardSource:
    """The pictures of a hard stream in a room, and what is true of them."""

    def __init__(self, seed: int, hard: HardStream) -> None:
        """Take world `seed`."""
        self.name = f'world {seed}, {hard.name}'
        self._hard = hard
        self._world = SyntheticWorld(seed, *DEFAULT_SIZE)
        self._world.path = _HardPath(self._world.path, hard)
        self._other: np.ndarray | None = None
        if hard.moving:
            others = SPLITS['test']
            self._other = SyntheticWorld(others[-1 - seed % 7], *DEFAULT_SIZE).frame(0.0).image

    def __len__(self) -> int:
        """Return the number of frames."""
        return round(self._hard.seconds * self._hard.rate)

    def frame(self, index: int) -> TrueFrame:
        """Return a frame, in the order of time; depth is 0 where another thing is seen."""
        hard = self._hard
        time = index / hard.rate
        seen = self._world.frame(time)
        image, depth = seen.image, seen.depth
        if hard.hidden(time):
            noise = np.random.default_rng(index).normal(0, 1, image.shape)
            image = np.clip(hard.level + noise, 0, 255).astype(np.uint8)
            depth = np.zeros_like(depth)
        if hard.blurred:
            others = [self._world.frame(time + shift).image for shift in (-_BLUR / 2, _BLUR / 2)]
            image = np.mean([image, *others], axis=0).round().astype(np.uint8)
        if self._other is not None:
            image, depth = _covered(image, depth, time, self._other)
        return TrueFrame(image, depth, seen.world_from_camera, self._world.intrinsics.matrix())


def _covered(image: np.ndarray, depth: np.ndarray, time: float,
             other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the frame with a third of it covered by `other`, which goes its own way."""
    height, width = depth.shape
    wide = width // 3
    left = round((width - wide) * (0.5 + 0.5 * np.sin(0.9 * time)))
    up = round(20 * np.sin(1.7 * time))
    image, depth = image.copy(), depth.copy()
    image[:, left:left + wide] = cv2.warpAffine(
        other[:, :wide], np.array([[1.0, 0.0, 0.0], [0.0, 1.0, up]]), (wide, height),
        borderMode=cv2.BORDER_REFLECT)
    depth[:, left:left + wide] = 0
    return image, depth
