"""
Similarity transforms: between positions by least squares (Umeyama, PAMI 1991), and as matrices.

A matrix [4, 4] of a similarity has a scale times a rotation in its upper left block.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Similarity:
    """Maps points p of one world to scale * rotation @ p + translation in another."""

    scale: float
    rotation: np.ndarray      # [3, 3]
    translation: np.ndarray   # [3]

    def points(self, points: np.ndarray) -> np.ndarray:
        """Return `points` [..., 3] in the target world."""
        return self.scale * points @ self.rotation.T + self.translation


def align(estimate: np.ndarray, truth: np.ndarray) -> Similarity:
    """
    Return the similarity that brings positions `estimate` [N, 3] closest to `truth` [N, 3].

    Umeyama's least squares. An estimate that stands still gets scale 0: the mean of the truth is
    the best it can say.
    """
    mean, target_mean = estimate.mean(axis=0), truth.mean(axis=0)
    centred, target = estimate - mean, truth - target_mean
    variance = (centred ** 2).sum() / len(centred)
    rotation, trace = rotation_between(target.T @ centred / len(centred))
    scale = float(trace / variance) if variance > 1e-12 else 0.0
    return Similarity(scale, rotation, target_mean - scale * rotation @ mean)


def rotation_between(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the rotations [..., 3, 3] that bring centred positions closest to others.

    covariance: [..., 3, 3], targets transposed times sources. Also returned is the trace [...] of
    rotation transposed times covariance, which over the sources' variance is the scale.
    """
    left, values, right = np.linalg.svd(covariance)
    signs = np.ones_like(values)
    signs[..., 2] = np.where(np.linalg.det(left @ right) < 0, -1.0, 1.0)
    return (left * signs[..., None, :]) @ right, (values * signs).sum(axis=-1)


def scales(similarities: np.ndarray) -> np.ndarray:
    """Return the scales [...] of similarities [..., 4, 4]."""
    return np.cbrt(np.linalg.det(similarities[..., :3, :3]))


def apply_to_pose(similarity: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Return poses [..., 4, 4] moved by similarities [..., 4, 4]; they stay rigid."""
    moved = similarity @ pose
    moved[..., :3, :3] /= scales(similarity)[..., None, None]
    return moved


def inverse_similarity(similarities: np.ndarray) -> np.ndarray:
    """Return the inverses of similarities [..., 4, 4]."""
    result = np.zeros_like(similarities)
    block = similarities[..., :3, :3].swapaxes(-1, -2) / scales(similarities)[..., None, None] ** 2
    result[..., :3, :3] = block
    result[..., :3, 3] = -np.einsum('...ij,...j->...i', block, similarities[..., :3, 3])
    result[..., 3, 3] = 1
    return result
