#!/usr/bin/env bash
# cssrlib 1.2.1 (precise positioning with GNSS, PyPI): pos2ecef(position, isdeg=True) leaves radians in the caller's position,
# so the second call with it is thousands of kilometres off.
#
# Guess: the position is only read: two calls give the same coordinates, and degrees as integers do as well as floats.
# Seen: the latitude and the longitude are converted in place. A station's position that is used twice is at (0.82, 0.14)
# degrees the second time, 5,000 km away, and near (0, 0) from then on. An array of integers has its degrees cut to
# 0 and 0 in the first call already: a place in the Gulf of Guinea. Nothing is said. With isdeg=False, and in ecef2pos,
# the input stays as it is.
# What to do: pos2ecef(np.r_[np.radians(position[:2]), position[2]]).
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check cssrlib==1.2.1 numpy==2.4.6 pyproj==3.7.2
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
import pyproj
from cssrlib.gnss import ecef2pos, pos2ecef

STATION = 47.0, 8.0, 400.0
exact = np.array(pyproj.Transformer.from_crs(4979, 4978).transform(*STATION))
position = np.array(STATION)
calls = [np.linalg.norm(pos2ecef(position, isdeg=True) - exact) for _ in range(3)]
whole = np.linalg.norm(pos2ecef(np.array(STATION, dtype=int), isdeg=True) - exact)
print(f'three calls with one array: {", ".join(f"{off:,.3f}" for off in calls)} m off; the array is {position.tolist()} now')
print(f'degrees as integers: {whole:,.3f} m off')
radians = np.r_[np.radians(STATION[:2]), STATION[2]]
kept, place = radians.copy(), exact.copy()
right = np.linalg.norm(pos2ecef(radians) - exact)
ecef2pos(place)
as_seen = calls[0] < 1e-3 and calls[1] > 5e6 and calls[2] > 5e6 and whole > 5e6 and right < 1e-3
as_seen &= np.allclose(position[:2], np.array(STATION[:2]) * np.radians(1) ** 3)
as_seen &= np.array_equal(radians, kept) and np.array_equal(place, exact)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
