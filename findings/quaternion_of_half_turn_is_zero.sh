#!/usr/bin/env bash
# liecasadi 0.0.7 and numba-quaternion 0.3.0 (Python): the quaternion of half a turn is zero; liecasadi's
# is NaN for many turns about one axis.
#
# SO3.from_matrix and rotation_matrix_to_quat turn a rotation matrix into a quaternion. Half turns are everywhere between
# frames: from OpenCV's camera axes to OpenGL's is one about x, a lidar that is mounted upside down another.
#
# Guess: the quaternion turns vectors as the matrix does, to 1e-7, for any rotation matrix.
# Seen: a matrix of half a turn about x, y or z gives (0, 0, 0, 0) in both; one about (0, 1, 1) as well. Each part is the root
# of a sum, with the sign of a difference of two entries, and these are equal there. liecasadi (also in
# SE3.from_matrix) takes the roots without regard to rounding below zero: of turns about x by 0.001, 0.002 ... 3.141
# radians 7 % come out with NaN in them, of those about general axes none. Nothing is raised.
# What to do: scipy.spatial.transform.Rotation.from_matrix(...).as_quat(), and SO3.from_quat.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  liecasadi==0.0.7 casadi==3.8.2 numba-quaternion==0.3.0 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import casadi
import numba_quaternion
import numpy as np
from liecasadi import SO3
from scipy.spatial.transform import Rotation

HALF_TURNS = {'x': np.diag([1., -1, -1]), 'y': np.diag([-1., 1, -1]), 'z': np.diag([-1., -1, 1]),
              '0 1 1': np.array([[-1., 0, 0], [0, 0, 1], [0, 1, 0]])}
ANGLES = 0.001 * np.arange(1, 3142)


def by_liecasadi(matrix):
    """Return x, y, z, w."""
    return np.array(casadi.DM(SO3.from_matrix(casadi.DM(matrix)).xyzw)).ravel()


def by_numba(matrix):
    (first, second), = numba_quaternion.rotation_matrix_to_quat(matrix[None])
    return np.array([first.imag, second.real, second.imag, first.real])


def off(quaternion, matrix):
    wanted = Rotation.from_matrix(matrix).as_quat()
    return min(np.abs(quaternion - wanted).max(), np.abs(quaternion + wanted).max())


as_seen = True
for name, convert in (('liecasadi', by_liecasadi), ('numba-quaternion', by_numba)):
    for axis, matrix in HALF_TURNS.items():
        quaternion = convert(matrix)
        print(f'{name}: half a turn about {axis}: {quaternion}')
        as_seen &= not quaternion.any()
    for axis in ([1, 0, 0], [0, 0, 1], [1, 2, -3]):
        unit = np.array(axis) / np.linalg.norm(axis)
        matrices = Rotation.from_rotvec(ANGLES[:, None] * unit).as_matrix()
        found = [convert(matrix) for matrix in matrices]
        unknown = np.mean([np.isnan(each).any() for each in found])
        worst = max(off(each, matrix) for each, matrix in zip(found, matrices) if not np.isnan(each).any())
        print(f'{name}: turns about {axis}: {100 * unknown:.0f} % NaN, the others off by {worst:.0e}')
        straight = axis.count(0) == 2 and name == 'liecasadi'
        as_seen &= bool((unknown > 0.05) == straight and worst < 1e-7)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
