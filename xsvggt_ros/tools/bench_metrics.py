"""How far one run of a stream is from another, or from the truth; lengths without a unit."""

import numpy as np


def camera_centres(camera_from_world: np.ndarray) -> np.ndarray:
    """Return the cameras' positions in the world [n, 3], of transforms [n, 4, 4]."""
    rotation, translation = camera_from_world[:, :3, :3], camera_from_world[:, :3, 3]
    return -np.einsum('nji,nj->ni', rotation, translation)


def spread(positions: np.ndarray) -> float:
    """Return the root mean square distance of positions [n, 3] from their mean."""
    return float(np.sqrt(((positions - positions.mean(axis=0)) ** 2).sum(axis=1).mean()))


def depth_drift(depth: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean of abs(log depth - log reference), arrays of one shape."""
    with np.errstate(invalid='ignore', divide='ignore'):
        return float(np.abs(np.log(depth) - np.log(reference)).mean(dtype=np.float64))


def rotation_angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """
    Return the angles in degrees [n] between rotations [n, 3, 3].

    By the chord, 2 sqrt(2) sin(angle / 2) long: exact where both are the same.
    """
    chord = np.linalg.norm(first - second, axis=(1, 2)) / (2 * np.sqrt(2))
    return np.rad2deg(2 * np.arcsin(np.clip(chord, 0, 1)))


def scaled_depth_error(depth: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean of abs(depth - truth) / truth, after one median scale for all frames."""
    known = np.isfinite(truth) & (truth > 0)
    depth, truth = depth[known].astype(np.float64), truth[known].astype(np.float64)
    scale = np.median(truth / depth)
    return float((np.abs(scale * depth - truth) / truth).mean())


def trajectory_error(positions: np.ndarray, truth: np.ndarray) -> float:
    """
    Return the RMS error of positions [n, 3] after the best similarity, per spread of the truth.

    The similarity is Umeyama's; 1 is what a camera that stands still would get.
    """
    centred, target = positions - positions.mean(axis=0), truth - truth.mean(axis=0)
    u, sizes, vt = np.linalg.svd(target.T @ centred / len(truth))
    sizes[2] *= np.sign(np.linalg.det(u) * np.linalg.det(vt))  # a rotation, no mirror
    # Of the best scale and rotation only this much is left of the truth's variance.
    variance, target_variance = (centred ** 2).sum(axis=1).mean(), (target ** 2).sum(axis=1).mean()
    if variance == 0:
        return 1.0
    explained = sizes.sum() ** 2 / (variance * target_variance)
    return float(np.sqrt(max(1.0 - explained, 0.0)))
