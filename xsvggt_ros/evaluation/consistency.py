"""
Whether the covariance of the odometry holds its errors.

The covariance of a motion is that of its steps, one after the other, as a filter has it that
fuses the twists of ~/odometry. Normalised error: Bar-Shalom, Li and Kirubarajan, Estimation with
Applications to Tracking and Navigation, 2001, 5.4.2 (NEES), here by the three axes.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from xsvggt_ros.evaluation.eval_streams import EvalStream
from xsvggt_ros.evaluation.evaluation import Prediction
from xsvggt_ros.evaluation.tracking import begin_odometry, tracked_frames
from xsvggt_ros.geometry.similarity import align, scales
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.local_map import WindowProblem
from xsvggt_ros.trajectory.loop_closer import LoopCloser
from xsvggt_ros.trajectory.projection import inverse, rotation_vector
from xsvggt_ros.trajectory.uncertainty import propagated

_AXES = 3
_ELLIPSE = float(chi2.ppf(0.95, _AXES))


@dataclass(frozen=True)
class OdometryRun:
    """
    What the odometry says of a stream.

    poses [N, 4, 4]: odom_from_camera. covariances [N, 6, 6]: since the first frame;
    steps [N, 6, 6]: of each step from the frame before; in the camera's axes there.
    """

    poses: np.ndarray
    covariances: np.ndarray
    steps: np.ndarray
    sources: list[str]


@dataclass(frozen=True)
class Consistency:
    """
    Errors of motions over a time, against their covariance; lengths in the truth's unit.

    coverage: share of position errors within the ellipse of 95 %. nees: mean normalised squared
    error for each of three axes. error, predicted: RMS of the position. rotation_coverage,
    rotation_nees: the same of rotations.
    """

    motions: int
    coverage: float
    nees: float
    error: float
    predicted: float
    rotation_coverage: float
    rotation_nees: float


def run_odometry(predicted: Prediction, stream: EvalStream, mode: str,
                 focal_known: bool) -> OdometryRun:
    """
    Return the odometry of a stream as the node makes it.

    A window is ready one frame after its keyframe, and loops change the unit of later steps.
    Raises ToolError for a stream whose camera is not known though it should be.
    """
    config = TrajectoryConfig(optimize=mode == 'optimized')
    odometry = begin_odometry(predicted, stream, focal_known, config)
    closer = LoopCloser(config)
    asked: WindowProblem | None = None
    found = []
    for index, frame in enumerate(tracked_frames(predicted, stream)):
        if asked is not None:
            odometry.apply(asked, asked.solve())
        estimate = odometry.step(frame, adjust_now=False)
        found.append(estimate)
        asked = odometry.window_problem() if estimate.is_keyframe and index else None
        if estimate.is_keyframe and odometry.closes_loops:
            closer.add(odometry.snapshot)
            odometry.steps.unit = float(scales(closer.corrections.at(estimate.keyframe)))
    return OdometryRun(np.array([one.odom_from_camera for one in found]),
                       np.array([one.covariance for one in found]),
                       np.array([one.step_covariance for one in found]),
                       [one.source for one in found])


def consistency(run: OdometryRun, truth: np.ndarray, frames: int) -> Consistency | None:
    """
    Return how well covariances hold the errors of all motions over so many frames.

    truth [N, 4, 4]: world_from_camera, NaN where it is not known. One scale is taken out of the
    stream. None if there is no motion that long.
    """
    known = np.isfinite(truth).all(axis=(1, 2))
    scale = align(run.poses[known][:, :3, 3], truth[known][:, :3, 3]).scale if known.any() else 0
    errors, covariances = [], []
    for first in range(len(truth) - frames):
        last = first + frames
        if known[first] and known[last] and scale > 0:
            errors.append(_error(run.poses[[first, last]], truth[[first, last]], scale))
            covariances.append(_covariance(run, first, last))
    if not errors:
        return None
    error, covariance = np.array(errors), np.array(covariances)
    rotation, position = (_normalised(error[:, part], covariance[:, part, part])
                          for part in (slice(3), slice(3, 6)))
    return Consistency(
        len(error), float((position < _ELLIPSE).mean()), float(position.mean() / _AXES),
        scale * float(np.sqrt((error[:, 3:] ** 2).sum(1).mean())),
        scale * float(np.sqrt(covariance[:, 3:, 3:].trace(axis1=1, axis2=2).mean())),
        float((rotation < _ELLIPSE).mean()), float(rotation.mean() / _AXES))


def least_eigenvalue(run: OdometryRun) -> float:
    """Return the least eigenvalue of all covariances over the largest of its matrix; NaN: bad."""
    both = np.concatenate([run.covariances, run.steps])
    if not np.isfinite(both).all():
        return float('nan')
    values = np.linalg.eigvalsh(both)
    return float((values[:, 0] / values[:, -1]).min())


def _error(estimate: np.ndarray, truth: np.ndarray, scale: float) -> np.ndarray:
    """Return the small motion [6] by which a motion is off, in the axes of its end."""
    moved, true = inverse(estimate[0]) @ estimate[1], inverse(truth[0]) @ truth[1]
    turned = moved[:3, :3].T
    return np.concatenate([rotation_vector(true[:3, :3].T @ moved[:3, :3]),
                           turned @ (moved[:3, 3] - true[:3, 3] / scale)])


def _covariance(run: OdometryRun, first: int, last: int) -> np.ndarray:
    """Return the covariance [6, 6] of a motion, in the axes of its end."""
    total = np.zeros((6, 6))
    for index in range(first + 1, last + 1):
        step = inverse(run.poses[index - 1]) @ run.poses[index]
        total = propagated(total, step) + run.steps[index]
    return total


def _normalised(errors: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Return the squared errors [n] over their covariances [n, 3, 3]."""
    return np.einsum('ni,ni->n', errors, np.linalg.solve(covariances, errors[..., None])[..., 0])
