"""Free, occupied and unknown cells by rays of depth, in a frame whose z axis is up."""

from collections.abc import Sequence
from dataclasses import dataclass
import math

import numpy as np

OCCUPIED_THRESHOLD = 0.65     # probability
OCCUPIED_ODDS = math.log(OCCUPIED_THRESHOLD / (1 - OCCUPIED_THRESHOLD))
FREE_ODDS = -0.3

_CELLS_ACROSS = 200       # of the camera's surroundings, if no resolution is given
_MOST_CELLS = 4000        # a side
_MOST_STEPS = 600         # of a ray: what is farther than some hundred cells is not cleared
_HIT, _MISS = 0.85, 0.4   # of the log odds
_SURE = 3.5               # the most that they become
_FLOOR = 0.1              # of the camera's height: what is that near to the floor is floor


@dataclass(frozen=True)
class GridOptions:
    """
    What is an obstacle; lengths in the run's unit, 0 lets the run choose.

    resolution: edge of a cell. low, high: heights above the floor between which a point is one;
    chosen, they are 0.1 and 1.1 times the height of the camera.
    """

    resolution: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def chosen(self, camera_height: float, rays: 'Sequence[Rays]') -> 'GridOptions':
        """Return the options with what is chosen: by the camera's height, and how far it sees."""
        resolution = self.resolution
        if not resolution:
            reaches = [ray.reach() for ray in rays if len(ray.points)]
            reach = np.concatenate(reaches or [np.ones(1)])
            resolution = rounded(2 * float(np.quantile(reach, 0.8)) / _CELLS_ACROSS)
        return GridOptions(resolution, self.low or _FLOOR * camera_height,
                           self.high or 1.1 * camera_height)


@dataclass
class Cells:
    """Log odds of the cells [rows, columns]; the first row is the least y."""

    odds: np.ndarray
    origin: np.ndarray      # [2] x, y of the lower left corner
    resolution: float

    def index(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of each point's cell [N], and which are inside, bool [N]."""
        cells = np.floor((points[:, :2] - self.origin) / self.resolution).astype(np.int64)
        rows, columns = self.odds.shape
        inside = ((cells >= 0) & (cells < (columns, rows))).all(axis=1)
        return cells[:, 1] * columns + cells[:, 0], inside

    def add(self, hit: np.ndarray, missed: np.ndarray) -> None:
        """Take what a scan says of cells, each once: an obstacle outweighs rays beside it."""
        odds = self.odds.reshape(-1)
        hit = np.unique(hit)
        missed = np.setdiff1d(missed, hit)
        odds[hit] = np.minimum(odds[hit] + _HIT, _SURE)
        odds[missed] = np.maximum(odds[missed] - _MISS, -_SURE)

    def include(self, points: np.ndarray, most: int) -> None:
        """Grow, by unknown cells, about nearly all of some points [N, 2]; to `most` a side."""
        if not len(points):
            return
        low, high = np.quantile(points, (0.02, 0.98), axis=0)
        size = np.array(self.odds.shape)[::-1]
        before = np.ceil((self.origin - low) / self.resolution).astype(int).clip(0)
        after = np.ceil((high - self.origin) / self.resolution).astype(int) - size
        # In steps, so that not every scan copies all cells.
        before, after = ((amount + 31) // 32 * 32 for amount in (before, after.clip(0)))
        before = np.minimum(before, (most - size).clip(0))
        after = np.minimum(after, (most - size - before).clip(0))
        if before.any() or after.any():
            self.odds = np.pad(self.odds, ((before[1], after[1]), (before[0], after[0])))
            self.origin = self.origin - before * self.resolution

    def occupancy(self) -> np.ndarray:
        """Return int8 [rows, columns] as nav_msgs/OccupancyGrid has it: 100, 0, -1 unknown."""
        values = np.full(self.odds.shape, -1, np.int8)
        values[self.odds > OCCUPIED_ODDS] = 100
        values[self.odds < FREE_ODDS] = 0
        return values


@dataclass(frozen=True)
class Rays:
    """The rays of a scan in the grid's frame: from one camera to points [N, 3]."""

    camera: np.ndarray
    points: np.ndarray

    @staticmethod
    def transformed(points: np.ndarray, grid_from_camera: np.ndarray) -> 'Rays':
        """Return the rays to the points that are known."""
        points = points[np.isfinite(points).all(axis=1)]
        return Rays(grid_from_camera[:3, 3],
                     points @ grid_from_camera[:3, :3].T + grid_from_camera[:3, 3])

    def reach(self) -> np.ndarray:
        """Return how far the points are in the plane, [N]."""
        return np.linalg.norm(self.points[:, :2] - self.camera[:2], axis=1)

    def cast(self, cells: Cells, options: GridOptions) -> None:
        """Mark the cells in which rays end at an obstacle, and those that they pass through."""
        heights = self.points[:, 2]
        obstacle = (heights >= options.low) & (heights <= options.high)
        floor = np.abs(heights) < options.low
        ends, inside = cells.index(self.points)
        hit = ends[obstacle & inside]
        passed = [ends[floor & inside]]
        reach = self.reach()
        longest = float(reach.max(initial=0.0))
        step = cells.resolution * 0.7
        # All rays together, one step farther each time; they end a cell before their points.
        count = min(int(longest / step), _MOST_STEPS)
        direction = (self.points - self.camera) / np.maximum(reach, 1e-9)[:, None]
        for number in range(count):
            far = number * step
            on_the_way = far < reach - cells.resolution
            places = self.camera + far * direction[on_the_way]
            level = (places[:, 2] >= options.low) & (places[:, 2] <= options.high)
            numbers, inside = cells.index(places[level])
            passed.append(np.unique(numbers[inside]))
        cells.add(hit, np.unique(np.concatenate(passed)))


def allocate(rays: Sequence[Rays], resolution: float, most: int = _MOST_CELLS) -> Cells:
    """Return unknown cells about all cameras and nearly all points."""
    places = [ray.points[:, :2] for ray in rays if len(ray.points)]
    cameras = np.array([ray.camera[:2] for ray in rays]).reshape(-1, 2)
    points = np.concatenate([*places, cameras]) if len(cameras) else np.zeros((1, 2))
    low, high = np.quantile(points, (0.005, 0.995), axis=0)
    if len(cameras):
        low, high = np.minimum(low, cameras.min(axis=0)), np.maximum(high, cameras.max(axis=0))
    low, high = low - 5 * resolution, high + 5 * resolution
    size = np.minimum(np.ceil((high - low) / resolution), most).astype(int)
    return Cells(np.zeros((size[1], size[0]), np.float32), low, resolution)


def rounded(value: float) -> float:
    """Return a length with one digit that counts: 1, 2 or 5."""
    if not value > 0:
        return 0.05
    power = 10.0 ** math.floor(math.log10(value))
    digit = value / power
    return float(power * (1 if digit < 1.5 else 2 if digit < 3.5 else 5 if digit < 7.5 else 10))
