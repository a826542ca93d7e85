"""All clouds of a stream in one voxel map whose memory is allocated once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xsvggt_ros.geometry.se3 import transform_points
from xsvggt_ros.mapping.voxel_table import ErrorSteps, MAX_VOXEL, VoxelTable
from xsvggt_ros.model.error_table import ErrorTable

MAX_POINTS = 2 ** 20  # 55 MB
_FULL = 0.75          # of the places; more, and voxels that the map chose itself are doubled
_VOXELS_ACROSS = 200  # of the first cloud's extent
_CHUNK = 2 ** 16      # points, or places for them, that are looked at together
_SAMPLE = 50_000      # points from which the voxel size is chosen


@dataclass(frozen=True)
class MapFill:
    """
    How full a map is.

    points: voxels with a point; capacity: the most there can be; lost: points of the newest cloud
    that found no place; lost_total: the same of all clouds since the map was cleared.
    """

    points: int
    capacity: int
    lost: int
    lost_total: int


class PointMap:
    """
    Keeps the mean of what was seen in each voxel, in a hash table of fixed size.

    A cloud counts once in each voxel, as the mean of its points there, weighted by confidence, or
    by the inverse variance of their depth where it is known what confidences mean; the voxel
    keeps the weighted mean over the clouds, of which old ones are forgotten slowly.
    Voxels never mix; those that find no place in the table are lost, and counted
    (`VoxelTable`). Adding costs the same at any time; up to three times as much in a table that
    is full, without the C++ kernels.

    A voxel size that nobody gave is chosen for the first cloud, and doubled whenever three
    quarters of the places are taken: such a map never fills, it gets coarser.
    """

    def __init__(
        self, max_points: int = MAX_POINTS, voxel_size: float = 0.0,
        device: torch.device | str = 'cpu', depth_errors: ErrorTable | None = None,
    ) -> None:
        """
        Allocate an empty map; `max_points` is rounded up to a power of two, 64 or more.

        voxel_size: in the unit of the clouds; 0 lets the map choose. depth_errors: what the
        clouds' confidences mean.
        """
        self._device = torch.device(device)
        self._errors = None if depth_errors is None else ErrorSteps.of(depth_errors, self._device)
        self._table = VoxelTable(max_points, self._device)
        self._size = self._wanted_size = voxel_size
        self._lost = self._lost_total = 0

    def clear(self) -> None:
        """Forget everything, a voxel size that was chosen too."""
        self._table.clear()
        self._size = self._wanted_size
        self._lost = self._lost_total = 0

    @property
    def voxel_size(self) -> float:
        """Return the edge of a voxel; 0 while it is to be chosen."""
        return self._size

    def fill(self) -> MapFill:
        """Return how full the map is; any thread may ask."""
        return MapFill(self._table.taken, len(self._table), self._lost, self._lost_total)

    @torch.inference_mode()
    def add(self, cloud: Tensor, map_from_cloud: Tensor, keyframe: int = 0) -> None:
        """
        Add a packed cloud [N, 5] (see `point_cloud`), moved by `map_from_cloud` [4, 4].

        keyframe: with which `move` is to move it; a voxel goes with the newest that saw it.
        Points that are not finite, or more than a million voxels off, are left out.
        """
        cloud = cloud.to(self._device)
        if self._size == 0:
            self._size = _choose_voxel_size(
                transform_points(map_from_cloud.to(cloud), cloud[:, :3]))
            if self._size == 0:
                return
        self._lost = self._table.add(cloud, map_from_cloud, self._size, self._errors, keyframe)
        self._lost_total += self._lost
        if self._wanted_size == 0 and self._table.taken > _FULL * len(self._table):
            self._size *= 2
            self._refill(0.5)

    @torch.inference_mode()
    def points(self) -> Tensor:
        """Return the map as a packed cloud [N, 5] on the CPU; confidence is the mean."""
        cloud = torch.empty(self._table.occupied(), 5)
        end = 0   # in parts, as arrays of a map's size come and go with each map otherwise
        for begin in range(0, len(self._table), _CHUNK):
            values = self._table.content(slice(begin, begin + _CHUNK))
            rgb = values[:, 3:6].round().int()
            bits = (rgb[:, 0] << 16) | (rgb[:, 1] << 8) | rgb[:, 2]
            start, end = end, end + len(values)
            cloud[start:end] = torch.cat(
                [values[:, :3] * self._size, bits.view(torch.float32)[:, None],
                 (values[:, 7] / values[:, 8])[:, None]], dim=1)
        return cloud

    @torch.inference_mode()
    def rescale(self, factor: float) -> None:
        """
        Multiply all points by `factor`, which another unit of length asks for.

        A voxel size that was given stays as it is; one that the map chose is multiplied too.
        """
        if self._size and self._wanted_size == 0:
            self._size *= factor
        elif self._size:
            self._refill(factor)

    @torch.inference_mode()
    def move(self, similarities: Callable[[np.ndarray], np.ndarray]) -> None:
        """Move all points; similarities: from the keyframes [K] there are to [K, 4, 4]."""
        if not self._table.taken:
            return
        parts = self._content()
        numbers = [values[:, 9].long() for values in parts]
        least = min(int(some.min()) for some in numbers)
        counts = torch.zeros(max(int(some.max()) for some in numbers) - least + 1,
                             dtype=torch.int64, device=self._device)
        for some in numbers:
            counts += torch.bincount(some - least, minlength=len(counts))
        keyframes = counts.nonzero()[:, 0] + least
        moves = torch.from_numpy(similarities(keyframes.cpu().numpy())[:, :3]).to(parts[0])
        moves[..., 3] /= self._size
        row = counts.bool().cumsum(0) - 1   # of a keyframe among those there are
        for values, some in zip(parts, numbers):
            along_x, along_y, along_z, offset = moves[row[some - least]].unbind(2)   # [n, 3] each
            values[:, :3] = (along_x * values[:, :1] + along_y * values[:, 1:2]
                             + along_z * values[:, 2:3] + offset)
        self._insert_anew(parts)

    @torch.inference_mode()
    def resize_voxels(self, voxel_size: float) -> None:
        """Sort the points into voxels of another size; 0 keeps what is there as it is."""
        self._wanted_size = voxel_size
        if self._table.taken == 0:
            self._size = voxel_size
        elif voxel_size:
            factor, self._size = self._size / voxel_size, voxel_size
            self._refill(factor)

    # Parts ---------------------------------------------------------------------------------------

    def _content(self) -> list[Tensor]:
        """Return all rows [n, 10], of some thousands of places each: caches hold them so."""
        parts = (self._table.content(slice(begin, begin + _CHUNK))
                 for begin in range(0, len(self._table), _CHUNK))
        return [values for values in parts if len(values)]

    def _refill(self, factor: float) -> None:
        """Insert all points anew at `factor` times their positions in voxels."""
        parts = self._content()
        for values in parts:
            values[:, :3] *= factor
        self._insert_anew(parts)

    def _insert_anew(self, parts: list[Tensor]) -> None:
        """Have these rows [n, 10] each, positions in voxels, in place of all there are."""
        self._table.clear()
        for values in parts:   # little more memory, so that it does not end half-way
            near = (values[:, :3].abs() < MAX_VOXEL).all(dim=1)
            lost = self._table.insert(values if near.all() else values[near])
            self._lost += lost
            self._lost_total += lost


def _choose_voxel_size(points: Tensor) -> float:
    """Return a voxel size that suits the extent of points [N, 3], outliers left aside; or 0."""
    points = points[torch.isfinite(points).all(dim=1)]
    if not len(points):
        return 0.0
    points = points[::len(points) // _SAMPLE + 1]
    low, high = torch.quantile(points, points.new_tensor((0.05, 0.95)), dim=0)
    # Not so small that the points themselves would be too many voxels away.
    least = points.norm(dim=1).median() * _VOXELS_ACROSS / MAX_VOXEL * 100
    return max(((high - low).norm().maximum(least) / _VOXELS_ACROSS).item(), 1e-30)
