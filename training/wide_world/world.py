"""The wide world: rooms that look like real ones, drawn from numbers, for training."""

from dataclasses import dataclass

import numpy as np

from training.wide_world.camera import draw_shot
from training.wide_world.ray_tracer import RayTracer
from training.wide_world.scene import draw_scene, Scene
from training.wide_world.sensor import expose
from training.wide_world.textures import Textures


@dataclass(frozen=True)
class WideClip:
    """Pictures along a path and all that is true about them."""

    images: np.ndarray              # [F, H, W, 3] uint8 RGB
    depths: np.ndarray              # [F, H, W] float32, metres along the optical axis
    world_from_camera: np.ndarray   # [F, 4, 4] float64, optical frames, metres, z up
    fields_of_view: np.ndarray      # [2] vertical, horizontal, rad


class WideRoom:
    """A room and what is in it; everything follows from its seed and the textures."""

    scene: Scene

    def __init__(self, seed: int, textures: Textures) -> None:
        """Draw and light room number `seed`."""
        self._rng = np.random.default_rng((seed, 0x31d3))
        self.scene = draw_scene(self._rng, textures)
        self._tracer = RayTracer(self.scene, textures, self._rng)

    def clip(self, frames: int, size: tuple[int, int] | None = None,
             smooth: bool = True) -> WideClip:
        """
        Return the next clip of `frames` frames: another way, another camera in the same room.

        `size` is width and height; without it one of several is drawn. `smooth`: see
        `RayTracer.render`.
        """
        rng = self._rng
        shot = draw_shot(rng, self.scene, self._tracer.distances, frames, size)
        picture, depth = self._tracer.render(shot, smooth)
        return WideClip(expose(picture, depth, shot, rng), depth, shot.world_from_camera,
                        shot.fields_of_view())
