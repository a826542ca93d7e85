#!/usr/bin/env bash
# kinpy 0.6.1 (robot kinematics): a joint of a URDF that has no <axis> turns about z.
#
# <axis> may be left out of a URDF's joint; it is (1, 0, 0) then, says its specification, and many robots
# make use of it (ROS's own tutorial robot does, for its gripper).
#
# Guess: forward kinematics of a URDF with revolute, prismatic and continuous joints, with and without
# <axis>, are those of yourdfpy and of products of matrices, to 1e-6.
# Seen: with <axis> they are. Without it a joint at 0.5 rad is 40 degrees off, and a prismatic one moves
# along its z; no error, no warning. (MJCF's joints without an axis do turn about z.)
# yourdfpy, urchin, ikpy and pinocchio follow the specification.
# What to do: write <axis xyz="1 0 0"/> out.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  kinpy==0.6.1 yourdfpy==0.0.60 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import kinpy
import numpy as np
import yourdfpy
from scipy.spatial.transform import Rotation

VALUE, PLACE, TURN = 0.5, [0.1, 0.2, 0.3], [0.4, -0.5, 1.1]
ROBOT = """<robot name="robot"><link name="base"/><link name="arm"/>
<joint name="joint" type="{}"><parent link="base"/><child link="arm"/>
<origin xyz="0.1 0.2 0.3" rpy="0.4 -0.5 1.1"/>{}
<limit lower="-1" upper="1" effort="1" velocity="1"/></joint></robot>"""


def product(kind, axis):
    origin, motion = np.eye(4), np.eye(4)
    origin[:3, :3], origin[:3, 3] = Rotation.from_euler('xyz', TURN).as_matrix(), PLACE
    if kind == 'prismatic':
        motion[:3, 3] = VALUE * np.array(axis)
    else:
        motion[:3, :3] = Rotation.from_rotvec(VALUE * np.array(axis)).as_matrix()
    return origin @ motion


def by_kinpy(text):
    return kinpy.build_chain_from_urdf(text).forward_kinematics({'joint': VALUE})['arm'].matrix()


def by_yourdfpy(text):
    with open('robot.urdf', 'w', encoding='utf-8') as file:
        file.write(text)
    robot = yourdfpy.URDF.load('robot.urdf', load_meshes=False)
    robot.update_cfg({'joint': VALUE})
    return robot.get_transform('arm', 'base')


as_seen = True
for kind in 'revolute', 'continuous', 'prismatic':
    for given, axis in (('<axis xyz="0 0.6 0.8"/>', (0, 0.6, 0.8)), ('<axis xyz="1 0 0"/>', (1, 0, 0)),
                        ('', (1, 0, 0))):
        text = ROBOT.format(kind, given)
        off = [np.abs(solver(text) - product(kind, axis)).max() for solver in (by_yourdfpy, by_kinpy)]
        about_z = np.abs(by_kinpy(text) - product(kind, (0, 0, 1))).max()
        print(f'{kind}, {given or "no axis"}: off by {off[0]:.1e} (yourdfpy), {off[1]:.1e} (kinpy), kinpy '
              f'from z {about_z:.1e}')
        as_seen &= bool(off[0] < 1e-6 and (off[1] < 1e-6 if given else off[1] > 0.1 > 1e-6 > about_z))
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
