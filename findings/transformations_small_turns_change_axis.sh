#!/usr/bin/env bash
# transformations 2026.1.18, trimesh 5.2.0 and transforms3d 0.4.2: axis and angle of a small turn are those of
# another turn, up to thousands of times as large.
#
# rotation_from_matrix (transforms3d: axangles.mat2axangle) is the way back from a matrix to an axis and an angle,
# e.g. for what a camera turns between two images, or for the rest that a calibration leaves.
#
# Guess: axis times angle is the rotation vector of the matrix to a millionth of its length, as SciPy's is.
# Seen: so down to 0.15 mrad. Of smaller turns about random axes about one in three comes out wrong: 0.1 mrad as up
# to half a radian, 1 microradian as up to 7 mrad, about another axis, without an error. The axis is looked for among
# eigenvectors whose eigenvalue has a real part of 1 within 1e-8; that of the other two is the angle's cosine,
# and below 0.14 mrad it passes as well. transforms3d compares complex numbers: the same from 0.01 mrad down.
# ROS's older tf.transformations has this code, too (not run here).
# What to do: scipy.spatial.transform.Rotation.from_matrix(...).as_rotvec(), or the quaternion, which is exact.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  transformations==2026.1.18 trimesh==5.2.0 transforms3d==0.4.2 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
import transformations
import trimesh.transformations
from scipy.spatial.transform import Rotation
from transforms3d.axangles import mat2axangle
from transforms3d.quaternions import mat2quat

ANGLES = 1e-2, 1e-3, 1.5e-4, 1e-4, 5e-6, 1e-6
AXES = np.random.default_rng(1).normal(size=(300, 3))
AXES /= np.linalg.norm(AXES, axis=1, keepdims=True)


def by_eigenvector(module):
    def vector(matrix):
        angle, axis, _ = module.rotation_from_matrix(matrix)
        return angle * np.asarray(axis)
    return vector


def by_transforms3d(matrix):
    axis, angle = mat2axangle(matrix[:3, :3])
    return angle * axis


def by_quaternion(matrix):
    return 2 * mat2quat(matrix[:3, :3])[1:]


def by_scipy(matrix):
    return Rotation.from_matrix(matrix[:3, :3]).as_rotvec()


LIBRARIES = {'transformations': by_eigenvector(transformations),
             'trimesh': by_eigenvector(trimesh.transformations),
             'transforms3d': by_transforms3d,
             'transforms3d, quaternion': by_quaternion,
             'SciPy': by_scipy}


def errors(vector, angle):
    """Return how far each rotation vector is from the right one, in parts of its length."""
    matrix = np.eye(4)
    found = []
    for axis in AXES:
        matrix[:3, :3] = Rotation.from_rotvec(angle * axis).as_matrix()
        found.append(np.linalg.norm(vector(matrix) - angle * axis) / angle)
    return np.array(found)


as_seen = True
for angle in ANGLES:
    for name, vector in LIBRARIES.items():
        off = errors(vector, angle)
        wrong = (off > 0.5).mean()
        print(f'{1e3 * angle:7.3f} mrad, {name:24}: {100 * wrong:3.0f} % wrong, '
              f'the worst by {off.max():.2g} of the turn')
        begin = {'transformations': 1.4e-4, 'trimesh': 1.4e-4, 'transforms3d': 1e-5}.get(name, 0)
        fails = angle < begin
        as_seen &= bool(wrong > 0.1 and off.max() > 10) if fails else bool(off.max() < 1e-4)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
