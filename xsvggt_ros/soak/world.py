"""What the soak's camera sees: a path through the synthetic world, there and back for ever."""

from dataclasses import dataclass

import numpy as np

from xsvggt_ros.recordings.calibration import Calibration
from xsvggt_ros.world.synthetic_world import DEMO_SEED, SyntheticWorld

RATE = 15.0    # images a second
SIZE = (160, 120)
LENGTH = 90    # images in one direction


@dataclass(frozen=True)
class View:
    """One image and what is true about it."""

    pixels: np.ndarray             # [H, W, 3] uint8
    depth: np.ndarray              # [H, W] float32, metres
    world_from_camera: np.ndarray  # [4, 4], metres


class ViewSequence:
    """Views by their number; neighbours are neighbours in the room."""

    def __init__(self) -> None:
        """Draw them; takes seconds."""
        world = SyntheticWorld(DEMO_SEED, *SIZE)
        frames = [world.frame(index / RATE) for index in range(LENGTH)]
        self._views = [View(frame.image, frame.depth, frame.world_from_camera)
                       for frame in frames]
        self.calibration = Calibration.pinhole(*SIZE, world.intrinsics.matrix())

    def __getitem__(self, number: int) -> View:
        """Return the view of a number from 0 on."""
        turn = 2 * len(self._views) - 2
        place = number % turn
        return self._views[min(place, turn - place)]
