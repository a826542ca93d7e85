#!/usr/bin/env bash
# pygeodesy 26.10.26 (geodesy in many methods, PyPI): EcefSudano.reverse() gives latitudes kilometres off on the ground, and
# places thousands of kilometres away in the south.
#
# It is one of its seven classes from ECEF coordinates to latitude, longitude and height, taken by name: EcefSudano().reverse
# or Ecef=EcefSudano.
#
# Guess: every one of the classes gives the place on the ground to a centimetre, as its own forward() has it.
# Seen: the others do. EcefSudano is 14 m off at 5 degrees of latitude, 2.9 km at 30, 8.8 km at 45, 18.6 km at 60 and 39 km
# at 85. South of 45 degrees it is thousands of kilometres off, heights included: Dunedin, at 45.9 degrees, is 2,800 km
# above the ground. A smaller tolerance does not help. The documentation promises an error where it does not converge; there
# is none.
# What to do: EcefKarney or EcefVeness.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pygeodesy==26.10.26
cd "$folder"
cat >probe.py <<'PYTHON'
from math import dist

from pygeodesy import Datums, ecef

HEIGHT, LONGITUDE = 100, 10  # metres, degrees
NAMES = 'EcefFarrell21', 'EcefFarrell22', 'EcefKarney', 'EcefSudano', 'EcefUPC', 'EcefVeness', 'EcefYou'


def off(latitude, name):
    """Return how far from the place its ECEF coordinates lead back, in metres, and what they lead back to."""
    forward = ecef.EcefKarney(Datums.WGS84).forward
    x, y, z = forward(latitude, LONGITUDE, HEIGHT)[:3]
    method = getattr(ecef, name)(Datums.WGS84)
    back = method.reverse(x, y, z, tol=1e-15) if name == 'EcefSudano' else method.reverse(x, y, z)
    return dist((x, y, z), forward(back.lat, back.lon, back.height)[:3]), back


as_seen = True
for latitude in (0, 5, 30, 45, 60, 85, -5, -30, -38, -45.9, -60, -85):
    errors = {name: off(latitude, name)[0] for name in NAMES}
    wrong, back = off(latitude, 'EcefSudano')
    others = max(error for name, error in errors.items() if name != 'EcefSudano')
    print(f'{latitude}: {wrong:,.1f} m off, to {back.lat:.4f} degrees and {back.height:,.0f} m; others {others:.1e} m')
    as_seen &= others < 0.01
    if latitude > -40:
        as_seen &= wrong < 0.01 if latitude == 0 else 10 < wrong < 50_000
    else:
        as_seen &= wrong > 1e6
as_seen &= 2000 < off(30, 'EcefSudano')[0] < 4000 and 8000 < off(45, 'EcefSudano')[0] < 10_000
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
