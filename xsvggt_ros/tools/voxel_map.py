"""All clouds of a stream in one map whose memory is bounded. Numpy only."""

import numpy as np

from xsvggt_ros.tools.outputs import CLOUD_DTYPE

MAX_POINTS = 2 ** 21      # 40 MB
_VOXELS_ACROSS = 300      # of the first cloud's extent
_FAR = 2.0 ** 40          # voxels from the origin: not a point but an error

# Odd constants that scatter neighbouring voxels over the table (splitmix64's and two primes).
_SCATTER = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


class VoxelMap:
    """
    Keeps the most confident point per voxel, in a table of fixed size.

    Nobody knows the scale of a monocular stream beforehand, so the first cloud decides the voxel
    size. A voxel's place in the table is its hash, and where two voxels meet the surer point
    stays: adding a cloud costs the same at any time, a few milliseconds, and nothing ever grows.
    With a quarter of the places taken about one point in eight is lost that way.
    """

    def __init__(self, max_points: int = MAX_POINTS) -> None:
        """Make an empty map; `max_points` is rounded up to a power of two."""
        bits = max(int(np.ceil(np.log2(max_points))), 1)
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(2 ** bits, CLOUD_DTYPE)
        self._table['confidence'] = -np.inf
        self._voxel_size: float | None = None

    def add(self, cloud: np.ndarray, map_from_cloud: np.ndarray) -> None:
        """Add a cloud [N] of `CLOUD_DTYPE`, moved by the transform `map_from_cloud` [4, 4]."""
        points = np.stack([cloud['x'], cloud['y'], cloud['z']], axis=-1)
        with np.errstate(over='ignore', invalid='ignore'):   # what overflows is dropped below
            points = points @ map_from_cloud[:3, :3].T.astype(np.float32)
            points += map_from_cloud[:3, 3].astype(np.float32)
        good = np.isfinite(points).all(axis=1) & np.isfinite(cloud['confidence'])
        if not good.any():
            return
        if self._voxel_size is None:
            self._voxel_size = _choose_voxel_size(points[good])
        voxels = np.floor(points / np.float64(self._voxel_size))
        good &= (np.abs(voxels) < _FAR).all(axis=1)
        # The surest last: of several writes to one place the last one stays.
        order = np.flatnonzero(good)
        order = order[np.argsort(cloud['confidence'][order], kind='stable')]
        place = self._places(voxels[order])
        surer = cloud['confidence'][order] > self._table['confidence'][place]
        order, place = order[surer], place[surer]
        moved = cloud[order]
        moved['x'], moved['y'], moved['z'] = points[order].T
        self._table[place] = moved

    def cloud(self) -> np.ndarray:
        """Return the map [N] as `CLOUD_DTYPE`."""
        return self._table[np.isfinite(self._table['confidence'])]

    def _places(self, voxels: np.ndarray) -> np.ndarray:
        """Return the place in the table of every voxel [N, 3]."""
        index = voxels.astype(np.int64).astype(np.uint64)     # wraps around, as a hash may
        key = index[:, 0] * _SCATTER[0] + index[:, 1] * _SCATTER[1] + index[:, 2] * _SCATTER[2]
        key ^= key >> np.uint64(29)
        return ((key * _SCATTER[1]) >> self._shift).astype(np.int64)


def _choose_voxel_size(points: np.ndarray) -> float:
    """Return a voxel size that suits the extent of `points`, outliers left aside."""
    low, high = np.percentile(points, (5, 95), axis=0).astype(np.float64)
    return max(float(np.linalg.norm(high - low)) / _VOXELS_ACROSS, 1e-9)
