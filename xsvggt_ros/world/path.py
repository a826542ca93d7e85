"""The paths a camera takes through the synthetic world: smooth, closed, without an end."""

from typing import Protocol

import numpy as np

_SAMPLES = 2048          # of the closed curve, about a centimetre apart
_WALL_DISTANCE = 1.6     # metres that the mean curve keeps from the walls, room for furniture
_TURN_RATE = 0.7         # rad/s, the mean of a turn in place


class Path(Protocol):
    """The pose of a camera as a function of time; any frame rate samples the same way."""

    floor_path: np.ndarray   # [n, 2] metres, where on the floor it can be: nothing may stand there

    def world_from_camera(self, time: float) -> np.ndarray:
        """Return the pose [4, 4] of the camera's optical frame at `time` seconds, float64."""


def draw_path(rng: np.random.Generator, room: tuple[float, float, float], speed: float) -> Path:
    """Return one of the kinds of path through a `room` (length, width, height)."""
    kind = rng.integers(3)
    if kind == 0:
        return DrivePath(rng, room, speed)
    return ErrandPath(rng, room, speed, handheld=kind == 2)


class DrivePath:
    """A lap around the room at constant speed, looking about a little as a robot would."""

    def __init__(self, rng: np.random.Generator, room: tuple[float, float, float],
                 speed: float = 0.6) -> None:
        """Draw a closed path through a `room` (length, width, height); `speed` in m/s."""
        angle = np.linspace(0.0, 2 * np.pi, _SAMPLES + 1)
        wave = (0.07 * np.sin(2 * angle + rng.uniform(0, 2 * np.pi))
                + 0.05 * np.sin(3 * angle + rng.uniform(0, 2 * np.pi)))
        turned = angle * rng.choice([-1.0, 1.0]) + rng.uniform(0, 2 * np.pi)
        half = np.asarray(room[:2]) / 2
        reach = (half - _WALL_DISTANCE) * (1.0 + wave)[:, None]
        self.floor_path = half + reach * np.stack([np.cos(turned), np.sin(turned)], axis=1)

        steps = np.linalg.norm(np.diff(self.floor_path, axis=0), axis=1)
        self._distance = np.concatenate([[0.0], np.cumsum(steps)])
        self.length = float(self._distance[-1])     # metres per lap
        self.speed = speed
        self._height = rng.uniform(0.75, 1.15)
        self._phases = rng.uniform(0, 2 * np.pi, 4)
        # Whole numbers of swings per lap, so that the next lap repeats this one exactly.
        self._swings = rng.integers(2, 5, 2)

    def world_from_camera(self, time: float) -> np.ndarray:
        """Return the pose [4, 4] of the camera's optical frame at `time` seconds, float64."""
        lap = 2 * np.pi * (time * self.speed / self.length)
        x, y = self._position(time * self.speed)
        ahead, behind = (self._position(time * self.speed + step) for step in (0.15, -0.15))
        heading = np.arctan2(ahead[1] - behind[1], ahead[0] - behind[0])
        heading += 0.30 * np.sin(self._swings[0] * lap + self._phases[0])
        pitch = -0.10 + 0.05 * np.sin(self._swings[1] * lap + self._phases[1])
        roll = 0.010 * np.sin(11 * lap + self._phases[2])
        z = self._height + 0.008 * np.sin(23 * lap + self._phases[3])
        return _look(np.array([x, y, z]), heading, pitch, roll)

    def _position(self, distance: float) -> tuple[float, float]:
        """Return world x and y after `distance` metres."""
        along = distance % self.length
        return (float(np.interp(along, self._distance, self.floor_path[:, 0])),
                float(np.interp(along, self._distance, self.floor_path[:, 1])))


class ErrandPath:
    """
    From place to place and back to the first: turn in place, go, sometimes stop and look back.

    On wheels the camera stays level; held in a hand it sways, nods and changes its height.
    """

    def __init__(self, rng: np.random.Generator, room: tuple[float, float, float],
                 speed: float = 0.6, handheld: bool = False) -> None:
        """Draw a round through a `room` (length, width, height); `speed` in m/s, its mean."""
        half = np.asarray(room[:2]) / 2
        count = int(rng.integers(4, 7))
        # Sorted by their direction from the middle, so that the path seldom crosses itself.
        angles = np.sort(rng.uniform(0, 2 * np.pi, count))[::rng.choice([-1, 1])]
        reach = (half - _WALL_DISTANCE) * rng.uniform(0.35, 1.1, (count, 1))
        places = half + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self.floor_path = np.concatenate([
            start + np.linspace(0.0, 1.0, 200)[:, None] * (end - start)
            for start, end in zip(places, np.roll(places, -1, axis=0))])
        self._times, self._states = _itinerary(rng, places, speed)
        self._height = rng.uniform(0.75, 1.3 if handheld else 1.15)
        self._sway = np.array([0.06, 0.10, 0.04, 0.08] if handheld else [0, 0.02, 0.004, 0.004])
        self._pitch = rng.uniform(-0.16, -0.04)
        self._rates = rng.uniform(0.5, 1.6, 4)  # rad/s
        self._phases = rng.uniform(0, 2 * np.pi, 4)

    def world_from_camera(self, time: float) -> np.ndarray:
        """Return the pose [4, 4] of the camera's optical frame at `time` seconds, float64."""
        rounds, within = divmod(time, self._times[-1])
        index = min(int(np.searchsorted(self._times, within, side='right')), len(self._times) - 1)
        start, end = self._times[index - 1], self._times[index]
        part = (within - start) / (end - start)
        part = part * part * (3 - 2 * part)  # starts and ends at rest
        x, y, heading = self._states[index - 1] * (1 - part) + self._states[index] * part
        # A round may end some full turns from where it began.
        heading += rounds * (self._states[-1][2] - self._states[0][2])
        yaw, nod, roll, bob = self._sway * np.sin(self._rates * time + self._phases)
        return _look(np.array([x, y, self._height + bob]), heading + yaw, self._pitch + nod, roll)


def _itinerary(rng: np.random.Generator, places: np.ndarray,
               speed: float) -> tuple[np.ndarray, np.ndarray]:
    """Return when [n] a round through `places` [m, 2] is where: x, y and heading [n, 3]."""
    legs = np.roll(places, -1, axis=0) - places
    headings = np.unwrap(np.arctan2(legs[:, 1], legs[:, 0]))
    times, states = [0.0], [np.array([*places[0], headings[0]])]

    def reach(state: np.ndarray, seconds: float) -> None:
        times.append(times[-1] + max(seconds, 0.05))
        states.append(state)

    for number, (leg, heading) in enumerate(zip(legs, headings)):
        here = np.array([*places[number], heading])
        reach(here, abs(heading - states[-1][2]) / _TURN_RATE)
        what = rng.uniform()
        if what < 0.25:
            reach(here, rng.uniform(0.5, 2.0))  # stop
        elif what < 0.5:
            back = here + [0.0, 0.0, rng.choice([-1, 1]) * rng.uniform(0.6, 1.0) * np.pi]
            reach(back, abs(back[2] - heading) / _TURN_RATE)
            reach(here, abs(back[2] - heading) / _TURN_RATE)
        reach(np.array([*(places[number] + leg), heading]), float(np.linalg.norm(leg)) / speed)
    end = headings[0] + 2 * np.pi * np.round((headings[-1] - headings[0]) / (2 * np.pi))
    reach(np.array([*places[0], end]), abs(end - headings[-1]) / _TURN_RATE)
    return np.array(times), np.array(states)


def random_pose(rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
    """Return a pose [4, 4] at `position` [3] that looks anywhere, as a hand or robot might."""
    return _look(position, rng.uniform(-np.pi, np.pi), rng.normal(-0.1, 0.1),
                 rng.normal(0.0, 0.03))


def _look(position: np.ndarray, heading: float, pitch: float, roll: float) -> np.ndarray:
    """Return the pose [4, 4] of an optical frame (x right, y down, z ahead) in a z-up world."""
    forward = np.array([np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch),
                        np.sin(pitch)])
    level_right = np.array([np.sin(heading), -np.cos(heading), 0.0])
    level_down = np.cross(forward, level_right)
    pose = np.eye(4)
    pose[:3, 0] = np.cos(roll) * level_right + np.sin(roll) * level_down
    pose[:3, 1] = np.cos(roll) * level_down - np.sin(roll) * level_right
    pose[:3, 2] = forward
    pose[:3, 3] = position
    return pose
