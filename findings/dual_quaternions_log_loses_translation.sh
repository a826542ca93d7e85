#!/usr/bin/env bash
# dual-quaternions 0.4.0 (Python): the logarithm of a pose loses its translation, and exp does not bring it back.
#
# DualQuaternion.log() and .exp() are for averages, splines and errors of rigid poses: "log maps SE(3) to se(3)".
# For a unit dual quaternion with the screw (direction l, moment m, angle, distance) the logarithm is
# (angle l + eps (distance l + angle m)) / 2, says its docstring as well.
#
# Guess: exp(log(x)) is x, to 1e-9, and log(x) is that of the screw.
# Seen: the logarithm of any translation without rotation is zero, and so is the part of the translation along the
# axis of rotation. exp(log(x)) has the right rotation and, for poses of metres, a translation that is metres
# off. exp() of the right logarithm is off as well when there is rotation (25 cm for half a radian about z and
# one metre along x). Nothing is raised. sclerp(), pow(), screw() and from_screw() are exact.
# What to do: interpolate with sclerp and pow; take the logarithm from screw().
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  dual-quaternions==0.4.0 pyquaternion==0.9.9 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
from dual_quaternions import DualQuaternion
from pyquaternion import Quaternion
from scipy.spatial.transform import Rotation

POSES = {'1 m along x': ([0, 0, 0], [1, 0, 0]),
         'half a radian about z, 1 m along z': ([0, 0, 0.5], [0, 0, 1]),
         'half a radian about z, 1 m along x': ([0, 0, 0.5], [1, 0, 0]),
         'a general one': ([0.3, 0.4, -0.5], [1, 2, 3])}


def matrix(rotation, translation):
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_rotvec(rotation).as_matrix(), translation
    return pose


def logarithm(dual):
    """Return the logarithm by way of the screw."""
    direction, moment, angle, distance = dual.screw()
    real = np.asarray(direction) * angle / 2
    pitch = np.asarray(direction) * distance
    around = np.asarray(moment) * angle if angle else np.zeros(3)
    return DualQuaternion(Quaternion(vector=real), Quaternion(vector=(pitch + around) / 2))


as_seen = True
for name, (rotation, translation) in POSES.items():
    pose = matrix(rotation, translation)
    dual = DualQuaternion.from_homogeneous_matrix(pose)
    found, wanted = dual.log(), logarithm(dual)
    angle, distance = found.exp().homogeneous_matrix()[:3, :3], found.exp().homogeneous_matrix()[:3, 3]
    other = wanted.exp().homogeneous_matrix()[:3, 3]
    screw = np.abs(DualQuaternion.from_screw(*dual.screw()).homogeneous_matrix() - pose).max()
    half = dual.pow(0.5)
    power = np.abs((half * half).homogeneous_matrix() - pose).max()
    off = [np.linalg.norm(each - pose[:3, 3]) for each in (distance, other)]
    print(f'{name}: log has', np.round(found.q_d.vector, 3), 'for', np.round(wanted.q_d.vector, 3),
          f'in its dual part; exp(log) {off[0]:.3f} m off, exp of the right log {off[1]:.3f} m; '
          f'pow and screw off by {max(screw, power):.0e}')
    as_seen &= bool(np.abs(angle - pose[:3, :3]).max() < 1e-9 and off[0] > 0.5 and max(screw, power) < 1e-9)
    if not any(rotation):
        as_seen &= bool(np.abs(found.q_d.vector).max() == 0)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python -W ignore probe.py
