#!/usr/bin/env bash
# dq3d 0.3.8 (dual quaternions, PyPI): pow() of a transform is not its power, and so sclerp() does not go along the screw.
#
# Guess: pow(0.5) applied twice is the transform, pow(2) is the transform twice, and sclerp() (screw linear interpolation)
# of the identity and a transform is the exponential of a part of its logarithm, at a constant rate.
# Seen: pow(0), pow(1), all rotations, and transforms that only shift or only turn about the origin are right. Where a motion
# turns and shifts, the position is not: for a quarter of a turn about z with 1 m along x, half of it is at (0.354, -0.354)
# in place of (0.5, -0.207), a quarter at (0.096, -0.231) in place of (0.229, -0.153), and twice at (0, 2) in place of (1, 1).
# sclerp() halfway is 0.21 m off the screw. The exponential of the halved logarithm is where pow(0.5) is: exp() undoes log()
# exactly, but log() is not the logarithm of the motion. Nothing is said.
# What to do: pytransform3d's dual_quaternion_power() and dual_quaternion_sclerp().
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dq3d==0.3.8 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
from dq3d import dualquat, op, quat
from scipy.linalg import expm, logm
from scipy.spatial.transform import Rotation


def both(rotation, translation):
    """Return a transform as dq3d's dual quaternion and as a matrix."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation.as_matrix(), translation
    return dualquat(quat(*rotation.as_quat(scalar_first=True)), np.array(translation)), matrix


dual, matrix = both(Rotation.from_euler('z', 90, degrees=True), [1.0, 0, 0])
as_seen = np.allclose(dual.to_matrix(), matrix, atol=1e-9)
for power in (0, 0.25, 0.5, 1, 2):
    got, true = dual.pow(power).to_matrix(), np.real(expm(power * logm(matrix)))
    off = np.linalg.norm(got[:3, 3] - true[:3, 3])
    print(f'power {power}: position {(got[:3, 3] + 0.0).round(3).tolist()}, true {(true[:3, 3] + 0.0).round(3).tolist()}')
    as_seen &= np.allclose(got[:3, :3], true[:3, :3], atol=1e-9) and (off < 1e-9 if power in (0, 1) else off > 0.15)
half = dual.pow(0.5)
twice = np.linalg.norm((half * half).to_matrix()[:3, 3] - matrix[:3, 3])
print(f'pow(0.5) twice is {twice:.3f} m off; exp(log()) {np.abs(dual.log().exp().to_matrix() - matrix).max():.0e}')
between = op.sclerp(both(Rotation.identity(), [0.0, 0, 0])[0], dual, 0.5).to_matrix()[:3, 3]
along = np.linalg.norm(between - np.real(expm(0.5 * logm(matrix)))[:3, 3])
print(f'sclerp() halfway is {along:.3f} m off')
halved = (dual.log() * 0.5).exp().to_matrix()
as_seen &= np.allclose(halved, half.to_matrix(), atol=1e-9)
as_seen &= twice > 0.1 and along > 0.15 and np.abs(dual.log().exp().to_matrix() - matrix).max() < 1e-9
for rotation, translation in ((Rotation.identity(), [1.0, 2, 3]), (Rotation.from_rotvec([0.3, 0.2, 1]), [0.0, 0, 0])):
    alone, truth = both(rotation, translation)
    as_seen &= np.allclose(alone.pow(0.5).to_matrix(), np.real(expm(0.5 * logm(truth))), atol=1e-9)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
