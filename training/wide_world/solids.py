"""
Solids of the wide world as patches: flat parallelograms and triangles with their own axes.

A solid is an instance of a template in the unit cube, scaled, turned and moved. Many instances of
one template become patches in one go.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

# A template: corners [F, 3] and edges [F, 3] twice in [-0.5, 0.5], normals at the three corners
# [F, 3, 3], texture coordinates there [F, 3, 2], and whether it is a triangle [F].
Template = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
_AROUND = 12    # sides of a cylinder


@dataclass(frozen=True)
class Patches:
    """Flat pieces of surface; a point of one is corner + s * first + t * second."""

    corner: np.ndarray      # [P, 3] metres
    first: np.ndarray       # [P, 3]
    second: np.ndarray      # [P, 3]
    normals: np.ndarray     # [P, 3, 3] outward at corner, corner + first, corner + second
    texture: np.ndarray     # [P, 3, 2] metres along the surface there, or 0 ... 1 if it is fitted
    triangle: np.ndarray    # [P] bool
    material: np.ndarray    # [P] int32


@dataclass
class Solids:
    """Collects the solids of a scene."""

    _instances: dict[str, list[tuple]] = field(default_factory=dict)

    def add(self, kind: str, centre: np.ndarray, size: np.ndarray, turn: np.ndarray,
            material: int, fitted: bool = False) -> None:
        """
        Add a solid: a `kind` of `TEMPLATES`, `size` metres along its own axes.

        `turn` [3, 3] is world_from_local. A `fitted` texture spans each face once.
        """
        self._instances.setdefault(kind, []).append((centre, size, turn, material, fitted))

    def extend(self, others: 'Solids') -> None:
        """Add all of `others`."""
        for kind, instances in others._instances.items():
            self._instances.setdefault(kind, []).extend(instances)

    def __len__(self) -> int:
        """Return the number of solids."""
        return sum(len(instances) for instances in self._instances.values())

    def patches(self) -> Patches:
        """Return the surfaces of all solids."""
        parts = [_instantiate(TEMPLATES[kind](), instances)
                 for kind, instances in self._instances.items()]
        return Patches(*(np.concatenate(column) for column in zip(*parts)))


def _instantiate(template: Template, instances: list[tuple]) -> tuple[np.ndarray, ...]:
    """Return the fields of `Patches` of instances of one template."""
    corner, first, second, normals, texture, triangle = template
    centre, size, turn, material, fitted = (np.array(column) for column in zip(*instances))
    axes = turn * size[:, None, :]                                   # world_from_unit [I, 3, 3]
    faces = len(corner)

    def place(vectors: np.ndarray, matrices: np.ndarray) -> np.ndarray:
        return np.einsum('iab,f...b->if...a', matrices, vectors)

    corners = place(corner, axes) + centre[:, None]
    firsts, seconds = place(first, axes), place(second, axes)
    upright = place(normals, turn / np.maximum(size, 1e-6)[:, None, :])
    upright /= np.linalg.norm(upright, axis=-1, keepdims=True)
    lengths = np.stack([np.linalg.norm(firsts, axis=-1), np.linalg.norm(seconds, axis=-1)], -1)
    around = np.stack([np.pi * size[:, :2].mean(axis=1), size[:, 2]], axis=-1)[:, None]
    scale = np.where(triangle[None, :, None], around, lengths)       # [I, F, 2]
    scale = np.where(fitted[:, None, None], 1.0, scale)
    coordinates = texture[None] * scale[:, :, None]
    return (corners.reshape(-1, 3), firsts.reshape(-1, 3), seconds.reshape(-1, 3),
            upright.reshape(-1, 3, 3), coordinates.reshape(-1, 3, 2),
            np.tile(triangle, len(instances)), np.repeat(material, faces).astype(np.int32))


# Templates ---------------------------------------------------------------------------------------

def _template(faces: list[tuple]) -> Template:
    """Return a template of (three corners, three normals, three uv, is triangle)."""
    points, normals, texture, triangle = (np.array(column, float) for column in zip(*faces))
    return (points[:, 0], points[:, 1] - points[:, 0], points[:, 2] - points[:, 0], normals,
            texture, triangle.astype(bool))


_FLAT_UV = [(0, 0), (1, 0), (0, 1)]


@lru_cache
def _box() -> Template:
    """Return the unit cube."""
    faces = []
    for axis in range(3):
        for side in (-0.5, 0.5):
            normal = np.zeros(3)
            normal[axis] = 2 * side
            u, v = [np.eye(3)[other] for other in range(3) if other != axis]
            corner = side * np.eye(3)[axis] - u / 2 - v / 2
            faces.append(([corner, corner + u, corner + v], [normal] * 3, _FLAT_UV, False))
    return _template(faces)


@lru_cache
def _sheet() -> Template:
    """Return a unit square across y, which faces -y: a picture, a window, a leaf."""
    corner, u, v = np.array([-0.5, 0, -0.5]), np.array([1.0, 0, 0]), np.array([0, 0, 1.0])
    # Textures have their first row above.
    uv = [(0, 1), (1, 1), (0, 0)]
    return _template([([corner, corner + u, corner + v], [np.array([0, -1.0, 0])] * 3, uv, False)])


def _profile(radii: tuple[float, ...], heights: tuple[float, ...], around: int) -> Template:
    """Return a body of revolution about z: triangles between rings, and its two lids."""
    angle = 2 * np.pi * np.arange(around + 1) / around
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    faces: list[tuple] = []
    for low, high, z0, z1 in zip(radii, radii[1:], heights, heights[1:]):
        slope = (low - high) / max(z1 - z0, 1e-9)
        for k in range(around):
            ring = [np.array([*(radius * circle[k + step]), z])
                    for radius, z in ((low, z0), (high, z1)) for step in (0, 1)]
            normal = [np.array([*circle[k + step], slope]) for step in (0, 1)]
            normal = [one / np.linalg.norm(one) for one in normal]
            uv = [((k + step) / around, 0.5 - z) for z in (z0, z1) for step in (0, 1)]
            for corners, steps in (((0, 1, 2), (0, 1, 0)), ((3, 2, 1), (1, 0, 1))):
                if (low if corners[0] == 0 else high) > 1e-6:
                    faces.append(([ring[one] for one in corners], [normal[s] for s in steps],
                                  [uv[one] for one in corners], True))
    for radius, z, up in ((radii[0], heights[0], -1.0), (radii[-1], heights[-1], 1.0)):
        for k in range(around if radius > 1e-6 else 0):
            lid = [np.array([0, 0, z]), np.array([*(radius * circle[k]), z]),
                   np.array([*(radius * circle[k + 1]), z])]
            faces.append((lid, [np.array([0, 0, up])] * 3,
                          [(corner[0] / np.pi, corner[1] / np.pi) for corner in lid], True))
    return _template(faces)


@lru_cache
def _cylinder() -> Template:
    return _profile((0.5, 0.5), (-0.5, 0.5), _AROUND)


@lru_cache
def _cone() -> Template:
    return _profile((0.5, 0.2), (-0.5, 0.5), _AROUND)


@lru_cache
def _ball() -> Template:
    tilt = np.linspace(-np.pi / 2, np.pi / 2, 7)
    return _profile(tuple(0.5 * np.cos(tilt)), tuple(0.5 * np.sin(tilt)), 10)


@lru_cache
def _bottle() -> Template:
    return _profile((0.42, 0.5, 0.5, 0.18, 0.18), (-0.5, -0.45, 0.1, 0.3, 0.5), 10)


@lru_cache
def _vase() -> Template:
    return _profile((0.28, 0.5, 0.42, 0.2, 0.3), (-0.5, -0.15, 0.15, 0.38, 0.5), 12)


@lru_cache
def _bowl() -> Template:
    return _profile((0.2, 0.4, 0.5), (-0.5, -0.1, 0.5), 12)


@lru_cache
def _cushion() -> Template:
    """Return a ball that is nearly a box: a cushion, a sack, a stone."""
    corner, first, second, normals, texture, triangle = _ball()
    points = np.stack([corner, corner + first, corner + second], axis=1)
    points = np.sign(points) * 0.5 * np.abs(2 * points) ** 0.55
    return (points[:, 0], points[:, 1] - points[:, 0], points[:, 2] - points[:, 0], normals,
            texture, triangle)


@lru_cache
def _wedge() -> Template:
    """Return half a cube under a slope: a ramp, a keyboard's stand, an open book."""
    a, b, c, d = (np.array(p, float) for p in ((-.5, -.5, -.5), (.5, -.5, -.5), (.5, .5, -.5),
                                               (-.5, .5, -.5)))
    e, f = np.array([-.5, .5, .5]), np.array([.5, .5, .5])
    slope = np.array([0, -1.0, 1.0]) / np.sqrt(2)
    faces = [([a, b, d], [np.array([0, 0, -1.0])] * 3, _FLAT_UV, False),
             ([d, c, e], [np.array([0, 1.0, 0])] * 3, _FLAT_UV, False),
             ([a, b, e], [slope] * 3, _FLAT_UV, False),
             ([a, d, e], [np.array([-1.0, 0, 0])] * 3, _FLAT_UV, True),
             ([b, c, f], [np.array([1.0, 0, 0])] * 3, _FLAT_UV, True)]
    return _template(faces)


TEMPLATES = {'box': _box, 'sheet': _sheet, 'cylinder': _cylinder, 'cone': _cone, 'ball': _ball,
             'bottle': _bottle, 'vase': _vase, 'bowl': _bowl, 'cushion': _cushion,
             'wedge': _wedge}
