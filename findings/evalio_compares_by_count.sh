#!/usr/bin/env bash
# evalio 0.6.1 (evaluates LiDAR-inertial odometry): ate() and rte() compare poses by their count instead of their stamps if
# two trajectories begin alike and are equally long, and pair across holes of the ground truth.
#
# Guess: an exact copy of the truth has no error, whichever of its stamps either side has; poses are paired with the
# closest stamp.
# Seen: so mostly. But if both have the same number of poses and the same first pose, as for a robot that stands still at
# first, the stamps are not looked at: 60 s at 10 Hz against 30 s at 20 Hz are 20 m and 172 degrees off, with one
# pose more or less 0. One scan that the odometry dropped, with the truth cut by one at its end: 0.1 m from there on.
# And where a ground truth at 100 Hz has a hole of 5 s, each estimate within is compared with an end of the hole: 2.5 m
# at 1 m/s. Nothing is printed; the second is as a real error would be.
# What to do: pair by stamps before, with a largest difference, as evo's --t_max_diff does.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check evalio==0.6.1 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
from evalio import stats
from evalio import types as ty


def truth(time):
    """Still for 2 s, then 1 m/s along a circle with a radius of 10 m."""
    turn = 0.1 * max(0.0, time - 2)
    rotation = ty.SO3(qx=0, qy=0, qz=np.sin(turn / 2), qw=np.cos(turn / 2))
    return ty.SE3(rotation, 10 * np.array([np.sin(turn), 1 - np.cos(turn), 0]))


def trajectory(times):
    return ty.Trajectory(stamps=[ty.Stamp.from_sec(float(time)) for time in times], poses=[truth(time) for time in times])


def worst(name, estimate, reference):
    """Return the largest errors: absolute in metres and degrees, relative over 5 s in metres."""
    absolute = stats.ate(trajectory(estimate), trajectory(reference))
    relative = stats.rte(trajectory(estimate), trajectory(reference), stats.WindowSeconds(5))
    found = absolute.trans.max(), absolute.rot.max(), relative.trans.max()
    print(f'{name}: {len(estimate)} against {len(reference)} poses: {found[0]:.3f} m, {found[1]:.1f} degrees; '
          f'over 5 s {found[2]:.3f} m')
    return found


ten = np.arange(600) * 0.1
twenty = np.arange(600) * 0.05
hundred = np.arange(6000) * 0.01
right = [worst('10 Hz and 20 Hz, one pose more', ten, np.append(twenty, 30)),
         worst('one scan dropped, truth whole', np.delete(ten, 50), ten),
         worst('10 Hz and 100 Hz', ten, hundred)]
double = worst('10 Hz and 20 Hz', ten, twenty)
dropped = worst('one scan dropped, truth cut by one', np.delete(ten, 50), ten[:-1])
hole = worst('100 Hz with a hole of 5 s', ten, hundred[(hundred < 20) | (hundred > 25)])
as_seen = np.max(right) < 1e-9 and double[0] > 19 and double[1] > 170 and double[2] > 5
as_seen &= 0.09 < dropped[0] < 0.11 and 2.4 < hole[0] < 2.6 and hole[2] > 4
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
