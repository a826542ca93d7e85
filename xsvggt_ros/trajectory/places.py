"""Keyframes as places that may be seen again: their looks, and where their landmarks are."""

from collections import deque
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from xsvggt_ros.trajectory.gaps import Gap
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.matching import Features
from xsvggt_ros.trajectory.projection import to_camera
from xsvggt_ros.trajectory.tracker import sample_depth

GRID = (20, 15)          # columns and rows of thumbnails and coarse depth
_SHIFTS = (4, 3)         # columns and rows by which thumbnails are shifted to compare them


@dataclass(frozen=True)
class Place:
    """
    A keyframe, in numbers of its own camera's frame.

    points [n, 3]: of its features, NaN where there is no landmark any more; variance [n]: of their
    log depth. thumbnail: float32 [15, 20], mean 0 and length 1. depth: float32 [15, 20], NaN where
    unknown. camera [3, 3]; size: width and height of the image in pixels. guessed: nothing but a
    guess joins it to the keyframe before.
    """

    keyframe: int
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

    place: the new one; image: uint8 [h, w], that it is of. keyframes [K] and poses [K, 4, 4]:
    world_from_camera of all that may have been moved. settled: places that have left the window,
    with landmarks as they stay. gap: what is newly known of a keyframe that nothing tracked joins
    to the one before.
    """

    place: Place
    keyframes: np.ndarray
    poses: np.ndarray
    settled: tuple[Place, ...]
    gap: Gap | None = None
    image: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.uint8))


class PlaceMaker:
    """Makes places of a local map's keyframes, and settles them when the window has passed."""

    def __init__(self, window: int) -> None:
        """Settle a place when `window` keyframes came after it."""
        self._window = window
        self._recent: deque[Place] = deque()

    def snapshot(self, image: np.ndarray, depth: np.ndarray, depth_from_image: np.ndarray,
                 features: Features, local_map: LocalMap, guessed: bool) -> Snapshot:
        """Return what the newest keyframe changes; depth [h, w]: its own, in the map's unit."""
        height, width = image.shape
        keyframe = int(local_map.keyframes[-1])
        features = replace(features, keyframe=keyframe)
        place = self._located(Place(
            keyframe, features, np.empty((0, 3)), np.empty(0), _thumbnail(image),
            _coarse(depth, depth_from_image, (width, height)), local_map.camera, (width, height),
            guessed), local_map)
        self._recent.append(place)
        settled = []
        while len(self._recent) > self._window:
            settled.append(self._located(self._recent.popleft(), local_map))
        return Snapshot(place, local_map.keyframes, local_map.poses, tuple(settled),
                        image=image)

    def settle(self, local_map: LocalMap) -> list[Place]:
        """Return the places that the window has not passed yet, with landmarks as they are."""
        return [self._located(place, local_map) for place in self._recent]

    def _located(self, place: Place, local_map: LocalMap) -> Place:
        """Return a place with its landmarks where they are now."""
        ids = place.features.ids
        known = local_map.known(ids)
        points, variance = np.full((len(ids), 3), np.nan), np.full(len(ids), np.nan)
        if known.any():
            world, _, variance[known] = local_map.points(ids[known])
            points[known] = to_camera(world, local_map.pose(place.keyframe))
        return replace(place, points=points, variance=variance, camera=local_map.camera)


class Album:
    """Places by what they look like."""

    def __init__(self) -> None:
        """Begin without places."""
        self._places: dict[int, Place] = {}
        self._thumbnails: np.ndarray | None = None

    def __len__(self) -> int:
        """Return how many places there are."""
        return len(self._places)

    def __contains__(self, keyframe: int) -> bool:
        """Return whether a keyframe is one of the places."""
        return keyframe in self._places

    def place(self, keyframe: int) -> Place:
        """Return the place of a keyframe."""
        return self._places[keyframe]

    @property
    def places(self) -> tuple[Place, ...]:
        """Return all places."""
        return tuple(self._places.values())

    def add(self, place: Place) -> None:
        """Add a place, or replace it."""
        self._places[place.keyframe] = place
        self._thumbnails = None

    def remove(self, keyframe: int) -> None:
        """Forget a place."""
        del self._places[keyframe]
        self._thumbnails = None

    def alike(self, thumbnail: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return all keyframes [n] and how much they look like a thumbnail [n], 1 at most."""
        keyframes = np.array(list(self._places), np.int64)
        if not len(keyframes):
            return keyframes, np.empty(0)
        if self._thumbnails is None:
            self._thumbnails = np.stack([place.thumbnail.ravel()
                                         for place in self._places.values()])
        return keyframes, (self._thumbnails @ _shifted(thumbnail)).max(1)


def joined_depth(place: Place, pixels: np.ndarray) -> np.ndarray:
    """Return a place's coarse depth [n] at pixels [n, 2] of its image; NaN outside of it."""
    coarse_from_image = _coarse_from_image(place.size)
    depths = sample_depth(place.depth, pixels, coarse_from_image)
    inside = ((pixels >= 0) & (pixels <= np.array(place.size) - 1.0)).all(1)
    return np.where(inside, depths, np.nan)


def coarse_points(place: Place) -> np.ndarray:
    """Return the points [n, 3] of a place's coarse depth, in its camera's frame."""
    rows, columns = np.nonzero(np.isfinite(place.depth))
    image_from_coarse = np.linalg.inv(_coarse_from_image(place.size))
    pixels = np.stack([columns, rows, np.ones(len(rows))], -1) @ image_from_coarse.T
    rays = pixels @ np.linalg.inv(place.camera).T
    return rays * place.depth[rows, columns][:, None]


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
    columns, rows = np.meshgrid(np.arange(GRID[0]), np.arange(GRID[1]))
    cells = np.stack([columns.ravel(), rows.ravel(), np.ones(columns.size)], -1)
    pixels = (cells @ np.linalg.inv(_coarse_from_image(size)).T)[:, :2]
    return sample_depth(depth, pixels, depth_from_image).reshape(GRID[::-1]).astype(np.float32)


def _shifted(thumbnail: np.ndarray) -> np.ndarray:
    """Return a thumbnail shifted by all of _SHIFTS, [300, n]: what both see decides."""
    across, down = _SHIFTS
    padded = np.pad(thumbnail, ((down, down), (across, across)))
    rows, columns = thumbnail.shape
    shifted = np.stack([padded[y:y + rows, x:x + columns].ravel()
                        for y in range(2 * down + 1) for x in range(2 * across + 1)], -1)
    return shifted / np.maximum(np.linalg.norm(shifted, axis=0), 0.5)
