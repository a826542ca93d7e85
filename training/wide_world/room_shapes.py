"""Shapes of rooms: boxes, corridors, L shapes, niches, slanted walls and ceilings."""

from dataclasses import dataclass

import numpy as np

from training.wide_world.materials import Palette
from training.wide_world.solids import Solids

_SEGMENT = 2.5     # metres of a wall that are one patch


@dataclass(frozen=True)
class Room:
    """A room: the outline of its floor, counter-clockwise, and its walls."""

    outline: np.ndarray     # [n, 2] metres
    height: float           # of the lowest part of the ceiling
    top: float              # of the highest

    def contains(self, points: np.ndarray, margin: float = 0.0) -> np.ndarray:
        """Return which of points [..., 2] lie inside, `margin` metres from the walls."""
        start = self.outline
        edge = np.roll(start, -1, axis=0) - start
        off = points[..., None, :] - start                          # [..., n, 2]
        above = off[..., 1] < 0
        crosses = above != (off[..., 1] < edge[:, 1])
        steep = np.where(edge[:, 1] == 0, 1.0, edge[:, 1])
        left = off[..., 0] < edge[:, 0] * off[..., 1] / steep
        inside = np.count_nonzero(crosses & left, axis=-1) % 2 == 1
        if not margin:
            return inside
        along = np.clip((off * edge).sum(axis=-1) / (edge * edge).sum(axis=-1), 0, 1)
        away = np.square(off - along[..., None] * edge).sum(axis=-1)
        return inside & (away.min(axis=-1) >= margin * margin)

    def walls(self) -> list[tuple[np.ndarray, float, float]]:
        """Return start [2], length and heading of each wall; the room lies to its left."""
        ends = np.roll(self.outline, -1, axis=0)
        return [(start, float(np.hypot(*(end - start))),
                 float(np.arctan2(end[1] - start[1], end[0] - start[0])))
                for start, end in zip(self.outline, ends)]


def draw_room(rng: np.random.Generator) -> Room:
    """Return one of many shapes, 2 to 15 metres long."""
    length = float(np.exp(rng.uniform(np.log(2.4), np.log(9.0))))
    width = float(np.clip(length * rng.uniform(0.5, 1.0), 1.8, None))
    kind = rng.uniform()
    if kind < 0.12:     # corridor
        length, width = rng.uniform(5.0, 15.0), rng.uniform(1.5, 3.0)
    elif kind < 0.2:    # hall
        length, width = rng.uniform(7.0, 15.0), rng.uniform(6.0, 12.0)
    outline = np.array([(0, 0), (length, 0), (length, width), (0, width)], float)
    if kind > 0.75 and min(length, width) > 3.0:
        outline = _cut_corner(rng, length, width)
    elif kind > 0.6:
        outline = _niche(rng, length, width)
    elif kind > 0.5:    # slanted walls
        outline = outline + rng.uniform(-0.15, 0.15, (4, 2)) * [length, width]
    height = rng.uniform(2.2, 3.1) if length < 7 else rng.uniform(2.4, 4.5)
    top = height + (rng.uniform(0.5, 1.5) if rng.uniform() < 0.15 else 0.0)
    return Room(outline, float(height), float(top))


def _cut_corner(rng: np.random.Generator, length: float, width: float) -> np.ndarray:
    """Return the outline of an L."""
    x, y = length * rng.uniform(0.35, 0.75), width * rng.uniform(0.35, 0.75)
    outline = np.array([(0, 0), (length, 0), (length, y), (x, y), (x, width), (0, width)])
    if rng.uniform() < 0.5:
        outline = (outline * [-1, 1] + [length, 0])[::-1]
    return outline


def _niche(rng: np.random.Generator, length: float, width: float) -> np.ndarray:
    """Return the outline of a room with a niche, or with something built into a wall."""
    start, end = np.sort(rng.uniform(0.1, 0.9, 2)) * length
    if end - start < 0.4:
        end = min(start + 0.8, length * 0.95)
    deep = rng.uniform(0.2, 1.2) * rng.choice([-1.0, 1.0])
    deep = max(deep, -0.4 * width)
    return np.array([(0, 0), (length, 0), (length, width), (end, width), (end, width + deep),
                     (start, width + deep), (start, width), (0, width)])


def turn_about_z(yaw: float) -> np.ndarray:
    """Return the rotation [3, 3] by `yaw` radians about z."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def build_shell(rng: np.random.Generator, room: Room, solids: Solids, palette: Palette) -> None:
    """Add floor, walls, ceiling, skirting boards and beams of `room` to `solids`."""
    common = palette.draw('paint' if rng.uniform() < 0.65 else 'wall')
    skirting = palette.draw('front') if rng.uniform() < 0.6 else None
    dado = palette.draw('wall') if rng.uniform() < 0.15 else None
    for start, length, heading in room.walls():
        material = common if rng.uniform() < 0.75 else palette.draw(
            'paint' if rng.uniform() < 0.6 else 'wall')
        turn = turn_about_z(heading)
        along, inward = turn[:2, 0], turn[:2, 1]
        pieces = max(1, round(length / _SEGMENT))
        for piece in range(pieces):
            middle = start + along * length * (piece + 0.5) / pieces
            # A sheet faces its own -y.
            solids.add('sheet', np.array([*middle, room.top / 2]),
                       np.array([length / pieces, 1.0, room.top]), turn_about_z(heading + np.pi),
                       material)
        middle = start + along * length / 2
        for cover, tall, deep in ((skirting, 0.08, 0.015), (dado, 1.1, 0.01)):
            if cover is not None:
                centre = np.array([*(middle + inward * deep / 2), tall / 2])
                solids.add('box', centre, np.array([length, deep, tall]), turn, cover)
    low, high = room.outline.min(axis=0), room.outline.max(axis=0)
    _add_slab(solids, low, high, np.array([0.0, 0.0]), palette.draw('floor'))
    ceiling = palette.draw('ceiling')
    if room.top > room.height:   # one slope along x
        _add_slab(solids, low, high, np.array([room.height, room.top]), ceiling)
    else:
        _add_slab(solids, low, high, np.array([room.height] * 2), ceiling)
    if rng.uniform() < 0.12:
        beam = palette.draw('wood')
        for y in np.arange(low[1] + 0.5, high[1], rng.uniform(0.8, 1.6)):
            solids.add('box', np.array([(low[0] + high[0]) / 2, y, room.height - 0.08]),
                       np.array([high[0] - low[0], 0.12, 0.16]), np.eye(3), beam)


def _add_slab(solids: Solids, low: np.ndarray, high: np.ndarray, heights: np.ndarray,
              material: int) -> None:
    """Add a floor or a ceiling over a rectangle; `heights` at its low and its high x."""
    length, rise = high[0] - low[0], heights[1] - heights[0]
    slope = np.arctan2(rise, length)
    along = np.array([np.cos(slope), 0.0, np.sin(slope)])
    across = np.array([0.0, 1.0, 0.0])
    # A sheet faces its own -y: a floor up, a ceiling down.
    back = np.cross(along, across) * (1.0 if heights.any() else -1.0)
    turn = np.stack([along, back, across], axis=1)
    pieces = max(1, round(length / 4.0))
    for piece in range(pieces):
        share = (piece + 0.5) / pieces
        centre = np.array([low[0] + share * length, (low[1] + high[1]) / 2,
                           heights[0] + share * rise])
        solids.add('sheet', centre,
                   np.array([np.hypot(length, rise) / pieces, 1.0, high[1] - low[1]]), turn,
                   material)
