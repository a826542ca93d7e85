#!/usr/bin/env bash
# AHRS 0.4.0: the same rotation comes out three ways, without an error.
#
# Guess: DCM(rpy=[roll, pitch, yaw]) and Quaternion(rpy=[roll, pitch, yaw]) are one rotation;
# orientation.hughes gives for an array [N, 3, 3] what it gives for each matrix; a matrix's
# quaternion is made of real numbers whatever the method.
# Seen: DCM(rpy) turns by the first angle about z and by the last about x (its documentation says
# roll, pitch, yaw), Quaternion(rpy) by the first about x: 18 degrees apart at 6, 11 and 17.
# hughes returns the inverse rotation for every matrix of an array, and the right one for a single
# matrix. to_quaternion(method='itzhack') returns complex numbers for some rotations (13 of 300).
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  AHRS==0.4.0 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
from ahrs import DCM, Quaternion
from ahrs.common.orientation import hughes
import numpy as np
from scipy.spatial.transform import Rotation


def of_wxyz(quaternions):
    return Rotation.from_quat(np.roll(quaternions, -1, axis=-1))


def degrees(first, second):
    return np.degrees((first.inv() * second).magnitude())


angles = [0.1, 0.2, 0.3]  # roll, pitch, yaw in rad
matrix = Rotation.from_matrix(np.array(DCM(rpy=angles)))
quaternion = of_wxyz(np.array(Quaternion(rpy=angles)))
apart = degrees(matrix, quaternion)
print('DCM(rpy): about x, y, z', matrix.as_euler('ZYX')[::-1].round(3),
      'Quaternion(rpy):', quaternion.as_euler('ZYX')[::-1].round(3),
      f'{apart:.1f} degrees apart')

rotations = Rotation.random(300, random_state=0)
matrices = rotations.as_matrix()
single = of_wxyz(np.array([hughes(matrix) for matrix in matrices]))
together = of_wxyz(np.array(hughes(matrices)))
print(f'hughes: one by one within {degrees(single, rotations).max():.1e} degrees, as an array '
      f'within {degrees(together, rotations.inv()).max():.1e} degrees of the inverse')
complex_ones = sum(np.iscomplexobj(DCM(matrix).to_quaternion(method='itzhack'))
                   for matrix in matrices)
print('itzhack: complex for', complex_ones, 'of 300')
raise SystemExit(not (np.allclose(matrix.as_euler('ZYX'), angles)
                      and np.allclose(quaternion.as_euler('ZYX'), angles[::-1])
                      and degrees(single, rotations).max() < 1e-4
                      and degrees(together, rotations.inv()).max() < 1e-4
                      and complex_ones > 0))
PYTHON
venv/bin/python probe.py
