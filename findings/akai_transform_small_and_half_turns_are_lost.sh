#!/usr/bin/env bash
# akai-transform 1.0.0 (2D and 3D transformations, quaternions, Lie groups, PyPI): turns of less
# than 3.6 degrees have the rotation vector zero, and half turns about a slanted axis have no axis.
#
# `quat2rvec` and `rmat2rvec` return, as their docstrings say, a unit axis and the angle in radians.
#
# Guess: axis times angle is the rotation vector of scipy for small, random and half turns.
# Seen: `quat2rvec` returns the angle 0 and the axis z for each quaternion with w > 0.9995, so for
# all turns of up to 3.62 degrees, whatever their axis: a gyroscope that turns by 100 degrees a
# second and is read at 100 Hz stands still. `rmat2rvec` of half a turn about (1, 1, 0) or (1, 2, 3)
# returns the axis (0, 0, 0), and `mrp2rmat` of `rmat2mrp` is the identity for it; half turns about
# x, y and z are right. So are `log_quat.quat2log` and, for these small turns, `rmat2rvec`.
# No error and no warning.
# What to do: quat2log of rmat2quat.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  akai-transform==1.0.0 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
from akai_transform import log_quat, quat, tf3d
from scipy.spatial.transform import Rotation

as_seen = True
axis = np.array([2.0, -1.0, 2.0]) / 3
for degrees in (0.1, 1.0, 3.5, 3.7, 30.0, 170.0):
    wanted = np.radians(degrees) * axis
    turn = Rotation.from_rotvec(wanted)
    given = np.roll(turn.as_quat(), 1)
    matrix = np.eye(4)
    matrix[:3, :3] = turn.as_matrix()
    found, angle = tf3d.quat2rvec(given)
    of_matrix, angle_of_matrix = tf3d.rmat2rvec(matrix)
    print(f'{degrees} degrees: quat2rvec {found}, {np.degrees(angle):.3f} degrees')
    if degrees < 3.6:
        as_seen &= angle == 0 and np.array_equal(found, [0, 0, 1])
    else:
        as_seen &= np.allclose(angle * found, wanted)
    as_seen &= np.allclose(log_quat.quat2log(given), wanted)
    as_seen &= np.allclose(angle_of_matrix * of_matrix, wanted, rtol=1e-5)

step, whole = Rotation.from_rotvec([0, 0, np.radians(1.0)]), np.array([1.0, 0, 0, 0])
summed = 0.0
for _ in range(100):
    later = quat.multiply(whole, np.roll(step.as_quat(), 1))
    found, angle = tf3d.quat2rvec(quat.multiply(quat.inv(whole), later))
    summed, whole = summed + np.degrees(angle), later
print(f'100 steps of 1 degree: sum of the steps {summed:.1f}, whole {tf3d.quat2rvec(whole)}')
as_seen &= summed == 0 and np.isclose(tf3d.quat2rvec(whole)[1], np.radians(100))

for about in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 2, 3]):
    unit = np.array(about) / np.linalg.norm(about)
    matrix = np.eye(4)
    matrix[:3, :3] = 2 * np.outer(unit, unit) - np.eye(3)
    found, angle = tf3d.rmat2rvec(matrix)
    back = tf3d.mrp2rmat(tf3d.rmat2mrp(matrix))
    off = np.degrees((Rotation.from_matrix(matrix[:3, :3]).inv()
                      * Rotation.from_matrix(back[:3, :3])).magnitude())
    print(f'half a turn about {about}: {found}, {np.degrees(angle)} degrees; through MRP off {off}')
    if np.count_nonzero(about) == 1:
        as_seen &= np.allclose(np.abs(found), unit) and off < 1e-3
    else:
        as_seen &= not np.any(found) and off > 179
    log = log_quat.quat2log(tf3d.rmat2quat(matrix))
    as_seen &= np.allclose(Rotation.from_rotvec(log).as_matrix(), matrix[:3, :3])
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
