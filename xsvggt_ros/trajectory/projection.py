"""
Rigid motions, pinhole projection and their derivatives, on numpy arrays with a batch dimension.

Poses are world_from_camera [4, 4] in optical frames. A small motion [6] is rotation (rad) and
translation in the camera's own axes, applied from the right: pose @ motion(x).
"""

import numpy as np

from xsvggt_ros.geometry.quaternions import quaternions_from_matrices

NEAREST = 1e-3   # depth below which a point is taken to be behind the camera
_BEHIND = 1e3    # pixels of error of such a point


def skew(vectors: np.ndarray) -> np.ndarray:
    """Return the matrices [..., 3, 3] whose product with x is the cross product with x."""
    matrices = np.zeros((*vectors.shape[:-1], 3, 3))
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    matrices[..., 0, 1], matrices[..., 0, 2] = -z, y
    matrices[..., 1, 0], matrices[..., 1, 2] = z, -x
    matrices[..., 2, 0], matrices[..., 2, 1] = -y, x
    return matrices


def rotation(vectors: np.ndarray) -> np.ndarray:
    """Return the rotations [..., 3, 3] about `vectors` [..., 3] by their length in rad."""
    square = (vectors ** 2).sum(-1)[..., None, None]
    angle = np.sqrt(square)
    small = square < 1e-12
    safe = np.where(small, 1.0, angle)
    first = np.where(small, 1 - square / 6, np.sin(safe) / safe)
    second = np.where(small, 0.5 - square / 24, (1 - np.cos(safe)) / safe ** 2)
    cross = skew(vectors)
    return np.eye(3) + first * cross + second * (cross @ cross)


def rotation_vector(rotations: np.ndarray) -> np.ndarray:
    """Return axis times angle [..., 3] of rotations [..., 3, 3]; the angle is at most pi."""
    quaternion = quaternions_from_matrices(rotations)
    length = np.linalg.norm(quaternion[..., :3], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(length, quaternion[..., 3:])
    factor = np.where(length < 1e-9, 2.0, angle / np.maximum(length, 1e-9))
    return quaternion[..., :3] * factor


def motion(small: np.ndarray) -> np.ndarray:
    """Return the transforms [..., 4, 4] of motions [..., 6]."""
    transforms = np.zeros((*small.shape[:-1], 4, 4))
    transforms[..., :3, :3] = rotation(small[..., :3])
    transforms[..., :3, 3] = small[..., 3:]
    transforms[..., 3, 3] = 1
    return transforms


def inverse(pose: np.ndarray) -> np.ndarray:
    """Return the inverse [4, 4] of a rigid transform."""
    result = np.eye(4)
    result[:3, :3] = pose[:3, :3].T
    result[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return result


def nearest_pose(poses: np.ndarray) -> np.ndarray:
    """
    Return poses [..., 4, 4] with their rotations made orthonormal.

    Products of poses lose it little by little, and `inverse`, which relies on it, doubles the
    loss each time.
    """
    left, _, right = np.linalg.svd(poses[..., :3, :3])
    result = poses.copy()
    result[..., :3, :3] = left @ right
    return result


def rays(pixels: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Return the directions [n, 3] of `pixels` [n, 2], at distance 1 along the optical axis."""
    return np.stack([(pixels[:, 0] - camera[0, 2]) / camera[0, 0],
                     (pixels[:, 1] - camera[1, 2]) / camera[1, 1], np.ones(len(pixels))], -1)


def to_camera(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Return world points [n, 3] in the frame of the camera at `pose`."""
    return (points - pose[:3, 3]) @ pose[:3, :3]


def project(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Return the pixels [n, 2] of points [n, 3] of the camera's frame; far off if behind it."""
    depth = np.maximum(points[:, 2], NEAREST)
    pixels = np.stack([camera[0, 0] * points[:, 0] / depth + camera[0, 2],
                       camera[1, 1] * points[:, 1] / depth + camera[1, 2]], -1)
    pixels[points[:, 2] < NEAREST] += _BEHIND
    return pixels


def projection_jacobian(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Return the derivatives [n, 2, 3] of `project` by the points."""
    depth = np.maximum(points[:, 2], NEAREST)
    jacobian = np.zeros((len(points), 2, 3))
    jacobian[:, 0, 0] = camera[0, 0] / depth
    jacobian[:, 0, 2] = -camera[0, 0] * points[:, 0] / depth ** 2
    jacobian[:, 1, 1] = camera[1, 1] / depth
    jacobian[:, 1, 2] = -camera[1, 1] * points[:, 1] / depth ** 2
    return jacobian


def huber_weights(squares: np.ndarray, delta: float) -> np.ndarray:
    """Return the weights of residuals whose squares, in sigmas, are given."""
    return np.where(squares > delta ** 2, delta / np.sqrt(np.maximum(squares, 1e-12)), 1.0)


def huber_cost(squares: np.ndarray, delta: float) -> float:
    """Return the sum of Huber's costs."""
    return float(np.where(squares < delta ** 2, squares,
                          2 * delta * np.sqrt(squares) - delta ** 2).sum())


def cauchy_weights(squares: np.ndarray, delta: float) -> np.ndarray:
    """Return the weights of residuals whose squares, in sigmas, are given."""
    return 1 / (1 + squares / delta ** 2)


def cauchy_cost(squares: np.ndarray, delta: float) -> float:
    """Return the sum of Cauchy's costs."""
    return float(delta ** 2 * np.log1p(squares / delta ** 2).sum())
