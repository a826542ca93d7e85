#!/usr/bin/env bash
# fieldpilot-urdf 1.31.0 (kinematics of robots from URDF): a joint that mimics another does not move, and is an
# independent one after a file is read and written.
#
# Grippers have it: the second finger is <mimic joint="left" multiplier="1"/>.
#
# Guess: forward_kinematics(robot, {'left': 0.03}) closes both fingers, as in MuJoCo and yourdfpy; to_xml(from_file())
# is a robot with the same joints.
# Seen: the second finger stays where it is, at an offset as well; the fingers are 3 cm off their middle. With
# geometric_jacobian() it has a column of its own, so that inverse kinematics closes one finger without the
# other. The written file has no <mimic> any more, nor <dynamics>: MuJoCo 4.0.0 has one constraint for the first
# file, none for the second, and no damping. Nothing is raised or reported (run_all() has no finding).
# What to do: give each mimicking joint its value yourself; keep the original file.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fieldpilot-urdf==1.31.0 yourdfpy==0.0.60 mujoco==4.0.0 \
  numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >gripper.urdf <<'XML'
<robot name="gripper">
  <link name="palm"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <link name="one"><inertial><mass value="0.1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <link name="two"><inertial><mass value="0.1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <joint name="left" type="prismatic">
    <parent link="palm"/><child link="one"/><origin xyz="0 0.04 0.1"/><axis xyz="0 -1 0"/>
    <limit lower="0" upper="0.04" effort="10" velocity="1"/><dynamics damping="0.7" friction="0"/>
  </joint>
  <joint name="right" type="prismatic">
    <parent link="palm"/><child link="two"/><origin xyz="0 -0.04 0.1"/><axis xyz="0 1 0"/>
    <limit lower="0" upper="0.04" effort="10" velocity="1"/><mimic joint="left" multiplier="1" offset="0.001"/>
  </joint>
</robot>
XML
cat >probe.py <<'PYTHON'
import fieldpilot_urdf
import mujoco
import numpy as np
import yourdfpy

CLOSED = 0.03
robot = fieldpilot_urdf.from_file('gripper.urdf')
robot = robot[0] if isinstance(robot, tuple) else robot
print('findings of the validation:', len(fieldpilot_urdf.run_all(robot)))
places = fieldpilot_urdf.forward_kinematics(robot, {'left': CLOSED})
mine = [float(places[link][1, 3]) for link in ('one', 'two')]

other = yourdfpy.URDF.load('gripper.urdf')
other.update_cfg({'left': CLOSED})
theirs = [float(other.get_transform(link, 'palm')[1, 3]) for link in ('one', 'two')]
right = [0.04 - CLOSED, -0.04 + CLOSED + 0.001]
print('y of the fingers: right', np.round(right, 4), 'yourdfpy', np.round(theirs, 4), 'fieldpilot', np.round(mine, 4))
jacobian = fieldpilot_urdf.geometric_jacobian(robot, {'left': CLOSED}, 'two')
print('Jacobian of the second finger: joints', fieldpilot_urdf.jacobian_joints(robot, 'two'), 'dy', jacobian[1])

with open('written.urdf', 'w') as file:
    file.write(fieldpilot_urdf.to_xml(robot))
models = [mujoco.MjModel.from_xml_path(path) for path in ('gripper.urdf', 'written.urdf')]
counts = [(model.neq, model.dof_damping.tolist()) for model in models]
print('MuJoCo, constraints and damping, of the file and of the one written:', counts)
as_seen = np.allclose(theirs, right) and np.allclose(mine, [right[0], -0.04])
as_seen &= fieldpilot_urdf.jacobian_joints(robot, 'two') == ['right'] and not fieldpilot_urdf.run_all(robot)
as_seen &= counts == [(1, [0.7, 0.0]), (0, [0.0, 0.0])]
raise SystemExit(not as_seen)
PYTHON
venv/bin/python -W ignore probe.py
