"""
Where a stream is in a saved map, by all landmarks of it that its keyframes see.

Seven numbers for the whole stream, its scale among them, and one for each keyframe of the map
that is seen: where it saw little parallax its landmarks' depths are the network's, whose errors
they have in common, and which would mislead the stream, the more the farther it is from there.
A camera of many views (generalised camera; Sweeney, Fragoso, Hoellerer and Turk, gDLS, ECCV 2014,
solve it in closed form), here by Gauss-Newton on reprojection errors.
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
_SHARED = 0.15           # of log depth, by which all landmarks of a map's keyframe are off


def align_landmarks(guess: np.ndarray, nodes: np.ndarray, seen: Sequence[SeenLandmarks],
                    config: TrajectoryConfig) -> np.ndarray:
    """
    Return the similarity [4, 4], map_from_stream, with which most landmarks agree.

    guess [4, 4]: to begin with, which is returned where nothing better is found. nodes
    [n, 4, 4]: stream_from_keyframe of the keyframes that see the landmarks.
    """
    if not seen:
        return guess
    _, rows = np.unique(np.concatenate([one.keyframe for one in seen]), return_inverse=True)
    owners = np.split(rows, np.cumsum([len(one.keyframe) for one in seen])[:-1])
    best, shared = guess, np.zeros(rows.max(initial=-1) + 1)
    for _ in range(_ITERATIONS):
        hessian = np.diag(np.append(np.zeros(7), np.full(len(shared), _SHARED ** -2)))
        gradient = np.append(np.zeros(7), shared / _SHARED ** 2)
        for node, one, owner in zip(nodes, seen, owners):
            _add(hessian, gradient, best, node, one, owner, shared)
        try:
            step = np.linalg.solve(hessian + 1e-9 * np.diag(np.diag(hessian) + 1e-9), -gradient)
        except np.linalg.LinAlgError:
            return guess
        if not np.isfinite(step).all() or abs(step[6]) > 1:
            return guess
        best, shared = best @ similarity_of(step[:7]), shared + step[7:]
        if np.linalg.norm(step[:7]) < 1e-5:
            break
    return best


def _add(hessian: np.ndarray, gradient: np.ndarray, similarity: np.ndarray, node: np.ndarray,
         seen: SeenLandmarks, owner: np.ndarray, shared: np.ndarray) -> None:
    """
    Add one keyframe's normal equations by a small similarity behind `similarity`.

    owner [m]: which number of `shared` [K], errors of log depth, each landmark has a part in.
    """
    stream_from_map, keyframe_from_stream = (
        inverse_similarity(similarity), inverse_similarity(node))
    points = seen.points + seen.along * shared[owner][:, None]
    there = points @ stream_from_map[:3, :3].T + stream_from_map[:3, 3]
    local = there @ keyframe_from_stream[:3, :3].T + keyframe_from_stream[:3, 3]
    ahead = local[:, 2] > NEAREST
    turned = seen.along @ (keyframe_from_stream[:3, :3] @ stream_from_map[:3, :3]).T
    by_all = np.concatenate([keyframe_from_stream[:3, :3] @ np.concatenate(
        [skew(there), np.tile(-np.eye(3), (len(there), 1, 1)), -there[:, :, None]], -1),
        turned[:, :, None]], -1)
    by_point = projection_jacobian(local, seen.camera)
    weight_matrix = inverse_covariance(np.einsum('nij,nj->ni', by_point, turned), seen.variance,
                                       _PIXELS * seen.pixel)
    residual = project(local, seen.camera) - seen.pixels
    squares = np.einsum('ni,nij,nj->n', residual, weight_matrix, residual)
    weight = cauchy_weights(squares, _CAUCHY) * seen.weight * ahead
    part = owner[:, None] == np.arange(len(shared))
    _accumulate(hessian, gradient, by_point @ by_all, weight_matrix * weight[:, None, None],
                residual, part)
    known = ahead & (seen.depths > NEAREST)
    off = np.log(local[known, 2] / seen.depths[known])[:, None] / _DEPTHS
    weight = cauchy_weights(off[:, 0] ** 2, _CAUCHY) * seen.weight[known]
    by_depth = by_all[known, 2:] / (_DEPTHS * local[known, 2, None, None])
    _accumulate(hessian, gradient, by_depth, weight[:, None, None], off, part[known])


def _accumulate(hessian: np.ndarray, gradient: np.ndarray, jacobian: np.ndarray,
                weight: np.ndarray, residual: np.ndarray, part: np.ndarray) -> None:
    """
    Add residuals [n, k] of landmarks, with weights [n, k, k], to the normal equations.

    jacobian [n, k, 8]: by the similarity and by the landmark's error that others share;
    part: bool [n, K], which one that is.
    """
    weighted = jacobian.transpose(0, 2, 1) @ weight
    products = weighted @ jacobian
    slopes = (weighted @ residual[:, :, None])[..., 0]
    share = np.arange(7, len(gradient))
    hessian[:7, :7] += products[:, :7, :7].sum(0)
    hessian[share, share] += products[:, 7, 7] @ part
    between = products[:, :7, 7].T @ part
    hessian[:7, 7:] += between
    hessian[7:, :7] += between.T
    gradient += np.append(slopes[:, :7].sum(0), slopes[:, 7] @ part)
