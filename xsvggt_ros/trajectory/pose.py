"""A camera's pose against landmarks whose depths are uncertain."""

from dataclasses import dataclass

import cv2
import numpy as np

from xsvggt_ros.trajectory.projection import (
    cauchy_weights,
    huber_weights,
    inverse,
    motion,
    NEAREST,
    nearest_pose,
    project,
    projection_jacobian,
    skew,
    to_camera,
)

_ITERATIONS = 8
_HARSH = 4               # of them, which begin with Cauchy's kernel
_RANSAC_ROUNDS = 200


@dataclass(frozen=True)
class PoseFit:
    """
    A pose that was found.

    pose: world_from_camera [4, 4]; inliers: bool [n]; information: [6, 6] of a small motion
    (rotation, translation) in the camera's axes; error: median of the inliers, pixels.
    """

    pose: np.ndarray
    inliers: np.ndarray
    information: np.ndarray
    error: float


def fit_pose(points: np.ndarray, along: np.ndarray, variance: np.ndarray, pixels: np.ndarray,
             camera: np.ndarray, initial: np.ndarray, sigma: float, huber: float,
             outlier: float) -> PoseFit | None:
    """
    Return the pose from which world points [n, 3] are seen at pixels [n, 2]; None if none fits.

    along [n, 3]: from a landmark's anchor to it, in which direction it moves by a change of its
    log depth, of variance [n]. sigma: of a pixel; huber, outlier: in sigmas.
    """
    pose = initial
    squares = np.zeros(len(points))
    for number in range(_ITERATIONS):
        local = to_camera(points, pose)
        by_point = projection_jacobian(local, camera)
        residual = project(local, camera) - pixels
        by_depth = np.einsum('nij,nj->ni', by_point, along @ pose[:3, :3])
        weight_matrix = inverse_covariance(by_depth, variance, sigma)
        squares = np.einsum('ni,nij,nj->n', residual, weight_matrix, residual)
        kernel = cauchy_weights if number < _HARSH else huber_weights
        weights = kernel(squares, huber) * (local[:, 2] > NEAREST)
        jacobian = np.concatenate([by_point @ skew(local), -by_point], -1)
        weighted = weight_matrix @ jacobian * weights[:, None, None]
        information = np.einsum('nij,nik->jk', jacobian, weighted)
        gradient = np.einsum('nij,ni->j', weighted, residual)
        try:
            step = np.linalg.solve(information + 1e-9 * np.eye(6), -gradient)
        except np.linalg.LinAlgError:
            return None
        if not np.isfinite(step).all():
            return None
        pose = pose @ motion(step)
        if number >= _HARSH and np.linalg.norm(step) < 1e-5:
            break
    pose = nearest_pose(pose)
    local = to_camera(points, pose)
    errors = np.linalg.norm(project(local, camera) - pixels, axis=1)
    inliers = (squares < 2 * outlier ** 2) & (local[:, 2] > NEAREST)
    error = float(np.median(errors[inliers])) if inliers.any() else float('inf')
    return PoseFit(pose, inliers, information, error)


def find_pose(points: np.ndarray, pixels: np.ndarray, camera: np.ndarray,
              error: float) -> np.ndarray | None:
    """Return a pose [4, 4] that most points agree with, without knowing one before; or None."""
    if len(points) < 6:
        return None
    try:
        found, turn, shift, inliers = cv2.solvePnPRansac(
            points, pixels, camera, None, iterationsCount=_RANSAC_ROUNDS, confidence=0.999,
            reprojectionError=error, flags=cv2.SOLVEPNP_SQPNP)
    except cv2.error:   # points on a line, or in one place
        return None
    if not found or inliers is None or not (np.isfinite(turn).all() and np.isfinite(shift).all()):
        return None
    camera_from_world = np.eye(4)
    camera_from_world[:3, :3] = cv2.Rodrigues(turn)[0]
    camera_from_world[:3, 3] = shift[:, 0]
    return inverse(camera_from_world)


def inverse_covariance(by_depth: np.ndarray, variance: np.ndarray, sigma: float) -> np.ndarray:
    """Return the inverses [n, 2, 2] of sigma^2 + variance * by_depth by_depth^T."""
    # Sherman and Morrison: much quicker than inverting each.
    outer = by_depth[:, :, None] * by_depth[:, None, :]
    squared = sigma ** 2
    factor = variance / (squared + variance * (by_depth ** 2).sum(1))
    return (np.eye(2) - factor[:, None, None] * outer) / squared
