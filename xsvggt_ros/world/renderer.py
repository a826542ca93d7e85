"""
Ray casting of a synthetic scene: colour and depth for a pinhole camera, numpy only.

Pixel convention, the one of the network and of OpenCV: the centre of pixel (column u, row v) lies
at image coordinates (u, v), and its ray in the camera's optical frame is
((u - cx) / fx, (v - cy) / fy, 1). Depth is the z coordinate of what the ray meets.
"""

from dataclasses import dataclass

import numpy as np

from xsvggt_ros.world.scene import Box, Material, Scene
from xsvggt_ros.world.textures import MIP_LEVELS

_NEAR = 0.02   # metres; nothing nearer is seen

# The two local axes that a face's texture runs along, by the axis the face is square to.
_FACE_AXES = ((1, 2), (0, 2), (0, 1))
_BOX_EDGES = np.array([(0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (1, 3), (4, 6), (5, 7),
                       (0, 4), (1, 5), (2, 6), (3, 7)])


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera, in pixels."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    @staticmethod
    def from_field_of_view(width: int, height: int, horizontal: float) -> 'Intrinsics':
        """Return square pixels that see `horizontal` radians; cx = width / 2, cy = height / 2."""
        focal = width / 2 / np.tan(horizontal / 2)
        return Intrinsics(width, height, float(focal), float(focal), width / 2, height / 2)

    def matrix(self) -> np.ndarray:
        """Return the camera matrix [3, 3], float64."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


class Renderer:
    """Renders one scene with one camera; what does not change between frames is kept."""

    def __init__(self, scene: Scene, intrinsics: Intrinsics) -> None:
        self._scene = scene
        self._camera = intrinsics
        columns = (np.arange(intrinsics.width, dtype=np.float32) - intrinsics.cx) / intrinsics.fx
        rows = (np.arange(intrinsics.height, dtype=np.float32) - intrinsics.cy) / intrinsics.fy
        self._ray_x = columns.astype(np.float32)[None, :]
        self._ray_y = rows.astype(np.float32)[:, None]
        self._corners = np.array([box.corners() for box in scene.boxes]).reshape(-1, 8, 3)
        self._surfaces = _surface_table(scene)

    def render(self, world_from_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the picture [H, W, 3] uint8 RGB and depth [H, W] float32 seen from a pose."""
        rotation = world_from_camera[:3, :3]
        rays = [self._turn(rotation[axis]) for axis in range(3)]     # world directions, [H, W]
        origin = world_from_camera[:3, 3]
        depth, surface = _cast_room(self._scene.size, origin, rays)
        windows = self._windows(world_from_camera)
        for number, box in enumerate(self._scene.boxes):
            window = windows[number]
            if window is not None:
                _cast_box(box, 6 + 6 * number, origin, rays, window, depth, surface)
        return self._shade(origin, rays, depth, surface), depth

    def _turn(self, row: np.ndarray) -> np.ndarray:
        """Return one world coordinate of all rays: `row` of the rotation times the ray."""
        x, y, z = (np.float32(value) for value in row)
        return _never_zero(x * self._ray_x + (y * self._ray_y + z))

    # Which part of the image a box can touch -----------------------------------------------------

    def _windows(self, world_from_camera: np.ndarray) -> list[tuple[slice, slice] | None]:
        """Return the image rows and columns that each box can touch, or None."""
        camera = self._camera
        local = (self._corners - world_from_camera[:3, 3]) @ world_from_camera[:3, :3]
        start, end = local[:, _BOX_EDGES[:, 0]], local[:, _BOX_EDGES[:, 1]]     # [boxes, 12, 3]
        # Edges are cut off at the near plane, so that the projection of what is left is exact.
        with np.errstate(divide='ignore', invalid='ignore'):
            cut = (_NEAR - start[..., 2]) / (end[..., 2] - start[..., 2])
            crossing = (start[..., 2] < _NEAR) != (end[..., 2] < _NEAR)
            middle = np.where(crossing[..., None], start + cut[..., None] * (end - start), start)
            points = np.concatenate([start, end, middle], axis=1)               # [boxes, 36, 3]
            ahead = points[..., 2] > _NEAR * 0.999
            u = points[..., 0] / points[..., 2] * camera.fx + camera.cx
            v = points[..., 1] / points[..., 2] * camera.fy + camera.cy
        windows: list[tuple[slice, slice] | None] = []
        for box in range(len(points)):
            seen = ahead[box]
            if not seen.any():
                windows.append(None)
                continue
            left = max(int(np.floor(u[box, seen].min())), 0)
            right = min(int(np.ceil(u[box, seen].max())) + 1, camera.width)
            top = max(int(np.floor(v[box, seen].min())), 0)
            bottom = min(int(np.ceil(v[box, seen].max())) + 1, camera.height)
            visible = left < right and top < bottom
            windows.append((slice(top, bottom), slice(left, right)) if visible else None)
        return windows

    # Colour --------------------------------------------------------------------------------------

    def _shade(self, origin: np.ndarray, rays: list[np.ndarray], depth: np.ndarray,
               surface: np.ndarray) -> np.ndarray:
        """Return the colours [H, W, 3] uint8 of what the rays meet."""
        point = [np.float32(origin[axis]) + rays[axis] * depth for axis in range(3)]
        table, textures = self._surfaces, self._scene.textures

        def at(name: str) -> np.ndarray:
            return table[name][surface]

        u = at('ux') * point[0] + at('uy') * point[1] + at('uz') * point[2] + at('u0')
        v = at('vz') * point[2] + at('vx') * point[0] + at('vy') * point[1] + at('v0')
        # One texel of the chosen mip level covers about one pixel.
        texels = depth * at('density') * np.float32(1.0 / self._camera.fx)
        level = np.log2(np.maximum(texels, 1.0)).astype(np.int32)
        level = np.minimum(level, MIP_LEVELS - 1)
        start = at('texture') * textures.texels_per_texture + textures.level_offsets[level]
        colour = _sample(textures.texels, start, textures.size >> level, u, v)

        length, width, height = self._scene.size
        lamp = ((point[0] - np.float32(length / 2)) ** 2 + (point[1] - np.float32(width / 2)) ** 2
                + (point[2] - np.float32(height)) ** 2)
        light = at('light') * (np.float32(0.80) + np.float32(0.60) / (1 + np.float32(0.05) * lamp))
        tinted = colour * (table['tint'][surface] * light[..., None])
        return np.minimum(tinted, 255.0).astype(np.uint8)


def _sample(texels: np.ndarray, start: np.ndarray, size: np.ndarray, u: np.ndarray,
            v: np.ndarray) -> np.ndarray:
    """Return bilinear texture colours [H, W, 3] float32 at repeating coordinates u, v."""
    mask = size - 1
    x = u * size - np.float32(0.5)
    y = v * size - np.float32(0.5)
    column, row = np.floor(x), np.floor(y)
    right, down = x - column, y - row
    column, row = column.astype(np.int32), row.astype(np.int32)
    left_index, right_index = column & mask, (column + 1) & mask
    top = start + (row & mask) * size
    bottom = start + ((row + 1) & mask) * size
    weights = ((1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down)
    indices = (top + left_index, top + right_index, bottom + left_index, bottom + right_index)
    colour = np.zeros((*u.shape, 3), np.float32)
    for weight, index in zip(weights, indices):
        colour += weight[..., None] * texels[index]
    return colour


# Geometry ----------------------------------------------------------------------------------------

def _never_zero(values: np.ndarray) -> np.ndarray:
    """Return `values` with zeros made tiny: such rays meet a parallel plane very far away."""
    values[values == 0] = np.float32(1e-12)
    return values


def _cast_room(size: tuple[float, float, float], origin: np.ndarray,
               rays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return depth and surface number (0 ... 5) of the room's walls, floor and ceiling."""
    depth = np.full(rays[0].shape, np.inf, np.float32)
    surface = np.zeros(rays[0].shape, np.int32)
    for axis in range(3):
        away = rays[axis] > 0
        plane = np.where(away, np.float32(size[axis] - origin[axis]), np.float32(-origin[axis]))
        distance = plane / rays[axis]
        nearer = distance < depth
        depth = np.where(nearer, distance, depth)
        surface = np.where(nearer, 2 * axis + away, surface)
    return depth, surface


def _cast_box(box: Box, first_surface: int, origin: np.ndarray, rays: list[np.ndarray],
              window: tuple[slice, slice], depth: np.ndarray, surface: np.ndarray) -> None:
    """Overwrite `depth` and `surface` inside `window` where the box is nearer (slab test)."""
    local_origin = box.local_from_world(origin)
    cos, sin = np.float32(np.cos(box.yaw)), np.float32(np.sin(box.yaw))
    x, y = rays[0][window], rays[1][window]
    local = (_never_zero(cos * x + sin * y), _never_zero(cos * y - sin * x), rays[2][window])
    enter = np.full(x.shape, np.float32(_NEAR))
    leave = depth[window].copy()
    face = np.zeros(x.shape, np.int32)
    for axis in range(3):
        half = box.size[axis] / 2
        inverse = 1 / local[axis]
        low = np.float32(-half - local_origin[axis]) * inverse
        high = np.float32(half - local_origin[axis]) * inverse
        towards = low < high
        near, far = np.minimum(low, high), np.maximum(low, high)
        later = near > enter
        enter = np.where(later, near, enter)
        face = np.where(later, 2 * axis + (1 - towards), face)
        leave = np.minimum(leave, far)
    hit = (enter < leave) & (enter > _NEAR)
    depth[window][hit] = enter[hit]
    surface[window][hit] = first_surface + face[hit]


# What a surface looks like -----------------------------------------------------------------------

def _surface_table(scene: Scene) -> dict[str, np.ndarray]:
    """Return one row per face: 6 of the room, then 6 per box (x low, x high, y low ...)."""
    length, width, height = scene.size
    room = Box((length / 2, width / 2, height / 2), scene.size, 0.0, scene.walls[0])
    faces = []
    for number, box in enumerate([room, *scene.boxes]):
        for face in range(6):
            material = box.material
            if number == 0:
                material = scene.walls[face]
            elif face // 2 == 1 and box.front is not None:
                material = box.front
            faces.append(_face_row(scene, box, face, material, inside=number == 0))
    names = ('ux', 'uy', 'uz', 'u0', 'vx', 'vy', 'vz', 'v0', 'density', 'light')
    numbers = np.array([row[0] for row in faces], np.float32)
    table = {name: np.ascontiguousarray(numbers[:, column]) for column, name in enumerate(names)}
    table['texture'] = np.array([row[1] for row in faces], np.int32)
    table['tint'] = np.array([row[2] for row in faces], np.float32)
    return table


def _face_row(scene: Scene, box: Box, face: int, material: Material,
              inside: bool) -> tuple[list[float], int, tuple[float, float, float]]:
    """Return texture coordinates as a function of the world point, texture number and tint."""
    axes = np.eye(3)
    cos, sin = np.cos(box.yaw), np.sin(box.yaw)
    world_from_local = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    scales = []
    rows = []
    for sign, axis in zip((1.0, -1.0), _FACE_AXES[face // 2]):   # v runs down
        scale = 1.0 / (box.size[axis] if material.tile is None else material.tile)
        direction = sign * scale * (world_from_local @ axes[axis])
        # Fitted textures span the face exactly; tiled ones start at the world's own grid, which
        # puts the floor's 1 m checker on whole metres.
        offset = 0.5 - float(direction @ np.asarray(box.centre))
        if material.tile is not None:
            offset = 0.0 if inside else offset + 0.37 * (face + 1)
        rows += [*direction, offset]
        scales.append(scale)
    normal = world_from_local @ axes[face // 2] * (1.0 if face % 2 else -1.0)
    if inside:
        normal = -normal
    sun = np.array([0.35, 0.22, 0.91])
    light = 0.80 + 0.20 * float(normal @ sun) + 0.08 * abs(float(normal[0]))
    density = scene.textures.size * max(scales)
    return [*rows, density, light], scene.textures.index(material.texture), material.tint
