"""An occupancy grid for nav2_map_server: depth rays, cast in a frame whose z axis is up."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xsvggt_ros.mapping.floor import Floor
from xsvggt_ros.mapping.keyframes import Keyframes
from xsvggt_ros.mapping.occupancy import (
    allocate,
    Cells,
    FREE_ODDS,
    GridOptions,
    OCCUPIED_ODDS,
    OCCUPIED_THRESHOLD,
    Rays,
)
from xsvggt_ros.recordings.exports.depth_grid import DepthGrid
from xsvggt_ros.recordings.exports.export import ExportOptions, FrameOutput
from xsvggt_ros.recordings.recording import Recording

IMAGE_FILE, YAML_FILE = 'map.pgm', 'map.yaml'
MOST_SCANS = 400
COLUMNS, ROWS = 64, 48    # rays of a scan, at most
OCCUPIED, FREE, UNKNOWN = 0, 254, 205   # grey values, as nav2_map_server has them
FREE_THRESHOLD = 0.196


@dataclass(frozen=True)
class _Scan:
    number: int
    grid: DepthGrid


class GridExport:
    """Writes map.pgm and map.yaml; free, occupied and unknown cells about the camera's path."""

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
            rays.append(Rays.transformed(points, floor.grid_from_odom @ pose))
        options = self._options.chosen(floor.camera_height, rays)
        cells = allocate(rays, options.resolution)
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

    def _write(self, cells: Cells) -> None:
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


def _grey(odds: np.ndarray) -> np.ndarray:
    """Return the cells' grey values for trinary maps, uint8."""
    values = np.full(odds.shape, UNKNOWN, np.uint8)
    values[odds > OCCUPIED_ODDS] = OCCUPIED
    values[odds < FREE_ODDS] = FREE
    return values
