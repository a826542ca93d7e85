"""The pose in the odometry frame: made of the steps from frame to frame, which never jump."""

from dataclasses import dataclass

import numpy as np

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.frame_tracker import PoseMeasurement
from xsvggt_ros.trajectory.odometry_support import OdometryStep, OdometrySupport
from xsvggt_ros.trajectory.projection import inverse, nearest_pose, rotation_vector
from xsvggt_ros.trajectory.relative_odometry import View
from xsvggt_ros.trajectory.uncertainty import Drift, DriftStep, misfit, RAYLEIGH


@dataclass(frozen=True)
class Step:
    """
    What a frame that was located by landmarks adds.

    last_from_camera [4, 4]: in the map's unit; odom_from_camera [4, 4]: where it leads; motion
    [6]: as of `Estimate`; drift: how unsure all that is.
    """

    last_from_camera: np.ndarray
    odom_from_camera: np.ndarray
    motion: np.ndarray
    drift: DriftStep


class Steps:
    """Where one step after the other leads, and how unsure that is."""

    def __init__(self, config: TrajectoryConfig, pixel_scale: float,
                 support: OdometrySupport | None) -> None:
        """
        Begin at the origin; pixel_scale: as TrajectoryConfig.scaled.

        support: an odometry from elsewhere, which is told of all steps.
        """
        self._sigma = config.pixel_sigma * pixel_scale
        self._support = support
        # By which lengths in the odometry frame are longer: loops tell how the unit drifted.
        self.unit = 1.0
        self.odom_from_last = np.eye(4)
        self.last: np.ndarray | None = None   # [4, 4], in the map's unit; None: it was a guess
        self.motion = np.zeros(6)             # the same, as of `Estimate`, of a guess, too
        self.drift = Drift(config)

    def foresee(self, last: np.ndarray, keyframe: np.ndarray, measured: PoseMeasurement,
                information: np.ndarray) -> Step:
        """
        Return the step to where a frame was measured, and change nothing.

        last, keyframe: world_from_camera [4, 4] of the last frame and the last keyframe.
        """
        step = inverse(last) @ measured.pose
        longer = self._longer(step)
        drift = self.drift.foresee(
            longer, information, inverse(keyframe) @ measured.pose, self.unit,
            misfit(measured.error / self._sigma, RAYLEIGH), len(measured.tracks))
        after = self._after(longer)
        return Step(step, after, self._motion_to(after), drift)

    def take(self, step: Step, view: View | None) -> np.ndarray:
        """Take a step that was foreseen from here; return its covariance [6, 6]."""
        self.last, self.motion = step.last_from_camera, step.motion
        self.odom_from_last = step.odom_from_camera
        if self._support is not None:
            self._support.add_step(view, self.last, True, None)
        return self.drift.take(step.drift)

    def guess(self, last: np.ndarray, measured: PoseMeasurement, view: View | None,
              carried: OdometryStep | None) -> np.ndarray:
        """
        Take a step to a pose that no landmark tells; return its covariance [6, 6].

        carried: the motion by an odometry from elsewhere.
        """
        step, self.last = inverse(last) @ measured.pose, None
        by_odometry = carried if measured.source == 'odometry' else None
        if self._support is not None:
            self._support.add_step(view, step, False, by_odometry)
        longer = self._longer(step)
        after = self._after(longer)
        self.motion, self.odom_from_last = self._motion_to(after), after
        return self.drift.step(longer, None, np.eye(4), self.unit, carried_by=(
            None if by_odometry is None else by_odometry.covariance))

    def _after(self, longer: np.ndarray) -> np.ndarray:
        return nearest_pose(self.odom_from_last @ longer)

    def _motion_to(self, after: np.ndarray) -> np.ndarray:
        """Return the motion [6] to a pose [4, 4] in the odometry frame, in its axes."""
        step = inverse(self.odom_from_last) @ after
        turned = step[:3, :3].T
        return np.concatenate([turned @ rotation_vector(step[:3, :3]), turned @ step[:3, 3]])

    def _longer(self, step: np.ndarray) -> np.ndarray:
        """Return a step [4, 4] in the odometry's unit."""
        longer = step.copy()
        longer[:3, 3] *= self.unit
        return longer
