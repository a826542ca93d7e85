#!/usr/bin/env bash
# mjcf-urdf-simple-converter 0.7.3 (MuJoCo models to URDF, PyPI; with mujoco 4.0.0): hinges without
# a range come out as revolute joints from 0 to 0, and the `ref` of a hinge is lost.
#
# Its README: joint position, axis and limits are converted, of hinges. A hinge of MJCF without a
# range turns freely; URDF has `continuous` for that, and `revolute` is bound by its two limits.
# With `ref`, the pose in the file is that of the joint value `ref`; the range is of joint values.
#
# Guess: the URDF has MuJoCo's places of the links for the same joint values.
# Seen: the two of four hinges that have no range get lower 0 and upper 0: the wheel of a rover and
# a free elbow stand still for whoever keeps to the limits. The hinge with ref 20 and range -30 to
# 60 degrees gets these limits, but its zero is the pose of the file: for the same joint value its
# link is 20 degrees off. The joint with a range and no ref is right, as are all positions and axes.
# No message.
# What to do: make them `continuous` afterwards; subtract ref from values and limits.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  mjcf-urdf-simple-converter==0.7.3 mujoco==4.0.0 \
  numpy==2.4.6 numpy-stl==4.1.1 scipy==1.17.1
cd "$folder"
cat >model.xml <<'XML'
<mujoco>
  <compiler angle="degree"/>
  <worldbody>
    <body name="base" pos="0.1 0.2 0.3" euler="10 20 30">
      <geom type="box" size="0.1 0.1 0.1"/>
      <body name="shoulder" pos="0.3 0 0.1" euler="40 -20 15">
        <joint name="ranged" axis="0 1 2" pos="0.05 0.02 -0.03" range="-90 45"/>
        <geom type="box" size="0.1 0.05 0.02"/>
        <body name="elbow" pos="0.3 0.1 0.1" quat="0.6 0.2 -0.5 0.3">
          <joint name="free" axis="1 0 0" pos="0 0 0.2"/>
          <geom type="box" size="0.02 0.05 0.1"/>
          <body name="hand" pos="0 0 0.2">
            <joint name="referred" axis="0 1 0" ref="20" range="-30 60"/>
            <geom type="box" size="0.03 0.05 0.01"/>
          </body>
        </body>
      </body>
      <body name="wheel" pos="0 0.2 -0.1">
        <joint name="rolling" axis="0 1 0"/>
        <geom type="cylinder" size="0.1 0.02"/>
      </body>
    </body>
  </worldbody>
</mujoco>
XML
cat >probe.py <<'PYTHON'
import xml.etree.ElementTree

import mujoco
import numpy as np
from mjcf_urdf_simple_converter import convert
from scipy.spatial.transform import Rotation

convert('model.xml', 'model.urdf')
model = mujoco.MjModel.from_xml_path('model.xml')
data = mujoco.MjData(model)
joints = {joint.find('child').get('link'): joint
          for joint in xml.etree.ElementTree.parse('model.urdf').getroot().findall('joint')}


def numbers(text):
    return np.array([float(part) for part in text.split()])


def place(link, values):
    """Rotation and translation of a link as URDF defines them."""
    if link not in joints:
        return Rotation.identity(), np.zeros(3)
    joint = joints[link]
    turn, shift = place(joint.find('parent').get('link'), values)
    origin = joint.find('origin')
    shift = shift + turn.apply(numbers(origin.get('xyz', '0 0 0')))
    turn = turn * Rotation.from_euler('xyz', numbers(origin.get('rpy', '0 0 0')))
    if joint.get('type') in ('revolute', 'continuous'):
        axis = numbers(joint.find('axis').get('xyz'))
        turn = turn * Rotation.from_rotvec(axis / np.linalg.norm(axis) * values[joint.get('name')])
    return turn, shift


def off(link, values):
    """Degrees and metres between URDF and MuJoCo, each turned with the same joint values."""
    for name, value in values.items():
        data.qpos[model.joint(name).qposadr[0]] = value
    mujoco.mj_forward(model, data)
    turn, shift = place(link, values)
    true = Rotation.from_matrix(data.body(link).xmat.reshape(3, 3))
    return np.degrees((turn.inv() * true).magnitude()), np.abs(data.body(link).xpos - shift).max()


limits = {}
for joint in joints.values():
    if joint.find('limit') is not None:
        name, limit = joint.get('name'), joint.find('limit')
        ends = np.degrees([float(limit.get(end)) for end in ('lower', 'upper')])
        limits[name] = joint.get('type'), *ends
        free = not model.jnt_limited[model.joint(name).id]
        print(f'{name}: in MuJoCo {"free" if free else np.degrees(model.joint(name).range)}, '
              f'in URDF {limits[name][0]} from {limits[name][1]:.1f} to {limits[name][2]:.1f}')
random = np.random.default_rng(0)
as_seen = True
for _ in range(3):
    values = dict(zip(('ranged', 'free', 'referred', 'rolling'), random.uniform(-0.5, 0.7, 4)))
    found = {link: off(link, values) for link in ('base', 'shoulder', 'elbow', 'wheel', 'hand')}
    print('off:', ', '.join(f'{link} {degrees:.3f} degrees, {metres:.6f} m'
                            for link, (degrees, metres) in found.items()))
    as_seen &= all(metres < 1e-6 for _, metres in found.values())
    as_seen &= all(found[link][0] < 1e-4 for link in found if link != 'hand')
    as_seen &= abs(found['hand'][0] - 20) < 1e-4
for name in ('free', 'rolling'):
    as_seen &= limits[name] == ('revolute', 0, 0) and not model.jnt_limited[model.joint(name).id]
as_seen &= np.allclose(limits['ranged'][1:], (-90, 45))
as_seen &= np.allclose(limits['referred'][1:], (-30, 60))
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
