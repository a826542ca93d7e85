"""Corners, and where they are in the next image."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from xsvggt_ros.trajectory.config import TrajectoryConfig

SMALLEST = 32        # pixels of an image's shorter side; nothing is tracked in smaller ones
_BORDER = 2          # pixels at the border that are not believed
_LEVELS = 3          # of the pyramid
_LARGEST_WINDOW = 21
_STEP = 8            # pixels of a row that OpenCV takes at once; the others one by one
# To a thirtieth of a pixel: more takes a quarter longer and finds as many.
_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)
_QUICK = cv2.OPTFLOW_LK_GET_MIN_EIGENVALS   # not the patches' difference, which takes longer
_CELLS = (8, 6)      # columns and rows of the image among which corners are spread
SPREAD_CELLS = _CELLS[0] * _CELLS[1]
_CHOICE = 4          # times as many corners are looked at as are taken
_HEAP = 32           # bytes for each pixel, and twice as many are kept: corners take 28
_LARGEST_HEAP = 31 << 20
_NO_POINTS = np.empty((0, 2), np.float32)


@dataclass(frozen=True)
class Tracks:
    """Landmarks by their numbers [n] and where they are seen, pixels [n, 2] float32."""

    ids: np.ndarray
    pixels: np.ndarray

    @classmethod
    def none(cls) -> 'Tracks':
        """Return no tracks."""
        return cls(np.empty(0, np.int64), _NO_POINTS)

    def chosen(self, keep: np.ndarray) -> 'Tracks':
        """Return those that `keep`, bool [n] or indices, says."""
        return Tracks(self.ids[keep], self.pixels[keep])

    def joined(self, other: 'Tracks') -> 'Tracks':
        """Return both."""
        return Tracks(np.concatenate([self.ids, other.ids]),
                      np.concatenate([self.pixels, other.pixels]))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.ids)


class Tracker:
    """Follows tracks from one grey image, uint8 [H, W], to the next."""

    def __init__(self, config: TrajectoryConfig) -> None:
        """Begin without an image."""
        self._config = config
        self._image: np.ndarray | None = None
        self.tracks = Tracks.none()

    @property
    def shape(self) -> tuple[int, ...]:
        """Return height and width of the last image; (0, 0) before there is one."""
        return (0, 0) if self._image is None else self._image.shape

    def track(self, image: np.ndarray, guess: np.ndarray | None = None) -> Tracks:
        """
        Return the tracks that are found in `image`, there and back; `keep` makes it the last one.

        guess: where they are likely to be, [n, 2] float32; None: where they were.
        """
        before = self._image
        if before is None or not len(self.tracks) or before.shape != image.shape or (
                min(image.shape) < SMALLEST):
            return Tracks.none()
        height, width = image.shape
        window = self._window(width)
        points = self.tracks.pixels[:, None]
        start = None if guess is None else np.ascontiguousarray(guess, np.float32)[:, None].copy()
        flags = _QUICK if guess is None else _QUICK | cv2.OPTFLOW_USE_INITIAL_FLOW
        there, found, _ = cv2.calcOpticalFlowPyrLK(
            before, image, points, start,  # type: ignore[arg-type]
            winSize=window, maxLevel=_LEVELS, criteria=_CRITERIA, flags=flags)
        # Back from there, beginning where it should end.
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(
            image, before, there,
            points.copy() if guess is not None else None,  # type: ignore[arg-type]
            winSize=window, maxLevel=_LEVELS, criteria=_CRITERIA, flags=flags)
        there = there[:, 0]
        off = np.abs(back[:, 0] - self.tracks.pixels).max(1)
        limit = self._config.backward_error * self._config.scaled(width)
        inside = ((there > _BORDER) & (there < (width - 1 - _BORDER, height - 1 - _BORDER))).all(1)
        keep = (found.ravel() == 1) & (found_back.ravel() == 1) & (off < limit) & inside
        return Tracks(self.tracks.ids[keep], there[keep])

    def keep(self, image: np.ndarray, tracks: Tracks) -> None:
        """Make `image` and the tracks in it the last ones."""
        self._image = image
        self.tracks = tracks

    def corners(self, image: np.ndarray, taken: np.ndarray, count: int) -> np.ndarray:
        """
        Return at most `count` new corners [n, 2] float32, away from pixels `taken` [m, 2].

        Spread over the image: what is textured most, which may be what moves, is not all of them.
        """
        if count <= 0 or min(image.shape) < SMALLEST:
            return _NO_POINTS
        config, width = self._config, image.shape[1]
        distance = config.corner_distance * config.scaled(width)
        _keep_memory(image.size)
        mask = np.full(image.shape, 255, np.uint8)
        # Closed lines of one point, twice the radius thick, are discs; all in one call.
        cv2.polylines(mask, np.floor(taken).astype(np.int32)[:, None],  # type: ignore[call-overload]
                      True, 0, 2 * round(distance))
        corners = cv2.goodFeaturesToTrack(image, _CHOICE * count, config.corner_quality, distance,
                                          mask=mask)
        if corners is None:
            return _NO_POINTS
        return corners[_spread(cells_of(corners[:, 0], image.shape), cells_of(taken, image.shape),
                               count), 0]

    def _window(self, width: int) -> tuple[int, int]:
        """Return width and height of a patch: whole steps wide, of about the square's area."""
        side = min(round(self._config.flow_window * max(1, self._config.scaled(width))),
                   _LARGEST_WINDOW)
        across = _STEP * max(1, round(side / _STEP))
        return across, round(side ** 2 / across)


@lru_cache
def _keep_memory(pixels: int) -> None:
    """
    Let the process keep the memory that corners of an image of so many pixels take.

    glibc gives back what is free at the heap's end, and fetching it page by page again took half
    of the time of the corners. It keeps twice as much as the largest block that it got from the
    system by itself and that was freed; this one is never touched. Other C libraries do nothing.
    """
    np.empty(min(_HEAP * pixels, _LARGEST_HEAP), np.uint8)


def cells_of(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the numbers [n] of the image's cells in which pixels [n, 2] lie."""
    size = np.array(shape[1::-1])
    places = np.clip((pixels * _CELLS / size).astype(int), 0, np.array(_CELLS) - 1)
    return places[:, 0] + _CELLS[0] * places[:, 1]


def _spread(cells: np.ndarray, taken: np.ndarray, count: int) -> np.ndarray:
    """Return which `count` of candidates to take, best first, from the emptiest cells first."""
    filled = np.bincount(taken, minlength=SPREAD_CELLS)
    order = np.argsort(cells, kind='stable')   # within a cell the best stay first
    in_order = cells[order]
    rank = np.empty(len(cells), int)
    rank[order] = np.arange(len(cells)) - np.searchsorted(in_order, in_order) + filled[in_order]
    return np.sort(np.argsort(rank, kind='stable')[:count])


def grey_of(image: np.ndarray) -> np.ndarray:
    """Return an image, uint8 [H, W, 3] RGB or [H, W], in grey."""
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def sample_depth(depth: np.ndarray, pixels: np.ndarray,
                 depth_from_image: np.ndarray) -> np.ndarray:
    """
    Return a map [h, w] at pixels [n, 2] of the image, bilinear, float64 [n].

    depth_from_image: [3, 3], from the image's pixel coordinates to the map's. At the map's border
    the outermost value goes on; NaN where one of the four neighbours is not finite.
    """
    places = pixels.astype(np.float64) @ depth_from_image[:2, :2].T + depth_from_image[:2, 2]
    height, width = depth.shape
    places = np.clip(places, 0, (width - 1, height - 1))
    left, top = np.floor(places).astype(int).T
    right, below = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    x, y = places[:, 0] - left, places[:, 1] - top
    around = depth[np.stack([top, top, below, below]), np.stack([left, right, left, right])]
    around = np.where(np.isfinite(around), around, np.nan)
    upper = around[0] * (1 - x) + around[1] * x
    lower = around[2] * (1 - x) + around[3] * x
    return upper * (1 - y) + lower * y
