#!/usr/bin/env bash
# evo 1.38.1: projecting onto the plane xz folds headings beyond 90 degrees.
#
# Camera trajectories in KITTI's convention (x right, y down, z forward) drive in the plane xz, and
# `evo_ape ... --project_to_plane xz` is how they are compared without height, roll and pitch.
#
# Guess: a rotation about the plane's normal is left as it is, as in the planes xy and yz; so two
# poses whose headings are 80 and 100 degrees stay 20 degrees apart.
# Seen: 100 degrees about y become 80, 170 become 10, -170 become -10 (xy and yz: unchanged). Two
# trajectories that are 20 degrees apart in every pose have a rotation error of 0 after the
# projection, and one that turns the other way round a curve beyond 90 degrees goes unnoticed.
# Why: the angle about the normal is taken from Euler angles xyz, whose middle one ends at 90.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check evo==1.38.1 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
from evo.core import lie_algebra, transformations
from evo.core.metrics import APE, PoseRelation
from evo.core.trajectory import Plane, PosePath3D


def path(degrees, axis):
    poses = []
    for index, angle in enumerate(degrees):
        pose = transformations.rotation_matrix(np.radians(angle), np.eye(3)[axis])
        pose[:3, 3] = np.roll([0, 0.5 * index, 0.2 * index], axis)
        poses.append(pose)
    return PosePath3D(poses_se3=poses)


def projected(degrees, plane, axis):
    one = path(degrees, axis)
    one.project(plane)
    return [round(float(np.degrees(lie_algebra.so3_log(pose[:3, :3])[axis])), 3) + 0.0
            for pose in one.poses_se3]


angles = [30, 80, 100, 170, -100, -170]
planes = {'xy': (Plane.XY, 2), 'xz': (Plane.XZ, 1), 'yz': (Plane.YZ, 0)}
print('heading   ', angles)
seen = {name: projected(angles, *plane) for name, plane in planes.items()}
for name, values in seen.items():
    print(f'plane {name}  ', values)
errors = []
for project in (False, True):
    reference, estimate = path([80] * 5, 1), path([100] * 5, 1)
    if project:
        reference.project(Plane.XZ)
        estimate.project(Plane.XZ)
    ape = APE(PoseRelation.rotation_angle_deg)
    ape.process_data((reference, estimate))
    errors.append(round(float(ape.get_all_statistics()['rmse']), 3))
print('rotation error of 100 against 80 degrees:', errors[0], 'and projected onto xz:', errors[1])
raise SystemExit(not (seen['xy'] == seen['yz'] == angles
                      and seen['xz'] == [30, 80, 80, 10, -80, -10] and errors == [20, 0]))
PYTHON
venv/bin/python probe.py
