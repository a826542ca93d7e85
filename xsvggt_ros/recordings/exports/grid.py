"""An occupancy grid for nav2_map_server: depth rays, cast in a frame whose z axis is up."""

from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any

import numpy as np

from xsvggt_ros.recordings.exports.export import ExportOptions, FrameOutput
from xsvggt_ros.recordings.exports.floor import Floor
from xsvggt_ros.recordings.exports.keyframes import DepthGrid, Keyframes
from xsvggt_ros.recordings.recording import Recording

IMAGE_FILE, YAML_FILE = 'map.pgm', 'map.yaml'
MOST_SCANS = 400
COLUMNS, ROWS = 64, 48    # rays of a scan, at most
OCCUPIED, FREE, UNKNOWN = 0, 254, 205   # grey values, as nav2_map_server has them
OCCUPIED_THRESHOLD, FREE_THRESHOLD = 0.65, 0.196

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


@dataclass(frozen=True)
class _Scan:
    number: int
    grid: DepthGrid


@dataclass
class _Cells:
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


class GridExport:
    """Writes map.pgm and map.yaml; free, occupied and unknown cells about the camera's way."""

    name = 'grid'

    def __init__(self, options: ExportOptions) -> None:
        """Write into the run's folder."""
        self._folder = options.folder
        self._options = GridOptions(**options.grid)
        self._unit = 'network units'
        self._scans: Keyframes[_Scan] = Keyframes(MOST_SCANS)
        self.notes: dict[str, Any] = {}

    def add(self, frame: FrameOutput) -> None:
        """Take a frame's depths if it is a keyframe."""
        grid = DepthGrid.sample(frame, COLUMNS, ROWS)
        if self._scans.takes(frame.pose.matrix(), grid.median()):
            self._scans.add(_Scan(frame.number, grid))

    def finish(self, recording: Recording) -> list[Path]:
        """Cast all rays with the final poses, and write the map."""
        self._unit = 'm' if recording.metric else self._unit
        poses = [recording.poses[scan.number].matrix() for scan in self._scans.items]
        floor = Floor.find(recording.cloud(), poses)
        rays = []
        for scan, pose in zip(self._scans.items, poses):
            points = scan.grid.points().reshape(-1, 3)
            rays.append(_Rays.transformed(points, floor.grid_from_odom @ pose))
        options = self._chosen(floor, rays)
        cells = _allocate(rays, options.resolution)
        for ray in rays:
            ray.cast(cells, options)
        self._write(cells)
        values = _grey(cells.odds)
        self.notes = {
            'unit': self._unit, 'resolution': options.resolution,
            'height_band': [options.low, options.high], 'camera_height': floor.camera_height,
            'floor': floor.words, 'grid_from_odom': floor.grid_from_odom.tolist(),
            'cells': {'occupied': int((values == OCCUPIED).sum()),
                      'free': int((values == FREE).sum()),
                      'unknown': int((values == UNKNOWN).sum())}}
        return [self._folder / IMAGE_FILE, self._folder / YAML_FILE]

    def _chosen(self, floor: Floor, rays: list['_Rays']) -> GridOptions:
        """Return the options with what the run chooses."""
        given = self._options
        height = floor.camera_height
        resolution = given.resolution
        if not resolution:
            reach = np.concatenate([np.ravel(ray.reach()) for ray in rays] or [np.ones(1)])
            resolution = _rounded(2 * float(np.quantile(reach, 0.8)) / _CELLS_ACROSS)
        return GridOptions(resolution, given.low or _FLOOR * height, given.high or 1.1 * height)

    def _write(self, cells: _Cells) -> None:
        values = _grey(cells.odds)[::-1]   # the picture's first row is the greatest y
        rows, columns = values.shape
        with open(self._folder / IMAGE_FILE, 'wb') as file:
            file.write(f'P5\n{columns} {rows}\n255\n'.encode('ascii'))
            file.write(np.ascontiguousarray(values).tobytes())
        x, y = cells.origin
        (self._folder / YAML_FILE).write_text(
            f'# lengths in {self._unit}\n'
            f'image: {IMAGE_FILE}\nmode: trinary\nresolution: {cells.resolution:.9g}\n'
            f'origin: [{x:.9g}, {y:.9g}, 0.0]\nnegate: 0\n'
            f'occupied_thresh: {OCCUPIED_THRESHOLD}\nfree_thresh: {FREE_THRESHOLD}\n',
            encoding='ascii')


@dataclass(frozen=True)
class _Rays:
    """The rays of a scan in the grid's frame: from one camera to points [N, 3]."""

    camera: np.ndarray
    points: np.ndarray

    @staticmethod
    def transformed(points: np.ndarray, grid_from_camera: np.ndarray) -> '_Rays':
        """Return the rays to the points that are known."""
        points = points[np.isfinite(points).all(axis=1)]
        return _Rays(grid_from_camera[:3, 3],
                     points @ grid_from_camera[:3, :3].T + grid_from_camera[:3, 3])

    def reach(self) -> np.ndarray:
        """Return how far the points are in the plane, [N]."""
        return np.linalg.norm(self.points[:, :2] - self.camera[:2], axis=1)

    def cast(self, cells: _Cells, options: GridOptions) -> None:
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


def _allocate(rays: list[_Rays], resolution: float) -> _Cells:
    """Return unknown cells about all cameras and nearly all points."""
    places = [ray.points[:, :2] for ray in rays if len(ray.points)]
    cameras = np.array([ray.camera[:2] for ray in rays]).reshape(-1, 2)
    points = np.concatenate([*places, cameras]) if len(cameras) else np.zeros((1, 2))
    low, high = np.quantile(points, (0.005, 0.995), axis=0)
    if len(cameras):
        low, high = np.minimum(low, cameras.min(axis=0)), np.maximum(high, cameras.max(axis=0))
    low, high = low - 5 * resolution, high + 5 * resolution
    size = np.minimum(np.ceil((high - low) / resolution), _MOST_CELLS).astype(int)
    return _Cells(np.zeros((size[1], size[0]), np.float32), low, resolution)


def _grey(odds: np.ndarray) -> np.ndarray:
    """Return the cells' grey values for trinary maps, uint8."""
    values = np.full(odds.shape, UNKNOWN, np.uint8)
    values[odds > math.log(OCCUPIED_THRESHOLD / (1 - OCCUPIED_THRESHOLD))] = OCCUPIED
    values[odds < -0.3] = FREE
    return values


def _rounded(value: float) -> float:
    """Return a length with one digit that counts: 1, 2 or 5."""
    if not value > 0:
        return 0.05
    power = 10.0 ** math.floor(math.log10(value))
    digit = value / power
    return float(power * (1 if digit < 1.5 else 2 if digit < 3.5 else 5 if digit < 7.5 else 10))
