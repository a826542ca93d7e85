#!/usr/bin/env bash
# attipy 0.0.18 (0.0.7 for Python 3.11; attitude from an IMU): a filter turns the attitude that it was started from, and so
# the next filter that starts from it begins where the last one ended.
#
# MEKF(rate, start), AHRS in 0.0.7, takes an Attitude, as in the README, or a quaternion.
#
# Guess: a run over the same samples from the same start gives the same attitude each time, and two filters side by
# side, as to compare their settings, know nothing of each other.
# Seen: a level sensor that turns by 90 degrees is at 90 degrees after the first run, 180 after the second, 270 after
# the third; `start` itself is turned each time, and so is an array of a quaternion that was given in its place. Two
# filters fed in turn both say 180 degrees. From a list of the four numbers each run says 90. Nothing is raised: the
# filter keeps what it was given and changes it in place (only its property `attitude` is documented as no copy).
# What to do: give it start.as_quaternion().tolist().
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 \
  "attipy==0.0.18; python_version >= '3.12'" "attipy==0.0.7; python_version < '3.12'"
cd "$folder"
cat >probe.py <<'PYTHON'
import attipy
import numpy as np

RATE, SAMPLES, TURN = 100, 1000, 9  # Hz, samples, degrees per second
force = np.array([0, 0, -9.80665])  # level, in north-east-down
rate = np.radians([0, 0, TURN])


def yaw(attitude):
    return round(float(np.degrees(attitude.as_euler()[2]) % 360), 2)


def new_filter(start, **settings):
    kind = attipy.MEKF if hasattr(attipy, 'MEKF') else attipy.AHRS
    return kind(RATE, start, **settings)


def feed(known):
    if hasattr(attipy, 'MEKF'):
        known.update(force / RATE, rate / RATE)
    else:
        known.update(force, rate)


def run(start):
    known = new_filter(start)
    for _ in range(SAMPLES):
        feed(known)
    return yaw(known.attitude)


start = attipy.Attitude.from_euler([0.0, 0.0, 0.0])
again = [(run(start), yaw(start)) for _ in range(3)]
print('three runs from one Attitude, each with the start after it:', again)
numbers = np.array([1.0, 0.0, 0.0, 0.0])
from_array = [run(numbers) for _ in range(3)]
print('three runs from an array:', from_array, 'which is now', numbers.round(3))
right = [run([1.0, 0.0, 0.0, 0.0]) for _ in range(3)]
print('three runs from a list:', right)
start = attipy.Attitude.from_euler([0.0, 0.0, 0.0])
one, other = (new_filter(start, gyro_noise_density=density) for density in (1e-4, 1e-2))
for _ in range(SAMPLES):
    feed(one)
    feed(other)
pair = yaw(one.attitude), yaw(other.attitude)
print('two side by side:', pair)
as_seen = np.allclose(right, 90, atol=0.3) and np.allclose(from_array, [90, 180, 270], atol=0.5)
as_seen &= np.allclose(again, [[90] * 2, [180] * 2, [270] * 2], atol=0.5) and np.allclose(pair, 180, atol=0.5)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
