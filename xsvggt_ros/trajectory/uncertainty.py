"""How sure a pose is: covariances of small motions (rotation, translation), camera's axes."""

import numpy as np

from xsvggt_ros.trajectory.projection import inverse, skew

UNKNOWN = np.diag([0.1, 0.1, 0.1, 1.0, 1.0, 1.0])   # rad^2, unit^2: of a guessed pose
_LEAST = np.diag([1e-10] * 3 + [1e-12] * 3)


def adjoint(transform: np.ndarray) -> np.ndarray:
    """Return the matrix [6, 6] that brings small motions of a frame into another one's axes."""
    turn = transform[:3, :3]
    matrix = np.zeros((6, 6))
    matrix[:3, :3] = matrix[3:, 3:] = turn
    matrix[3:, :3] = skew(transform[:3, 3]) @ turn
    return matrix


def frame_covariance(information: np.ndarray, keyframe: np.ndarray | None,
                     keyframe_from_camera: np.ndarray, inflation: float) -> np.ndarray:
    """
    Return a frame's covariance [6, 6], always positive definite and finite.

    information [6, 6]: of its pose against the landmarks. keyframe: covariance of its keyframe;
    None if it is not known. inflation: of the variances.
    """
    if not np.isfinite(information).all():
        return UNKNOWN
    values, vectors = np.linalg.eigh(0.5 * (information + information.T))
    values = np.maximum(values, 1e-9 * max(values.max(), 1e-9))
    covariance = (vectors / values) @ vectors.T
    if keyframe is not None:
        bring = adjoint(inverse(keyframe_from_camera))
        covariance = covariance + bring @ keyframe @ bring.T
    covariance = inflation * 0.5 * (covariance + covariance.T) + _LEAST
    if not np.isfinite(covariance).all():
        return UNKNOWN
    return covariance
