"""All clouds of a stream in one voxel map whose memory is allocated once."""

from collections.abc import Callable
from dataclasses import dataclass
import math

import numpy as np
import torch
from torch import Tensor

from xsvggt_ros.geometry.se3 import transform_points
from xsvggt_ros.model.error_table import ErrorTable

MAX_POINTS = 2 ** 20  # 55 MB
_PROBES = 24          # places in which a voxel may lie: with 80 % of all taken 1 in 200 finds none
_MOST_SEEN = 32       # frames a mean remembers: a map follows what has moved since
_FULL = 0.75          # of the places; more, and voxels that the map chose itself are doubled
_VOXELS_ACROSS = 200  # of the first cloud's extent
_BITS = 21            # of a voxel's index in each direction
_LEAST_BITS = 6       # of the number of places
_MAX_VOXEL = 2 ** (_BITS - 1)  # voxels from the origin: farther off is not a point but an error
_FREE = -1
_LEAST_WEIGHT = 1e-6
_COLUMNS = 10         # of a voxel's row
_CHUNK = 2 ** 16      # points, or places for them, that are looked at together
_SAMPLE = 50_000      # points from which the voxel size is chosen
# The odd constants of splitmix64, as signed numbers.
_SCATTER = (0xBF58476D1CE4E5B9 - 2 ** 64, 0x94D049BB133111EB - 2 ** 64)


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
    A voxel lies in one of 24 places, which the hash of its index gives, and is known there by that
    index: voxels never mix. Where all 24 belong to others its points are lost, and counted.
    Adding costs the same at any time, up to three times as much in a table that is full.

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
        self._bits = max(math.ceil(math.log2(max_points)), _LEAST_BITS)
        self._device = torch.device(device)
        self._depth_errors = depth_errors
        places = 2 ** self._bits
        self._keys = torch.empty(places, dtype=torch.int64, device=self._device)
        # Offset in the voxel (3), in voxels, colour (3), sums of weights and confidences, clouds,
        # keyframe.
        self._rows = torch.empty(places, _COLUMNS, device=self._device)
        self._scratch = torch.empty(places, dtype=torch.int32, device=self._device)
        self._scratch.zero_()  # all of the memory is taken now, not little by little
        self._wanted_size = voxel_size
        self.clear()

    def clear(self) -> None:
        """Forget everything, a voxel size that was chosen too."""
        self._empty()
        self._size = self._wanted_size
        self._lost = self._lost_total = 0

    @property
    def voxel_size(self) -> float:
        """Return the edge of a voxel; 0 while it is to be chosen."""
        return self._size

    def fill(self) -> MapFill:
        """Return how full the map is; any thread may ask."""
        return MapFill(self._taken, len(self._keys), self._lost, self._lost_total)

    @torch.inference_mode()
    def add(self, cloud: Tensor, map_from_cloud: Tensor, keyframe: int = 0) -> None:
        """
        Add a packed cloud [N, 5] (see `point_cloud`), moved by `map_from_cloud` [4, 4].

        keyframe: with which `move` is to move it; a voxel goes with the newest that saw it.
        Points that are not finite, or more than a million voxels off, are left out.
        """
        cloud = cloud.to(self._device)
        points = transform_points(map_from_cloud.to(cloud), cloud[:, :3])
        if self._size == 0:
            self._size = _choose_voxel_size(points)
            if self._size == 0:
                return
        points = points / self._size
        # Comparisons with what is not a number are false.
        good = (points.abs() < _MAX_VOXEL).all(dim=1) & (cloud[:, 4].abs() < math.inf)
        if not good.all():
            points, cloud = points[good], cloud[good]
        bits = cloud[:, 3].contiguous().view(torch.int32)[:, None]
        colours = torch.cat([bits >> 16, bits >> 8, bits], dim=1).bitwise_and_(255)
        weights = self._weights(cloud)
        values = torch.cat([points, colours, weights, cloud[:, 4:], torch.ones_like(weights),
                            torch.full_like(weights, keyframe)], dim=1)
        place, values, self._lost = self._group(values)
        values[:, 6:8] /= values[:, 8:9]
        values[:, 8] = 1
        self._merge(place, values)
        self._lost_total += self._lost
        if self._wanted_size == 0 and self._taken > _FULL * len(self._keys):
            self._size *= 2
            self._refill(0.5)

    @torch.inference_mode()
    def points(self) -> Tensor:
        """Return the map as a packed cloud [N, 5] on the CPU; confidence is the mean."""
        cloud = torch.empty(int((self._keys != _FREE).sum()), 5)
        end = 0   # in parts, as arrays of a map's size come and go with each map otherwise
        for begin in range(0, len(self._keys), _CHUNK):
            values = self._content(slice(begin, begin + _CHUNK))
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
        if not self._taken:
            return
        values = self._content()
        keyframes, which = values[:, 9].long().unique(return_inverse=True)
        moves = torch.from_numpy(similarities(keyframes.cpu().numpy())).to(values)
        for some, whose in zip(values.split(_CHUNK), which.split(_CHUNK)):   # views
            some_moves = moves[whose]
            some[:, :3] = (some_moves[:, :3, :3] @ some[:, :3, None])[..., 0] + (
                some_moves[:, :3, 3] / self._size)
        self._insert_anew(values)

    @torch.inference_mode()
    def resize_voxels(self, voxel_size: float) -> None:
        """Sort the points into voxels of another size; 0 keeps what is there as it is."""
        self._wanted_size = voxel_size
        if self._taken == 0:
            self._size = voxel_size
        elif voxel_size:
            factor, self._size = self._size / voxel_size, voxel_size
            self._refill(factor)

    # Parts ---------------------------------------------------------------------------------------

    def _weights(self, cloud: Tensor) -> Tensor:
        """Return how much the points of a cloud [N, 5], seen from its origin, count, [N, 1]."""
        if self._depth_errors is None:
            return cloud[:, 4:].clamp_min(_LEAST_WEIGHT)
        off = self._depth_errors.relative_errors(cloud[:, 4]) * cloud[:, :3].norm(dim=1)
        return (self._size / off.clamp_min(1e-3 * self._size)).square()[:, None]

    def _empty(self) -> None:
        self._keys.fill_(_FREE)
        self._rows.zero_()
        self._taken = 0

    def _content(self, places: slice = slice(None)) -> Tensor:
        """Return the rows [N, 10] of the places that are occupied, positions in voxels."""
        taken = (self._keys[places] != _FREE).nonzero()[:, 0]
        keys, values = self._keys[places][taken], self._rows[places][taken]
        low = 2 ** _BITS - 1
        index = torch.stack([keys & low, keys >> _BITS & low, keys >> 2 * _BITS], dim=1)
        values[:, :3] += index - _MAX_VOXEL
        return values

    def _refill(self, factor: float) -> None:
        """Insert all points anew at `factor` times their positions in voxels."""
        values = self._content()
        values[:, :3] *= factor
        self._insert_anew(values)

    def _insert_anew(self, values: Tensor) -> None:
        """Have these rows [N, 10], positions in voxels, in place of all there are."""
        values = values[(values[:, :3].abs() < _MAX_VOXEL).all(dim=1)]
        self._empty()
        for some in values.split(_CHUNK):  # little more memory, so that it does not end half-way
            place, sums, lost = self._group(some)
            self._merge(place, sums)
            self._lost += lost
            self._lost_total += lost

    def _group(self, values: Tensor) -> tuple[Tensor, Tensor, int]:
        """
        Find a place for each row of values [N, 10], and sum up those that share one.

        Columns: position in voxels (3), colour (3), weight, confidence, clouds, keyframe. Returns
        the places [V], all different, rows [V, 10] with weighted means, sums of weights,
        confidences and clouds, and the newest keyframe, and how many rows found none.
        """
        voxels = values[:, :3].floor()
        index = voxels.long() + _MAX_VOXEL
        keys = index[:, 0] | index[:, 1] << _BITS | index[:, 2] << 2 * _BITS
        values[:, :3] -= voxels
        values[:, :6] *= values[:, 6:7]
        place = self._find_places(keys)
        found = place >= 0
        lost = 0
        if not found.all():
            lost = int((~found).sum())
            place, values = place[found], values[found]
        # Of the rows with one place the last to write stands for all of them: no sorting.
        row = torch.arange(len(place), dtype=torch.int32, device=self._device)
        self._scratch[place] = row
        chosen = self._scratch.index_select(0, place)
        first = chosen == row
        group = (first.cumsum(0) - 1)[chosen]
        place = place[first]
        sums = torch.zeros(len(place), _COLUMNS, device=self._device).index_add_(0, group, values)
        sums[:, :6] /= sums[:, 6:7]
        sums[:, 9] = torch.zeros_like(sums[:, 9]).scatter_reduce_(0, group, values[:, 9], 'amax')
        return place, sums, lost

    def _merge(self, place: Tensor, values: Tensor) -> None:
        """Take rows [V, 10] into the means at the places [V], which are all different."""
        rows = self._rows.index_select(0, place)   # whole rows: an index of elements takes longer
        self._taken += int((rows[:, 8] == 0).sum())
        share = values[:, 6:7] / (rows[:, 6:7] + values[:, 6:7])
        rows[:, :6] += share * (values[:, :6] - rows[:, :6])
        rows[:, 6:9] += values[:, 6:9]
        rows[:, 6:9] *= (_MOST_SEEN / rows[:, 8:9]).clamp_max(1)
        rows[:, 9] = torch.maximum(rows[:, 9], values[:, 9])
        self._rows.index_copy_(0, place, rows)

    def _find_places(self, keys: Tensor) -> Tensor:
        """Return the place of each key [N], taken for it if need be; -1 where there is none."""
        mask = len(self._keys) - 1
        mixed = (keys ^ keys >> 30) * _SCATTER[0]
        mixed = (mixed ^ (mixed >> 27 & 2 ** 37 - 1)) * _SCATTER[1]
        place, step = mixed >> (64 - self._bits) & mask, mixed & mask | 1
        found = self._keys.index_select(0, place) == keys
        result = torch.where(found, place, -1)
        left = (~found).nonzero()[:, 0]
        keys, place, step = keys[left], place[left], step[left]
        for _ in range(_PROBES):
            if not len(left):
                break
            free = self._keys[place] == _FREE
            self._keys[place[free]] = keys[free]  # of several keys any one gets the place
            found = self._keys[place] == keys
            result[left[found]] = place[found]
            missed = ~found
            left, keys, step = left[missed], keys[missed], step[missed]
            place = place[missed] + step & mask
        return result


def _choose_voxel_size(points: Tensor) -> float:
    """Return a voxel size that suits the extent of points [N, 3], outliers left aside; or 0."""
    points = points[torch.isfinite(points).all(dim=1)]
    if not len(points):
        return 0.0
    points = points[::len(points) // _SAMPLE + 1]
    low, high = torch.quantile(points, points.new_tensor((0.05, 0.95)), dim=0)
    # Not so small that the points themselves would be too many voxels away.
    least = points.norm(dim=1).median() * _VOXELS_ACROSS / _MAX_VOXEL * 100
    return max(((high - low).norm().maximum(least) / _VOXELS_ACROSS).item(), 1e-30)
