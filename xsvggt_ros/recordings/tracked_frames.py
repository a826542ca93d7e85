"""Frames whose poses are the trajectory's: held until they are final."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from xsvggt_ros.console.processes import deferred_interrupts
from xsvggt_ros.engine.frame_result import FrameResult
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.geometry.se3 import flu_from_optical
from xsvggt_ros.geometry.similarity import apply_to_pose, scales
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.recordings.exports.export import FrameOutput
from xsvggt_ros.recordings.recording import Recording
from xsvggt_ros.trajectory.camera_tracker import CameraTracker
from xsvggt_ros.trajectory.landmark_map import landmark_map, LandmarkMap
from xsvggt_ros.trajectory.localizer import describe_refusals
from xsvggt_ros.trajectory.projection import inverse
from xsvggt_ros.trajectory.results import network_frame, tensor_like

HELD_BYTES = 2 ** 29     # of frames that wait for their final pose


class TrackedFrames:
    """
    The frames of a recording, located by tracks and given on when their poses are final.

    When they take more than `held_bytes`, the oldest are given on with what is known of their
    poses by then: loops that are closed later move them in the trajectory alone.
    """

    def __init__(self, mode: str, correct_depth: bool, held_bytes: int = HELD_BYTES,
                 landmarks: LandmarkMap | None = None) -> None:
        """
        Begin a stream.

        mode: 'tracked' or 'optimized'; landmarks: of a saved map, into whose frame and unit all
        is brought if the stream is found in it (with 'optimized').
        """
        self._tracker = CameraTracker(mode, True, correct_depth, landmarks)
        assert self._tracker.history is not None
        self._history = self._tracker.history
        self._held: deque[FrameOutput] = deque()
        self._bytes, self._held_bytes = 0, held_bytes
        self._sources: Counter[str] = Counter()
        self._saved = landmarks
        self._placement: np.ndarray | None = None   # map_from_stream, of what is given on
        self._is_placed = False                     # whether that is settled
        self._is_final = False                      # whether all poses are, until the next frame

    @property
    def is_localized(self) -> bool:
        """Return whether what was given on is in the saved map's frame and unit."""
        return self._placement is not None

    @property
    def is_metric(self) -> bool:
        """Return whether it is in metres, by the saved map."""
        return self.is_localized and self._saved is not None and self._saved.is_metric

    @property
    def localization(self) -> dict[str, Any] | None:
        """Return what the report says of the saved map; None without one."""
        if self._history.localizer is None:
            return None
        report = self._history.localizer.report
        return {'localized': self.is_localized, 'confirmations': report.confirmations,
                'not_recognised': report.refused}

    def landmarks(self, odom_from_optical: np.ndarray, metres: float,
                  is_metric: bool) -> LandmarkMap | None:
        """
        Return the keyframes in the frame and the unit of what was given on; None without any.

        odom_from_optical [4, 4]: the odometry frame, in metres, from the first camera's optical
        one; metres: of a unit. Both are the saved map's where the stream was found in one.
        """
        kept = self._history.loops.kept
        if self._placement is not None:
            metres = float(scales(self._placement))
            odom_from_optical = self._placement.copy()
            odom_from_optical[:3, :3] /= metres
        found = landmark_map(kept, odom_from_optical, metres, is_metric)
        return found if found.keyframes else None

    @property
    def sources(self) -> dict[str, int]:
        """Return how many poses are from where."""
        return dict(self._sources)

    def describe(self) -> str:
        """Return in words where the poses are from."""
        words = 'poses from: ' + ', '.join(
            f'{source} {count}' for source, count in self._sources.items())
        report = self._history.loops.report
        if report.found or report.refused:
            words += f'; loops: {report.found} closed, {sum(report.refused.values())} refused'
        localizer = self._history.localizer
        if localizer is not None and self.is_localized:
            words += f'; localised in the saved map by {localizer.report.confirmations} keyframes'
        elif localizer is not None:
            words += '; NOT localised in the saved map: all is in a frame and a unit of its own'
            if localizer.map_from_stream is not None:
                words += ' (it was recognised when files were being written already)'
            else:
                words += f'; {describe_refusals(localizer.report)}'
        return words

    def track(self, pixels: np.ndarray, camera: CameraModel | None, result: FrameResult,
              model_from_source: Tensor) -> FrameResult:
        """Return a frame's result with the trajectory's pose, camera and depth."""
        self._is_final = False
        estimate = self._tracker.track(
            pixels, camera, network_frame(result, model_from_source))
        self._sources[estimate.source] += 1
        return replace(
            result, camera_from_world=tensor_like(inverse(estimate.world_from_camera), result),
            intrinsics=tensor_like(self._tracker.intrinsics(), result),
            depth=result.depth * tensor_like(self._tracker.depth_factors(), result))

    def positions(self) -> np.ndarray:
        """Return where all frames are, as it is known by now, [N, 3] in the first camera's."""
        if self._tracker.odometry is not None:
            self._history.finish(self._tracker.odometry)
        return self._history.final()[:, :3, 3]

    def hold(self, output: FrameOutput, give: Callable[[FrameOutput], None]) -> None:
        """Keep a frame until its pose is final; `give` takes those that are."""
        self._held.append(output)
        self._bytes += output_bytes(output)
        if self._bytes > self._held_bytes:
            self._place()
            poses, larger = self._final()
            while self._held and self._bytes > self._held_bytes // 2:
                give(self._finished(poses, larger))

    def finish(self, recording: Recording, give: Callable[[FrameOutput], None]) -> None:
        """
        Give the recording its final poses, and `give` all frames that are left.

        For the main thread. After a Ctrl-C meanwhile it goes on, with the same poses.
        """
        if self._tracker.odometry is None:
            return
        if not self._is_final:
            with deferred_interrupts():
                self._history.finish(self._tracker.odometry)
                self._place()
                self._is_final = True
        poses, larger = self._final()
        recording.poses[:] = [self._posed(pose, live.stamp_ns)
                              for pose, live in zip(poses, recording.poses)]
        while self._held:
            with deferred_interrupts():   # each is given once
                give(self._finished(poses, larger))

    def _place(self) -> None:
        """Settle in which frame all files are, once and for all of them."""
        if not self._is_placed and self._history.localizer is not None:
            self._placement = self._history.localizer.map_from_stream
        self._is_placed = True

    def _final(self) -> tuple[np.ndarray, np.ndarray]:
        """Return world_from_camera [N, 4, 4] of all frames, and by how much they are larger."""
        poses, larger = self._history.final(), self._history.scales()
        if self._placement is None:
            return poses, larger
        return apply_to_pose(self._placement, poses), larger * scales(self._placement)

    def _posed(self, pose: np.ndarray, stamp_ns: int) -> StampedPose:
        """Return a pose in the odometry frame; a saved map's is one already."""
        if self.is_localized:
            return StampedPose.from_matrix(stamp_ns, pose)
        return odom_pose(pose, stamp_ns)

    def _finished(self, poses: np.ndarray, larger: np.ndarray) -> FrameOutput:
        """Return the oldest frame with its final pose, size and camera."""
        output = self._held.popleft()
        self._bytes -= output_bytes(output)
        camera_from_world = np.linalg.inv(poses[output.number])
        intrinsics = tensor_like(self._tracker.intrinsics(), output.result)
        # What was seen beside the axis moves with the focal length that is known by now.
        bend = (output.result.intrinsics / intrinsics)[(0, 1), (0, 1)].to(output.cloud)
        cloud, scale = output.cloud, float(larger[output.number])
        if scale != 1.0 or not bool((bend == 1).all()):
            cloud = cloud.clone()
            cloud[:, :2] *= bend
            cloud[:, :3] *= scale
        result = replace(output.result, intrinsics=intrinsics, depth=output.result.depth * scale,
                         camera_from_world=tensor_like(camera_from_world, output.result))
        return replace(output, result=result, cloud=cloud,
                       pose=self._posed(poses[output.number], output.stamp_ns))


def odom_pose(world_from_camera: np.ndarray, stamp_ns: int) -> StampedPose:
    """Return a pose [4, 4] in the odometry frame: forward-left-up at the first camera."""
    odom_from_world = np.eye(4)
    odom_from_world[:3, :3] = flu_from_optical().numpy()
    return StampedPose.from_matrix(stamp_ns, odom_from_world @ world_from_camera)


def output_bytes(output: FrameOutput) -> int:
    """Return what a frame that waits takes of memory."""
    result = output.result
    return int(output.source.nbytes + output.cloud.nbytes + result.image.nbytes
               + 2 * result.depth.nbytes)
