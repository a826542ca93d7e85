#!/usr/bin/env bash
# robot-kinematics 1.1.0 (forward and inverse kinematics, PyPI): the pose of a robot that is loaded from a URDF is the identity,
# whatever its joints are and whatever they do.
#
# Guess: forward_kinematics of load_urdf_robot is the URDF's: joint origins with roll, pitch and yaw, oblique axes, revolute,
# prismatic and fixed joints, at zero and elsewhere; for one joint, too.
# Seen: it is a position of (0, 0, 0) and no turn, for an arm with one joint, for two in the plane and for four with all kinds
# of joints. The joints are counted right, but the chain is empty: its links are looked up by their child, and the base is
# nobody's child. Its DH robots move. No message.
# What to do: another reader of URDF (yourdfpy, ikpy, Pinocchio).
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  robot-kinematics==1.1.0 pybullet==3.2.7 numpy==2.4.6 scipy==1.17.1 yourdfpy==0.0.60
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
import yourdfpy
from robot_kinematics.forward.dh_kinematics import create_ur5_kinematics
from robot_kinematics.forward.urdf_kinematics import load_urdf_robot

JOINT = ('<joint name="j{0}" type="{1}"><parent link="l{0}"/><child link="l{2}"/><origin xyz="{3}" rpy="{4}"/><axis xyz="{5}"/>'
         '<limit lower="-3" upper="3" effort="1" velocity="1"/></joint>')
ROBOTS = {'one joint': [('revolute', '0 0 0.5', '0 0 0', '0 0 1'), ('fixed', '1 0 0', '0 0 0', '0 0 1')],
          'two in the plane': [('revolute', '0 0 0', '0 0 0', '0 0 1'), ('revolute', '1 0 0', '0 0 0', '0 0 1'),
                               ('fixed', '0.5 0 0', '0 0 0', '0 0 1')],
          'all kinds': [('revolute', '0.1 0.2 0.3', '0.3 -0.4 0.5', '0 0 1'), ('fixed', '0 0.1 0.2', '0.1 0.2 0.3', '0 0 1'),
                        ('revolute', '0.3 0 0.1', '-0.2 0.6 0.1', '0.6 0.8 0'), ('prismatic', '0 0 0.5', '0 0.3 0', '0 0.6 0.8')]}
as_seen = True
for name, joints in ROBOTS.items():
    links = ''.join(f'<link name="l{index}"/>' for index in range(len(joints) + 1))
    with open('robot.urdf', 'w', encoding='ascii') as file:
        file.write(f'<?xml version="1.0"?><robot name="r">{links}' + ''.join(
            JOINT.format(index, joint[0], index + 1, *joint[1:]) for index, joint in enumerate(joints)) + '</robot>')
    robot, right = load_urdf_robot('robot.urdf'), yourdfpy.URDF.load('robot.urdf')
    moving = sum(joint[0] != 'fixed' for joint in joints)
    for values in (np.zeros(moving), np.array([0.7, -0.5, 0.4])[:moving]):
        right.update_cfg(values)
        wanted = right.get_transform(f'l{len(joints)}', 'l0')
        got = robot.forward_kinematics(np.resize(values, robot.n_joints)).matrix
        print(f'{name} at {values.tolist()}: position {got[:3, 3].tolist()} for {wanted[:3, 3].round(3).tolist()},',
              f'joints {robot.n_joints}, chain {len(robot.kinematic_chain)}')
        as_seen &= np.array_equal(got, np.eye(4)) and not np.allclose(wanted, np.eye(4)) and not robot.kinematic_chain
moved = [create_ur5_kinematics().forward_kinematics(np.full(6, value)).position for value in (0.0, 0.5)]
print('UR5 by DH moves from', moved[0].round(3).tolist(), 'to', moved[1].round(3).tolist())
as_seen &= not np.allclose(*moved)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
