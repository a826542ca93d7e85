"""Cameras of the wide world: lenses, and the paths that hands and robots take them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.wide_world.scene import Scene

_SIZES = ((112, 84), (112, 84), (112, 84), (112, 70), (112, 56), (112, 112))
_CLEARANCE = 0.28      # metres that a camera keeps from what there is
_TRIES = 24
_CHOICE = 3            # paths that are free, of which the one with most to see is taken
Sees = Callable[[np.ndarray, np.ndarray], np.ndarray]    # origins, directions -> distances


@dataclass(frozen=True)
class Shot:
    """A clip to be taken: a lens, a sensor and the poses of the frames."""

    width: int
    height: int
    focal: float                    # pixels, the same in x and y; the centre is at half the size
    world_from_camera: np.ndarray   # [F, 4, 4] at the middle row's time, optical frame, metres
    velocity: np.ndarray            # [F, 6] m/s and rad/s in the camera's frame
    exposure: float                 # seconds
    readout: float                  # seconds from the first to the last row

    def fields_of_view(self) -> np.ndarray:
        """Return vertical and horizontal field of view [2], rad."""
        return 2 * np.arctan(np.array([self.height, self.width]) / 2 / self.focal)


def draw_shot(rng: np.random.Generator, scene: Scene, sees: Sees, frames: int,
              size: tuple[int, int] | None = None) -> Shot:
    """
    Return a shot of `frames` frames along a path that runs into nothing.

    `size` is width and height in pixels; without it, one of several is drawn.
    """
    width, height = size or _SIZES[rng.integers(len(_SIZES))]
    wide = rng.uniform(np.deg2rad(45), np.deg2rad(110)) if rng.uniform() < 0.5 else rng.normal(
        np.deg2rad(65), np.deg2rad(9))
    wide = float(np.clip(wide, np.deg2rad(45), np.deg2rad(110)))
    focal = max(width, height) / 2 / np.tan(wide / 2)
    path, period = _draw_path(rng, scene, sees, frames)
    times = period * np.arange(frames)
    if rng.uniform() < 0.5:
        times = times[::-1]
    poses = path(times)
    step = 0.01
    before, after = path(times - step), path(times + step)
    back = poses[:, :3, :3].transpose(0, 2, 1)
    linear = np.einsum('fij,fj->fi', back, (after - before)[:, :3, 3]) / (2 * step)
    spin = back @ (after - before)[:, :3, :3] / (2 * step)
    angular = np.stack([spin[:, 2, 1], spin[:, 0, 2], spin[:, 1, 0]], axis=-1)
    exposure = float(np.exp(rng.uniform(np.log(0.001), np.log(0.035))))
    readout = float(rng.uniform(0.005, 0.03)) if rng.uniform() < 0.5 else 0.0
    return Shot(width, height, float(focal), poses, np.concatenate([linear, angular], axis=1),
                exposure, readout)


def _draw_path(rng: np.random.Generator, scene: Scene, sees: Sees,
               frames: int) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """Return poses as a function of times, and the seconds between two frames."""
    period = float(np.exp(rng.uniform(np.log(0.08), np.log(0.5))))
    found: list[tuple[float, Callable]] = []
    fallback: tuple[float, Callable] | None = None
    for attempt in range(_TRIES):
        # Short paths are free more often; from the tenth try on, they shrink.
        seconds = period * frames
        calm = 0.75 ** max(0, attempt - 9)
        kind = rng.uniform()
        if kind < 0.25:
            path = _robot(rng, scene, seconds, calm)
        elif kind < 0.85:
            path = _hand(rng, scene, seconds, calm)
        else:
            path = _turning(rng, scene, seconds)
        free, worth = _judge(path(np.linspace(0, seconds, 10)), scene, sees)
        if free >= _CLEARANCE:
            found.append((worth, path))
        if len(found) == _CHOICE:
            break
        if fallback is None or free > fallback[0]:
            fallback = free, path
    assert fallback is not None
    return max(found or [fallback], key=lambda one: one[0])[1], period


def _judge(poses: np.ndarray, scene: Scene, sees: Sees) -> tuple[float, float]:
    """
    Return how near anything comes along a path, and what there is to see.

    Metres, below 0 outside of the room; and a number that is larger where depths differ.
    """
    position = poses[:, :3, 3]
    inside = scene.room.contains(position[:, :2], 0.15)
    if not inside.all() or position[:, 2].max() > scene.room.height - 0.15:
        return -1.0, 0.0
    origins = np.repeat(position, len(_AROUND), axis=0)
    nearest = sees(origins, np.tile(_AROUND, (len(position), 1))).min()
    ahead = np.array([(x, y, 1.0) for x in (-0.5, 0, 0.5) for y in (-0.4, 0, 0.4)])
    rays = np.einsum('fij,nj->fni', poses[:, :3, :3], ahead).reshape(-1, 3)
    view = sees(np.repeat(position, len(ahead), axis=0), rays).reshape(len(poses), -1)
    steps = np.diff(position, axis=0)
    long = np.linalg.norm(steps, axis=1)
    passes = sees(position[:-1], steps / np.maximum(long, 1e-6)[:, None]) - long
    far = np.log(np.maximum(view, 0.05))
    return (float(min(nearest, 0.6 * np.median(view, axis=1).min(), passes.min() + _CLEARANCE)),
            float(far.std(axis=1).mean() + 0.3 * far.mean()))


def _directions() -> np.ndarray:
    """Return 14 directions [14, 3]: along the axes and the diagonals."""
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    diagonals = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    return np.concatenate([axes, diagonals / np.sqrt(3)])


_AROUND = _directions()


def look_at(position: np.ndarray, target: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Return poses [F, 4, 4] of optical frames (x right, y down, z ahead) in a z-up world."""
    ahead = target - position
    ahead /= np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-9)
    right = np.cross(ahead, np.array([0.0, 0.0, 1.0]))
    right /= np.maximum(np.linalg.norm(right, axis=-1, keepdims=True), 1e-9)
    down = np.cross(ahead, right)
    cos, sin = np.cos(roll)[:, None], np.sin(roll)[:, None]
    poses = np.tile(np.eye(4), (len(position), 1, 1))
    poses[:, :3, 0] = cos * right + sin * down
    poses[:, :3, 1] = cos * down - sin * right
    poses[:, :3, 2] = ahead
    poses[:, :3, 3] = position
    return poses


class _Waves:
    """Smooth random motion: sines of several periods, `size` per axis, about zero."""

    def __init__(self, rng: np.random.Generator, size: np.ndarray, periods: tuple[float, float],
                 count: int = 3) -> None:
        self._rates = 2 * np.pi / np.exp(rng.uniform(np.log(periods[0]), np.log(periods[1]),
                                                     (count, len(size))))
        self._phases = rng.uniform(0, 2 * np.pi, (count, len(size)))
        self._sizes = size * rng.dirichlet(np.ones(count), len(size)).T

    def __call__(self, time: np.ndarray) -> np.ndarray:
        """Return [F, axes] at times [F]."""
        angle = self._rates * time[:, None, None] + self._phases
        return (self._sizes * np.sin(angle)).sum(axis=1)


def _free_place(rng: np.random.Generator, scene: Scene, heights: tuple[float, float],
                ) -> np.ndarray:
    """Return a place [3] in the room that is probably free."""
    low, high = scene.room.outline.min(axis=0), scene.room.outline.max(axis=0)
    place = rng.uniform(low, high)
    for _ in range(20):
        away = np.hypot(*(scene.taken[:, :2] - place).T) - scene.taken[:, 2]
        if scene.room.contains(place, 0.4) and (away > 0.1).all():
            break
        place = rng.uniform(low, high)
    return np.array([*place, rng.uniform(*heights)])


def _hand(rng: np.random.Generator, scene: Scene, seconds: float,
          calm: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the path of a camera in a hand: it strolls, sways, nods, rolls and jerks."""
    start = _free_place(rng, scene, (0.8, 1.85))
    reach = calm * min(seconds * rng.uniform(0.05, 0.6), 5.0)
    heading = rng.uniform(-np.pi, np.pi)
    stroll = reach * np.array([np.cos(heading), np.sin(heading), 0.0])
    # What it looks at: something on the floor or on furniture, a few metres away.
    far = float(np.exp(rng.uniform(np.log(0.9), np.log(4.0))))
    side = rng.uniform(-np.pi, np.pi)
    target = start + far * np.array([np.cos(side), np.sin(side), 0.0])
    target[2] = rng.uniform(0.1, 1.6)
    follow = rng.uniform() < 0.5    # the target goes along: looking ahead; or stays: an orbit
    sweep = _Waves(rng, calm * far * rng.uniform(0.1, 1.2) * np.array([1, 1, 0.4]), (2.0, 12.0))
    sway = _Waves(rng, calm * rng.uniform(0.02, 0.35, 3) * [1, 1, 0.6], (1.5, 8.0))
    jerk = _Waves(rng, rng.uniform(0.001, 0.012) * np.ones(3), (0.15, 0.8), 4)
    shake = _Waves(rng, far * rng.uniform(0.002, 0.03) * np.ones(3), (0.15, 0.8), 4)
    tilt, lean = _Waves(rng, np.array([rng.uniform(0.0, 0.2)]), (1.0, 8.0)), rng.normal(0, 0.06)

    def path(time: np.ndarray) -> np.ndarray:
        part = (time / max(seconds, 1e-6))[:, None]
        moved = part * stroll
        position = start + moved + sway(time) + jerk(time)
        aim = target + (moved if follow else 0.0) + sweep(time) + shake(time)
        return look_at(position, aim, lean + tilt(time)[:, 0])

    return path


def _robot(rng: np.random.Generator, scene: Scene, seconds: float,
           calm: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the path of a robot: it looks where it drives, and turns as it does."""
    start = _free_place(rng, scene, (0.15, 1.3))
    speed, heading = calm * rng.uniform(0.1, 0.9), rng.uniform(-np.pi, np.pi)
    turn = _Waves(rng, np.array([rng.uniform(0.2, 1.8)]), (3.0, 15.0))
    pitch, nod = rng.normal(-0.08, 0.1), _Waves(rng, np.array([0.01, 0.01, 0.004]), (0.2, 1.0))
    grid = np.linspace(-0.5, seconds + 0.5, 400)
    yaw = heading + turn(grid)[:, 0]
    steps = speed * (grid[1] - grid[0]) * np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
    track = np.cumsum(steps, axis=0)
    track += start[:2] - track[len(track) // 2]

    def path(time: np.ndarray) -> np.ndarray:
        at = np.stack([np.interp(time, grid, track[:, axis]) for axis in (0, 1)], axis=-1)
        angle = np.interp(time, grid, yaw)
        shaken = nod(time)
        position = np.concatenate([at, start[2] + shaken[:, 2:]], axis=1)
        level = np.cos(pitch + shaken[:, 0])
        ahead = np.stack([np.cos(angle) * level, np.sin(angle) * level,
                          np.sin(pitch + shaken[:, 0])], axis=-1)
        return look_at(position, position + ahead, shaken[:, 1])

    return path


def _turning(rng: np.random.Generator, scene: Scene,
             seconds: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the path of a camera that mostly turns: a pan, or nearly standing still."""
    start = _free_place(rng, scene, (0.4, 1.8))
    rate = rng.normal(0, 0.5) * rng.choice([0.1, 1.0])
    heading, pitch = rng.uniform(-np.pi, np.pi), rng.normal(-0.1, 0.2)
    sway = _Waves(rng, rng.uniform(0.0, 0.12, 3), (1.5, 8.0))
    nod = _Waves(rng, np.array([0.15, 0.06]) * rng.uniform(0.1, 1.0), (1.0, 6.0))

    def path(time: np.ndarray) -> np.ndarray:
        position, shaken = start + sway(time), nod(time)
        angle, up = heading + rate * (time - seconds / 2), pitch + shaken[:, 0]
        ahead = np.stack([np.cos(angle) * np.cos(up), np.sin(angle) * np.cos(up), np.sin(up)], -1)
        return look_at(position, position + ahead, shaken[:, 1])

    return path
