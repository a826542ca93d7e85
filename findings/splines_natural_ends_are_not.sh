#!/usr/bin/env bash
# splines 0.3.3: rotation splines with natural ends turn unevenly in their first and last segment.
#
# splines.quaternion.CatmullRom and KochanekBartels interpolate orientations, e.g. of a camera. For
# natural ends its documentation puts the second control quaternion of the first segment half-way between
# the first and the third one, which makes the angular acceleration at the end zero.
#
# Guess: orientations of a turn at constant speed are interpolated at constant speed, as positions on
# a straight line are by splines.CatmullRom.
# Seen: in the first and the last segment the turn runs ahead or behind by 7 per cent of the step: 2.1
# degrees with steps of 28.6. In between it is exact, and so are positions. The acceleration at the start
# of a turn at 1 step per second is -2 steps per second squared; with the third control quaternion as
# described it is 0. Taken instead of it is the fourth, which is the end of the segment.
# What to do: extrapolate one orientation beyond either end and leave the outer segments out.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  splines==0.3.3 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
import splines
from scipy.spatial.transform import Rotation
from splines.quaternion import CatmullRom, DeCasteljau, KochanekBartels, UnitQuaternion

STEP, COUNT = 0.5, 6  # rad, orientations


def quaternion(vector):
    return UnitQuaternion.from_unit_xyzw(Rotation.from_rotvec(vector).as_quat())


def rotation(spline, time):
    return Rotation.from_quat(spline.evaluate(time).xyzw)


def acceleration(spline, time=0, small=1e-3):
    """Return the angular acceleration at the start, in rad per second squared."""
    first, second, third = (rotation(spline, time + small * index) for index in range(3))
    return ((third * second.inv()).as_rotvec() - (second * first.inv()).as_rotvec()) / small ** 2


axis = np.array([1, 2, 2]) / 3
turn = [quaternion(STEP * index * axis) for index in range(COUNT)]
times = np.linspace(0, COUNT - 1, 101)
inner = (times >= 1) & (times <= COUNT - 2)
as_seen = True
for kind in CatmullRom, KochanekBartels:
    spline = kind(turn, endconditions='natural')
    off = np.array([(rotation(spline, time) * Rotation.from_rotvec(-STEP * time * axis)).magnitude()
                    for time in times])
    print(f'{kind.__name__}: constant turn, step {np.degrees(STEP):.1f} degrees: off by '
          f'{np.degrees(off[inner].max()):.1e} degrees inside, {np.degrees(off[~inner].max()):.2f} '
          'in the outer segments')
    as_seen &= bool(off[inner].max() < 1e-6 and off[~inner].max() > 0.05 * STEP)

line = splines.CatmullRom([STEP * index * axis for index in range(COUNT)], endconditions='natural')
straight = max(np.abs(line.evaluate(time) - STEP * time * axis).max() for time in times)
spline = CatmullRom(turn, endconditions='natural')
first, second, third, fourth = spline.segments[0]
described = DeCasteljau([[first, first.rotation_to(third) ** 0.5 * first, third, fourth]], [0, 1])
seen, wanted = (acceleration(each) @ axis / STEP for each in (spline, described))
print(f'positions on a line: off by {straight:.1e}; acceleration at the start, in steps: {seen:.3f}, '
      f'with the control quaternion as described {wanted:.3f}')
as_seen &= bool(straight < 1e-9 and abs(seen) > 0.5 and abs(wanted) < 0.02)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
