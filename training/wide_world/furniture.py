"""
Furniture of primitive shapes, and what lies on it.

Each piece is built in a frame of its own: x along the wall behind it, y from there into the room,
z up; the origin is on the floor in the middle of its back. Returns width and depth of what it
stands on, so that nothing else is put there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.wide_world.materials import Palette
from training.wide_world.room_shapes import turn_about_z
from training.wide_world.solids import Solids

Triple = tuple[Any, Any, Any]    # numbers, of Python or of numpy
_ROUND = ('cylinder', 'bottle', 'vase', 'bowl', 'cone')


@dataclass(frozen=True)
class Site:
    """Where a piece of furniture is built."""

    rng: np.random.Generator
    solids: Solids
    palette: Palette
    origin: np.ndarray      # [3] of the piece's frame in the room
    turn: np.ndarray        # [3, 3] room_from_piece

    def add(self, kind: str, centre: Triple, size: Triple, material: int, yaw: float = 0.0,
            tilt: np.ndarray | None = None, fitted: bool = False) -> None:
        """Add a solid of the piece, in the piece's frame."""
        local = turn_about_z(yaw) if tilt is None else turn_about_z(yaw) @ tilt
        self.solids.add(kind, self.origin + self.turn @ np.asarray(centre),
                        np.asarray(size, float), self.turn @ local, material, fitted)

    def box(self, low: Triple, high: Triple, material: int, fitted: bool = False) -> None:
        """Add an upright box between two corners."""
        a, b = np.asarray(low, float), np.asarray(high, float)
        self.add('box', tuple((a + b) / 2), tuple(np.abs(b - a)), material, fitted=fitted)

    def clutter(self, low: tuple[float, float], high: tuple[float, float], z: float,
                most: int, tallest: float = 0.4) -> None:
        """Put up to `most` things onto a surface at height z, between two corners."""
        rng = self.rng
        for _ in range(int(rng.integers(0, most + 1))):
            x, y = rng.uniform(low, high)
            wide = float(np.exp(rng.uniform(np.log(0.05), np.log(0.3))))
            tall = float(min(np.exp(rng.uniform(np.log(0.03), np.log(0.4))), tallest))
            kind = 'box' if rng.uniform() < 0.5 else str(rng.choice(
                [*_ROUND, 'ball', 'cushion', 'wedge']))
            deep = wide * rng.uniform(0.5, 1.0) if kind in ('box', 'wedge', 'cushion') else wide
            if kind == 'ball':
                tall = min(wide, tall)
            self.add(kind, (x, y, z + tall / 2), (wide, deep, tall), self.palette.take('thing'),
                     rng.uniform(-np.pi, np.pi), fitted=bool(rng.uniform() < 0.5))


def cupboards(site: Site) -> tuple[float, float]:
    """Build a row of kitchen cupboards with a worktop, often with more of them above."""
    rng, palette = site.rng, site.palette
    count, unit = int(rng.integers(2, 7)), rng.uniform(0.4, 0.7)
    width, deep, tall = count * unit, rng.uniform(0.5, 0.7), rng.uniform(0.8, 0.95)
    body, front, top = palette.take('front'), palette.take('front'), palette.take('stone')
    site.box((-width / 2, 0, 0.1), (width / 2, deep, tall - 0.04), body)
    site.box((-width / 2, 0, tall - 0.04), (width / 2, deep + 0.03, tall), top)
    _fronts(site, width, count, deep, 0.12, tall - 0.06, front)
    site.clutter((-width / 2 + 0.1, 0.1), (width / 2 - 0.1, deep - 0.1), tall, 3 * count)
    if rng.uniform() < 0.6:     # splash back and shelves or cupboards above
        site.box((-width / 2, 0, tall), (width / 2, 0.012, tall + 0.5), palette.draw('wall'))
        low, high, out = tall + rng.uniform(0.4, 0.6), tall + rng.uniform(0.95, 1.3), 0.35
        site.box((-width / 2, 0, low), (width / 2, out, high), body)
        _fronts(site, width, count, out, low, high, front)
    if rng.uniform() < 0.4:     # a cooker, or a hood over one
        x = rng.uniform(-width / 3, width / 3)
        site.box((x - 0.28, 0.06, tall), (x + 0.28, deep - 0.06, tall + 0.012),
                 palette.draw('metal', brightness=(0.03, 0.2)))
        site.add('cone', (x, 0.25, tall + 0.85), (0.6, 0.5, 0.3), palette.take('metal'))
    return width, deep


def _fronts(site: Site, width: float, count: int, y: float, low: float, high: float,
            material: int) -> None:
    """Add doors or drawers with handles."""
    unit = width / count
    handle = site.palette.take('metal')
    for number in range(count):
        x = -width / 2 + unit * (number + 0.5)
        rows = int(site.rng.choice([1, 1, 2, 3]))
        step = (high - low) / rows
        for row in range(rows):
            z = low + step * row
            site.box((x - unit / 2 + 0.008, y, z + 0.008),
                     (x + unit / 2 - 0.008, y + 0.018, z + step - 0.008), material)
            site.box((x - 0.07, y + 0.018, z + step - 0.07),
                     (x + 0.07, y + 0.04, z + step - 0.055), handle)


def shelf(site: Site) -> tuple[float, float]:
    """Build shelves with books and things."""
    rng, palette = site.rng, site.palette
    width, deep = rng.uniform(0.6, 2.2), rng.uniform(0.22, 0.45)
    tall, rows = rng.uniform(0.8, 2.2), int(rng.integers(2, 6))
    wood = palette.take('wood')
    site.box((-width / 2, 0, 0), (width / 2, 0.015, tall), wood)
    for x in (-width / 2, width / 2 - 0.025):
        site.box((x, 0, 0), (x + 0.025, deep, tall), wood)
    step = (tall - 0.03) / rows
    for row in range(rows + 1):
        z = 0.03 + step * row
        site.box((-width / 2, 0, z - 0.025), (width / 2, deep, z), wood)
        if row < rows and rng.uniform() < 0.55:
            _books(site, width - 0.06, deep, z, step - 0.05)
        elif row < rows:
            site.clutter((-width / 2 + 0.12, 0.08), (width / 2 - 0.12, deep - 0.08), z, 5,
                         step - 0.06)
    site.clutter((-width / 2 + 0.1, 0.05), (width / 2 - 0.1, deep - 0.05), tall, 3)
    return width, deep


def _books(site: Site, width: float, deep: float, z: float, tallest: float) -> None:
    """Add a row of books, or of files."""
    rng = site.rng
    x, end = -width / 2, -width / 2 + width * rng.uniform(0.4, 1.0)
    while x < end:
        thick = rng.uniform(0.02, 0.09)
        tall = min(rng.uniform(0.16, 0.34), tallest)
        site.box((x, 0.02, z), (x + thick, deep * rng.uniform(0.6, 0.95), z + tall),
                 site.palette.take('thing'))
        x += thick + (rng.uniform(0, 0.1) if rng.uniform() < 0.1 else 0.002)


def _legs(site: Site, low: tuple[float, float], high: tuple[float, float], tall: float,
          thick: float, material: int) -> None:
    """Add four legs."""
    kind = str(site.rng.choice(['box', 'cylinder']))
    for x in (low[0] + thick, high[0] - thick):
        for y in (low[1] + thick, high[1] - thick):
            site.add(kind, (x, y, tall / 2), (thick, thick, tall), material)


def chair(site: Site) -> tuple[float, float]:
    """Build a chair or a stool."""
    rng, palette = site.rng, site.palette
    wide, seat = rng.uniform(0.36, 0.5), rng.uniform(0.4, 0.5)
    wood = palette.take('wood' if rng.uniform() < 0.6 else 'plastic')
    cover = palette.take('fabric') if rng.uniform() < 0.5 else wood
    if rng.uniform() < 0.25:    # on one foot
        site.add('cylinder', (0, wide / 2, seat / 2), (0.06, 0.06, seat), palette.take('metal'))
        site.add('cylinder', (0, wide / 2, 0.02), (0.45, 0.45, 0.04), palette.take('metal'))
    else:
        _legs(site, (-wide / 2, 0), (wide / 2, wide), seat, 0.035, wood)
    kind = 'box' if rng.uniform() < 0.7 else 'cylinder'
    site.add(kind, (0, wide / 2, seat), (wide, wide, rng.uniform(0.03, 0.08)), cover)
    if rng.uniform() < 0.8:
        back = rng.uniform(0.3, 0.55)
        site.box((-wide / 2, -0.02, seat + 0.1), (wide / 2, 0.02, seat + back), cover)
        for x in (-wide / 2 + 0.02, wide / 2 - 0.02):
            site.box((x - 0.015, -0.015, seat), (x + 0.015, 0.015, seat + back), wood)
    return wide, wide


def table(site: Site) -> tuple[float, float]:
    """Build a table with chairs about it and things on it."""
    rng, palette = site.rng, site.palette
    wide, deep = rng.uniform(0.6, 2.0), rng.uniform(0.5, 1.0)
    tall = rng.uniform(0.68, 0.8) if rng.uniform() < 0.7 else rng.uniform(0.35, 0.5)
    wood = palette.take('wood')
    if rng.uniform() < 0.25:    # a round one
        wide = deep = rng.uniform(0.6, 1.2)
        site.add('cylinder', (0, deep / 2, tall - 0.02), (wide, deep, 0.04), wood)
        site.add('cylinder', (0, deep / 2, tall / 2), (0.1, 0.1, tall), palette.take('metal'))
        site.clutter((-wide / 3, deep / 5), (wide / 3, 4 * deep / 5), tall, 6)
    else:
        site.box((-wide / 2, 0, tall - 0.04), (wide / 2, deep, tall), wood)
        _legs(site, (-wide / 2, 0), (wide / 2, deep), tall - 0.04, rng.uniform(0.03, 0.09), wood)
        site.clutter((-wide / 2 + 0.1, 0.1), (wide / 2 - 0.1, deep - 0.1), tall, 10)
    if tall > 0.6:
        for side in (-1, 1):
            for x in np.arange(-wide / 2 + 0.35, wide / 2 - 0.2, 0.65):
                if rng.uniform() < 0.5:
                    where = np.array([x, deep / 2 - side * (deep / 2 + rng.uniform(-0.1, 0.3)), 0])
                    yaw = (0.0 if side > 0 else np.pi) + rng.normal(0, 0.3)
                    chair(Site(rng, site.solids, palette, site.origin + site.turn @ where,
                               site.turn @ turn_about_z(yaw)))
    return wide, deep


def desk(site: Site) -> tuple[float, float]:
    """Build a desk with a screen, a keyboard and a lamp."""
    rng, palette = site.rng, site.palette
    wide, deep, tall = rng.uniform(1.0, 1.8), rng.uniform(0.55, 0.8), rng.uniform(0.7, 0.77)
    wood, dark = palette.take('wood'), palette.draw('plastic', brightness=(0.02, 0.25))
    site.box((-wide / 2, 0, tall - 0.03), (wide / 2, deep, tall), wood)
    _legs(site, (-wide / 2, 0), (wide / 2, deep), tall - 0.03, 0.05, palette.take('metal'))
    if rng.uniform() < 0.6:
        site.box((wide / 2 - 0.45, 0.05, 0.05), (wide / 2 - 0.05, deep - 0.05, tall - 0.05),
                 palette.take('front'))
    for number in range(int(rng.integers(0, 3))):
        x = -0.3 + 0.6 * number
        site.add('box', (x, 0.2, tall + 0.32), (0.55, 0.03, 0.33), dark)
        site.add('sheet', (x, 0.218, tall + 0.32), (0.52, 1, 0.3),
                 palette.draw('picture', emission=rng.uniform(0, 0.6)), yaw=np.pi, fitted=True)
        site.add('box', (x, 0.18, tall + 0.09), (0.06, 0.03, 0.18), dark)
        site.add('box', (x, 0.2, tall + 0.008), (0.22, 0.18, 0.016), dark)
        site.add('wedge', (x, 0.48, tall + 0.015), (0.42, 0.15, 0.03), palette.take('plastic'),
                 yaw=np.pi)
    site.clutter((-wide / 2 + 0.1, 0.1), (wide / 2 - 0.1, deep - 0.1), tall, 8)
    if rng.uniform() < 0.6:
        seat = Site(rng, site.solids, palette,
                    site.origin + site.turn @ np.array([rng.uniform(-0.3, 0.3), deep + 0.5, 0]),
                    site.turn @ turn_about_z(np.pi + rng.normal(0, 0.5)))
        chair(seat)
    return wide, deep


def sofa(site: Site) -> tuple[float, float]:
    """Build a sofa or an armchair."""
    rng, palette = site.rng, site.palette
    seats = int(rng.integers(1, 4))
    wide, deep, seat = 0.3 + 0.65 * seats, rng.uniform(0.75, 0.95), rng.uniform(0.38, 0.46)
    cover = palette.take('fabric')
    site.box((-wide / 2, 0, 0.08), (wide / 2, deep, seat - 0.08), cover)
    site.box((-wide / 2, 0, seat - 0.1), (wide / 2, 0.22, seat + rng.uniform(0.35, 0.5)), cover)
    for x in (-wide / 2, wide / 2 - 0.15):
        site.box((x, 0, 0.08), (x + 0.15, deep, seat + 0.18), cover)
    for number in range(seats):
        x = -wide / 2 + 0.15 + (wide - 0.3) * (number + 0.5) / seats
        site.add('cushion', (x, deep / 2 + 0.1, seat), (0.66, deep - 0.2, 0.2), cover)
        if rng.uniform() < 0.6:
            tilt = _tilt(rng, 0.4)
            site.add('cushion', (x, 0.35, seat + 0.27), (0.42, 0.15, 0.4), palette.take('fabric'),
                     tilt=tilt)
    return wide, deep


def bed(site: Site) -> tuple[float, float]:
    """Build a bed, its head at the wall."""
    rng, palette = site.rng, site.palette
    wide, long, tall = rng.uniform(0.9, 1.9), rng.uniform(1.9, 2.15), rng.uniform(0.35, 0.55)
    wood, cover = palette.take('wood'), palette.take('fabric')
    site.box((-wide / 2, 0, 0), (wide / 2, 0.05, tall + rng.uniform(0.2, 0.6)), wood)
    site.box((-wide / 2, 0.05, 0.1), (wide / 2, long, tall - 0.15), wood)
    site.add('cushion', (0, long / 2, tall - 0.08), (wide, long - 0.05, 0.28), cover)
    for x in (-wide / 4, wide / 4) if wide > 1.3 else (0.0,):
        site.add('cushion', (x, 0.35, tall + 0.1), (0.6, 0.4, 0.18), palette.take('fabric'))
    if rng.uniform() < 0.6:
        site.add('cushion', (0, long * 0.7, tall), (wide + 0.06, long * 0.55, 0.22),
                 palette.take('fabric'))
    return wide, long


def wardrobe(site: Site) -> tuple[float, float]:
    """Build a wardrobe, a fridge or another tall box."""
    rng, palette = site.rng, site.palette
    wide, deep, tall = rng.uniform(0.5, 2.0), rng.uniform(0.35, 0.7), rng.uniform(1.3, 2.2)
    site.box((-wide / 2, 0, 0.03), (wide / 2, deep, tall), palette.take('front'))
    _fronts(site, wide, max(1, round(wide / 0.5)), deep, 0.06, tall - 0.03, palette.take('front'))
    site.clutter((-wide / 2 + 0.1, 0.1), (wide / 2 - 0.1, deep - 0.1), tall, 3)
    return wide, deep


def plant(site: Site) -> tuple[float, float]:
    """Build a plant in a pot."""
    rng, palette = site.rng, site.palette
    tall, wide = rng.uniform(0.3, 1.6), rng.uniform(0.2, 0.4)
    pot = wide * rng.uniform(0.7, 1.1)
    site.add(str(rng.choice(['cylinder', 'vase', 'bowl'])), (0, 0.3, pot / 2), (wide, wide, pot),
             palette.take('thing'))
    leaf = palette.draw('leaf')
    site.add('cylinder', (0, 0.3, pot + tall / 3), (0.02, 0.02, tall * 0.7), palette.draw('wood'))
    for _ in range(int(rng.integers(12, 40))):
        way = rng.normal(size=3) * [0.4, 0.4, 0.35] * tall * 0.6
        size = rng.uniform(0.06, 0.22)
        site.add('sheet', (way[0], 0.3 + way[1], pot + tall * 0.5 + way[2]),
                 (size * rng.uniform(0.3, 0.7), 1, size), leaf, rng.uniform(-np.pi, np.pi),
                 _tilt(rng, 1.2), fitted=True)
    return wide + 0.3, wide + 0.3


def heap(site: Site) -> tuple[float, float]:
    """Build a heap of boxes, sacks and other things."""
    rng, palette = site.rng, site.palette
    wide, tall = rng.uniform(0.4, 1.2), rng.uniform(0.2, 0.9)
    for _ in range(int(rng.integers(5, 22))):
        away = abs(rng.normal(0, wide / 3))
        angle = rng.uniform(0, 2 * np.pi)
        z = rng.uniform(0.03, max(tall * (1 - away / wide), 0.05))
        size = rng.uniform(0.08, 0.4, 3)
        kind = str(rng.choice(['box', 'box', 'cushion', 'ball', 'cylinder', 'cone', 'wedge']))
        site.add(kind, (away * np.cos(angle), wide / 2 + away * np.sin(angle), z), tuple(size),
                 palette.take('thing'), rng.uniform(-np.pi, np.pi), _tilt(rng, 0.5),
                 fitted=bool(rng.uniform() < 0.5))
    return wide, wide


def lamp(site: Site) -> tuple[float, float]:
    """Build a lamp on a stand."""
    rng, palette = site.rng, site.palette
    tall = rng.uniform(0.9, 1.8)
    site.add('cylinder', (0, 0.25, tall / 2), (0.03, 0.03, tall), palette.take('metal'))
    site.add('cylinder', (0, 0.25, 0.015), (0.28, 0.28, 0.03), palette.take('metal'))
    site.add(str(rng.choice(['cone', 'ball', 'cylinder'])), (0, 0.25, tall), (0.35, 0.35, 0.28),
             palette.draw('paint', emission=rng.uniform(0.0, 1.0)))
    return 0.4, 0.4


def pillar(site: Site) -> tuple[float, float]:
    """Build a pillar, a pipe or a partition."""
    rng, palette = site.rng, site.palette
    wide, deep = rng.uniform(0.1, 0.5), rng.uniform(0.1, 1.2)
    if rng.uniform() < 0.5:
        site.add('cylinder', (0, wide / 2, 1.5), (wide, wide, 3.0), palette.take('paint'))
        return wide, wide
    site.box((-wide / 2, 0, 0), (wide / 2, deep, rng.uniform(1.2, 3.0)), palette.take('paint'))
    return wide, deep


def _tilt(rng: np.random.Generator, angle: float) -> np.ndarray:
    """Return a rotation [3, 3] about x and y of about `angle` radians."""
    a, b = rng.normal(0, angle, 2)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    return about_x @ about_y


# By how often they stand somewhere.
AT_WALLS: dict[Callable[[Site], tuple[float, float]], float] = {
    cupboards: 3.0, shelf: 3.0, desk: 2.0, sofa: 2.0, bed: 1.0, wardrobe: 2.0, plant: 1.5,
    heap: 1.5, lamp: 1.0, table: 1.0, chair: 1.5, pillar: 0.7}
IN_THE_OPEN: dict[Callable[[Site], tuple[float, float]], float] = {
    table: 4.0, chair: 2.0, sofa: 1.0, plant: 1.0, heap: 2.0, pillar: 1.0, cupboards: 1.0,
    desk: 1.0, shelf: 0.7, bed: 0.3, lamp: 0.5}
