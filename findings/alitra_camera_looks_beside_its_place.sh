#!/usr/bin/env bash
# alitra 1.1.5 (alignment of robots' maps with those of plants, Equinor, PyPI; newer ones need Python 3.14 and were not tried): a
# pose that is transformed into another frame has the right position and a wrong orientation, unless all turns are about one axis.
#
# A sensor that is turned by R in frame a is turned by T R in frame b, if T turns a's vectors into b's.
#
# Guess: what is a metre ahead of a sensor in a, taken to b by transform_position, is a metre ahead of its transform_pose
# in b, for frames turned about the vertical and in space; and back again.
# Seen: it is for a level sensor. One that looks down by 30 degrees, with frames that are turned by 40 about the vertical, looks
# 8 degrees beside it and is 20 off in all; with frames 90 degrees apart 30 and 42; pitched by 30 and rolled by 20, with frames
# turned in space, 28 and 28. The orientation is R T: the turn of the frames is made about the sensor's axes.
# transform_orientation is the same, and so is the way back. Nothing is said.
# What to do: transform.rotation * orientation.to_rotation(), or two positions.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check alitra==1.1.5 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
from alitra import Frame, Orientation, Pose, Position, Transform, Translation
from scipy.spatial.transform import Rotation

A, B, PLACE, AHEAD = Frame('a'), Frame('b'), np.array([4.0, -2.0, 1.0]), np.array([1.0, 0, 0])


def angle(one, other):
    return float(np.degrees(np.arccos(np.clip(one @ other / np.linalg.norm(one) / np.linalg.norm(other), -1, 1))))


as_seen = True
for sensor, frames, level in (((70, 0, 0), (40, 0, 0), True), ((0, 30, 0), (40, 0, 0), False), ((0, 30, 0), (90, 0, 0), False),
                              ((70, 30, 20), (40, 10, -15), False)):
    turned = Rotation.from_euler('ZYX', sensor, degrees=True)
    transform = Transform.from_euler_array(Translation(x=10, y=5, z=1, from_=A, to_=B), np.radians(frames), A, B)
    pose = Pose(Position.from_array(PLACE, A), Orientation.from_rotation(turned, A), A)
    place, ahead = (transform.transform_position(Position.from_array(point, A), A, B).to_array()
                    for point in (PLACE, PLACE + turned.apply(AHEAD)))
    got = transform.transform_pose(pose, A, B)
    alone = transform.transform_orientation(pose.orientation, A, B)
    off = angle(ahead - place, got.orientation.to_rotation().apply(AHEAD))
    mended = (transform.rotation * turned).apply(AHEAD)
    swapped = (turned * transform.rotation).inv() * got.orientation.to_rotation()
    right = Orientation.from_rotation(transform.rotation * turned, B)
    back = np.degrees((transform.transform_orientation(right, B, A).to_rotation().inv() * turned).magnitude())
    whole = np.degrees(((transform.rotation * turned).inv() * got.orientation.to_rotation()).magnitude())
    print(f'sensor yaw, pitch, roll {sensor}, frames {frames}: position off by',
          f'{np.abs(got.position.to_array() - place).max():.1e} m, view by {off:.1f} degrees,',
          f'orientation by {whole:.1f}; back from b {back:.1f}')
    as_seen &= np.allclose(got.position.to_array(), place) and np.allclose(mended, ahead - place) and swapped.magnitude() < 1e-6
    as_seen &= np.allclose(got.orientation.to_quat_array(), alone.to_quat_array())
    as_seen &= (off < 1e-4 and back < 1e-4) if level else (off > 8 and whole > 20 and back > 20)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
