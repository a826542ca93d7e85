"""
A synthetic world for demo, tests and training: a furnished room and a camera moving in it.

Everything follows from the seed: the room (`world_scene`), its textures (`world_textures`), the
way through it (`world_path`), the lens, and so every picture, depth, pose (`world_renderer`,
`world_sensor`). Needs numpy only.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from xsvggt_ros.world.path import draw_path, random_pose
from xsvggt_ros.world.renderer import Intrinsics, Renderer
from xsvggt_ros.world.scene import build_scene, choose_room_size
from xsvggt_ros.world.sensor import Sensor
from xsvggt_ros.world.textures import make_textures, TextureAtlas

FIELD_OF_VIEW = (np.deg2rad(70.0), np.deg2rad(80.0))   # horizontal, from ... to

# Worlds by their seeds. What is learnt from one range is judged on another; the textures are
# others, too. Whatever is shown or tested takes its worlds from `test`.
SPLITS = {'train': range(0, 1_000_000),
          'validation': range(1_000_000, 1_100_000),
          'test': range(2_000_000, 2_100_000)}
DEMO_SEED = 2_000_001   # a lap of a room, from the test range
_ATLASES = 48   # different sets of textures in a split; drawing one takes a second


@dataclass(frozen=True)
class WorldFrame:
    """One picture of the world with everything that is true about it."""

    image: np.ndarray               # [H, W, 3] uint8 RGB
    depth: np.ndarray               # [H, W] float32, metres along the optical axis
    world_from_camera: np.ndarray   # [4, 4] float64, optical frame in the z-up world, metres
    intrinsics: Intrinsics


class SyntheticWorld:
    """A furnished room with a camera on an endless path through it."""

    def __init__(self, seed: int = DEMO_SEED, width: int = 320, height: int = 240,
                 speed: float = 0.6, clean: bool = False) -> None:
        """
        Build world number `seed` with a camera of `width` x `height` pixels at `speed` m/s.

        `clean` pictures have no noise, no blur and an even exposure.
        """
        rng = np.random.default_rng(seed)
        size = choose_room_size(rng)
        self.path = draw_path(rng, size, speed)
        self.scene = build_scene(rng, size, self.path.floor_path, _textures(_atlas_number(seed)))
        self.intrinsics = Intrinsics.from_field_of_view(width, height,
                                                        rng.uniform(*FIELD_OF_VIEW))
        self._renderer = Renderer(self.scene, self.intrinsics)
        self._sensor = None if clean else Sensor(rng, width, height)

    def frame(self, time: float) -> WorldFrame:
        """Return what the camera sees at `time` seconds after the start."""
        world_from_camera = self.path.world_from_camera(time)
        image, depth = self._renderer.render(world_from_camera)
        if self._sensor is not None:
            _, (pitch_rate, yaw_rate, _) = self.velocity(time)
            image = self._sensor.expose(image, time, (self.intrinsics.fx * yaw_rate,
                                                      self.intrinsics.fy * pitch_rate))
        return WorldFrame(image, depth, world_from_camera, self.intrinsics)

    def view(self, rng: np.random.Generator) -> WorldFrame:
        """Return a clean picture from anywhere in the room that a camera could be."""
        length, width, height = self.scene.size
        while True:
            position = rng.uniform((0.5, 0.5, 0.6), (length - 0.5, width - 0.5, height - 1.0))
            if not self.scene.is_free(position):
                continue
            world_from_camera = random_pose(rng, position)
            image, depth = self._renderer.render(world_from_camera)
            if np.quantile(depth, 0.1) > 0.35:   # no nose against a wall
                return WorldFrame(image, depth, world_from_camera, self.intrinsics)

    def velocity(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the camera's linear (m/s) and angular (rad/s) velocity, in its optical frame."""
        step = 0.02
        before, after = (self.path.world_from_camera(time + shift) for shift in (-step, step))
        camera_from_world = self.path.world_from_camera(time)[:3, :3].T
        linear = camera_from_world @ (after[:3, 3] - before[:3, 3]) / (2 * step)
        spin = camera_from_world @ (after[:3, :3] - before[:3, :3]) / (2 * step)
        return linear, np.array([spin[2, 1], spin[0, 2], spin[1, 0]])


def _atlas_number(seed: int) -> int:
    """Return which set of textures world `seed` has; no two splits share one."""
    for number, seeds in enumerate(SPLITS.values()):
        if seed in seeds:
            return number * _ATLASES + seed % _ATLASES
    return len(SPLITS) * _ATLASES + seed % _ATLASES


@lru_cache(maxsize=_ATLASES)
def _textures(number: int) -> TextureAtlas:
    """Return set of textures `number`."""
    return make_textures(np.random.default_rng((number, 0x7e37)))
