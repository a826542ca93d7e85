"""Light that does not depend on the camera, computed once a scene: shadows and dark corners."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.wide_world.scene import Light, Scene

_SPACING = 0.45          # metres between the points of a grid
_MOST = 12               # points of a grid along a side
_LIFT = 0.015            # metres that rays start above their surface
_AMBIENT_RAYS = 5
_AMBIENT_REACH = 1.3     # metres within which things darken corners
Occluded = Callable[[np.ndarray, np.ndarray], np.ndarray]   # origins, rays [n, 3] -> [n]


@dataclass(frozen=True)
class Lightmap:
    """Grids of light on patches."""

    values: np.ndarray      # [all points, 3] float32; a patch's grid, second axis fastest
    start: np.ndarray       # [P] int32 first point of a patch
    shape: np.ndarray       # [P, 2] int32 points along the patch's axes, 2 and more


def bake(scene: Scene, occluded: Occluded, rng: np.random.Generator) -> Lightmap:
    """Return the light on the patches of `scene`; `occluded` tells which rays meet something."""
    patches = scene.patches
    lengths = np.stack([np.linalg.norm(patches.first, axis=1),
                        np.linalg.norm(patches.second, axis=1)], axis=1)
    shape = np.clip(2 + (lengths / _SPACING).astype(np.int32), 2, _MOST)
    shape = np.where(lengths < 0.6, 2, shape)
    shape[patches.triangle] = 2
    counts = shape.prod(axis=1)
    start = np.concatenate([[0], np.cumsum(counts)[:-1]])
    patch = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(patch)) - start[patch]
    s = (within // shape[patch, 1]) / (shape[patch, 0] - 1)
    t = (within % shape[patch, 1]) / (shape[patch, 1] - 1)
    # A triangle has no fourth corner: its light is continued there.
    fourth = patches.triangle[patch] & (s + t > 1.5)
    at_s, at_t = (np.clip(np.where(fourth, 0.5, part), 0.03, 0.97)[:, None] for part in (s, t))
    point = patches.corner[patch] + at_s * patches.first[patch] + at_t * patches.second[patch]
    normals = patches.normals[patch]
    normal = (normals[:, 0] + at_s * (normals[:, 1] - normals[:, 0])
              + at_t * (normals[:, 2] - normals[:, 0]))
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    point = point + _LIFT * normal
    values = scene.ambient * _openness(point, normal, occluded, rng)[:, None]
    for light in scene.lights:
        values += _direct(light, point, normal, occluded)
    corners = start[patches.triangle]
    values[corners + 3] = np.maximum(values[corners + 1] + values[corners + 2] - values[corners],
                                     0.0)
    return Lightmap(values.astype(np.float32), start.astype(np.int32), shape.astype(np.int32))


def _openness(point: np.ndarray, normal: np.ndarray, occluded: Occluded,
              rng: np.random.Generator) -> np.ndarray:
    """Return the share [n] of the hemisphere above each point that is not covered nearby."""
    rays = rng.normal(size=(_AMBIENT_RAYS, 1, 3))
    rays = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    # The same directions everywhere give smooth grids; each is taken to the surface's own side.
    rays = rays + 1.05 * normal
    rays *= _AMBIENT_REACH / np.linalg.norm(rays, axis=-1, keepdims=True)
    origins = np.broadcast_to(point, rays.shape)
    covered = occluded(origins.reshape(-1, 3), rays.reshape(-1, 3)).reshape(_AMBIENT_RAYS, -1)
    return 0.35 + 0.65 * (1 - covered.mean(axis=0))


def _direct(light: Light, point: np.ndarray, normal: np.ndarray,
            occluded: Occluded) -> np.ndarray:
    """Return the light [n, 3] that comes straight from a lamp or a window."""
    total = np.zeros(len(point))
    for source in light.points:
        ray = source - point
        far = np.linalg.norm(ray, axis=1)
        toward = (ray * normal).sum(axis=1) / np.maximum(far, 1e-6)
        if light.normal is not None:
            toward = toward * np.maximum(-(ray @ light.normal) / np.maximum(far, 1e-6), 0.0)
        lit = np.flatnonzero(toward > 0.02)
        if len(lit):
            free = ~occluded(point[lit], 0.985 * ray[lit])
            total[lit] += free * toward[lit] / (0.6 + far[lit] ** 2)
    return (1.6 * total / len(light.points))[:, None] * light.colour
