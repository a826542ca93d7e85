"""A whole scene: room, openings, furniture and lights, drawn by one random generator."""

from dataclasses import dataclass

import numpy as np

from training.wide_world.furniture import AT_WALLS, IN_THE_OPEN, Site
from training.wide_world.materials import Material, Palette
from training.wide_world.room_shapes import build_shell, draw_room, Room, turn_about_z
from training.wide_world.solids import Patches, Solids
from training.wide_world.textures import Textures

_TRIES = 8      # places that are tried for a piece of furniture


@dataclass(frozen=True)
class Light:
    """A source of light: points of a lamp or a window."""

    points: np.ndarray      # [n, 3] metres
    normal: np.ndarray | None   # [3] where a window shines to; None: everywhere
    colour: np.ndarray      # [3]


@dataclass(frozen=True)
class Scene:
    """What there is to see."""

    room: Room
    patches: Patches
    materials: list[Material]
    lights: list[Light]
    ambient: np.ndarray     # [3] light that comes from everywhere
    taken: np.ndarray       # [n, 3] x, y and radius of what stands on the floor


def draw_scene(rng: np.random.Generator, textures: Textures) -> Scene:
    """Return a scene."""
    room, solids, palette = draw_room(rng), Solids(), Palette(rng, textures)
    build_shell(rng, room, solids, palette)
    lights = _openings(rng, room, solids, palette)
    taken: list[tuple[float, float, float]] = []
    area = float(np.prod(np.ptp(room.outline, axis=0)))
    for _ in range(round(np.clip(area, 4, 50) * rng.uniform(0.1, 0.55)) + 2):
        _place_at_wall(rng, room, solids, palette, taken)
    for _ in range(round(np.clip(area, 0, 60) * rng.uniform(0.0, 0.22))):
        _place_in_the_open(rng, room, solids, palette, taken)
    lights += _lamps(rng, room, solids, palette)
    ambient = rng.uniform(0.2, 0.7) * (1 + 0.1 * rng.normal(size=3))
    return Scene(room, solids.patches(), palette.materials, lights, ambient,
                 np.array(taken).reshape(-1, 3))


def _openings(rng: np.random.Generator, room: Room, solids: Solids,
              palette: Palette) -> list[Light]:
    """Add windows with their light, doors, pictures, curtains, radiators and rugs."""
    lights = []
    dark = rng.uniform() < 0.2
    for start, length, heading in room.walls():
        turn = turn_about_z(heading)
        along = turn[:, 0]
        used = 0.2
        while used < length - 0.6:
            kind = rng.choice(['window', 'door', 'picture', 'nothing', 'board'],
                              p=[0.22, 0.12, 0.3, 0.28, 0.08])
            wide = float({'window': rng.uniform(0.6, 2.2), 'door': rng.uniform(0.7, 1.0),
                          'picture': rng.uniform(0.2, 1.2)}.get(kind, rng.uniform(0.4, 1.5)))
            if used + wide > length - 0.1:
                break
            middle = np.array([*start, 0.0]) + along * (used + wide / 2)
            site = Site(rng, solids, palette, middle, turn)
            if kind == 'window':
                light = _window(site, wide, room.height, dark)
                if light is not None:
                    lights.append(light)
            elif kind == 'door':
                _door(site, wide)
            elif kind == 'picture':
                tall = rng.uniform(0.2, 0.9)
                z = rng.uniform(1.2, 1.7)
                site.add('box', (0, 0.012, z), (wide, 0.025, tall), palette.take('wood'))
                site.add('sheet', (0, 0.027, z), (wide * 0.88, 1, tall * 0.85),
                         palette.draw('picture'), np.pi, fitted=True)
            elif kind == 'board':
                low = rng.uniform(0.0, 1.2)
                site.box((-wide / 2, 0, low), (wide / 2, 0.03, low + rng.uniform(0.4, 1.0)),
                         palette.take('wood' if rng.uniform() < 0.5 else 'thing'), fitted=True)
            used += wide + rng.uniform(0.1, 1.5)
    for _ in range(int(rng.integers(0, 3))):
        where = rng.uniform(room.outline.min(axis=0), room.outline.max(axis=0))
        size = rng.uniform(0.6, 2.5, 2)
        solids.add('box' if rng.uniform() < 0.7 else 'cylinder', np.array([*where, 0.006]),
                   np.array([*size, 0.012]), turn_about_z(rng.uniform(-np.pi, np.pi)),
                   palette.draw('fabric'), True)
    return lights


def _window(site: Site, wide: float, height: float, dark: bool) -> Light | None:
    """Add a window with frame, sill, curtains or a radiator; return its light, if it is day."""
    rng, palette = site.rng, site.palette
    low = rng.uniform(0.7, 1.1) if rng.uniform() < 0.8 else 0.05
    high = min(rng.uniform(1.8, 2.4), height - 0.1)
    bright = 0.03 if dark else rng.uniform(0.6, 2.5)
    outside = palette.draw('outside', emission=bright)
    site.add('sheet', (0, 0.01, (low + high) / 2), (wide, 1, high - low), outside, np.pi,
             fitted=True)
    frame = palette.take('front')
    for x in np.linspace(-wide / 2, wide / 2, int(rng.integers(2, 5))):
        site.box((x - 0.03, 0, low), (x + 0.03, 0.05, high), frame)
    for z in (low, high, *rng.uniform(low, high, int(rng.integers(0, 2)))):
        site.box((-wide / 2, 0, z - 0.03), (wide / 2, 0.05, z + 0.03), frame)
    site.box((-wide / 2 - 0.05, 0, low - 0.06), (wide / 2 + 0.05, 0.18, low - 0.03),
             palette.take('stone'))
    site.clutter((-wide / 2, 0.06), (wide / 2, 0.14), low - 0.03, 2, 0.3)
    if rng.uniform() < 0.4:
        _curtains(site, wide, high)
    if low > 0.5 and rng.uniform() < 0.4:
        ribs = palette.take('front')
        for x in np.arange(-wide / 2, wide / 2, 0.08):
            site.box((x, 0.04, 0.12), (x + 0.05, 0.12, low - 0.12), ribs)
    if dark:
        return None
    points = np.stack([rng.uniform(-0.5, 0.5, 4) * wide, np.full(4, 0.08),
                       rng.uniform(low, high, 4)], axis=-1)
    colour = np.array([0.85, 0.95, 1.1]) if rng.uniform() < 0.6 else np.array([1.1, 0.95, 0.8])
    power = bright * wide * (high - low) * rng.uniform(0.6, 1.6)
    return Light(points @ site.turn.T + site.origin, site.turn[:, 1], colour * power)


def _curtains(site: Site, wide: float, high: float) -> None:
    """Add curtains of folds at both sides of a window."""
    rng = site.rng
    cloth, low = site.palette.draw('fabric'), rng.uniform(0.02, 0.8)
    for side in (-1, 1):
        for fold in range(int(rng.integers(3, 8))):
            x = side * (wide / 2 + 0.15 - 0.07 * fold)
            site.add('cylinder', (x, 0.13, (low + high + 0.1) / 2), (0.08, 0.07, high + 0.1 - low),
                     cloth)


def _door(site: Site, wide: float) -> None:
    """Add a door with its frame and handle."""
    palette, tall = site.palette, site.rng.uniform(1.95, 2.1)
    frame = palette.take('wood')
    site.box((-wide / 2, 0, 0), (wide / 2, 0.03, tall), palette.take('front'), fitted=True)
    for x in (-wide / 2, wide / 2):
        site.box((x - 0.04, 0, 0), (x + 0.04, 0.06, tall), frame)
    site.box((-wide / 2 - 0.04, 0, tall), (wide / 2 + 0.04, 0.06, tall + 0.08), frame)
    x = (wide / 2 - 0.1) * site.rng.choice([-1, 1])
    site.box((x - 0.06, 0.03, 1.0), (x + 0.06, 0.07, 1.025), palette.take('metal'))


def _place_at_wall(rng: np.random.Generator, room: Room, solids: Solids, palette: Palette,
                   taken: list[tuple[float, float, float]]) -> None:
    """Put a piece of furniture somewhere along a wall, if there is room."""
    walls = room.walls()
    lengths = np.array([length for _, length, _ in walls])
    for _ in range(_TRIES):
        start, length, heading = walls[rng.choice(len(walls), p=lengths / lengths.sum())]
        turn = turn_about_z(heading)
        at = start + turn[:2, 0] * rng.uniform(0.0, length)
        if _build(rng, AT_WALLS, at + turn[:2, 1] * 0.02, turn, room, solids, palette, taken):
            return


def _place_in_the_open(rng: np.random.Generator, room: Room, solids: Solids, palette: Palette,
                       taken: list[tuple[float, float, float]]) -> None:
    """Put a piece of furniture anywhere on the floor, if there is room."""
    for _ in range(_TRIES):
        at = rng.uniform(room.outline.min(axis=0), room.outline.max(axis=0))
        turn = turn_about_z(rng.uniform(-np.pi, np.pi))
        if _build(rng, IN_THE_OPEN, at, turn, room, solids, palette, taken):
            return


def _build(rng: np.random.Generator, kinds: dict, at: np.ndarray, turn: np.ndarray, room: Room,
           solids: Solids, palette: Palette, taken: list[tuple[float, float, float]]) -> bool:
    """Build a piece at `at` if its surroundings are free; return whether it was."""
    front = at + turn[:2, 1] * 0.3
    if not room.contains(front) or any(
            (front[0] - x) ** 2 + (front[1] - y) ** 2 < (0.75 * radius) ** 2
            for x, y, radius in taken):
        return False
    weights = np.cumsum(list(kinds.values()))
    kind = list(kinds)[int(np.searchsorted(weights, rng.uniform(0, weights[-1])))]
    trial = Solids()
    width, depth = kind(Site(rng, trial, palette, np.array([*at, 0.0]), turn))
    corners = np.array([(x, y) for x in (-width / 2, 0, width / 2) for y in (0.05, depth)])
    corners = corners @ turn[:2, :2].T + at
    middle = at + turn[:2, 1] * depth / 2
    radius = 0.5 * float(np.hypot(width, depth))
    free = room.contains(corners).all() and all(
        np.hypot(*(middle - other[:2])) > 0.75 * (radius + other[2]) for other in taken)
    if not free:
        return False
    solids.extend(trial)
    taken.append((float(middle[0]), float(middle[1]), radius))
    return True


def _lamps(rng: np.random.Generator, room: Room, solids: Solids, palette: Palette) -> list[Light]:
    """Add lamps at the ceiling and their light."""
    lights = []
    for _ in range(int(rng.integers(1, 5))):
        at = rng.uniform(room.outline.min(axis=0), room.outline.max(axis=0))
        if not room.contains(at, 0.3):
            continue
        drop = rng.uniform(0.05, 0.6) if rng.uniform() < 0.5 else 0.03
        kind = str(rng.choice(['ball', 'box', 'cylinder', 'cone']))
        wide = rng.uniform(0.15, 0.6)
        size = (wide, wide * (rng.uniform(0.3, 3.0) if kind == 'box' else 1.0),
                min(wide, max(drop, 0.06)))
        centre = np.array([*at, room.height - drop])
        on = rng.uniform() < 0.75
        turn = turn_about_z(rng.uniform(-np.pi, np.pi))
        solids.add(kind, centre, np.array(size), turn,
                   palette.draw('paint', emission=rng.uniform(0.8, 3.0) if on else 0.0))
        if drop > 0.1:
            solids.add('cylinder', centre + [0, 0, drop / 2], np.array([0.015, 0.015, drop]),
                       np.eye(3), palette.take('metal'))
        if on:
            warm = rng.uniform(0.6, 1.0)
            points = centre + rng.uniform(-0.5, 0.5, (3, 3)) * [*size[:2], 0.0] - [
                0, 0, size[2] / 2 + 0.05]
            lights.append(Light(points, None, rng.uniform(0.5, 2.5) * np.array(
                [1.0, 0.55 + 0.45 * warm, 0.2 + 0.8 * warm])))
    return lights
