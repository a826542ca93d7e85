"""
Where a stream is in a saved map, by all landmarks of it that its keyframes see.

Seven numbers for the whole stream, its scale among them: a camera of many views (generalised
camera; Sweeney, Fragoso, Hoellerer and Turk, gDLS, ECCV 2014, solve it in closed form), here by
Gauss-Newton on reprojection errors.
"""

from collections.abc import Sequence

import numpy as np

from xsvggt_ros.geometry.similarity import inverse_similarity
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.map_search import SeenLandmarks
from xsvggt_ros.trajectory.pose import inverse_covariance
from xsvggt_ros.trajectory.pose_graph import similarity_of
from xsvggt_ros.trajectory.projection import (
    cauchy_weights,
    NEAREST,
    project,
    projection_jacobian,
    skew,
)

_ITERATIONS = 10
_PIXELS = 1.0            # at 320 pixels, of where a corner is found again from elsewhere
_DEPTHS = 0.15           # of log depth, between both maps at a feature
_CAUCHY = 2.0            # sigmas


def align_landmarks(guess: np.ndarray, nodes: np.ndarray, seen: Sequence[SeenLandmarks],
                    config: TrajectoryConfig) -> np.ndarray:
    """
    Return the similarity [4, 4], map_from_stream, with which most landmarks agree.

    guess [4, 4]: to begin with, which is returned where nothing better is found. nodes
    [n, 4, 4]: stream_from_keyframe of the keyframes that see the landmarks.
    """
    if not seen:
        return guess
    best = guess
    for _ in range(_ITERATIONS):
        hessian, gradient = np.zeros((7, 7)), np.zeros(7)
        for node, one in zip(nodes, seen):
            _add(hessian, gradient, best, node, one)
        try:
            step = np.linalg.solve(hessian + 1e-9 * np.diag(np.diag(hessian) + 1e-9), -gradient)
        except np.linalg.LinAlgError:
            return guess
        if not np.isfinite(step).all() or abs(step[6]) > 1:
            return guess
        best = best @ similarity_of(step)
        if np.linalg.norm(step) < 1e-5:
            break
    return best


def _add(hessian: np.ndarray, gradient: np.ndarray, similarity: np.ndarray, node: np.ndarray,
         seen: SeenLandmarks) -> None:
    """Add one keyframe's normal equations by a small similarity behind `similarity`."""
    stream_from_map, keyframe_from_stream = (
        inverse_similarity(similarity), inverse_similarity(node))
    there = seen.points @ stream_from_map[:3, :3].T + stream_from_map[:3, 3]
    local = there @ keyframe_from_stream[:3, :3].T + keyframe_from_stream[:3, 3]
    ahead = local[:, 2] > NEAREST
    by_step = keyframe_from_stream[:3, :3] @ np.concatenate(
        [skew(there), np.tile(-np.eye(3), (len(there), 1, 1)), -there[:, :, None]], -1)
    by_point = projection_jacobian(local, seen.camera)
    turned = seen.along @ (keyframe_from_stream[:3, :3] @ stream_from_map[:3, :3]).T
    weight_matrix = inverse_covariance(np.einsum('nij,nj->ni', by_point, turned), seen.variance,
                                       _PIXELS * seen.pixel)
    residual = project(local, seen.camera) - seen.pixels
    squares = np.einsum('ni,nij,nj->n', residual, weight_matrix, residual)
    weight = cauchy_weights(squares, _CAUCHY) * seen.weight * ahead
    jacobian = by_point @ by_step
    weighted = weight_matrix @ jacobian * weight[:, None, None]
    hessian += np.einsum('nij,nik->jk', jacobian, weighted)
    gradient += np.einsum('nij,ni->j', weighted, residual)
    known = ahead & (seen.depths > NEAREST)
    off = np.log(local[known, 2] / seen.depths[known]) / _DEPTHS
    weight = cauchy_weights(off ** 2, _CAUCHY) * seen.weight[known]
    by_depth = by_step[known, 2] / (_DEPTHS * local[known, 2:])
    hessian += by_depth.T @ (weight[:, None] * by_depth)
    gradient += by_depth.T @ (weight * off)
