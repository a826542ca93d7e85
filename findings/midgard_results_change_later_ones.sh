#!/usr/bin/env bash
# midgard 1.4.0 (geodesy, the Norwegian Mapping Authority): what is done with a result changes later results of the same
# input, and one's own array can no longer be written to.
#
# trs2llh() gives latitude and longitude in radians; the first thing that is done with them is to make degrees of them.
#
# Guess: the same place has the same latitude and longitude each time it is asked for.
# Seen: after `place = trs2llh(xyz); place[:2] = np.degrees(place[:2])` the next trs2llh() of an equal xyz, from anywhere
# in the program, gives degrees, and after a second time degrees of degrees, 3083 for 53.8. So too with llh2trs(), and
# with the rotations trs2enu() and enu2trs(): results are kept by input, and the kept array itself is handed out.
# The array that was given in is read-only from then on, and writing to it raises far from there.
# What to do: trs2llh(xyz.copy()).copy(), and so for the others.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check midgard==1.4.0 numpy==2.4.6 scipy==1.17.1 \
  colorama==0.4.6 pint==0.25 pandas==3.0.1 pycurl==7.45.6
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
from midgard.math import rotation
from midgard.math.transformation import llh2trs, trs2llh

NUMBERS = [3771793.968, 140253.342, 5124304.349]  # Norway, metres
as_seen = True
for turn in range(3):
    place = trs2llh(np.array(NUMBERS))
    print(f'call {turn}: latitude {place[0]:.4f}')
    as_seen &= bool(np.isclose(place[0], 0.9391511 * np.degrees(1) ** turn, rtol=1e-6))
    place[:2] = np.degrees(place[:2])

there = llh2trs(np.array([0.9, 0.1, 100]))
length = np.linalg.norm(there)
there -= there.copy()
print('llh2trs, length of the position: first', length.round(), 'then', np.linalg.norm(llh2trs(np.array([0.9, 0.1, 100]))))
as_seen &= length > 6e6 and np.linalg.norm(llh2trs(np.array([0.9, 0.1, 100]))) == 0

turn = rotation.trs2enu(0.9, 0.1)
right = abs(np.linalg.det(turn) - 1) < 1e-12
turn[0] *= -1
print('trs2enu, determinant: first 1, then', np.linalg.det(rotation.trs2enu(0.9, 0.1)).round(12))
as_seen &= bool(right and np.linalg.det(rotation.trs2enu(0.9, 0.1)) < 0)

mine = np.array([NUMBERS])
trs2llh(mine)
print('my array can be written to:', mine.flags.writeable)
as_seen &= not mine.flags.writeable
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
