"""Which way is up: the floor below the cameras, found in the map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

STEEPEST = 50.0      # degrees, between the floor's normal and what up is if there is no floor
_TRIALS = 400
_SAMPLE = 20_000     # points that are looked at
_THICK = 0.02        # of the extent: how far from the plane its points lie
_LEAST_SHARE = 0.08  # of the points that must lie in it


@dataclass(frozen=True)
class Floor:
    """
    The frame of a map: z up, its plane z = 0 on the floor, x where the odometry's points.

    camera_height: median of the cameras' heights above it; words: how it was found.
    """

    grid_from_odom: np.ndarray
    camera_height: float
    words: str

    @staticmethod
    def find(cloud: np.ndarray | Mapping[str, np.ndarray],
             odom_from_cameras: Sequence[np.ndarray]) -> 'Floor':
        """
        Return the floor of a cloud with fields x, y, z, seen by cameras [4, 4].

        Of planes that are nearly level and lie below nearly all cameras it is the one with most
        points. Up is the mean up of the cameras, which robots and people hold about level.
        """
        cameras = np.array(odom_from_cameras, np.float64).reshape(-1, 4, 4)
        up = -cameras[:, :3, 1].sum(axis=0)     # y of the optical frame is down
        length = np.linalg.norm(up)
        up = up / length if length > 1e-6 else np.array((0.0, 0.0, 1.0))
        points = np.stack([cloud[name] for name in 'xyz'], axis=1).astype(np.float64)
        points = points[np.isfinite(points).all(axis=1)]
        plane = _best_plane(points, cameras[:, :3, 3], up)
        if plane is None:
            return _without_floor(points, cameras[:, :3, 3], up)
        normal, offset, share = plane
        transform = _level(normal)
        transform[2, 3] = -offset
        height = float(np.median(cameras[:, :3, 3] @ normal - offset))
        return Floor(transform, height, f'a plane with {100 * share:.0f} % of the points')


def _without_floor(points: np.ndarray, cameras: np.ndarray, up: np.ndarray) -> Floor:
    """Return a floor where the lowest points are, if no plane is one."""
    transform = _level(up)
    lowest = float(np.quantile(points @ up, 0.02)) if len(points) else 0.0
    level = float(np.median(cameras @ up)) if len(cameras) else 0.0
    height = level - lowest
    if height <= 0:
        height = 1.0
        lowest = level - height
    transform[2, 3] = -lowest
    return Floor(transform, height, 'none found: up is the mean up of the cameras, and the lowest '
                                    'points are taken for the floor')


def _best_plane(
    points: np.ndarray, cameras: np.ndarray, up: np.ndarray,
) -> tuple[np.ndarray, float, float] | None:
    """Return unit normal, offset and share of points of the floor; None if there is none."""
    if len(points) < 100 or not len(cameras):
        return None
    rng = np.random.default_rng(0)
    sample = points[rng.permutation(len(points))[:_SAMPLE]]
    extent = float(np.linalg.norm(np.subtract(*np.quantile(sample, (0.9, 0.1), axis=0))))
    thick = _THICK * extent
    best: tuple[float, np.ndarray, float] | None = None
    for trio in rng.integers(0, len(sample), (_TRIALS, 3)):
        normal = np.cross(*(sample[trio[1:]] - sample[trio[0]]))
        length = np.linalg.norm(normal)
        if length < 1e-12:
            continue
        normal = normal / length * (1 if normal @ up >= 0 else -1)
        plane = _judged(normal, float(sample[trio[0]] @ normal), sample, cameras, up, thick)
        if plane is not None and (best is None or plane[0] > best[0]):
            best = plane
    if best is None or best[0] < _LEAST_SHARE:
        return None
    for _ in range(3):   # least squares of what lies in it
        near = sample[np.abs(sample @ best[1] - best[2]) < thick]
        centre = near.mean(axis=0)
        normal = np.linalg.svd(near - centre, full_matrices=False)[2][2]
        normal *= 1 if normal @ up >= 0 else -1
        plane = _judged(normal, float(centre @ normal), sample, cameras, up, thick)
        if plane is None:
            break
        best = plane
    return best[1], best[2], best[0]


def _judged(
    normal: np.ndarray, offset: float, sample: np.ndarray, cameras: np.ndarray, up: np.ndarray,
    thick: float,
) -> tuple[float, np.ndarray, float] | None:
    """Return share of points, normal and offset of a plane; None if it can be no floor."""
    if normal @ up < np.cos(np.radians(STEEPEST)):
        return None
    if np.mean(cameras @ normal > offset + thick) < 0.95:
        return None
    heights = sample @ normal - offset
    if np.mean(heights < -2 * thick) > 0.1:    # a table: much lies below it
        return None
    return float(np.mean(np.abs(heights) < thick)), normal, offset


def _level(up: np.ndarray) -> np.ndarray:
    """Return the rotation [4, 4] that brings `up` to z and leaves x as nearly as it can."""
    x = np.array((1.0, 0.0, 0.0)) - up[0] * up
    if np.linalg.norm(x) < 1e-3:
        x = np.array((0.0, 1.0, 0.0)) - up[1] * up
    x /= np.linalg.norm(x)
    transform = np.eye(4)
    transform[:3, :3] = x, np.cross(up, x), up
    return transform
