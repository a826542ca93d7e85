"""Rows of voxels in a hash table of fixed size: on a CPU by C++, elsewhere by PyTorch."""

from dataclasses import dataclass
import math
from typing import Any

import torch
from torch import Tensor

from xsvggt_ros.kernels import native
from xsvggt_ros.kernels.native_voxels import COLUMNS, Voxels
from xsvggt_ros.model.error_table import ErrorTable

PROBES = 24           # places in which a voxel may lie: with 80 % of all taken 1 in 200 finds none
MOST_SEEN = 32        # clouds a mean remembers: a map follows what has moved since
BITS = 21             # of a voxel's index in each direction
MAX_VOXEL = 2 ** (BITS - 1)  # voxels from the origin: farther off is not a point but an error
FREE = -1
_LEAST_BITS = 6       # of the number of places
_LEAST_WEIGHT = 1e-6
_LEAST_OFF = 1e-6     # squared error of a position, in voxels
_ERROR_SHIFT = 13     # bits of a confidence that do not count: 10 bits behind the point do
# The odd constants of splitmix64, as signed numbers.
_SCATTER = (0xBF58476D1CE4E5B9 - 2 ** 64, 0x94D049BB133111EB - 2 ** 64)


@dataclass(frozen=True)
class ErrorSteps:
    """
    An `ErrorTable` by the first bits of a confidence, which finds its error with one look.

    Confidences within a thousandth of each other share the error of the lowest.
    """

    squares: Tensor  # [entries]
    first: int       # the number of the first entry: the bits of its confidence

    @classmethod
    def of(cls, table: ErrorTable, device: torch.device) -> 'ErrorSteps':
        """Return the steps between the first and the last confidence of a table."""
        ends = torch.tensor((table.confidences[0], table.confidences[-1]), dtype=torch.float32)
        first, last = (ends.view(torch.int32) >> _ERROR_SHIFT).tolist()
        bits = torch.arange(first, last + 1, dtype=torch.int32) << _ERROR_SHIFT
        errors = table.relative_errors(bits.view(torch.float32))
        return cls(errors.square().to(device), first)

    def __call__(self, confidence: Tensor) -> Tensor:
        """Return the squares of the relative errors of fp32 confidences of any shape."""
        number = (confidence.contiguous().view(torch.int32) >> _ERROR_SHIFT) - self.first
        return self.squares[number.clamp(0, len(self.squares) - 1)]


class VoxelTable:
    """
    The means of what was seen in each voxel, found by the hash of its index.

    A voxel lies in one of 24 places, which the hash of its index gives, and is known there by that
    index: voxels never mix. Where all 24 belong to others its rows are lost.

    On one thread of a CPU, PyTorch does here what C++ does to the last bit: no step but sums,
    products, quotients and roundings of one element each. (Its `sqrt` is off by a bit in one of
    six.)
    """

    def __init__(self, most: int, device: torch.device) -> None:
        """Allocate an empty table; `most` is rounded up to a power of two, 64 or more."""
        self._bits = max(math.ceil(math.log2(most)), _LEAST_BITS)
        self._device = device
        places = 2 ** self._bits
        self.keys = torch.empty(places, dtype=torch.int64, device=device)
        # Offset in the voxel (3), in voxels, colour (3), sums of weights and confidences, clouds,
        # keyframe.
        self.rows = torch.empty(places, COLUMNS, device=device)
        self.scratch = torch.empty(places, dtype=torch.int32, device=device)
        self._native = Voxels(self.keys, self.rows) if device.type == 'cpu' else None
        self.clear()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a saved run has of it: no addresses."""
        return vars(self) | {'_native': None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Go on with what was saved."""
        vars(self).update(state)
        if self.keys.is_cpu:
            self._native = Voxels(self.keys, self.rows)

    def __len__(self) -> int:
        """Return how many places there are."""
        return len(self.keys)

    def clear(self) -> None:
        """Forget all voxels; the memory is written by the first to need it."""
        self._is_clear = True
        self.taken = 0

    def occupied(self) -> int:
        """Return how many places belong to a voxel; `taken`, unless an `insert` was cut off."""
        return 0 if self._is_clear else int((self.keys != FREE).sum())

    def content(self, places: slice = slice(None)) -> Tensor:
        """Return the rows [N, 10] of the places that are occupied, positions in voxels."""
        if self._is_clear:
            return self.rows[:0]
        taken = (self.keys[places] != FREE).nonzero()[:, 0]
        keys, values = self.keys[places][taken], self.rows[places][taken]
        low = 2 ** BITS - 1
        index = torch.stack([keys & low, keys >> BITS & low, keys >> 2 * BITS], dim=1)
        values[:, :3] += index - MAX_VOXEL
        return values

    def insert(self, values: Tensor, once: bool = False) -> int:
        """
        Take rows of values [N, 10] into the means, and return how many found no place.

        Columns: position in voxels (3), less than `MAX_VOXEL` from the origin, colour (3), weight,
        confidence, clouds, keyframe. once: those of one voxel are of one cloud, which counts with
        their mean weight and confidence.
        """
        self._write()
        if self._native is not None and native.allowed():
            new, lost = self._native.insert(values, once)
            self.taken += new
            return lost
        place, sums, lost = self._group(values.clone())
        if once:
            sums[:, 6:8] /= sums[:, 8:9]
            sums[:, 8] = 1
        self._merge(place, sums)
        return lost

    def add(
        self, cloud: Tensor, from_cloud: Tensor, size: float, errors: ErrorSteps | None,
        keyframe: int,
    ) -> int:
        """
        Take a packed cloud [N, 5] into the means, as one; return how many points found no place.

        from_cloud: [4, 4], to the frame of the table; size: of a voxel. Points weigh as much as
        their confidence, or their depth's inverse variance, seen from the cloud's origin, where
        there are errors. Those that are not finite, or too far off, are left out.
        """
        self._write()
        from_cloud = from_cloud.to(cloud)
        if self._native is not None and native.allowed():
            new, lost = self._native.add(
                cloud, from_cloud, size, _LEAST_OFF,
                None if errors is None else (errors.squares, errors.first, _ERROR_SHIFT), keyframe)
            self.taken += new
            return lost
        return self.insert(_rows_of(cloud, from_cloud, size, errors, keyframe), once=True)

    # Parts ---------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Make all places free, if they are to be: all of the memory is taken then, at once."""
        if self._is_clear:
            self._is_clear = False
            self.keys.fill_(FREE)
            self.rows.zero_()
            self.scratch.zero_()

    def _group(self, values: Tensor) -> tuple[Tensor, Tensor, int]:
        """
        Find a place for each row of values [N, 10], and sum up those that share one.

        Returns the places [V], all different, rows [V, 10] with weighted means, sums of weights,
        confidences and clouds, and the newest keyframe, and how many rows found none. Overwrites
        the values.
        """
        voxels = values[:, :3].floor()
        index = voxels.long() + MAX_VOXEL
        keys = index[:, 0] | index[:, 1] << BITS | index[:, 2] << 2 * BITS
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
        self.scratch[place] = row
        chosen = self.scratch.index_select(0, place)
        first = chosen == row
        group = (first.cumsum(0) - 1)[chosen]
        place = place[first]
        sums = torch.zeros(len(place), COLUMNS, device=self._device).index_add_(0, group, values)
        sums[:, :6] /= sums[:, 6:7]
        sums[:, 9] = torch.zeros_like(sums[:, 9]).scatter_reduce_(0, group, values[:, 9], 'amax')
        return place, sums, lost

    def _merge(self, place: Tensor, values: Tensor) -> None:
        """Take rows [V, 10] into the means at the places [V], which are all different."""
        rows = self.rows.index_select(0, place)   # whole rows: an index of elements takes longer
        self.taken += int((rows[:, 8] == 0).sum())
        share = values[:, 6:7] / (rows[:, 6:7] + values[:, 6:7])
        rows[:, :6] += share * (values[:, :6] - rows[:, :6])
        rows[:, 6:9] += values[:, 6:9]
        rows[:, 6:9] *= (MOST_SEEN / rows[:, 8:9]).clamp_max(1)
        rows[:, 9] = torch.maximum(rows[:, 9], values[:, 9])
        self.rows.index_copy_(0, place, rows)

    def _find_places(self, keys: Tensor) -> Tensor:
        """Return the place of each key [N], taken for it if need be; -1 where there is none."""
        mask = len(self.keys) - 1
        mixed = (keys ^ keys >> 30) * _SCATTER[0]
        mixed = (mixed ^ (mixed >> 27 & 2 ** 37 - 1)) * _SCATTER[1]
        place, step = mixed >> (64 - self._bits) & mask, mixed & mask | 1
        found = self.keys.index_select(0, place) == keys
        result = torch.where(found, place, -1)
        left = (~found).nonzero()[:, 0]
        keys, place, step = keys[left], place[left], step[left]
        for _ in range(PROBES):
            if not len(left):
                break
            free = self.keys[place] == FREE
            self.keys[place[free]] = keys[free]  # of several keys any one gets the place
            found = self.keys[place] == keys
            result[left[found]] = place[found]
            missed = ~found
            left, keys, step = left[missed], keys[missed], step[missed]
            place = place[missed] + step & mask
        return result


def _rows_of(
    cloud: Tensor, from_cloud: Tensor, size: float, errors: ErrorSteps | None, keyframe: int,
) -> Tensor:
    """Return the rows [N, 10] of a cloud's points: see `VoxelTable.add`."""
    m, (x, y, z, colour, confidence) = from_cloud, cloud.unbind(1)
    points = (m[:3, :1] * x + m[:3, 1:2] * y + m[:3, 2:3] * z + m[:3, 3:]) / size   # [3, N]
    bits = colour.contiguous().view(torch.int32)
    colours = torch.stack([bits >> 16, bits >> 8, bits]).bitwise_and_(255)
    if errors is None:
        weight = confidence.clamp_min(_LEAST_WEIGHT)
    else:
        x, y, z = (cloud[:, :3].T * (1 / size)).unbind()
        weight = (errors(confidence) * (x * x + y * y + z * z)).clamp_min(_LEAST_OFF).reciprocal()
    rows = torch.cat([points, colours, torch.stack([
        weight, confidence, torch.ones_like(weight), torch.full_like(weight, keyframe)])]).T
    # Comparisons with what is not a number are false.
    good = (points.abs() < MAX_VOXEL).all(dim=0) & (confidence.abs() < math.inf)
    return rows.contiguous() if good.all() else rows[good]
