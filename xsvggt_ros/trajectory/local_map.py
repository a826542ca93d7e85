"""Keyframes, landmarks and observations that are still needed; memory is bounded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xsvggt_ros.trajectory.adjustment import (
    FocalPrior,
    Problem,
    rescaled,
    Solution,
    solve,
    solve_beginning,
    UNKNOWN_SIGMA,
)
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.projection import inverse, nearest_pose, rays
from xsvggt_ros.trajectory.tracker import Tracks

_FEWEST_SEEN = 10    # observations that a keyframe needs to be moved
_BAD = 8.0           # sigmas of an observation from which its landmark is given up


@dataclass(frozen=True)
class WindowProblem:
    """
    A problem and whose it is: numbers of its keyframes, landmarks and observers.

    begins: whether the stream's first keyframe is in the window, so that all may be wrong yet.
    """

    problem: Problem
    keyframes: np.ndarray   # of the poses
    landmarks: np.ndarray
    newest: int             # keyframe
    log_focal: float        # when it was made
    begins: bool

    def solve(self) -> Solution:
        """Return its solution; takes milliseconds, and may be called by any thread."""
        return solve_beginning(self.problem) if self.begins else solve(self.problem)


class LocalMap:
    """
    The window, what holds it, and the landmarks that it sees.

    Keyframes and landmarks have numbers that count up and are never used again; those that
    nothing needs any more are dropped by `prune`.
    """

    def __init__(self, camera: np.ndarray, config: TrajectoryConfig, focal_known: bool,
                 pixel_scale: float) -> None:
        """Begin an empty map for a camera [3, 3]; pixel_scale: as TrajectoryConfig.scaled."""
        self.camera = camera.astype(np.float64)
        self._config = config
        self._pixel_scale = pixel_scale
        self._focal_known = focal_known
        self._log_focal = 0.0                                   # over the first guess
        self._focal_prior = FocalPrior(0.0, config.focal_sigma)
        self.keyframes: np.ndarray = np.empty(0, np.int64)
        self.poses: np.ndarray = np.empty((0, 4, 4))
        self._ids: np.ndarray = np.empty(0, np.int64)   # of landmarks, ascending
        self._next = 0
        self._anchor: np.ndarray = np.empty(0, np.int64)   # keyframe numbers
        self._rays: np.ndarray = np.empty((0, 3))
        self._depth: np.ndarray = np.empty(0)   # log-inverse
        self._prior: np.ndarray = np.empty(0)
        self._prior_sigma: np.ndarray = np.empty(0)
        self._information: np.ndarray = np.empty(0)
        self._bad: np.ndarray = np.empty(0, bool)
        self._seen_by: np.ndarray = np.empty(0, np.int64)
        self._seen: np.ndarray = np.empty(0, np.int64)
        self._pixels: np.ndarray = np.empty((0, 2))

    # What is known -------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return how many landmarks there are."""
        return len(self._ids)

    @property
    def observations(self) -> int:
        """Return how many observations there are."""
        return len(self._seen)

    def pose(self, keyframe: int) -> np.ndarray:
        """Return world_from_camera of a keyframe."""
        return self.poses[self._keyframe_rows(keyframe)]

    def known(self, ids: np.ndarray) -> np.ndarray:
        """Return which landmarks [n] there are, and have not been given up."""
        if not len(self._ids):
            return np.zeros(len(ids), bool)
        rows = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return (self._ids[rows] == ids) & ~self._bad[rows]

    def points(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Return landmarks [n, 3] in the world, and from their anchors; variances [n] of log depth.

        All of them must be known.
        """
        rows = np.searchsorted(self._ids, ids)
        poses = self.poses[self._keyframe_rows(self._anchor[rows])]
        local = self._rays[rows] * np.exp(-self._depth[rows])[:, None]
        along = np.einsum('nij,nj->ni', poses[:, :3, :3], local)
        variance = 1 / np.maximum(self._information[rows], 1e-9)
        return along + poses[:, :3, 3], along, variance

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """Return the directions [n, 3] of pixels [n, 2] of this camera."""
        return rays(pixels.astype(np.float64), self.camera)

    # What is new ---------------------------------------------------------------------------------

    def add_keyframe(self, keyframe: int, pose: np.ndarray, tracks: Tracks) -> None:
        """Add a keyframe that sees landmarks at `tracks`; its number is above all others."""
        self.keyframes = np.append(self.keyframes, keyframe)
        self.poses = np.concatenate([self.poses, pose[None]])
        self._seen_by = np.append(self._seen_by, np.full(len(tracks), keyframe))
        self._seen = np.append(self._seen, tracks.ids)
        self._pixels = np.concatenate([self._pixels, tracks.pixels.astype(np.float64)])

    def add_landmarks(self, keyframe: int, pixels: np.ndarray, depths: np.ndarray,
                      sigmas: np.ndarray) -> np.ndarray:
        """Add landmarks at pixels [n, 2] of a keyframe, with depths [n]; return their numbers."""
        ids = np.arange(self._next, self._next + len(pixels))
        self._next += len(pixels)
        log_inverse = -np.log(depths)
        self._ids = np.append(self._ids, ids)
        self._anchor = np.append(self._anchor, np.full(len(ids), keyframe))
        self._rays = np.concatenate([self._rays, self.rays(pixels)])
        self._depth = np.append(self._depth, log_inverse)
        self._prior = np.append(self._prior, log_inverse)
        self._prior_sigma = np.append(self._prior_sigma, sigmas)
        self._information = np.append(self._information, 1 / sigmas ** 2)
        self._bad = np.append(self._bad, np.zeros(len(ids), bool))
        return ids

    def give_up(self, ids: np.ndarray) -> None:
        """Take landmarks [n], all known, for none: nothing is fitted to them any more."""
        self._bad[np.searchsorted(self._ids, ids)] = True

    # The window ----------------------------------------------------------------------------------

    def window_problem(self) -> WindowProblem | None:
        """Return the adjustment of the newest keyframes; None if nothing can be moved."""
        config = self._config
        newest = self.keyframes[-config.window:]
        holding = self.keyframes[-2 * config.window:]
        anchors = self._anchor[np.searchsorted(self._ids, self._seen)]
        moves = (self._seen_by >= newest[0]) & (self._seen_by != anchors)
        wanted = np.unique(self._seen[moves])
        wanted = wanted[self.known(wanted)]
        chosen = (np.isin(self._seen, wanted) & (self._seen_by >= holding[0])
                  & (self._seen_by != anchors))
        order = np.argsort(self._seen[chosen], kind='stable')
        seen_by, seen = self._seen_by[chosen][order], self._seen[chosen][order]
        seen_rows = self._keyframe_rows(seen_by)
        counts = np.bincount(seen_rows, minlength=len(self.keyframes))
        free = np.flatnonzero((self.keyframes >= newest[0]) & (counts >= _FEWEST_SEEN)
                              & (self.keyframes > self.keyframes[0]))
        if not len(free):
            return None
        rows = np.searchsorted(self._ids, wanted)
        if not self._has_baseline(rows, newest):
            return None
        focal = None
        if not self._focal_known and self.keyframes[-1] >= config.focal_from:
            focal = FocalPrior(self._focal_prior.mean - self._log_focal, self._focal_prior.sigma)
        problem = Problem(
            self.poses, free, self._rays[rows], self._depth[rows], self._prior[rows],
            self._prior_sigma[rows], self._keyframe_rows(self._anchor[rows]), seen_rows,
            np.searchsorted(wanted, seen), self._pixels[chosen][order], self.camera,
            config.pixel_sigma * self._pixel_scale, config.huber, config.depth_cauchy, focal,
            config.iterations)
        return WindowProblem(problem, self.keyframes, wanted, int(self.keyframes[-1]),
                             self._log_focal, bool(newest[0] == 0))

    def _has_baseline(self, landmarks: np.ndarray, keyframes: np.ndarray) -> bool:
        """Return whether keyframes are so far apart that landmarks [rows] move in the image."""
        places = self.poses[self._keyframe_rows(keyframes), :3, 3]
        apart = np.median(np.linalg.norm(places - np.median(places, axis=0), axis=1))
        depth = np.exp(-np.median(self._depth[landmarks]))
        return bool(apart > self._config.baseline * depth)

    def apply(self, asked: WindowProblem, solution: Solution) -> None:
        """Take over a solution; keyframes that were added since keep their place to the last."""
        problem = asked.problem
        before = problem.poses[-1]
        moved = solution.poses[-1] @ inverse(before)
        rows = np.searchsorted(asked.keyframes, self.keyframes)
        there = rows < len(asked.keyframes)
        poses = self.poses.copy()
        poses[there] = solution.poses[rows[there]]
        for row in np.flatnonzero(~there):
            poses[row] = nearest_pose(moved @ poses[row])
        self.poses = poses
        known = np.isin(asked.landmarks, self._ids, assume_unique=True)
        rows = np.searchsorted(self._ids, asked.landmarks[known])
        self._depth[rows] = solution.log_inverse_depth[known]
        if solution.is_anew:
            self._prior_sigma[rows] = np.maximum(self._prior_sigma[rows], UNKNOWN_SIGMA)
        self._information[rows] = solution.depth_information[known]
        if problem.focal is not None:
            self._apply_focal(asked, solution)
        worst = solution.errors > _BAD * problem.pixel_sigma
        newest = problem.seen_by == len(asked.keyframes) - 1
        bad = asked.landmarks[np.unique(problem.landmark[worst & newest])]
        bad = bad[np.isin(bad, self._ids, assume_unique=True)]
        self._bad[np.searchsorted(self._ids, bad)] = True

    def _apply_focal(self, asked: WindowProblem, solution: Solution) -> None:
        config = self._config
        self._log_focal += solution.log_focal
        self.camera, self._rays = rescaled(self.camera, self._rays, solution.log_focal)
        # What the window says becomes the prior of another window, once it has moved on.
        if solution.focal_variance is not None and asked.newest % max(1, config.window // 2) == 0:
            sigma = 2 * np.sqrt(solution.focal_variance)
            self._focal_prior = FocalPrior(self._log_focal, max(sigma, config.focal_floor))

    # What goes -----------------------------------------------------------------------------------

    def prune(self, tracked: np.ndarray) -> None:
        """Drop what neither the window, nor what holds it, nor the landmarks `tracked` need."""
        oldest = self.keyframes[-2 * self._config.window:][0]
        if oldest == self.keyframes[0]:
            return
        recent = self._seen_by >= oldest
        keep = (np.isin(self._ids, self._seen[recent]) | np.isin(self._ids, tracked)
                | (self._anchor >= oldest)) & ~self._bad
        for name in ('_ids', '_anchor', '_rays', '_depth', '_prior', '_prior_sigma',
                     '_information', '_bad'):
            setattr(self, name, getattr(self, name)[keep])
        recent &= np.isin(self._seen, self._ids)
        for name in ('_seen_by', '_seen', '_pixels'):
            setattr(self, name, getattr(self, name)[recent])
        needed = (self.keyframes >= oldest) | np.isin(self.keyframes, self._anchor)
        self.keyframes, self.poses = self.keyframes[needed], self.poses[needed]

    def _keyframe_rows(self, keyframes: np.ndarray | int | Sequence[int]) -> np.ndarray:
        return np.searchsorted(self.keyframes, keyframes)
