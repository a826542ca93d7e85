#!/usr/bin/env bash
# ouster-sdk 1.0.1 (LiDAR, PyPI): between two poses half a turn apart interp_pose() does not turn at all, not even at the second
# pose itself; a sensor that hangs upside down is left so by get_rot_matrix_to_align_to_gravity().
#
# Guess: at the stamps of the known poses interp_pose() returns them, and between them it turns at a constant rate, one way or
# the other where both are as short; the matrix turns the measured acceleration to (0, 0, 1), as documented, from any
# direction.
# Seen: turns of up to 180 degrees less 1e-6 are right. Of half a turn about any axis (within some 1e-9 rad) the rotation
# stays that of the first pose throughout: 180 degrees off at the stamp of the second pose, where the position is right.
# interp_pose_float() likewise. (0, 0, -9.81), which is what a level sensor on its head measures in a simulation,
# gives the identity; with 0.0001 m/s² to one side, it is right. Nothing is said.
# What to do: put a pose between, and add a little to one side of the acceleration.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ouster-sdk==1.0.1 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
from ouster.sdk import core
from scipy.spatial.transform import Rotation

FIRST = Rotation.from_rotvec([0.2, 0.1, 0.3])
STAMPS = np.array([[0.0], [1.0]])


def off(axis, degrees, interpolate=core.interp_pose, kind=np.float64):
    """Return how far rotation and position at the second stamp are off (degrees, metres), and the turn halfway."""
    poses = np.tile(np.eye(4), (2, 1, 1))
    second = FIRST * Rotation.from_rotvec(np.radians(degrees) * np.array(axis) / np.linalg.norm(axis))
    poses[0, :3, :3], poses[1, :3, :3], poses[1, :3, 3] = FIRST.as_matrix(), second.as_matrix(), [1, 2, 3]
    got = interpolate(np.array([[0.5], [1.0]]), STAMPS, poses.astype(kind))
    turned = np.degrees((FIRST.inv() * Rotation.from_matrix(got[0, :3, :3])).magnitude())
    return (np.degrees((Rotation.from_matrix(got[1, :3, :3]) * second.inv()).magnitude()),
            np.abs(got[1, :3, 3] - [1, 2, 3]).max(), turned)


as_seen = True
for axis in ([0, 0, 1], [1, 0, 0], [1, 2, -2]):
    for degrees in (90, 179, 180 - 1e-6, 180):
        rotation, position, halfway = off(axis, degrees)
        print(f'{degrees} degrees about {axis}: halfway turned by {halfway:.3f} degrees; at the second stamp {rotation:.6f} '
              f'degrees and {position:.0e} m off')
        as_seen &= position < 1e-9
        right = rotation < 1e-4 and abs(halfway - degrees / 2) < 1e-3
        as_seen &= (rotation > 179.9 and halfway < 1e-3) if degrees == 180 else right
as_seen &= off([0, 0, 1], 180, core.interp_pose_float, np.float32)[0] > 179.9
for acceleration in ([0, 0, 9.81], [9.81, 0, 0], [3, 4, -5], [0.0001, 0, -9.81], [0, 0, -9.81]):
    level = core.get_rot_matrix_to_align_to_gravity(*map(float, acceleration)) @ acceleration / np.linalg.norm(acceleration)
    print(f'acceleration {acceleration} is turned to {(level + 0.0).round(6).tolist()}')
    as_seen &= np.allclose(level, [0, 0, -1 if acceleration == [0, 0, -9.81] else 1], atol=1e-6)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
