"""An occupancy grid that grows with a stream, in bounded memory and a bounded time a frame."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from xsvggt_ros.geometry.similarity import apply_to_pose, scales
from xsvggt_ros.mapping.floor import Floor
from xsvggt_ros.mapping.keyframes import Keyframes
from xsvggt_ros.mapping.occupancy import allocate, Cells, GridOptions, Rays

MOST_SCANS = 200
RAYS = 1500            # of a scan, at most
MOST_CELLS = 1000      # a side
AT_ONCE = 5            # scans that are cast in one go
LEAST_SCANS = 3        # before there is a floor
_FLOOR_POINTS = 4000   # that it is looked for in


@dataclass(frozen=True)
class _Scan:
    """
    Points [N, 3] in the camera's frame, and where that was in the odometry frame.

    keyframe: of the trajectory, of which it is a part.
    """

    points: np.ndarray
    odom_from_camera: np.ndarray
    keyframe: int
    middle: np.ndarray   # [3], of the points

    def rays(self, grid_from_odom: np.ndarray) -> Rays:
        return Rays.transformed(self.points, grid_from_odom @ self.odom_from_camera)


class OccupancyMap:
    """
    Keeps scans of keyframes, and casts them when somebody wants the grid.

    The grid's frame is looked for again whenever there are twice as many scans; all are cast anew
    then. Ray casting with log odds: Moravec and Elfes, ICRA 1985; Thrun et al., Probabilistic
    Robotics, ch. 9.
    """

    def __init__(self) -> None:
        """Begin without a scan."""
        self.clear()

    def clear(self) -> None:
        """Forget all scans."""
        self._scans: Keyframes[_Scan] = Keyframes(MOST_SCANS)
        self._floor: Floor | None = None
        self._cells: Cells | None = None
        self._chosen = GridOptions()
        self._given: GridOptions | None = None    # with which the cells were made
        self._pending: deque[_Scan] = deque()
        self._next_floor = LEAST_SCANS            # scans at which it is looked for again
        self._count = 0
        self._off = 0.0                           # by which scans have moved since they were cast

    def add(self, points: np.ndarray, odom_from_camera: np.ndarray, keyframe: int = 0) -> bool:
        """
        Take the points [N, 3] of a frame in its camera's frame if it is far from the last one.

        keyframe: of the trajectory, of which the frame is a part.
        """
        points = points[np.isfinite(points).all(axis=1)]
        # A cloud without points says nothing, and must not count for those that do.
        if not len(points) or not self._scans.takes(
                odom_from_camera, float(np.median(points[:, 2]))):
            return False
        points = points[::len(points) // RAYS + 1].astype(np.float32)
        scan = _Scan(points, odom_from_camera, keyframe, np.median(points, axis=0))
        self._scans.add(scan)
        self._pending.append(scan)
        self._count += 1
        return True

    def rescale(self, factor: float, centre: np.ndarray) -> None:
        """Multiply all lengths about a point [3] of the odometry frame: it has another unit."""
        def scaled(scan: _Scan) -> _Scan:
            pose = scan.odom_from_camera.copy()
            pose[:3, 3] = centre + factor * (pose[:3, 3] - centre)
            return replace(scan, points=scan.points * np.float32(factor), odom_from_camera=pose,
                           middle=scan.middle * np.float32(factor))

        self._scans.items = [scaled(scan) for scan in self._scans.items]
        self._begin_anew()

    def move(self, similarities: Callable[[np.ndarray], np.ndarray]) -> bool:
        """
        Move all scans; return whether the grid is to be made anew for that.

        similarities: from keyframes [N] to transforms [N, 4, 4] of the odometry frame. What moves
        by less than a cell is not cast anew, and nothing is before all scans are in the grid:
        one that follows each of many loops would never be complete.
        """
        scans = self._scans.items
        if not scans:
            return False
        moves = similarities(np.array([scan.keyframe for scan in scans]))
        before = np.array([scan.odom_from_camera for scan in scans])
        after, factors = apply_to_pose(moves, before), scales(moves)
        moved = {id(scan): _moved(scan, pose, factor)
                 for scan, pose, factor in zip(scans, after, factors)}
        self._off += _largest_shift(before, after, np.array([scan.middle for scan in scans]),
                                    factors)
        self._pending = deque(moved.get(id(scan), scan) for scan in self._pending)
        self._scans.items = list(moved.values())
        return self.is_off

    @property
    def is_off(self) -> bool:
        """Return whether scans have moved by more than a cell since they were cast."""
        return self._cells is not None and self._off > self._cells.resolution

    def cast(self, options: GridOptions) -> bool:
        """
        Cast some of the scans that wait; return whether all are in the grid, and there is one.

        options: in the stream's unit; 0 is chosen, see `GridOptions`.
        """
        if options != self._given or self._count >= self._next_floor or (
                self.is_off and not self._pending):
            self._begin_anew()
        if self._cells is None and not self._begin_grid(options):
            return False
        assert self._cells is not None and self._floor is not None
        for _ in range(min(AT_ONCE, len(self._pending))):
            rays = self._pending.popleft().rays(self._floor.grid_from_odom)
            self._cells.include(rays.points[:, :2], MOST_CELLS)
            rays.cast(self._cells, self._chosen)
        return not self._pending

    @property
    def is_possible(self) -> bool:
        """Return whether there are scans enough for a grid."""
        return self._count >= LEAST_SCANS

    @property
    def cells(self) -> Cells:
        """Return the grid; there is one when `cast` says so."""
        assert self._cells is not None
        return self._cells

    @property
    def odom_from_grid(self) -> np.ndarray:
        """Return where the grid's frame is, [4, 4]: z up, z = 0 on the floor."""
        assert self._floor is not None
        return np.linalg.inv(self._floor.grid_from_odom)

    def _begin_anew(self) -> None:
        self._cells = self._floor = None
        self._off = 0.0
        self._pending = deque(self._scans.items)

    def _begin_grid(self, options: GridOptions) -> bool:
        """Look for the floor, and allocate cells; return whether there is enough for it."""
        scans = self._scans.items
        if self._count < LEAST_SCANS:
            return False
        poses = [scan.odom_from_camera for scan in scans]
        points = np.concatenate([scan.points[::len(scans)] @ pose[:3, :3].T + pose[:3, 3]
                                 for scan, pose in zip(scans, poses)])
        points = points[::len(points) // _FLOOR_POINTS + 1]
        self._floor = Floor.find(dict(zip('xyz', points.T)), poses)
        rays = [scan.rays(self._floor.grid_from_odom) for scan in scans]
        self._given = options
        self._chosen = options.chosen(self._floor.camera_height, rays)
        self._cells = allocate(rays, self._chosen.resolution, MOST_CELLS)
        self._next_floor = 2 * self._count
        return True


def _moved(scan: _Scan, odom_from_camera: np.ndarray, factor: float) -> _Scan:
    """Return a scan at another pose, `factor` times as large."""
    return replace(scan, odom_from_camera=odom_from_camera,
                   points=scan.points * np.float32(factor),
                   middle=scan.middle * np.float32(factor))


def _largest_shift(before: np.ndarray, after: np.ndarray, middles: np.ndarray,
                   factors: np.ndarray) -> float:
    """
    Return by how far scans have moved, their cameras or what is in the middle of their points.

    before, after: odom_from_camera [N, 4, 4]; middles [N, 3], in cameras, `factors` [N] as far
    off after.
    """
    origins = after[:, :3, 3] - before[:, :3, 3]
    seen = (after[:, :3, :3] @ (factors[:, None] * middles)[..., None]
            - before[:, :3, :3] @ middles[..., None])[..., 0] + origins
    return float(max(np.linalg.norm(seen, axis=1).max(), np.linalg.norm(origins, axis=1).max()))
