"""Ray tracing of a scene: Embree finds what a ray meets, compiled loops say how it looks."""

from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
import numpy as np

from training.wide_world import kernels
from training.wide_world.camera import Shot
from training.wide_world.lighting import bake, Lightmap
from training.wide_world.scene import Scene
from training.wide_world.solids import Patches
from training.wide_world.textures import Textures

# Rays of a pixel at an edge beside the one through its centre: column, row.
_SUBPIXELS = np.array([(-0.33, -0.2), (0.33, 0.2)], np.float32)


class RayTracer:
    """Renders one scene; what does not change between shots is kept."""

    def __init__(self, scene: Scene, textures: Textures, rng: np.random.Generator) -> None:
        """Build the scene's acceleration structure and its light; `rng` draws shadow rays."""
        patches = scene.patches
        self._embree, self._patch_of = _build(patches)
        light = bake(scene, self._occluded, rng)
        self._surfaces = _surfaces(scene, textures, light)
        lamp = scene.lights[0] if scene.lights else None
        self._lamp = np.zeros(4, np.float32)
        if lamp is not None:
            self._lamp[:3], self._lamp[3] = lamp.points.mean(axis=0), 1.0

    # Rays --------------------------------------------------------------------------------------

    def _trace(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return the patch [n] that each ray meets first, -1 if none."""
        hit = self._embree.run(origins, directions, query='INTERSECT')
        return self._patch_of[hit]     # the last entry is for -1

    def _occluded(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return which rays [n] meet something within their length."""
        reach = np.full(len(origins), 1.0, np.float32)
        return self._embree.run(origins.astype(np.float32), directions.astype(np.float32),
                                dists=reach, query='OCCLUDED') == 0

    def distances(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return how far away [n] the first thing is that each ray meets; 1e4 if none is."""
        far = self._embree.run(origins.astype(np.float32), directions.astype(np.float32),
                               query='DISTANCE')
        return np.minimum(far, 1e4)

    # Pictures ----------------------------------------------------------------------------------

    def render(self, shot: Shot, smooth: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """
        Return pictures [F, H, W, 3] float32 (1: white, before exposure) and depth [F, H, W].

        Depth is metres along the optical axis at the pixels' centres. `smooth`: edges are drawn
        with three rays a pixel.
        """
        frames, height, width = len(shot.world_from_camera), shot.height, shot.width
        origin, turn = _rows(shot)
        lens = np.array([shot.focal, shot.focal, width / 2, height / 2], np.float32)
        patch = np.full((frames, height, width), -1, np.int32)
        flat = np.empty(patch.size, np.int64)
        every = np.arange(patch.size).reshape(patch.shape)
        rays = _Rays(origin, turn, lens, (height, width))
        self._fill(rays, patch, every[:, ::2, ::2].ravel())
        count = kernels.fill_between(patch, flat)
        self._fill(rays, patch, flat[:count])
        frame, row, column = rays.pixels(every.ravel())
        directions = rays.directions(frame, row, column)
        image, depth = self._shade(rays, frame, row, patch.ravel(), directions, shot)
        image = image.reshape(frames, height, width, 3)
        depth = depth.reshape(patch.shape)
        if smooth:
            count = kernels.find_edges(patch, depth, self._surfaces['plane'],
                                       self._surfaces['material'], flat)
            edges = flat[:count]
            frame, row, column = (np.repeat(part, 2) for part in rays.pixels(edges))
            column = column + np.tile(_SUBPIXELS[:, 0], count)
            row = row + np.tile(_SUBPIXELS[:, 1], count)
            directions = rays.directions(frame, row, column)
            met = self._trace(rays.origins(frame, row), directions)
            colour, _ = self._shade(rays, frame, row, met, directions, shot)
            pixels = image.reshape(-1, 3)
            # Bright lamps do not outshine what is beside them.
            pixels[edges] = (np.minimum(pixels[edges], 1.6)
                             + np.minimum(colour, 1.6).reshape(count, 2, 3).sum(axis=1)) / 3
        return image, depth

    def _fill(self, rays: '_Rays', patch: np.ndarray, pixels: np.ndarray) -> None:
        """Trace the rays of `pixels`, flat indices, and write what they meet into `patch`."""
        frame, row, column = rays.pixels(pixels)
        directions = rays.directions(frame, row, column)
        patch.ravel()[pixels] = self._trace(rays.origins(frame, row), directions)

    def _shade(self, rays: '_Rays', frame: np.ndarray, row: np.ndarray, patch: np.ndarray,
               directions: np.ndarray, shot: Shot) -> tuple[np.ndarray, np.ndarray]:
        """Return colours [n, 3] and depths [n] of rays that meet `patch`."""
        depth = np.empty(len(patch), np.float32)
        kernels.depths(frame, patch, rays.origin, directions, row, self._surfaces['plane'], depth)
        out = np.empty((len(patch), 3), np.float32)
        kernels.shade(frame, row, patch, depth, directions, rays.origin, **self._surfaces,
                      lamp=self._lamp, pixel=np.float32(1 / shot.focal), out=out)
        return out, depth


class _Rays:
    """The rays of the pixels of a shot."""

    def __init__(self, origin: np.ndarray, turn: np.ndarray, lens: np.ndarray,
                 size: tuple[int, int]) -> None:
        self.origin, self._turn, self._lens, self._size = origin, turn, lens, size

    def pixels(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return frame, row and column of flat indices."""
        height, width = self._size
        line = flat // width
        frame = line // height
        return (frame.astype(np.int32), (line - frame * height).astype(np.float32),
                (flat - line * width).astype(np.float32))

    def directions(self, frame: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Return the directions [n, 3] of pixels."""
        out = np.empty((len(frame), 3), np.float32)
        kernels.directions(frame, row, column, self._turn, self._lens, out)
        return out

    def origins(self, frame: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Return where the rays [n, 3] start."""
        line = np.clip((row + 0.5).astype(np.int32), 0, self._size[0] - 1)
        return self.origin[frame, line]


def _build(patches: Patches) -> tuple[EmbreeScene, np.ndarray]:
    """Return Embree's scene, and which patch each of its triangles belongs to."""
    corner, first, second = patches.corner, patches.first, patches.second
    quads = np.flatnonzero(~patches.triangle)
    one = np.stack([corner, corner + first, corner + second], axis=1)
    other = np.stack([corner + first, corner + first + second, corner + second], axis=1)[quads]
    vertices = np.concatenate([one, other]).astype(np.float32).reshape(-1, 3)
    faces = np.arange(len(vertices), dtype=np.int32).reshape(-1, 3)
    scene = EmbreeScene()
    TriangleMesh(scene, vertices, faces)
    patch_of = np.concatenate([np.arange(len(corner)), quads, [-1]]).astype(np.int32)
    return scene, patch_of


def _rows(shot: Shot) -> tuple[np.ndarray, np.ndarray]:
    """Return where each row's rays start [F, H, 3] and its world_from_camera [F, H, 3, 3]."""
    late = ((np.arange(shot.height) + 0.5) / shot.height - 0.5) * shot.readout
    turn = shot.world_from_camera[:, None, :3, :3]
    x, y, z = (late[None, :, None] * shot.velocity[:, None, 3:]).transpose(2, 0, 1)
    zero = np.zeros_like(x)
    spin = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    turned = turn @ (np.eye(3) + spin + spin @ spin / 2)    # small angles
    moved = np.einsum('fij,fj->fi', shot.world_from_camera[:, :3, :3], shot.velocity[:, :3])
    start = shot.world_from_camera[:, None, :3, 3] + late[None, :, None] * moved[:, None]
    return np.ascontiguousarray(start, np.float32), np.ascontiguousarray(turned, np.float32)


def _surfaces(scene: Scene, textures: Textures, light: Lightmap) -> dict[str, np.ndarray]:
    """Return what `kernels.shade` takes about the scene."""
    patches, materials = scene.patches, scene.materials
    first, second = patches.first, patches.second
    normal = np.cross(first, second)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    # Dual vectors: of a point's offset from the corner they give s and t.
    a, b, c = ((first * first).sum(1), (first * second).sum(1), (second * second).sum(1))
    scale = np.maximum(a * c - b * b, 1e-18)[:, None]
    dual = np.stack([(c[:, None] * first - b[:, None] * second) / scale,
                     (a[:, None] * second - b[:, None] * first) / scale], axis=1)
    fitted = (patches.texture.max(axis=(1, 2)) - patches.texture.min(axis=(1, 2))) == 1.0
    tile = np.array([material.tile for material in materials])[patches.material]
    turned = np.array([material.turned for material in materials])[patches.material] & ~fitted
    uv = patches.texture / np.where(fitted, 1.0, tile)[:, None, None]
    uv = np.where(turned[:, None, None], uv[..., ::-1], uv)
    # Neither repeats nor starts at the same place on every face.
    shift = np.where(fitted, 0.0, 0.61803 * np.arange(len(uv)) % 1.0)
    mapping = np.concatenate([
        np.stack([uv[:, 0, k] + shift, uv[:, 1, k] - uv[:, 0, k], uv[:, 2, k] - uv[:, 0, k]], 1)
        for k in (0, 1)], axis=1)
    long = np.maximum(np.sqrt(np.minimum(a, c)), 1e-3)
    density = np.where(fitted, 1 / long, 1 / tile)
    mapping = np.concatenate([mapping, density[:, None]], axis=1)
    look = np.array([(one.contrast, *one.tint, one.gloss, one.emission) for one in materials])
    plane = np.concatenate([normal, (normal * patches.corner).sum(axis=1, keepdims=True)], axis=1)
    single = {'corner': patches.corner, 'axes': dual, 'plane': plane, 'mapping': mapping,
              'light': light.values, 'look': look}
    return {**{name: np.ascontiguousarray(values, np.float32) for name, values in single.items()},
            'material': patches.material, 'light_start': light.start, 'light_shape': light.shape,
            'texture': np.array([one.texture for one in materials], np.int32),
            'texels': textures.texels, 'means': textures.means}
