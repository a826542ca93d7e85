"""
What stands in the synthetic world: a room and its furniture, all of them boxes.

World frame: x and y along the walls, z up, metres, origin in a corner of the floor (REP-103).
Furniture is placed around the robot's path, never on it, so the camera cannot end up inside.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from xsvggt_ros.world.textures import BOOK_COUNT, PICTURE_COUNT, TextureAtlas

PATH_CLEARANCE = 0.45  # metres between the camera's path and anything it could run into
LOW_HEIGHT = 0.20     # metres; what ends below this (a rug) may lie on the way

Colour = tuple[float, float, float]
# One hue for each wall, in every room: whoever sees a wall knows which way it looks. It makes the
# family narrow enough for a small network to learn (x low, x high, y low, y high).
_WALL_COLOURS = ((0.98, 0.58, 0.46), (0.46, 0.66, 0.98), (0.52, 0.86, 0.50), (0.98, 0.90, 0.46))
_STONE_COLOUR = (0.92, 0.88, 0.84)
_WOOD_COLOURS = ((1.0, 0.92, 0.80), (0.86, 0.66, 0.48), (0.62, 0.47, 0.36), (1.0, 0.78, 0.55),
                 (0.95, 0.95, 0.95), (0.55, 0.66, 0.72))
_CLOTH_COLOURS = ((0.85, 0.30, 0.26), (0.22, 0.45, 0.72), (0.26, 0.58, 0.46), (0.95, 0.72, 0.28),
                  (0.56, 0.40, 0.66), (0.90, 0.86, 0.78))


@dataclass(frozen=True)
class Material:
    """How a surface looks; `tile` is the texture's side in metres, None fits it to the face."""

    texture: str
    tint: Colour = (1.0, 1.0, 1.0)
    tile: float | None = 2.0


@dataclass(frozen=True)
class Box:
    """An upright box, turned by `yaw` about z; `centre` and `size` in metres."""

    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float
    material: Material
    front: Material | None = None   # material of the two faces across local y, if another

    def local_from_world(self, points: np.ndarray) -> np.ndarray:
        """Return world `points` [..., 3] in the box's own frame, whose origin is its centre."""
        shifted = np.asarray(points, np.float64) - np.asarray(self.centre)
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        x = cos * shifted[..., 0] + sin * shifted[..., 1]
        y = cos * shifted[..., 1] - sin * shifted[..., 0]
        return np.stack([x, y, shifted[..., 2]], axis=-1)

    def corners(self) -> np.ndarray:
        """Return the eight corners [8, 3] in the world; the first four are the lower ones."""
        signs = np.array([[x, y, z] for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)])
        local = signs * np.asarray(self.size) / 2
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        turned = np.stack([cos * local[:, 0] - sin * local[:, 1],
                           sin * local[:, 0] + cos * local[:, 1], local[:, 2]], axis=-1)
        return turned + np.asarray(self.centre)

    def ground_distance(self, points: np.ndarray) -> np.ndarray:
        """Return the distance on the ground of world `points` [..., 2|3] to the footprint."""
        flat = np.zeros((*np.shape(points)[:-1], 3))
        flat[..., :2] = np.asarray(points)[..., :2]
        half = np.asarray(self.size[:2]) / 2
        outside = np.maximum(np.abs(self.local_from_world(flat)[..., :2]) - half, 0.0)
        return np.hypot(outside[..., 0], outside[..., 1])

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return which of the world `points` [..., 3] lie inside."""
        return np.all(np.abs(self.local_from_world(points)) < np.asarray(self.size) / 2, axis=-1)


@dataclass
class Scene:
    """A room from the origin to `size` and the boxes in it."""

    size: tuple[float, float, float]
    walls: tuple[Material, ...]      # x low, x high, y low, y high, floor, ceiling
    textures: TextureAtlas
    boxes: list[Box] = field(default_factory=list)

    def is_free(self, points: np.ndarray) -> np.ndarray:
        """Return which of the world `points` [..., 3] are in the room and in no box."""
        points = np.asarray(points)
        free = np.all((points > 0) & (points < np.asarray(self.size)), axis=-1)
        for box in self.boxes:
            free &= ~box.contains(points)
        return free


def choose_room_size(rng: np.random.Generator) -> tuple[float, float, float]:
    """Return length, width and height of a room in metres."""
    return (float(rng.uniform(7.0, 8.2)), float(rng.uniform(5.6, 6.6)),
            float(rng.uniform(2.5, 2.8)))


def build_scene(rng: np.random.Generator, size: tuple[float, float, float], path: np.ndarray,
                textures: TextureAtlas) -> Scene:
    """Return a furnished room of `size` that keeps clear of `path` [n, 2] (metres, world x y)."""
    wall_textures = rng.permutation(['plaster', 'brick', 'wallpaper', 'wallpaper'])
    walls = [Material(str(texture), _vary(rng, colour), 3.0)
             for texture, colour in zip(wall_textures, _WALL_COLOURS)]
    floor = Material('floor', _pick(rng, _WOOD_COLOURS[:4]), 2.0)
    scene = Scene(size, (*walls, floor, Material('ceiling', (0.95, 0.95, 0.92), 1.8)), textures)
    furnish = _Furnisher(rng, scene, path)
    furnish.along_walls(int(rng.integers(2, 5)), furnish.shelf)
    furnish.along_walls(int(rng.integers(1, 4)), furnish.cupboard)
    furnish.along_walls(int(rng.integers(1, 3)), furnish.sofa)
    furnish.along_walls(int(rng.integers(3, 7)), furnish.picture)
    furnish.anywhere(int(rng.integers(0, 3)), furnish.table)
    furnish.anywhere(int(rng.integers(0, 3)), furnish.pillar)
    furnish.anywhere(int(rng.integers(2, 6)), furnish.crate)
    furnish.anywhere(int(rng.integers(0, 3)), furnish.rug)
    return scene


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    """Return one of `colours`, varied a little."""
    return _vary(rng, colours[rng.integers(len(colours))])


def _vary(rng: np.random.Generator, colour: Colour) -> Colour:
    """Return `colour`, varied a little."""
    red, green, blue = np.minimum(np.asarray(colour) * rng.uniform(0.9, 1.06, 3), 1.0)
    return float(red), float(green), float(blue)


Placement = Callable[[float, float, float], list[Box]]


class _Furnisher:
    """Puts pieces of furniture where there is room for them, with a few tries each."""

    def __init__(self, rng: np.random.Generator, scene: Scene, path: np.ndarray) -> None:
        self._rng = rng
        self._scene = scene
        self._path = path

    # Where things go -----------------------------------------------------------------------------

    def along_walls(self, count: int, piece: Callable[[], tuple[float, Placement]]) -> None:
        """Stand `count` pieces with their backs to a wall."""
        length, width, _ = self._scene.size
        for _ in range(count):
            depth, place = piece()
            for _ in range(12):
                # Local -y looks into the room; +y is the back.
                wall = self._rng.integers(4)
                if wall < 2:
                    x = self._rng.uniform(0.9, length - 0.9)
                    y, yaw = (depth / 2, np.pi) if wall == 0 else (width - depth / 2, 0.0)
                else:
                    y = self._rng.uniform(0.9, width - 0.9)
                    x, yaw = ((depth / 2, np.pi / 2) if wall == 2
                              else (length - depth / 2, -np.pi / 2))
                if self._add(place(x, y, yaw)):
                    break

    def anywhere(self, count: int, piece: Callable[[], Placement]) -> None:
        """Stand `count` pieces somewhere on the floor."""
        length, width, _ = self._scene.size
        for _ in range(count):
            place = piece()
            for _ in range(60):
                x = self._rng.uniform(0.5, length - 0.5)
                y = self._rng.uniform(0.5, width - 0.5)
                if self._add(place(x, y, self._rng.uniform(-np.pi, np.pi))):
                    break

    def _add(self, boxes: list[Box]) -> bool:
        """Add `boxes` if they leave the path clear and touch nothing; return whether."""
        for box in boxes:
            top = box.centre[2] + box.size[2] / 2
            if top > LOW_HEIGHT and box.ground_distance(self._path).min() < PATH_CLEARANCE:
                return False
            if any(_overlap(box, other) for other in self._scene.boxes):
                return False
        self._scene.boxes.extend(boxes)
        return True

    # Pieces for the walls: their depth and how to place them -------------------------------------

    def shelf(self) -> tuple[float, Placement]:
        """Return a book shelf."""
        rng = self._rng
        size = (rng.uniform(1.0, 1.9), rng.uniform(0.32, 0.45), rng.uniform(1.5, 2.2))
        wood = Material('wood', _pick(rng, _WOOD_COLOURS), 1.5)
        books = Material(f'books{rng.integers(BOOK_COUNT)}', (1.0, 1.0, 1.0), None)
        return size[1], lambda x, y, yaw: [
            Box((x, y, size[2] / 2), size, yaw, wood, front=books)]

    def cupboard(self) -> tuple[float, Placement]:
        """Return a low cupboard with something on top."""
        rng = self._rng
        size = (rng.uniform(0.9, 1.6), rng.uniform(0.4, 0.55), rng.uniform(0.7, 1.0))
        body = Material('wood', _pick(rng, _WOOD_COLOURS), 1.0)
        vase = (0.22, 0.22, rng.uniform(0.25, 0.5))
        vase_material = Material('wallpaper', _pick(rng, _CLOTH_COLOURS), 0.6)
        return size[1], lambda x, y, yaw: [
            Box((x, y, size[2] / 2), size, yaw, body),
            Box((x, y, size[2] + vase[2] / 2), vase, yaw + 0.5, vase_material)]

    def sofa(self) -> tuple[float, Placement]:
        """Return a seat and its back."""
        rng = self._rng
        width, depth = rng.uniform(1.5, 2.2), 0.85
        cloth = Material('fabric', _pick(rng, _CLOTH_COLOURS), 0.9)

        def place(x: float, y: float, yaw: float) -> list[Box]:
            back_x, back_y = -np.sin(yaw) * 0.32, np.cos(yaw) * 0.32
            return [Box((x, y, 0.21), (width, depth, 0.42), yaw, cloth),
                    Box((x + back_x, y + back_y, 0.63), (width, 0.2, 0.42), yaw, cloth)]
        return depth, place

    def picture(self) -> tuple[float, Placement]:
        """Return a painting that hangs on the wall."""
        rng = self._rng
        size = (rng.uniform(0.6, 1.3), 0.05, rng.uniform(0.5, 0.9))
        height = rng.uniform(1.5, 1.9)
        canvas = Material(f'picture{rng.integers(PICTURE_COUNT)}', (1.0, 1.0, 1.0), None)
        frame = Material('wood', (0.4, 0.3, 0.25), 0.5)
        return size[1], lambda x, y, yaw: [Box((x, y, height), size, yaw, frame, front=canvas)]

    # Pieces for the floor ------------------------------------------------------------------------

    def table(self) -> Placement:
        """Return a table: a board on four legs, and a box on it."""
        rng = self._rng
        length, width, height = rng.uniform(1.0, 1.8), rng.uniform(0.6, 0.9), rng.uniform(0.7, 0.8)
        wood = Material('wood', _pick(rng, _WOOD_COLOURS), 1.2)
        thing = Material(f'picture{rng.integers(PICTURE_COUNT)}', (1.0, 1.0, 1.0), 0.5)
        thing_size = tuple(rng.uniform(0.15, 0.4, 3))

        def place(x: float, y: float, yaw: float) -> list[Box]:
            cos, sin = np.cos(yaw), np.sin(yaw)
            boxes = [Box((x, y, height), (length, width, 0.06), yaw, wood)]
            for along, across in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                dx, dy = along * (length / 2 - 0.06), across * (width / 2 - 0.06)
                leg = (x + cos * dx - sin * dy, y + sin * dx + cos * dy, (height - 0.03) / 2)
                boxes.append(Box(leg, (0.07, 0.07, height - 0.03), yaw, wood))
            boxes.append(Box((x, y, height + 0.03 + thing_size[2] / 2), thing_size, yaw + 0.4,
                             thing))
            return boxes
        return place

    def pillar(self) -> Placement:
        """Return a pillar from floor to ceiling."""
        side = self._rng.uniform(0.3, 0.5)
        height = self._scene.size[2]
        stone = Material('brick', _vary(self._rng, _STONE_COLOUR), 1.6)
        return lambda x, y, yaw: [Box((x, y, height / 2), (side, side, height), 0.3 * yaw, stone)]

    def crate(self) -> Placement:
        """Return a wooden crate."""
        size = tuple(self._rng.uniform(0.35, 0.8, 3))
        wood = Material('crate', _pick(self._rng, _WOOD_COLOURS), None)
        return lambda x, y, yaw: [Box((x, y, size[2] / 2), size, yaw, wood)]

    def rug(self) -> Placement:
        """Return a rug, flat enough to drive over."""
        size = (self._rng.uniform(1.5, 2.5), self._rng.uniform(1.0, 1.6), 0.012)
        cloth = Material('fabric', _pick(self._rng, _CLOTH_COLOURS), 1.1)
        return lambda x, y, yaw: [Box((x, y, size[2] / 2), size, 0.2 * yaw, cloth)]


def _overlap(first: Box, second: Box) -> bool:
    """Return whether two boxes meet, by their heights and the separating axes of their feet."""
    gap = abs(first.centre[2] - second.centre[2]) - (first.size[2] + second.size[2]) / 2
    if gap > -1e-6 or min(first.size[2], second.size[2]) < 0.02:   # one above the other; a rug
        return False
    for box, other in ((first, second), (second, first)):
        corners = box.local_from_world(other.corners())[:, :2]
        half = np.asarray(box.size[:2]) / 2 + 0.02
        if np.any(corners.min(axis=0) > half) or np.any(corners.max(axis=0) < -half):
            return False
    return True
