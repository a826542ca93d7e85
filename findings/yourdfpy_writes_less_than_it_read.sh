#!/usr/bin/env bash
# yourdfpy 0.0.60 (robot descriptions, PyPI): what it writes has lost the soft limits, the calibration and the mimicry of
# the joints that it has read.
#
# Guess: write_xml_string(URDF.load(file)) describes the same robot: whatever the loaded model holds is in the text.
# Seen: links, origins, axes, limits, dynamics, inertia, shapes and materials are. safety_controller, calibration and mimic,
# which the loaded joints have, are not, nor are transmissions, which are not loaded. A gripper whose second finger mimics
# the first has two independent fingers after a round trip: the second stays where it is, 3 cm from the object; a
# controller finds no soft limits. Nothing is said, and the result is a valid URDF.
# What to do: change the XML itself (the file is small), or put the elements back after writing.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check yourdfpy==0.0.60 numpy==2.4.6
cd "$folder"
cat >gripper.urdf <<'XML'
<robot name="gripper">
  <link name="hand"><inertial><origin xyz="0.01 0 0.02" rpy="0 0 0.1"/><mass value="0.5"/>
    <inertia ixx="0.001" ixy="0" ixz="0" iyy="0.002" iyz="0" izz="0.003"/></inertial></link>
  <link name="left"/>
  <link name="right"/>
  <joint name="one" type="prismatic">
    <parent link="hand"/><child link="left"/><origin xyz="0 0.05 0.1"/><axis xyz="0 -1 0"/>
    <calibration rising="0.001"/><dynamics damping="0.7" friction="0.3"/>
    <limit lower="0" upper="0.04" effort="10" velocity="1"/>
    <safety_controller soft_lower_limit="0.002" soft_upper_limit="0.038" k_position="10" k_velocity="20"/>
  </joint>
  <joint name="other" type="prismatic">
    <parent link="hand"/><child link="right"/><origin xyz="0 -0.05 0.1"/><axis xyz="0 1 0"/>
    <limit lower="0" upper="0.04" effort="10" velocity="1"/><mimic joint="one" multiplier="1" offset="0"/>
  </joint>
  <transmission name="drive"><type>transmission_interface/SimpleTransmission</type>
    <joint name="one"><hardwareInterface>EffortJointInterface</hardwareInterface></joint>
    <actuator name="motor"><mechanicalReduction>50</mechanicalReduction></actuator></transmission>
</robot>
XML
cat >probe.py <<'PYTHON'
from pathlib import Path

import numpy as np
import yourdfpy


def load(source):
    return yourdfpy.URDF.load(source, load_meshes=False)


def fingers(robot):
    """Return where the fingers are in the hand after the first joint has been told to close by 3 cm, in metres."""
    robot.update_cfg({'one': np.float64(0.03)})
    return [round(float(robot.get_transform(finger, 'hand')[1, 3]), 6) for finger in ('left', 'right')]


robot = load('gripper.urdf')
text = robot.write_xml_string()
text = text.decode() if isinstance(text, bytes) else text
Path('again.urdf').write_text(text)
again = load('again.urdf')
read = {'safety_controller': robot.joint_map['one'].safety_controller, 'calibration': robot.joint_map['one'].calibration,
        'mimic': robot.joint_map['other'].mimic}
for name, value in read.items():
    print(f'{name}: read {bool(value)}, written {"<" + name in text}')
as_seen = all(read.values()) and not any('<' + name in text for name in (*read, 'transmission'))
as_seen &= all('<' + name in text for name in ('dynamics', 'limit', 'inertial', 'axis', 'origin'))
before, after = fingers(robot), fingers(again)
print(f'actuated {robot.actuated_joint_names} and {again.actuated_joint_names}; fingers at {before} and {after}')
as_seen &= before == [0.02, -0.02] and after == [0.02, -0.05]
as_seen &= robot.actuated_joint_names == ['one'] and again.actuated_joint_names == ['one', 'other']
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
