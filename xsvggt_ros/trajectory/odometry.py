"""Poses from tracks, and the window that is adjusted behind them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from xsvggt_ros.trajectory.adjustment import Solution
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.dynamic_objects import DynamicObjects
from xsvggt_ros.trajectory.fallback import Fallback, Located
from xsvggt_ros.trajectory.frame import Frame
from xsvggt_ros.trajectory.frame_tracker import FrameTracker, PoseMeasurement
from xsvggt_ros.trajectory.keyframe import Keyframe, Snapshot
from xsvggt_ros.trajectory.keyframe_rule import KeyframeRule
from xsvggt_ros.trajectory.local_map import LocalMap, WindowProblem
from xsvggt_ros.trajectory.network_depth import NetworkDepth, SHALLOWEST
from xsvggt_ros.trajectory.odometry_support import OdometryStep, OdometrySupport
from xsvggt_ros.trajectory.projection import inverse
from xsvggt_ros.trajectory.relative_odometry import RelativeOdometry, View
from xsvggt_ros.trajectory.snapshots import Snapshots
from xsvggt_ros.trajectory.steps import Step, Steps
from xsvggt_ros.trajectory.tracker import Tracks
from xsvggt_ros.trajectory.uncertainty import HALF_NORMAL, misfit


@dataclass(frozen=True)
class _Located:
    """
    A frame that was located, as the `number`th of the stream, and has yet to be remembered.

    frame: None until the network has seen it.
    """

    number: int
    grey: np.ndarray
    frame: Frame | None
    measured: PoseMeasurement
    is_keyframe: bool


@dataclass(frozen=True)
class _Foreseen:
    """The step to a frame by this very measurement; whether it asks for a keyframe."""

    measured: PoseMeasurement
    step: Step
    is_needed: bool


@dataclass(frozen=True)
class Estimate:
    """
    Where a frame was, by what was known then.

    world_from_camera [4, 4]: in the first camera's optical frame; corrections of the window make
    it jump a little. odom_from_camera [4, 4]: never jumps, drifts instead. source: 'first',
    'tracks', 'matches', 'odometry', 'network', 'motion' (as before) or 'hold'. inliers: landmarks
    that agree; error: their median reprojection error in pixels, NaN without any. covariance,
    step_covariance: [6, 6] of odom_from_camera since the first frame, and of its step since the
    last one, which is motion [6]; of small motions (rotation in rad, translation in the odometry's
    unit) in the camera's axes, as that is.
    keyframe, keyframe_from_camera: of which it is kept as a part. scale: units of the trajectory
    for one of the network's depth here.
    """

    world_from_camera: np.ndarray
    odom_from_camera: np.ndarray
    source: str
    inliers: int
    error: float
    covariance: np.ndarray
    step_covariance: np.ndarray
    keyframe: int
    keyframe_from_camera: np.ndarray
    is_keyframe: bool
    scale: float
    motion: np.ndarray


class Odometry:
    """
    Frames in, poses out, in bounded memory.

    `step` locates a frame, and remembers what later ones need of it; `locate` and `complete` are
    its halves. Where a frame makes a keyframe, `window_problem` is to be solved and its solution
    given to `apply`: by `adjust` at once, or by another thread while frames go on.
    """

    def __init__(self, camera: np.ndarray, size: tuple[int, int], focal_known: bool,
                 config: TrajectoryConfig | None = None,
                 relative: RelativeOdometry | None = None) -> None:
        """
        Begin with a camera matrix [3, 3] of images of `size` (width, height).

        focal_known: whether the focal length is calibrated, or a guess to be improved. relative:
        the camera's motions by an odometry from elsewhere.
        """
        self.config = config = config or TrajectoryConfig()
        self._width = size[0]
        self._pixel_scale = config.scaled(size[0])
        self.map = LocalMap(camera, config, focal_known, self._pixel_scale)
        self._tracker = FrameTracker(config, self._pixel_scale)
        self._rule = KeyframeRule(config)
        self._fallback = Fallback(config.fallback_frames)
        self._dynamic = DynamicObjects(config, self._pixel_scale)
        self._frames = 0
        self._keyframes = 0
        self.depth = NetworkDepth(config)
        self._keyframe_from_last = np.eye(4)
        self._doubtful = False                   # whether the pose may be that of what moves
        self.support = None if relative is None else OdometrySupport(relative, config)
        self.steps = Steps(config, self._pixel_scale, self.support)
        self._snapshots = Snapshots(config.window, self.map, self.support)
        self._ahead: _Foreseen | None = None     # of the frame that was begun, most likely
        self._located: _Located | None = None    # what `complete` has to do
        self._early: Estimate | None = None      # of a frame that the network has yet to see
        # Of an image that was looked at before the network saw it, and was not located.
        self._measured: tuple[np.ndarray, PoseMeasurement | None] | None = None

    @property
    def camera(self) -> np.ndarray:
        """Return the camera matrix as it is known now, [3, 3]."""
        return self.map.camera

    @property
    def keyframes(self) -> int:
        """Return how many keyframes there have been."""
        return self._keyframes

    def begin(self, grey: np.ndarray) -> None:
        """Do what `step` does with a frame's image alone, [H, W]; the next step takes it up."""
        self._ahead = self._measured = None
        self.complete()   # of one that the network never saw, if there is one
        if self._keyframes:
            last = self._last_pose()
            measured = self._tracker.begin(grey, self.map, last)
            if measured is not None and measured.information is not None:
                self._ahead = self._foresee(last, measured, measured.information)

    def locate_early(self, grey: np.ndarray, view: View | None) -> Estimate | None:
        """
        Return where the frame that was begun is, if its image alone tells and it is no keyframe.

        `locate` is to follow once the network has seen it, and returns the same; view: as in
        `Frame`. None: `locate` will tell.
        """
        ahead = self._ahead
        if ahead is None or ahead.is_needed or not self._tracker.is_sure(grey):
            return None
        before = self._last_pose()
        measured = self._tracker.track(grey, self.map, before, (), self._dynamic.pixels)
        if measured is not ahead.measured:
            self._measured = grey, measured
            return None
        step_covariance, _ = self._move(before, measured, view, None)
        self._early = self._place(grey, None, measured, False, step_covariance)
        return self._early

    def step(self, frame: Frame, adjust_now: bool = True) -> Estimate:
        """Locate a frame; with `adjust_now` the window is adjusted where it makes a keyframe."""
        estimate = self.locate(frame)
        self.complete(adjust_now)
        if not estimate.is_keyframe:
            return estimate
        return replace(estimate, world_from_camera=self.map.pose(estimate.keyframe),
                       keyframe_from_camera=self._keyframe_from_last.copy(),
                       scale=self.depth.scale)

    def locate(self, frame: Frame) -> Estimate:
        """
        Return where a frame is; `complete` is to follow before anything else is asked.

        Of a keyframe the scale is still that of the one before.
        """
        if not self._keyframes:
            return self._first(frame)
        early, self._early = self._early, None
        if early is not None and self._located is not None and self._located.grey is frame.grey:
            self._located = replace(self._located, frame=frame)
            return early
        self.complete()   # one that was left
        before = self._last_pose()
        carried = None if self.support is None else self.support.predict(frame.view)
        measured = self._measure(frame, before, carried)
        blind = measured is None and float(frame.grey.std()) < self.config.min_contrast
        if measured is None:
            pose, source = self._fallback.guess(self._frames, frame.world_from_camera, blind)
            if carried is not None:
                pose, source = carried.guess(before, pose), 'odometry'
            measured = PoseMeasurement(pose, Tracks.none(), source, float('nan'), None)
        step_covariance, is_needed = self._move(before, measured, frame.view, carried)
        wanted = not blind and (is_needed or measured.source == 'matches')
        return self._place(frame.grey, frame, measured, wanted, step_covariance)

    def _measure(self, frame: Frame, before: np.ndarray,
                 carried: OdometryStep | None) -> PoseMeasurement | None:
        """Return the pose by landmarks; None if lost."""
        found, self._measured = self._measured, None
        if found is not None and found[0] is frame.grey:
            return found[1]
        guesses = _guesses(before, carried, self.steps.last,
                           partial(self._fallback.network, frame.world_from_camera))
        return self._tracker.track(frame.grey, self.map, before, guesses, self._dynamic.pixels)

    def _place(self, grey: np.ndarray, frame: Frame | None, measured: PoseMeasurement,
               wanted: bool, step_covariance: np.ndarray) -> Estimate:
        """Note what `complete` has to do with a frame that was measured; return where it is."""
        self._located = _Located(self._frames, grey, frame, measured, wanted)
        keyframe = self._keyframes if wanted else self._keyframes - 1
        base = measured.pose if wanted else self.map.pose(keyframe)
        self._keyframe_from_last = inverse(base) @ measured.pose
        return self._estimate(measured.pose, measured, keyframe, wanted, step_covariance)

    def complete(self, adjust_now: bool = False) -> None:
        """
        Remember what later frames need of the one that was located last, once.

        It becomes a keyframe here, if it is to be one. adjust_now: as in `step`.
        """
        located, self._located = self._located, None
        if located is None:
            return
        self._ahead = None
        frame, measured, wanted = located.frame, located.measured, located.is_keyframe
        if frame is None:   # the network failed
            self._early = None
            self._tracker.keep(located.grey, measured.tracks)
            return
        # Until it is a keyframe, in case of an error.
        self._keyframe_from_last = inverse(self.map.pose(self._keyframes - 1)) @ measured.pose
        self._dynamic.update(frame.grey, measured, self.map, partial(self.depth.of, frame))
        self._doubtful = (self._dynamic.many
                          and measured.error > self.config.doubt * self._pixel_scale)
        pose = measured.pose
        if wanted:
            self._add_keyframe(frame, measured, adjust_now)
            pose = self.map.pose(self._keyframes - 1)
            self._keyframe_from_last = inverse(pose) @ pose
        else:
            self._tracker.keep(frame.grey, measured.tracks)
        if measured.information is not None:
            self._fallback.add(Located(located.number, pose, frame.world_from_camera,
                                       self.depth.scale))
        self._snapshots.watch(frame, self.depth.scale, self._last_pose(), measured, wanted)

    @property
    def corrects_depth(self) -> bool:
        """Return whether `depth_factors` is anything but ones."""
        return self.config.optimize and self.config.correct_depth

    @property
    def snapshot(self) -> Snapshot:
        """Return what the newest keyframe changes; with `closes_loops`."""
        return self._snapshots.newest

    def settled(self) -> list[Keyframe]:
        """Return the newest keyframes as they are now; with `closes_loops`."""
        return self._snapshots.settled()

    @property
    def closes_loops(self) -> bool:
        """Return whether there are snapshots."""
        return self.config.optimize and self.config.close_loops

    def window_problem(self) -> WindowProblem | None:
        """Return what is to be adjusted; None if there is nothing."""
        asked = self.map.window_problem() if self.config.optimize else None
        if asked is None or self.support is None:
            return asked
        return replace(asked, problem=replace(
            asked.problem, motions=self.support.factors(asked.keyframes)))

    def apply(self, problem: WindowProblem, solution: Solution) -> None:
        """Take over a solution of `window_problem`, unless what moves has spoilt it."""
        asked = problem.problem
        off = misfit(np.abs(solution.log_inverse_depth - asked.prior) / asked.prior_sigma,
                     HALF_NORMAL)
        if self._dynamic.many and off > self.config.dynamic_misfit:
            return
        self.map.apply(problem, solution)
        self.steps.drift.take_window(solution.covariance, off, solution.shared)
        if solution.is_anew:
            self.depth.trust.begin_anew(-asked.prior, -solution.log_inverse_depth)

    def adjust(self) -> None:
        """Adjust the window now."""
        problem = self.window_problem()
        if problem is not None:
            self.apply(problem, problem.solve())

    def depth_factors(self, frame: Frame) -> np.ndarray:
        """
        Return factors, float32 [h, w], that bring the depth of the last frame to the landmarks.

        In the trajectory's unit. frame: the one that `step` had last. Landmarks that were never
        adjusted have nothing to say: without `optimize` the depth is left as it is.
        """
        if not self.corrects_depth:
            return np.ones(frame.depth.shape, np.float32)
        if self._doubtful:
            return np.full(frame.depth.shape, self.depth.scale, np.float32)
        tracks = self._tracker.tracks
        tracks = tracks.chosen(self.map.known(tracks.ids))
        return self.depth.factors(frame, tracks, self._last_pose(), self.map)

    # Parts ---------------------------------------------------------------------------------------

    def _last_pose(self) -> np.ndarray:
        """Return world_from_camera of the last frame as the window has it now."""
        return self.map.pose(self._keyframes - 1) @ self._keyframe_from_last

    def _first(self, frame: Frame) -> Estimate:
        measured = PoseMeasurement(np.eye(4), Tracks.none(), 'first', float('nan'), None)
        self._add_keyframe(frame, measured, False)
        self._fallback.add(Located(0, np.eye(4), frame.world_from_camera, 1.0))
        self._snapshots.watch(frame, 1.0, np.eye(4), measured, True)
        if self.support is not None:
            self.support.add_step(frame.view, np.eye(4), True, None)
        return self._estimate(np.eye(4), measured, 0, True, self.steps.drift.covariance)

    def _add_keyframe(self, frame: Frame, measured: PoseMeasurement, adjust_now: bool) -> None:
        keyframe = self._keyframes
        self._keyframes += 1
        tracks = measured.tracks
        self.map.add_keyframe(keyframe, measured.pose, tracks)
        self.steps.drift.add_keyframe()
        if self.support is not None:
            self.support.add_keyframe(keyframe, frame.view)
        if adjust_now and keyframe:
            self.adjust()
        tracks = tracks.chosen(self.map.known(tracks.ids))
        pose = self.map.pose(keyframe)
        self.depth.learn(frame, tracks, pose, self.map, self._doubtful)
        corners = self._tracker.corners(frame.grey, tracks, self._dynamic.pixels)
        corners = self._dynamic.static_corners(corners, tracks.pixels, pose, self.map.camera,
                                               partial(self.depth.of, frame))
        depths, sigmas = self.depth.judged(frame, corners)
        good = np.isfinite(depths) & (depths > SHALLOWEST)
        if good.any():
            corners = corners[good]
            ids = self.map.add_landmarks(keyframe, corners, depths[good], sigmas[good])
            tracks = tracks.joined(Tracks(ids, corners))
        features = self._tracker.begin_keyframe(frame.grey, tracks, keyframe)
        if self.closes_loops:
            self._snapshots.take(frame, self.depth.scale, features, measured)
        self._rule.begin(tracks, pose)
        self.map.prune(tracks.ids)

    def _foresee(self, last: np.ndarray, measured: PoseMeasurement,
                 information: np.ndarray) -> _Foreseen:
        """Return what a measurement after a frame at `last` means, and change nothing."""
        step = self.steps.foresee(last, self.map.pose(self._keyframes - 1), measured, information)
        return _Foreseen(measured, step, self._rule.is_needed(
            measured.tracks, measured.pose, self.map.camera, self._width))

    def _move(self, last: np.ndarray, measured: PoseMeasurement, view: View | None,
              carried: OdometryStep | None) -> tuple[np.ndarray, bool]:
        """
        Take the step from the last frame's pose into the odometry.

        Returns its covariance [6, 6], and whether what is tracked asks for a keyframe.
        """
        ahead, self._ahead = self._ahead, None
        if measured.information is None:
            return self.steps.guess(last, measured, view, carried), True
        if ahead is None or ahead.measured is not measured:
            ahead = self._foresee(last, measured, measured.information)
        return self.steps.take(ahead.step, view), ahead.is_needed

    def _estimate(self, pose: np.ndarray, measured: PoseMeasurement, keyframe: int,
                  is_keyframe: bool, step_covariance: np.ndarray) -> Estimate:
        self._frames += 1
        return Estimate(pose, self.steps.odom_from_last.copy(), measured.source,
                        len(measured.tracks), measured.error, self.steps.drift.covariance,
                        step_covariance, keyframe, self._keyframe_from_last.copy(),
                        is_keyframe, self.depth.scale, self.steps.motion)


def _guesses(before: np.ndarray, carried: OdometryStep | None, motion: np.ndarray | None,
             network: Callable[[], np.ndarray]) -> Iterator[np.ndarray]:
    """Yield where an odometry, the last motion, extrapolated, and the network put a frame."""
    if carried is not None:
        yield carried.guess(before, before)
    if motion is not None:
        yield before @ motion
    yield network()
