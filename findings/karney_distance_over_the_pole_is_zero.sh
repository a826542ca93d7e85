#!/usr/bin/env bash
# karney 1.1.1 and nvector 1.2.0, which is built on it (geodesy, PyPI): two places of the same latitude on opposite
# meridians are 0 m apart.
#
# karney implements the inverse problem of GeographicLib (Karney 2013) for arrays, to full double precision by its README.
#
# Guess: distances are GeographicLib's, also of near antipodes, along the equator and over a pole.
# Seen: they are for 2,000 random pairs, near antipodes among them, within 20 nm. But from 60 N 0 E to 60 N 180 E, over
# the pole, is 0 m in place of 6,696 km, and so for each whole latitude from 1 to 89; the azimuth points away from the
# pole. A longitude 1e-7 degrees less makes it right. nvector's distance_and_azimuth() says 0 too. The only sign is a warning
# of Python, shown once in a program, that some positions did not converge. On the sphere (f=0) it is right.
# What to do: geographiclib, or pyproj's Geod, for single pairs; or look for distances of exactly 0.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check karney==1.1.1 nvector==1.2.0 geographiclib==2.1 \
  numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import warnings

import numpy as np
import nvector
from geographiclib.geodesic import Geodesic
from karney.geodesic import distance

random = np.random.default_rng(0)
exact = Geodesic.WGS84.Inverse


def by_nvector(*places):
    frame = nvector.FrameE(name='WGS84')
    one, other = (frame.GeoPoint(*place, degrees=True) for place in (places[:2], places[2:]))
    return float(one.distance_and_azimuth(other, degrees=True)[0])


def difference(latitude, longitude, other_latitude, other_longitude):
    """Return the largest difference from GeographicLib's distances in metres."""
    found = distance(latitude, longitude, other_latitude, other_longitude, degrees=True)[0]
    right = [exact(*pair)['s12'] for pair in zip(latitude, longitude, other_latitude, other_longitude)]
    return np.abs(found - right).max()


latitude, longitude = random.uniform(-89, 89, 1000), random.uniform(-180, 180, 1000)
usual = difference(latitude, longitude, random.uniform(-89, 89, 1000), random.uniform(-180, 180, 1000))
antipodes = difference(latitude, longitude, -latitude + random.normal(0, 0.1, 1000),
                       longitude + 180 + random.normal(0, 0.3, 1000))
print(f'random pairs: within {usual:.1e} m, near antipodes: {antipodes:.1e} m of GeographicLib')

with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter('always')
    rows = [(float(distance(degrees, 0, degrees, 180, degrees=True)[0]), by_nvector(degrees, 0, degrees, 180),
             float(distance(degrees, 0, degrees, 180 - 1e-7, degrees=True)[0]),
             float(distance(degrees, 0, degrees, 180, a=6371e3, f=0, degrees=True)[0]),
             exact(degrees, 0, degrees, 180)['s12'], np.radians(180 - 2 * degrees) * 6371e3) for degrees in range(1, 90)]
for degrees in (10, 60, 80):
    mine, theirs, beside, sphere, right, _ = rows[degrees - 1]
    print(f'{degrees} N 0 E to {degrees} N 180 E: karney {mine:,.0f} m, nvector {theirs:,.0f}, GeographicLib {right:,.0f}; '
          f'karney, 1e-7 degrees less {beside:,.0f} m, on a sphere {sphere:,.0f}')
print('said:', sorted({str(each.message) for each in said}))
rows = np.array(rows).T
as_seen = usual < 1e-6 and antipodes < 1e-6 and (rows[:2] == 0).all() and (rows[4] > 2e5).all() and len(said) > 0
as_seen &= np.allclose(rows[2], rows[4], atol=0.1, rtol=0) and np.allclose(rows[3], rows[5], atol=0.1, rtol=0)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
