"""
Single rotations as ROS writes them, quaternions (x, y, z, w), and as matrices; in numpy.

tf_transformations does it where it is installed, as ROS users expect. It wraps transforms3d, which
does it where only that is (there is no wheel of tf_transformations). An old transforms3d beside a
new NumPy fails at its first call: each is tried once, here, and `geometry`, which does the same
for tensors, is what remains. `BACKEND` says which it is.
"""

from collections.abc import Callable, Sequence
import math
from typing import NamedTuple

import numpy as np

Quaternion = tuple[float, float, float, float]  # x, y, z, w


class Backend(NamedTuple):
    """Who converts; quaternions have unit length here."""

    name: str
    to_matrix: Callable[[Quaternion], np.ndarray]  # [3, 3]
    from_matrix: Callable[[np.ndarray], Sequence[float] | np.ndarray]  # of a rotation [3, 3]
    # At a part of the arc.
    between: Callable[[Quaternion, Quaternion, float], Sequence[float] | np.ndarray]


def matrix_from_quaternion(quaternion: Sequence[float]) -> np.ndarray:
    """
    Return the rotation [3, 3], float64, of a quaternion (x, y, z, w) of any length.

    All NaN for one that is no rotation: of length zero, or not finite.
    """
    unit = _unit(quaternion)
    return np.full((3, 3), np.nan) if unit is None else np.asarray(_BACKEND.to_matrix(unit))


def pose_matrix(position: Sequence[float] | np.ndarray,
                quaternion: Sequence[float]) -> np.ndarray:
    """Return the transform [4, 4], float64; NaN as `matrix_from_quaternion` has it."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = matrix_from_quaternion(quaternion), position
    return matrix


def quaternion_from_matrix(rotation: np.ndarray) -> Quaternion:
    """Return the unit quaternion (x, y, z, w), w >= 0, of a rotation [3, 3]."""
    x, y, z, w = (float(part) for part in _BACKEND.from_matrix(np.asarray(rotation, np.float64)))
    return (-x, -y, -z, -w) if w < 0 else (x, y, z, w)


def quaternions_from_matrices(rotations: np.ndarray) -> np.ndarray:
    """Return the unit quaternions [..., 4] (x, y, z, w), w >= 0, of rotations [..., 3, 3]."""
    # Each is the eigenvector of the largest eigenvalue of this matrix (Bar-Itzhack, 2000).
    r = rotations
    k = np.empty((*r.shape[:-2], 4, 4))
    k[..., 0, 0] = r[..., 0, 0] - r[..., 1, 1] - r[..., 2, 2]
    k[..., 1, 1] = r[..., 1, 1] - r[..., 0, 0] - r[..., 2, 2]
    k[..., 2, 2] = r[..., 2, 2] - r[..., 0, 0] - r[..., 1, 1]
    k[..., 3, 3] = r[..., 0, 0] + r[..., 1, 1] + r[..., 2, 2]
    k[..., 0, 1] = k[..., 1, 0] = r[..., 1, 0] + r[..., 0, 1]
    k[..., 0, 2] = k[..., 2, 0] = r[..., 2, 0] + r[..., 0, 2]
    k[..., 1, 2] = k[..., 2, 1] = r[..., 2, 1] + r[..., 1, 2]
    k[..., 0, 3] = k[..., 3, 0] = r[..., 2, 1] - r[..., 1, 2]
    k[..., 1, 3] = k[..., 3, 1] = r[..., 0, 2] - r[..., 2, 0]
    k[..., 2, 3] = k[..., 3, 2] = r[..., 1, 0] - r[..., 0, 1]
    found = np.linalg.eigh(k)[1][..., -1]
    return found * np.where(found[..., 3:] < 0, -1.0, 1.0)


def quaternion_products(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return first * second, [..., 4] each (x, y, z, w): the rotation `second`, then `first`."""
    axis, w = first[..., :3], first[..., 3:]
    other, v = second[..., :3], second[..., 3:]
    return np.concatenate([w * other + v * axis + np.cross(axis, other),
                           w * v - (axis * other).sum(-1, keepdims=True)], -1)


def quaternion_between(
    first: Sequence[float], second: Sequence[float], part: float,
) -> Quaternion:
    """
    Return the unit quaternion a part (0 to 1) of the shorter way from one to another.

    Raises ValueError if one of them is no rotation.
    """
    start, end = _unit(first), _unit(second)
    if start is None or end is None:
        raise ValueError(f'a quaternion of length zero is no rotation: {first}, {second}')
    x, y, z, w = (float(value) for value in _BACKEND.between(start, end, part))
    return x, y, z, w


def _unit(quaternion: Sequence[float]) -> Quaternion | None:
    """Return the quaternion with length one; None if it has no direction."""
    length = math.hypot(*quaternion)
    if not 0 < length < math.inf:
        return None
    x, y, z, w = (part / length for part in quaternion)
    return x, y, z, w


# Backends ----------------------------------------------------------------------------------------


def _tf_transformations() -> Backend:
    import tf_transformations as tf

    def from_matrix(rotation: np.ndarray) -> Sequence[float]:
        whole = np.eye(4)
        whole[:3, :3] = rotation
        return tf.quaternion_from_matrix(whole)

    return Backend('tf_transformations', lambda turn: tf.quaternion_matrix(turn)[:3, :3],
                   from_matrix, tf.quaternion_slerp)


def _transforms3d() -> Backend:
    from transforms3d import quaternions as wxyz

    def between(first: Quaternion, second: Quaternion, part: float) -> np.ndarray:
        start, end = _w_first(first), _w_first(second)
        turn = wxyz.qmult(wxyz.qconjugate(start), end)
        turn = -turn if turn[0] < 0 else turn
        return _w_last(wxyz.qmult(start, wxyz.qpow(turn, part)))

    return Backend('transforms3d', lambda turn: wxyz.quat2mat(_w_first(turn)),
                   lambda rotation: _w_last(wxyz.mat2quat(rotation)), between)


def _geometry() -> Backend:
    import torch

    from xsvggt_ros.geometry import se3

    def tensor(values: Sequence[float] | np.ndarray) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64)

    return Backend(
        'xsvggt_ros.geometry.se3', lambda turn: se3.quaternion_to_matrix(tensor(turn)).numpy(),
        lambda rotation: se3.matrix_to_quaternion(tensor(rotation)).tolist(),
        lambda first, second, part: se3.quaternion_between(
            tensor(first), tensor(second), part).tolist())


def _w_first(quaternion: Sequence[float]) -> np.ndarray:
    return np.roll(quaternion, 1)


def _w_last(quaternion: Sequence[float]) -> np.ndarray:
    return np.roll(quaternion, -1)


def _works(backend: Backend) -> bool:
    """Return whether a backend turns x to y by a quarter turn about z, and halves that."""
    half = math.sqrt(0.5)
    quarter = (0.0, 0.0, half, half)
    matrix = np.array(((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)))
    eighth = (0.0, 0.0, math.sin(math.pi / 8), math.cos(math.pi / 8))
    return bool(
        np.allclose(backend.to_matrix(quarter), matrix)
        and np.allclose(backend.from_matrix(matrix), quarter)
        and np.allclose(backend.between((0.0, 0.0, 0.0, 1.0), quarter, 0.5), eighth))


def choose_backend() -> Backend:
    """Return the first backend that is installed and works."""
    for make in (_tf_transformations, _transforms3d):
        try:
            backend = make()
            if _works(backend):
                return backend
        except Exception:  # ImportError, and whatever an old one says to a new NumPy
            continue
    return _geometry()


_BACKEND = choose_backend()
BACKEND = _BACKEND.name
