#!/usr/bin/env bash
# se3kit 1.0.6 (transformations for robots, with ROS messages, PyPI): as_xyz(), and with it as_rpy(extrinsic=False) and
# as_zyx(extrinsic=True), return the angle about x with the wrong sign.
#
# By its docstrings as_xyz() is for X Y' Z'' (intrinsic), where R = Rx Ry Rz and so R[1, 2] = -sin x cos y. The
# package builds rotations from the same angles with from_rpy(extrinsic=False) and from_zyx(extrinsic=True).
#
# Guess: what from_rpy() and from_zyx() made of three angles, as_rpy() and as_zyx() give back, intrinsic and extrinsic.
# Seen: the defaults of as_rpy() and as_zyx(), and as_xyz(extrinsic=True), do. The intrinsic angles (10, 20, 30) come back as
# (-10, 20, 30): built again that is another rotation, 20 degrees away, and up to 175 for others. The matrices are scipy's,
# whose as_euler('XYZ') gives the angles right. Nothing is raised.
# What to do: scipy's Rotation.from_matrix(rotation.m).as_euler('XYZ').
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check se3kit==1.0.6 numpy==2.4.6 scipy==1.17.1 \
  numpy-quaternion==2024.0.13
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
from scipy.spatial.transform import Rotation as Scipy
from se3kit.rotation import Rotation

random = np.random.default_rng(0)
triples = [np.array([10.0, 20.0, 30.0]), *np.column_stack([random.uniform(-179, 179, 50), random.uniform(-80, 80, 50),
                                                           random.uniform(-179, 179, 50)])]
as_seen = True
for name, make, take, order, sign in (
        ('roll-pitch-yaw, extrinsic', lambda a: Rotation.from_rpy(a, degrees=True),
         lambda r: r.as_rpy(degrees=True), 'xyz', 1),
        ('roll-pitch-yaw, intrinsic', lambda a: Rotation.from_rpy(a, extrinsic=False, degrees=True),
         lambda r: r.as_rpy(extrinsic=False, degrees=True), 'XYZ', -1),
        ('x, y, z of as_xyz, extrinsic', lambda a: Rotation.from_rpy(a, degrees=True),
         lambda r: r.as_xyz(extrinsic=True, degrees=True), 'xyz', 1),
        ('x, y, z of as_xyz, intrinsic', lambda a: Rotation.from_rpy(a, extrinsic=False, degrees=True),
         lambda r: r.as_xyz(degrees=True), 'XYZ', -1),
        ('z, y, x, intrinsic', lambda a: Rotation.from_zyx(a, degrees=True), lambda r: r.as_zyx(degrees=True), 'ZYX', 1),
        ('z, y, x, extrinsic', lambda a: Rotation.from_zyx(a, extrinsic=True, degrees=True),
         lambda r: r.as_zyx(extrinsic=True, degrees=True), 'zyx', -1)):
    away = []
    for angles in triples:
        rotation = make(angles)
        exact = Scipy.from_euler(order, angles, degrees=True)
        as_seen &= np.allclose(rotation.m, exact.as_matrix()) and np.allclose(exact.as_euler(order, degrees=True), angles)
        found = take(rotation)
        x = order.lower().index('x')
        expected = angles.copy()
        expected[x] *= sign
        as_seen &= np.allclose(found, expected)
        away.append(Rotation.angle_difference(make(found), rotation, degrees=True))
    print(f'{name}: (10, 20, 30) comes back as {np.round(take(make(triples[0])), 3)}; built again {away[0]:.2f} degrees '
          f'away, of 50 others up to {max(away):.2f}')
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
