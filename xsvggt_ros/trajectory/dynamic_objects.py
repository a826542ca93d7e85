"""
Dynamic objects: tracks that disagree with the camera's motion, all of them together.

They are tracked further, so that no landmark is made of what is known to move, and become free
again when they have stood still in the world for a while.
"""

from collections.abc import Callable

import numpy as np

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.frame_tracker import PoseMeasurement
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.pose import find_pose
from xsvggt_ros.trajectory.projection import project, projection_jacobian, rays, to_camera
from xsvggt_ros.trajectory.tracker import Tracker, Tracks

_NEIGHBOURS = 3          # tracks that tell of what a corner is a part
_NEAR = 40.0             # pixels within which they count, of an image 320 wide
_RANSAC_PIXELS = 2.0     # at 320 pixels
_MOST = 2                # times the corners of an image, that are followed
_NEAREST = 1e-3          # depth
_LATELY = 3              # frames within which a track moved that others are taken with

Depths = Callable[[np.ndarray], np.ndarray]


class DynamicObjects:
    """Tracks on things that move, and since when each has stood still."""

    def __init__(self, config: TrajectoryConfig, pixel_scale: float) -> None:
        """Begin with none; pixel_scale: as TrajectoryConfig.scaled."""
        self._config, self._scale = config, pixel_scale
        self._tracker = Tracker(config)
        self._next = 0
        self._points = np.empty((0, 3))          # in the world, where they were last seen to move
        self._anchors = np.empty((0, 3))         # where the camera was then
        self._still: np.ndarray = np.empty(0, np.int64)   # frames since then

    @property
    def pixels(self) -> np.ndarray:
        """Return where they are in the last image, [n, 2]."""
        return self._tracker.tracks.pixels

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._tracker.tracks)

    @property
    def many(self) -> bool:
        """Return whether they are so many that the camera's own motion may be another one."""
        return self._config.many_move(len(self))

    def update(self, image: np.ndarray, measured: PoseMeasurement, local_map: LocalMap,
               depths: Depths) -> None:
        """
        Follow them in an image that was located, and take what begins to move.

        depths: those of pixels [n, 2] of this image, in the trajectory's unit. Landmarks on what
        begins to move are given up.
        """
        self.track(image, measured.pose, local_map.camera, depths)
        outliers = measured.outliers
        fewest = max(self._config.dynamic_share * (len(outliers) + len(measured.tracks)),
                     self._config.fewest_inliers)
        if measured.source != 'tracks' or len(outliers) < fewest:
            return
        moving = self._together(local_map.points(outliers.ids)[0], outliers, local_map.camera)
        if moving.sum() >= fewest:
            local_map.give_up(outliers.ids[moving])
            self.add(outliers.pixels[moving], measured.pose, local_map.camera, depths)

    def static_corners(self, corners: np.ndarray, landmarks: np.ndarray, pose: np.ndarray,
                       camera: np.ndarray, depths: Depths) -> np.ndarray:
        """
        Return which corners [n, 2] of the last image are not a part of what moves.

        The outliers are followed from now on. landmarks: pixels [m, 2] of what stands still.
        """
        moving = self._beside(corners, landmarks)
        self.add(corners[moving], pose, camera, depths, _LATELY)
        return corners[~moving]

    def track(self, image: np.ndarray, pose: np.ndarray, camera: np.ndarray,
              depths: Depths) -> None:
        """
        Look for them in an image, taken at `pose` [4, 4]; those that stand still go.

        depths: those of pixels [n, 2] of this image.
        """
        before = self._tracker.tracks
        if not len(before):
            self._tracker.keep(image, before)
            return
        tracks = self._tracker.track(image)
        kept = np.searchsorted(before.ids, tracks.ids)
        self._keep(kept)
        moved = ~self._agree(tracks.pixels, pose, camera)
        self._still = np.where(moved, 0, self._still + 1)
        again = depths(tracks.pixels)
        seen = np.isfinite(again) & (again > _NEAREST)
        renewed = moved & seen
        self._anchors[renewed] = pose[:3, 3]
        self._points[renewed] = _world(tracks.pixels[renewed], again[renewed], pose, camera)
        stay = (self._still < self._config.dynamic_frames) & (~moved | seen)
        self._keep(stay)
        self._tracker.keep(image, tracks.chosen(stay))

    def _agree(self, pixels: np.ndarray, pose: np.ndarray, camera: np.ndarray) -> np.ndarray:
        """Return which are seen at pixels [n, 2] where they were last, as far as that is known."""
        along = self._points - self._anchors
        local = to_camera(self._points, pose)
        off = project(local, camera) - pixels
        by_depth = np.einsum('nij,nj->ni', projection_jacobian(local, camera),
                             along @ pose[:3, :3])
        sigma = self._config.dynamic_error * self._scale
        squares = (off ** 2).sum(1) - (off * by_depth).sum(1) ** 2 / (
            (by_depth ** 2).sum(1) + (sigma / self._config.dynamic_depth) ** 2)
        return (squares < sigma ** 2) & (local[:, 2] > _NEAREST)

    def _keep(self, chosen: np.ndarray) -> None:
        self._points, self._anchors = self._points[chosen], self._anchors[chosen]
        self._still = self._still[chosen]

    def _together(self, points: np.ndarray, tracks: Tracks, camera: np.ndarray) -> np.ndarray:
        """Return which tracks of world points [n, 3] one motion explains."""
        pose = find_pose(points, tracks.pixels.astype(np.float64), camera,
                         _RANSAC_PIXELS * self._scale)
        if pose is None:
            return np.zeros(len(tracks), bool)
        off = np.linalg.norm(project(to_camera(points, pose), camera) - tracks.pixels, axis=1)
        return off < 2 * _RANSAC_PIXELS * self._scale

    def add(self, pixels: np.ndarray, pose: np.ndarray, camera: np.ndarray, depths: Depths,
            still: int = 0) -> None:
        """
        Take tracks at pixels [n, 2] of the last image, at `pose`.

        still: since how many frames they have not been seen to move.
        """
        told = depths(pixels)
        good = np.isfinite(told) & (told > _NEAREST)
        pixels, told = pixels[good], told[good]
        ids = np.arange(self._next, self._next + len(pixels))
        self._next += len(pixels)
        self._points = np.concatenate([self._points, _world(pixels, told, pose, camera)])
        self._anchors = np.concatenate([self._anchors, np.tile(pose[:3, 3], (len(ids), 1))])
        self._still = np.append(self._still, np.full(len(ids), still))
        tracks = self._tracker.tracks.joined(Tracks(ids, pixels))
        newest = np.arange(len(tracks))[-_MOST * self._config.corners:]
        self._keep(newest)
        self._tracker.tracks = tracks.chosen(newest)

    def _beside(self, pixels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Return which pixels [n, 2] are next to what has moved lately, not to landmarks."""
        if not len(self):
            return np.zeros(len(pixels), bool)
        places = np.concatenate([self.pixels, landmarks])
        moves = np.zeros(len(places), bool)
        moves[:len(self)] = self._still < _LATELY
        off = np.linalg.norm(pixels[:, None] - places, axis=-1)
        near = np.argsort(off, axis=1)[:, :_NEIGHBOURS]
        close = np.take_along_axis(off, near, 1) < _NEAR * self._scale
        return (moves[near] & close).sum(1) > _NEIGHBOURS / 2


def _world(pixels: np.ndarray, depths: np.ndarray, pose: np.ndarray,
           camera: np.ndarray) -> np.ndarray:
    """Return the world points [n, 3] at pixels [n, 2] and depths [n] of a camera at `pose`."""
    local = rays(pixels.astype(np.float64), camera) * depths[:, None]
    return local @ pose[:3, :3].T + pose[:3, 3]
