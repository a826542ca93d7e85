#!/usr/bin/env bash
# pyrr 0.10.3 (rotations and cameras for OpenGL, PyPI): the matrix of a quaternion turns a vector the other way than the
# quaternion does, and the matrix and the quaternion of the same Euler angles turn about other axes.
#
# Guess: with pyrr's own products Matrix33.from_quaternion(q) * v is q * v, Matrix44 likewise, and Matrix33.from_eulers(e) *
# v is Quaternion.from_eulers(e) * v.
# Seen: for a quarter of a turn about z, (1, 0, 0) comes to (0, 1, 0) by the quaternion, as anywhere else, and to
# (0, -1, 0) by Matrix33 and Matrix44 of it, by q.matrix33, by the procedures of pyrr.matrix33 and pyrr.matrix44, and by
# from_z_rotation() of both. Translations of Matrix44 do go forwards, so a pose made of both is turned inside. Of
# the Euler angles, pitch turns about y in the quaternion and about z in the matrix, yaw about z and about y. Matrix
# and quaternion back and forth is exact, so tests of round trips do not show it.
# What to do: transpose matrices of quaternions, or turn vectors by quaternions alone; make no matrices of Euler angles.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyrr==0.10.3 multipledispatch==1.0.0 numpy==2.4.6 \
  scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
import pyrr
from pyrr import Matrix33, Matrix44, Quaternion, Vector3, Vector4, euler
from scipy.spatial.transform import Rotation

turn = Quaternion.from_z_rotation(np.pi / 2)
ways = {'quaternion': turn * Vector3([1.0, 0, 0]),
        'Matrix33 of it': Matrix33.from_quaternion(turn) * Vector3([1.0, 0, 0]),
        'q.matrix33': turn.matrix33 * Vector3([1.0, 0, 0]),
        'Matrix44 of it': (Matrix44.from_quaternion(turn) * Vector4([1.0, 0, 0, 1]))[:3],
        'matrix33, procedures': pyrr.matrix33.apply_to_vector(pyrr.matrix33.create_from_quaternion(turn), np.eye(3)[0]),
        'matrix44, procedures': pyrr.matrix44.apply_to_vector(pyrr.matrix44.create_from_quaternion(turn), np.eye(3)[0]),
        'Matrix33.from_z_rotation': Matrix33.from_z_rotation(np.pi / 2) * Vector3([1.0, 0, 0])}
as_seen = True
for name, vector in ways.items():
    print(f'{name}: (1, 0, 0) comes to {(np.round(np.array(vector), 6) + 0.0).tolist()}')
    as_seen &= np.allclose(np.array(vector), [0, 1 if name == 'quaternion' else -1, 0], atol=1e-9)
shifted = Matrix44.from_translation([1.0, 2, 3]) * Vector4([0.0, 0, 0, 1])
as_seen &= np.allclose(np.array(shifted)[:3], [1, 2, 3])
random = Quaternion(Rotation.random(random_state=1).as_quat())
back = np.array(Matrix33.from_quaternion(random).quaternion)
as_seen &= np.allclose(back, np.array(random)) or np.allclose(back, -np.array(random))


def axis(rotate):
    """Return the axis about which a small turn is made, with its sign, by what it does to unit vectors."""
    columns = np.stack([np.array(rotate(Vector3(unit))) for unit in np.eye(3)], axis=1)
    vector = Rotation.from_matrix(columns).as_rotvec()
    return (np.round(vector / np.linalg.norm(vector), 6) + 0.0).tolist()


for name, by_quaternion, by_matrix in (('roll', 0, 0), ('pitch', 1, 2), ('yaw', 2, 1)):
    angles = euler.create(**{name: 0.2})
    quaternion, matrix = Quaternion.from_eulers(angles), Matrix33.from_eulers(angles)
    one, other = axis(lambda vector: quaternion * vector), axis(lambda vector: matrix * vector)
    print(f'{name}: about {one} by the quaternion, about {other} by the matrix')
    as_seen &= np.allclose(one, np.eye(3)[by_quaternion]) and np.allclose(np.abs(other), np.eye(3)[by_matrix])
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
