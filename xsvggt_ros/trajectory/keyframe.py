"""Keyframes as a loop or a later stream recognises them: appearance, features, landmarks."""

from collections import deque
from dataclasses import dataclass, field, replace
from functools import lru_cache

import cv2
import numpy as np

from xsvggt_ros.trajectory.gaps import Gap
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.matching import Features
from xsvggt_ros.trajectory.projection import to_camera
from xsvggt_ros.trajectory.tracker import sample_depth

GRID = (20, 15)          # columns and rows of thumbnails and coarse depth


@dataclass(frozen=True)
class Keyframe:
    """
    A keyframe, in numbers of its own camera's frame.

    id: its number in the stream. points [n, 3]: of its features, NaN where there is no landmark
    any more; variance [n]: of their log depth. thumbnail: float32 [15, 20], mean 0 and length 1.
    depth: float32 [15, 20], NaN where unknown. camera [3, 3]; size: width and height of the image
    in pixels. guessed: nothing but a guess joins it to the keyframe before.
    """

    id: int
    features: Features
    points: np.ndarray
    variance: np.ndarray
    thumbnail: np.ndarray
    depth: np.ndarray
    camera: np.ndarray
    size: tuple[int, int]
    guessed: bool


@dataclass(frozen=True)
class Snapshot:
    """
    What a new keyframe changes, for another thread: nothing in it is changed any more.

    keyframe: the new one; image: uint8 [h, w], that it is of. ids [K] and poses [K, 4, 4]:
    world_from_camera of all that may have been moved. settled: keyframes that have left the
    window, with landmarks as they stay. gap: what is newly known of a keyframe that nothing
    tracked joins to the one before.
    """

    keyframe: Keyframe
    ids: np.ndarray
    poses: np.ndarray
    settled: tuple[Keyframe, ...]
    gap: Gap | None = None
    image: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.uint8))


class KeyframeBuilder:
    """Describes a local map's keyframes, and settles them when the window has passed."""

    def __init__(self, window: int) -> None:
        """Settle a keyframe when `window` keyframes came after it."""
        self._window = window
        self._recent: deque[Keyframe] = deque()

    def snapshot(self, image: np.ndarray, depth: np.ndarray, depth_from_image: np.ndarray,
                 features: Features, local_map: LocalMap, guessed: bool) -> Snapshot:
        """Return what the newest keyframe changes; depth [h, w]: its own, in the map's unit."""
        height, width = image.shape
        number = int(local_map.keyframes[-1])
        features = replace(features, keyframe=number)
        keyframe = self._with_landmarks(Keyframe(
            number, features, np.empty((0, 3)), np.empty(0), _thumbnail(image),
            _coarse(depth, depth_from_image, (width, height)), local_map.camera, (width, height),
            guessed), local_map)
        self._recent.append(keyframe)
        settled = []
        while len(self._recent) > self._window:
            settled.append(self._with_landmarks(self._recent.popleft(), local_map))
        return Snapshot(keyframe, local_map.keyframes, local_map.poses, tuple(settled),
                        image=image)

    def settle(self, local_map: LocalMap) -> list[Keyframe]:
        """Return the keyframes that the window has not passed yet, with landmarks as they are."""
        return [self._with_landmarks(keyframe, local_map) for keyframe in self._recent]

    def _with_landmarks(self, keyframe: Keyframe, local_map: LocalMap) -> Keyframe:
        """Return a keyframe with its landmarks where they are now."""
        ids = keyframe.features.ids
        known = local_map.known(ids)
        points, variance = np.full((len(ids), 3), np.nan), np.full(len(ids), np.nan)
        if known.any():
            world, _, variance[known] = local_map.points(ids[known])
            points[known] = to_camera(world, local_map.pose(keyframe.id))
        return replace(keyframe, points=points, variance=variance, camera=local_map.camera)


def coarse_depth_at(keyframe: Keyframe, pixels: np.ndarray) -> np.ndarray:
    """Return a keyframe's coarse depth [n] at pixels [n, 2] of its image; NaN outside of it."""
    coarse_from_image = _coarse_from_image(keyframe.size)
    depths = sample_depth(keyframe.depth, pixels, coarse_from_image)
    inside = ((pixels >= 0) & (pixels <= np.array(keyframe.size) - 1.0)).all(1)
    return np.where(inside, depths, np.nan)


def coarse_points(keyframe: Keyframe) -> np.ndarray:
    """Return the points [n, 3] of a keyframe's coarse depth, in its camera's frame."""
    rows, columns = np.nonzero(np.isfinite(keyframe.depth))
    image_from_coarse = np.linalg.inv(_coarse_from_image(keyframe.size))
    pixels = np.stack([columns, rows, np.ones(len(rows))], -1) @ image_from_coarse.T
    rays = pixels @ np.linalg.inv(keyframe.camera).T
    return rays * keyframe.depth[rows, columns][:, None]


def _coarse_from_image(size: tuple[int, int]) -> np.ndarray:
    """Return the matrix [3, 3] from pixels to cells of the grid, centres at whole numbers."""
    x, y = GRID[0] / size[0], GRID[1] / size[1]
    return np.array([[x, 0.0, 0.5 * x - 0.5], [0.0, y, 0.5 * y - 0.5], [0.0, 0.0, 1.0]])


def _thumbnail(image: np.ndarray) -> np.ndarray:
    small: np.ndarray = cv2.resize(image, GRID, interpolation=cv2.INTER_AREA).astype(np.float32)
    small = cv2.GaussianBlur(small, (3, 3), 0)
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def _coarse(depth: np.ndarray, depth_from_image: np.ndarray,
            size: tuple[int, int]) -> np.ndarray:
    return sample_depth(depth, _cell_centres(size), depth_from_image).reshape(
        GRID[::-1]).astype(np.float32)


@lru_cache(maxsize=4)
def _cell_centres(size: tuple[int, int]) -> np.ndarray:
    """Return the pixels [300, 2] of an image of `size` in the middle of the grid's cells."""
    columns, rows = np.meshgrid(np.arange(GRID[0]), np.arange(GRID[1]))
    cells = np.stack([columns.ravel(), rows.ravel(), np.ones(columns.size)], -1)
    return (cells @ np.linalg.inv(_coarse_from_image(size)).T)[:, :2]
