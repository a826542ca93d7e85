"""
A synthetic world for demo, tests and training: a furnished room and a camera driving in it.

Everything follows from the seed: the room (`world_scene`), its textures (`world_textures`), the
drive (`world_path`) and so every picture, depth, pose (`world_renderer`). Needs numpy only.
"""

from dataclasses import dataclass

import numpy as np

from xsvggt_ros.tools.world_path import DrivePath
from xsvggt_ros.tools.world_renderer import Intrinsics, Renderer
from xsvggt_ros.tools.world_scene import build_scene, choose_room_size

FIELD_OF_VIEW = np.deg2rad(75.0)   # horizontal


@dataclass(frozen=True)
class WorldFrame:
    """One picture of the world with everything that is true about it."""

    image: np.ndarray               # [H, W, 3] uint8 RGB
    depth: np.ndarray               # [H, W] float32, metres along the optical axis
    world_from_camera: np.ndarray   # [4, 4] float64, optical frame in the z-up world, metres
    intrinsics: Intrinsics


class SyntheticWorld:
    """A furnished room with a camera on an endless drive through it."""

    def __init__(self, seed: int = 0, width: int = 320, height: int = 240,
                 speed: float = 0.6) -> None:
        """Build world number `seed` with a camera of `width` x `height` pixels at `speed` m/s."""
        rng = np.random.default_rng(seed)
        size = choose_room_size(rng)
        self.path = DrivePath(rng, size, speed)
        self.scene = build_scene(rng, size, self.path.way)
        self.intrinsics = Intrinsics.from_field_of_view(width, height, FIELD_OF_VIEW)
        self._renderer = Renderer(self.scene, self.intrinsics)

    def frame(self, time: float) -> WorldFrame:
        """Return what the camera sees at `time` seconds after the start of the drive."""
        world_from_camera = self.path.world_from_camera(time)
        image, depth = self._renderer.render(world_from_camera)
        return WorldFrame(image, depth, world_from_camera, self.intrinsics)

    def velocity(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the camera's linear (m/s) and angular (rad/s) velocity, in its optical frame."""
        step = 0.02
        before, after = (self.path.world_from_camera(time + shift) for shift in (-step, step))
        camera_from_world = self.path.world_from_camera(time)[:3, :3].T
        linear = camera_from_world @ (after[:3, 3] - before[:3, 3]) / (2 * step)
        spin = camera_from_world @ (after[:3, :3] - before[:3, :3]) / (2 * step)
        return linear, np.array([spin[2, 1], spin[0, 2], spin[1, 0]])
