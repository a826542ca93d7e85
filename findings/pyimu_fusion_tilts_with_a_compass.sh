#!/usr/bin/env bash
# uutzinger-pyimu 1.0.5 (attitude of inertial sensors, PyPI): with a magnetometer its Fusion filter ends at a wrong tilt and
# stays there, though the sensor lies still and accelerometer and compass agree.
#
# Roll and pitch of a sensor at rest are what the accelerometer says; a compass adds the heading.
#
# Guess: from noise-free samples of a still sensor (no turn rate, 1 g, a field of 60 degrees dip) both filters end within half a
# degree of the attitude, for any tilt and heading.
# Seen: Fusion without a compass has the tilt to 0.01 degrees, Madgwick of the same package with the compass the attitude to
# 0.2. Fusion with the compass is right where the sensor is level; rolled by 30 degrees it has a pitch of 18 degrees, rolled by 10,
# pitched by 5 and turned by 45 it has 3.6 and -1.4. After two minutes it is hardly elsewhere than after one.
# What to do: Fusion without the magnetometer, or Madgwick with it.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check uutzinger-pyimu==1.0.5 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
from pyIMU.fusion import Fusion
from pyIMU.madgwick import Madgwick
from pyIMU.quaternion import Vector3D
from scipy.spatial.transform import Rotation

STEP, FIELD = 0.01, np.array([np.cos(np.radians(60)), 0, np.sin(np.radians(60))])


def settle(filter_, true, compass, steps):
    """Run a filter on a still sensor; give its error in degrees, that of its tilt and its roll, pitch and yaw."""
    down, north = true.inv().apply([0, 0, 1]), true.inv().apply(FIELD)
    samples = {'gyr': Vector3D(0, 0, 0), 'acc': Vector3D(*down), 'dt': STEP}
    if compass:
        samples['mag'] = Vector3D(*north)
    for _ in range(steps):
        got = filter_.update(**samples)
    got = Rotation.from_quat([got.x, got.y, got.z, got.w])
    tilt = np.degrees(np.arccos(np.clip(got.inv().apply([0, 0, 1]) @ down, -1, 1)))
    return np.degrees((got.inv() * true).magnitude()), tilt, got.as_euler('ZYX', degrees=True)[::-1]


def fusion():
    return Fusion(k_init=10.0, k_normal=0.5, convention='NED')


as_seen = True
for angles, wrong in (((0, 0, 0), 0), ((30, 0, 0), 18.44), ((10, 5, 45), 9.0), ((20, -30, 120), 13.0)):
    true = Rotation.from_euler('ZYX', angles[::-1], degrees=True)
    alone = settle(fusion(), true, compass=False, steps=6000)[1]
    madgwick = settle(Madgwick(dt=STEP, gain=0.1, convention='NED'), true, compass=True, steps=6000)[0]
    first = settle(fusion(), true, compass=True, steps=6000)[0]
    error, tilt, got = settle(fusion(), true, compass=True, steps=12000)
    print(f'roll, pitch, yaw {angles}: Fusion alone, tilt off by {alone:.2f}; Madgwick with the compass off by {madgwick:.2f};',
          f'Fusion with it off by {first:.2f} after a minute, {error:.2f} after two (tilt {tilt:.2f}):', got.round(1).tolist())
    as_seen &= alone < 0.01 and madgwick < 0.2 and abs(first - wrong) < 2 and abs(error - wrong) < 0.2
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
