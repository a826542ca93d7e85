#!/usr/bin/env bash
# pygeodetics 1.2.0 (geodesy, PyPI): of a polygon around a pole it gives the area from there to the equator, and a centroid
# halfway to it.
#
# Its README: true geodesic-polygon area for continental-scale polygons, which matches GeographicLib to about 1 ppm; the source
# speaks of polygons that cross the antimeridian or wrap several times.
#
# Guess: polygon_area(geodesic=True) is GeographicLib's to 10 ppm, also over the antimeridian and around a pole; the centroid of
# a ring around a pole is near that pole.
# Seen: it is for polygons beside the poles, the antimeridian included. For the four corners at 80 N (0, 90, 180, 90 W) the area
# is 253 million km² for 2.5, for twelve corners at 70 N 16 times the truth, for four at 75 S 44 times: it and the truth add up
# to half the earth. The centroids of these rings are at 41 N, 39 N and 40 S. Perimeters are right. Without geodesic=True it is
# the same.
# What to do: GeographicLib's Polygon.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pygeodetics==1.2.0 geographiclib==2.1 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
from geographiclib.geodesic import Geodesic
from pygeodetics import polygon_area, polygon_centroid, polygon_perimeter

HALF_THE_EARTH = 255_032_810_857_000.0
RINGS = (('Norway', [60, 60, 61, 61], [10, 12, 12, 10], False),
         ('antimeridian', [-17, -17, -16, -16], [179, -179, -179, 179], False),
         ('Andes', [-40, -40, -38, -38], [-70, -65, -65, -70], False),
         ('north pole', [80] * 4, [0, 90, 180, -90], True),
         ('north pole, 12 corners', [70] * 12, list(range(-180, 180, 30)), True),
         ('south pole', [-75] * 4, [0, -90, 180, 90], True))
as_seen = True
for name, latitudes, longitudes, around in RINGS:
    ring = Geodesic.WGS84.Polygon()
    for latitude, longitude in zip(latitudes, longitudes):
        ring.AddPoint(latitude, longitude)
    _, perimeter, area = ring.Compute()
    area = abs(area)
    got, plain = (abs(polygon_area(latitudes, longitudes, geodesic=geodesic)) for geodesic in (True, False))
    centroid = polygon_centroid(latitudes, longitudes)
    print(f'{name}: {got / 1e12:.4f} million km² (plain {plain / 1e12:.4f}) for {area / 1e12:.4f}, ratio {got / area:.6f};',
          f'sum {(got + area) / HALF_THE_EARTH:.6f} of half the earth; centroid {centroid[0]:.2f}, {centroid[1]:.2f}')
    as_seen &= abs(polygon_perimeter(latitudes, longitudes) / perimeter - 1) < 1e-6
    if around:
        as_seen &= got > 10 * area and plain > 10 * area and abs((got + area) / HALF_THE_EARTH - 1) < 1e-3
        as_seen &= abs(centroid[0]) < abs(latitudes[0]) - 25
    else:
        as_seen &= abs(got / area - 1) < 1e-5
        as_seen &= min(latitudes) < centroid[0] < max(latitudes)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
