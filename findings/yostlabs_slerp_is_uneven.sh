#!/usr/bin/env bash
# yostlabs-math 2026.3.11 (quaternions of Yost Labs' inertial sensors, PyPI): slerp() turns at no constant rate, and from b to a
# otherwise than from a to b.
#
# Guess: slerp(a, b, t) is on the shorter way, t of the whole turn from a, and slerp(b, a, 1 - t) is the same.
# Seen: both ends are right, the axis and the length as well, and the shorter way is taken. But of 10 degrees a tenth comes as
# 1.13 degrees, of 90 a quarter as 23.2 (22.5) and half as 45.4, of 170 a quarter as 38.2 (42.5) and half as 82.3 (85).
# From the other end half of it is 87.7, and to -b, the same turn, 81.1; of 90 degrees that is 40.3. Resampled turn rates are
# 13 % off behind each knot, at small turns, too. Nothing is said; all else in the module that was tried (products,
# matrices, Euler angles) is exact.
# What to do: scipy.spatial.transform.Slerp.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check yostlabs-math==2026.3.11 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
from scipy.spatial.transform import Rotation, Slerp
from yostlabs.math.quaternion import slerp

PARTS = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
axis = np.array([1, 2, -2]) / 3
start = Rotation.from_euler('xyz', [20, -30, 50], degrees=True)
as_seen = True
for degrees in (10, 90, 170):
    end = start * Rotation.from_rotvec(np.radians(degrees) * axis)
    one, other = start.as_quat().tolist(), end.as_quat().tolist()
    got = [slerp(one, other, part) for part in PARTS]
    turned = [(start.inv() * Rotation.from_quat(quaternion)).as_rotvec(degrees=True) for quaternion in got]
    back = (start.inv() * Rotation.from_quat(slerp(other, one, 0.5))).magnitude() * 180 / np.pi
    true = (start.inv() * Slerp([0, 1], Rotation.concatenate([start, end]))(PARTS)).magnitude() * 180 / np.pi
    sizes = np.linalg.norm(turned, axis=1)
    print(f'{degrees} degrees:', *(f'{size:.2f} ({right:.2f})' for size, right in zip(sizes, true, strict=True)),
          f'; half from the other end {back:.2f}')
    negative = (start.inv() * Rotation.from_quat(slerp(one, [-part for part in other], 0.5))).magnitude() * 180 / np.pi
    print(f'  half to the negative quaternion of the same turn {negative:.2f}')
    as_seen &= np.allclose(np.linalg.norm(got, axis=1), 1) and negative < 0.97 * degrees / 2
    as_seen &= np.allclose(sizes[[0, -1]], [0, degrees], atol=1e-4) and np.allclose(np.cross(turned, axis), 0, atol=1e-4)
    as_seen &= abs(sizes[3] - degrees / 2) > 0.008 * degrees / 2 and abs(back + sizes[3] - degrees) < 1e-4
    as_seen &= np.abs(sizes - true).max() > 0.005 * degrees
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
