"""Clouds into a map of voxels in one call of C++: what `mapping.voxel_table` does in PyTorch."""

import ctypes

import torch
from torch import Tensor

from xsvggt_ros.kernels import native

COLUMNS = 10       # of a voxel's row
CLOUD_COLUMNS = 5
_MOST_BITS = 30    # of the number of places: they are numbers of 32 bits there


class _Table(ctypes.Structure):
    """A table as native.cpp has it."""

    _fields_ = [(name, ctypes.c_void_p) for name in ('keys', 'rows')] + [
        ('bits', ctypes.c_long)]


class Voxels:
    """The memory of a map, on a CPU, as C++ takes it."""

    def __init__(self, keys: Tensor, rows: Tensor) -> None:
        """
        Take keys [places] int64 and rows [places, 10] fp32.

        Raises ValueError for what is not of these shapes, or not a power of two of places.
        """
        places = len(keys)
        for tensor, dtype, shape in ((keys, torch.int64, (places,)),
                                     (rows, torch.float32, (places, COLUMNS))):
            if not (tensor.is_cpu and tensor.dtype is dtype and tensor.shape == shape
                    and tensor.is_contiguous()):
                raise ValueError(f'expected {dtype} {list(shape)} in order on a CPU, got '
                                 f'{tensor.dtype} {list(tensor.shape)} on {tensor.device}')
        bits = places.bit_length() - 1
        if places != 1 << bits or not 0 < bits <= _MOST_BITS:
            raise ValueError(f'{places} places are no power of two from 2 to 2^{_MOST_BITS}')
        self._owners = keys, rows
        self._table = _Table(keys.data_ptr(), rows.data_ptr(), bits)
        self._counts = (ctypes.c_long * 2)()

    def insert(self, rows: Tensor, once: bool) -> tuple[int, int]:
        """Do what `VoxelTable.insert` does; return how many voxels are new, and rows lost."""
        rows = _in_order(rows, COLUMNS)
        native.called().xsvggt_voxels_insert(
            torch.get_num_threads(), ctypes.byref(self._table), len(rows), rows.data_ptr(), once,
            self._counts)
        return self._counts[0], self._counts[1]

    def add(
        self, cloud: Tensor, from_cloud: Tensor, size: float, least_off: float,
        errors: tuple[Tensor, int, int] | None, keyframe: int,
    ) -> tuple[int, int]:
        """
        Do what `VoxelTable.add` does; return how many voxels are new, and points lost.

        least_off: the least squared error of a position, in voxels. errors: the squares, the
        number of the first, and how many bits of a confidence do not count.
        """
        cloud, from_cloud = _in_order(cloud, CLOUD_COLUMNS), _in_order(from_cloud[:3], 4)
        if len(from_cloud) != 3:
            raise ValueError(f'expected 3 or 4 rows of 4, got {len(from_cloud)}')
        table, first, shift = errors or (None, 0, 0)
        native.called().xsvggt_voxels_add(
            torch.get_num_threads(), ctypes.byref(self._table), len(cloud), cloud.data_ptr(),
            from_cloud.data_ptr(), size, 1 / size, least_off,
            None if table is None else table.data_ptr(), first,
            0 if table is None else len(table), shift, keyframe, self._counts)
        return self._counts[0], self._counts[1]


def _in_order(x: Tensor, columns: int) -> Tensor:
    if x.dim() != 2 or x.shape[1] != columns:
        raise ValueError(f'expected rows of {columns}, got {list(x.shape)}')
    return x.to('cpu', torch.float32).contiguous()
