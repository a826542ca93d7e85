"""
How far a reconstruction is from the truth: depth, trajectory, points, focal length.

Poses are world_from_camera [N, 4, 4] in optical frames; the two worlds may differ by a similarity
transform, which is taken out first. Sources of the definitions:

- depth AbsRel and delta < 1.25: Eigen et al., NeurIPS 2014; one scale for a whole stream, the
  median of the ratios, as in the video-depth protocol of MonST3R (Zhang et al., ICLR 2025).
- Sim(3) alignment: Umeyama, PAMI 1991. ATE and RPE: Sturm et al., IROS 2012 (RMSE).
- accuracy and completeness of points: mean distance to the nearest point of the other cloud, as
  in Seitz et al., CVPR 2006 and the 7-Scenes protocol of Spann3R (Wang and Agapito, 3DV 2025).
"""

import numpy as np

from xsvggt_ros.geometry.similarity import align


def position_errors(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """
    Return ATE (RMSE after Sim(3) alignment, unit of the truth) and its ratio to the spread.

    Positions [N, 3]. Who never moves has a ratio of 1. If the truth does not move, the ratio is
    not a number.
    """
    off = align(estimate, truth).points(estimate) - truth
    ate = float(np.sqrt((off ** 2).sum(axis=1).mean()))
    extent = spread(truth)
    return ate, ate / extent if extent > 1e-9 else float('nan')


def spread(positions: np.ndarray) -> float:
    """Return the root mean square distance of positions [N, 3] from their mean."""
    return float(np.sqrt(((positions - positions.mean(axis=0)) ** 2).sum(axis=1).mean()))


def rotation_error(estimate: np.ndarray, truth: np.ndarray) -> float:
    """
    Return the mean angle in degrees between rotations [N, 3, 3], the worlds brought in line.

    They are by the chordal mean of the differences (Hartley et al., IJCV 2013): from the
    orientations, as the positions of a camera that turns in place say nothing about them.
    """
    differences = truth @ estimate.transpose(0, 2, 1)
    return float(angles(nearest_rotation(differences.mean(axis=0)), differences).mean())


def relative_errors(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """
    Return RPE from frame to frame: RMSE of translation (unit of the truth) and rotation (degrees).

    Poses [N, 4, 4]; the estimate is scaled as by the alignment of the whole trajectory.
    """
    scaled = estimate.copy()
    scaled[:, :3, 3] *= align(estimate[:, :3, 3], truth[:, :3, 3]).scale
    steps = [np.linalg.inv(poses[:-1]) @ poses[1:] for poses in (truth, scaled)]
    off = np.linalg.inv(steps[0]) @ steps[1]
    translation = np.sqrt((off[:, :3, 3] ** 2).sum(axis=1).mean())
    turns = angles(steps[0][:, :3, :3], steps[1][:, :3, :3])
    return float(translation), float(np.sqrt((turns ** 2).mean()))


def depth_errors(estimate: np.ndarray, truth: np.ndarray,
                 valid: np.ndarray) -> tuple[float, float, float]:
    """
    Return AbsRel, the share of pixels within a factor of 1.25, and the scale taken out.

    Depth maps [N, H, W] of one stream, `valid` where the truth is known; one scale for all.
    """
    estimate, truth = estimate[valid].astype(np.float64), truth[valid].astype(np.float64)
    scale = float(np.median(truth / np.maximum(estimate, 1e-9)))
    estimate = np.maximum(estimate * scale, 1e-9)
    ratio = np.maximum(estimate / truth, truth / estimate)
    return float((np.abs(estimate - truth) / truth).mean()), float((ratio < 1.25).mean()), scale


def cloud_errors(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """
    Return accuracy and completeness of points [N, 3] against [M, 3], lower is better.

    Mean distance from each estimated point to the nearest true one, and the other way round.
    """
    return _mean_distance(estimate, truth), _mean_distance(truth, estimate)


def _mean_distance(points: np.ndarray, others: np.ndarray) -> float:
    """Return the mean distance from `points` to the nearest of `others`."""
    from scipy.spatial import KDTree  # the node, which needs no distances, starts without it

    return float(KDTree(others).query(points)[0].mean())


def angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """
    Return the angles in degrees [n] between rotations [(n), 3, 3].

    By the chord, 2 sqrt(2) sin(angle / 2) long: exact where both are the same.
    """
    chord = np.linalg.norm(first - second, axis=(-2, -1)) / (2 * np.sqrt(2))
    return np.rad2deg(2 * np.arcsin(np.clip(chord, 0, 1)))


def camera_centres(camera_from_world: np.ndarray) -> np.ndarray:
    """Return the cameras' positions in the world [n, 3], of transforms [n, 4, 4]."""
    rotation, translation = camera_from_world[:, :3, :3], camera_from_world[:, :3, 3]
    return -np.einsum('nji,nj->ni', rotation, translation)


def depth_drift(depth: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean of abs(log depth - log reference), arrays of one shape."""
    with np.errstate(invalid='ignore', divide='ignore'):
        return float(np.abs(np.log(depth) - np.log(reference)).mean(dtype=np.float64))


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """Return the rotation [3, 3] that is closest to `matrix`."""
    left, _, right = np.linalg.svd(matrix)
    return left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
