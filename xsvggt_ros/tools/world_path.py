"""The way a camera takes through the synthetic world: a smooth closed drive, without an end."""

import numpy as np

_SAMPLES = 2048          # of the closed curve, about a centimetre apart
_WALL_DISTANCE = 1.75    # metres that the mean curve keeps from the walls, room for furniture


class DrivePath:
    """
    A lap around the room at constant speed, looking about a little as a robot would.

    The pose is a smooth function of time, so that any frame rate samples the same drive.
    """

    def __init__(self, rng: np.random.Generator, room: tuple[float, float, float],
                 speed: float = 0.6) -> None:
        """Draw a closed way through a `room` (length, width, height); `speed` in m/s."""
        angle = np.linspace(0.0, 2 * np.pi, _SAMPLES + 1)
        wave = (0.07 * np.sin(2 * angle + rng.uniform(0, 2 * np.pi))
                + 0.05 * np.sin(3 * angle + rng.uniform(0, 2 * np.pi)))
        turned = angle * rng.choice([-1.0, 1.0]) + rng.uniform(0, 2 * np.pi)
        half = np.asarray(room[:2]) / 2
        reach = (half - _WALL_DISTANCE) * (1.0 + wave)[:, None]
        self.way = half + reach * np.stack([np.cos(turned), np.sin(turned)], axis=1)  # [n, 2]

        steps = np.linalg.norm(np.diff(self.way, axis=0), axis=1)
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
        return (float(np.interp(along, self._distance, self.way[:, 0])),
                float(np.interp(along, self._distance, self.way[:, 1])))


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
