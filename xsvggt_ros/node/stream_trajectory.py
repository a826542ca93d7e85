"""The trajectory of the node's stream: poses by tracks, the window in a thread of its own."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

import numpy as np
from rclpy.impl.rcutils_logger import RcutilsLogger
from torch import Tensor

from xsvggt_ros.engine.frame_result import FrameResult
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.geometry.se3 import transform_points
from xsvggt_ros.geometry.similarity import apply_to_pose, scales
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.node.inputs.odometry_input import OdometryInput
from xsvggt_ros.node.map_localization import MapLocalization
from xsvggt_ros.node.settings import DepthSettings, TrajectorySettings
from xsvggt_ros.node.status.fault_log import FaultLog
from xsvggt_ros.node.tracked_pose import LoopState, TrackedPose
from xsvggt_ros.trajectory.camera_tracker import CameraTracker
from xsvggt_ros.trajectory.landmark_map import LandmarkMap
from xsvggt_ros.trajectory.loop_closer import LoopCloser
from xsvggt_ros.trajectory.loop_thread import LoopThread
from xsvggt_ros.trajectory.map_frame import MapFrame, Placements
from xsvggt_ros.trajectory.odometry import Estimate
from xsvggt_ros.trajectory.projection import inverse
from xsvggt_ros.trajectory.relative_odometry import View
from xsvggt_ros.trajectory.results import network_frame, tensor_like
from xsvggt_ros.trajectory.window_thread import WindowThread

_LONGEST = 5.0   # seconds between two images from which a velocity is still told


@dataclass
class _Located:
    """
    The image that was located last, and the network's camera_from_world [4, 4] of it.

    is_remembered: whether the odometry has what later images need of it.
    """

    estimate: Estimate
    camera_from_world: Tensor
    is_remembered: bool = False


# Takes camera_from_world [4, 4] of an image that was located early, and how that came.
Early = Callable[[np.ndarray, TrackedPose], None]


class StreamTrajectory:
    """
    Locates the images of one camera; all is called by the worker's thread.

    That touches nothing here, nor what `early` of `begin` does, until `settle` or `track` has
    waited for it.

    Poses are those in the odometry frame: made of the steps from image to image, each by what was
    known then. What the window finds out later makes later steps better, and moves nothing back.
    """

    def __init__(self, trajectory: TrajectorySettings, depth: DepthSettings,
                 logger: RcutilsLogger, landmarks: LandmarkMap | None = None,
                 odometry: OdometryInput | None = None) -> None:
        """
        Begin without a stream; in the mode network there is nothing to do.

        landmarks: of a saved map, in which each stream is looked for. odometry: from elsewhere.
        """
        self.mode = trajectory.mode
        self._odometry = odometry
        self._localization = None if landmarks is None else MapLocalization(landmarks, logger)
        self._correct_depth = depth.correction == 'auto'
        self._log = FaultLog(lambda text: logger.warning(text))
        self._window: WindowThread | None = None
        self._closer: LoopCloser | None = None
        self._loops: LoopThread | None = None
        self._map = MapFrame.none()
        self._placements = Placements()
        self._taken = self._map.corrections   # of the loops, that the map has followed
        self._tracker: CameraTracker | None = None
        self._last: int | None = None   # stamp in ns
        self._located: _Located | None = None   # what `complete` is for
        self._beside: ThreadPoolExecutor | None = None
        self._begun: Future[None] | None = None
        self._early: TrackedPose | None = None   # of the image that was begun

    @property
    def is_on(self) -> bool:
        """Return whether poses are not the network's own."""
        return self.mode != 'network'

    def forget(self) -> None:
        """Forget the stream; a window that is being solved is let go of."""
        self._tracker = self._last = self._located = None
        self.close()
        self._early = None

    def close(self) -> None:
        """End the threads, if there are some."""
        if self._beside is not None:
            self._beside.shutdown()
        self._beside = self._begun = None
        for thread in (self._window, self._loops):
            if thread is not None:
                thread.close()
        if self._localization is not None:
            self._localization.forget()
        self._window = self._loops = self._closer = None
        self._map, self._placements = MapFrame.none(), Placements()

    def begin(self, pixels: np.ndarray, camera: CameraModel | None, stamp_ns: int = 0,
              frame_id: str = '', early: Early | None = None) -> None:
        """
        Follow the corners into an image, in a thread of its own while the network sees it.

        early: is called in that thread, if the image alone tells where it is; `track` returns the
        same later. Not for lengths whose unit the network's results for this image change.
        """
        self._wait()
        self._remember_left()
        self._early = None
        if self._tracker is not None:
            self._take_window()
            if self._beside is None:
                self._beside = ThreadPoolExecutor(1, 'xsvggt_tracker')
            self._begun = self._beside.submit(
                self._begin, self._tracker, pixels, camera, stamp_ns, frame_id, early)

    def _begin(self, tracker: CameraTracker, pixels: np.ndarray, camera: CameraModel | None,
               stamp_ns: int, frame_id: str, early: Early | None) -> None:
        tracker.begin(pixels, camera)
        if early is None:
            return
        tracker.set_metres(None)
        estimate = tracker.locate_early(self._view(frame_id, stamp_ns))
        if estimate is None:
            return
        self._follow_loops(estimate, stamp_ns, None)
        self._early = self._tracked(estimate, stamp_ns)
        # In the precision of the results, with which it is told otherwise.
        early(inverse(estimate.odom_from_camera).astype(np.float32).astype(np.float64),
              self._early)

    def _view(self, frame_id: str, stamp_ns: int) -> View | None:
        return None if self._odometry is None else self._odometry.view(frame_id, stamp_ns)

    def settle(self) -> None:
        """Wait until nothing is done beside the network any more."""
        if self._begun is not None:
            wait((self._begun,))

    def _wait(self) -> Future[None] | None:
        """Wait for what was begun, and return it."""
        self.settle()
        begun, self._begun = self._begun, None
        return begun

    def track(self, pixels: np.ndarray, camera: CameraModel | None, result: FrameResult,
              resize: Resize, stamp_ns: int, metres: float | None = None,
              frame_id: str = '') -> tuple[FrameResult, TrackedPose]:
        """
        Return a result with the trajectory's pose, and how that came.

        All else is the network's still: depth, points and camera become the trajectory's by
        `complete`, which also makes the image a keyframe if it is to be one; no pose need wait.
        metres: of a unit, by which lengths are multiplied later; NaN: not known yet; None: never,
        then lengths take the unit of a saved map in which the stream is found. frame_id: of the
        image, for an odometry from elsewhere. An image that was begun goes on from there.
        """
        outside = self._odometry
        if self._tracker is None:
            self._tracker = CameraTracker(self.mode, correct_depth=self._correct_depth,
                                          relative=None if outside is None else outside.relative)
        begun = self._wait()
        if begun is None:
            self._remember_left()
            self._take_window()
        else:
            begun.result()   # raises what went wrong in the thread
        self._tracker.set_metres(metres)
        tracked, self._early = self._early, None
        estimate = self._tracker.locate(
            pixels, camera, network_frame(result, resize.model_from_source()),
            self._view(frame_id, stamp_ns))
        self._located = _Located(estimate, result.camera_from_world)
        if tracked is None:
            tracked = self._follow(estimate, stamp_ns, metres)
        placed = tensor_like(inverse(estimate.odom_from_camera), result)
        return replace(result, camera_from_world=placed), tracked

    def _follow(self, estimate: Estimate, stamp_ns: int, metres: float | None) -> TrackedPose:
        """Let the map follow; return how the pose came."""
        if estimate.source == 'first':
            self._remember()   # what loops say begins with it
        self._follow_loops(estimate, stamp_ns, metres)
        if estimate.is_keyframe:
            assert self._tracker is not None and self._tracker.odometry is not None
            self._placements.add(estimate.keyframe, estimate.odom_from_camera,
                                 self._tracker.odometry.steps.unit)
        return self._tracked(estimate, stamp_ns)

    def complete(self, result: FrameResult) -> FrameResult:
        """Return what `track` returned last with the trajectory's depth, points and camera."""
        self._remember()
        tracker, located = self._tracker, self._located
        assert tracker is not None and tracker.odometry is not None and located is not None
        odometry, points = tracker.odometry, result.points
        unit = odometry.steps.unit
        if points is not None:
            scale = unit * (odometry.depth.scale if odometry.corrects_depth else 1.0)
            local = transform_points(located.camera_from_world, points) * scale
            points = transform_points(
                tensor_like(located.estimate.odom_from_camera, result), local)
        factors = tensor_like(unit * tracker.depth_factors(), result)
        return replace(result, depth=result.depth * factors, points=points,
                       intrinsics=tensor_like(tracker.intrinsics(), result))

    def _remember(self) -> None:
        """Have the odometry remember the image that was located last, once."""
        located = self._located
        if located is None or located.is_remembered:
            return
        located.is_remembered = True   # even if it fails
        assert self._tracker is not None and self._tracker.odometry is not None
        self._tracker.odometry.complete()
        if located.estimate.is_keyframe:
            self._offer_window()
            self._offer_loops()

    def _remember_left(self) -> None:
        """Have the odometry remember an image before, whose `complete` an error has left out."""
        try:
            self._remember()
        except Exception as error:   # that image was rejected already; this one is not to be
            name = type(error).__name__
            self._log.report('image', 'an image that failed could not be kept for later ones, '
                             f'either: {name}: {error}; poses go on without it', key=name)

    def _take_window(self) -> None:
        odometry = None if self._tracker is None else self._tracker.odometry
        solved = None if self._window is None else self._window.take()
        if solved is not None and odometry is not None:
            odometry.apply(*solved)

    def _offer_window(self) -> None:
        assert self._tracker is not None and self._tracker.odometry is not None
        odometry = self._tracker.odometry
        if odometry.keyframes < 2 or not odometry.config.optimize:
            return
        if self._window is None:
            self._window = WindowThread(self._report)
        if self._window.is_free:
            problem = odometry.window_problem()
            if problem is not None:
                self._window.offer(problem)

    def _offer_loops(self) -> None:
        assert self._tracker is not None and self._tracker.odometry is not None
        odometry = self._tracker.odometry
        if not odometry.closes_loops:
            return
        if self._loops is None:
            self._closer = LoopCloser(odometry.config)
            localization = self._localization
            self._map = MapFrame(self._closer.corrections, np.eye(4),
                                 is_localized=None if localization is None else False)
            self._taken = self._closer.corrections
            self._loops = LoopThread(
                self._closer, self._report_loops,
                None if localization is None else localization.begin(odometry.config))
        self._loops.offer(odometry.snapshot)

    def _follow_loops(self, estimate: Estimate, stamp_ns: int, metres: float | None) -> None:
        """Let the map follow the loops and the saved map; the odometry takes its unit alone."""
        assert self._tracker is not None and self._tracker.odometry is not None
        if self._closer is None:
            return
        corrections, localization = self._closer.corrections, self._localization
        is_new = corrections is not self._taken
        self._taken = corrections
        if localization is not None:
            is_new |= localization.update(
                corrections.pose(estimate.keyframe, estimate.world_from_camera), stamp_ns, metres)
        if not is_new:
            return
        if localization is not None and localization.map_from_stream is not None:
            corrections = corrections.moved(localization.map_from_stream)
        pose = corrections.pose(estimate.keyframe, estimate.world_from_camera)
        self._tracker.odometry.steps.unit = float(scales(corrections.at(estimate.keyframe)))
        map_from_odom = pose @ inverse(estimate.odom_from_camera)
        map_from_nodes = None if localization is None else localization.map_from_stream
        self._map = MapFrame(
            corrections, map_from_odom,
            is_localized=None if localization is None else map_from_nodes is not None,
            placed=self._placements.in_map(self._closer.nodes, map_from_odom, map_from_nodes))
        self._placements.add(estimate.keyframe, estimate.odom_from_camera,
                             self._tracker.odometry.steps.unit, estimate.keyframe_from_camera)

    def _report_loops(self, error: Exception) -> None:
        name = type(error).__name__
        self._log.report('loops', f'loops could not be looked for: {name}: {error}; poses go on '
                         'without them', key=name)

    def _report(self, error: Exception) -> None:
        name = type(error).__name__
        self._log.report('window', f'the window of keyframes could not be adjusted: {name}: '
                         f'{error}; poses go on without it', key=name)

    def _tracked(self, estimate: Estimate, stamp_ns: int) -> TrackedPose:
        velocity, seconds = None, 1.0
        if self._last is not None and estimate.source in (
                'tracks', 'matches', 'odometry'):
            seconds = (stamp_ns - self._last) * 1e-9
            if 0 < seconds <= _LONGEST:
                velocity = estimate.motion / seconds
        self._last = stamp_ns
        loops = self._loop_state(estimate)
        return TrackedPose(estimate.source, estimate.inliers, estimate.error,
                           estimate.covariance, velocity,
                           None if velocity is None else estimate.step_covariance / seconds ** 2,
                           loops)

    def _loop_state(self, estimate: Estimate) -> LoopState | None:
        closer, localization = self._closer, self._localization
        if closer is None:
            return None
        keyframes, kept = closer.keyframes, closer.kept
        if localization is None:
            return LoopState(self._map, estimate.keyframe, closer.report, keyframes, kept,
                             placement=self._placements.newest)
        if localization.map_from_stream is not None:
            kept = kept.moved(localization.map_from_stream)
            keyframes = apply_to_pose(localization.map_from_stream, keyframes)
        return LoopState(self._map, estimate.keyframe, closer.report, keyframes, kept,
                         localization.state, self._placements.newest)
