#!/usr/bin/env bash
# pymap3d 3.2.0 (coordinates of the Earth): ecef2geodetic() is exact near the ground and off by tens of metres where
# satellites are.
#
# It turns x, y, z of the Earth's frame into latitude, longitude and height, in closed form; enu2geodetic, aer2geodetic and
# eci2geodetic go by it. Positions of GNSS satellites come as x, y, z.
#
# Guess: ecef2geodetic(geodetic2ecef(position)) is the position to a millimetre, from the ground to geostationary orbits.
# Seen: geodetic2ecef is exact, heights come back to 0.02 mm and longitudes to rounding, but latitudes (60 degrees) are off
# by 0.3 mm at the height of 400 km, 0.1 m at 2,000, 32 m at 20,000 (GPS) and 81 m at 36,000 km, whether
# numbers or arrays are given. Below 100 km they are exact. No limit is named.
# PROJ 9.5 (pyproj 3.7.2) is not exact there either, but off by 0.2 and 0.3 m.
# What to do: iterate, as iterated() below does; five rounds are exact at all heights.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  pymap3d==3.2.0 pyproj==3.7.2 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
import pymap3d
import pyproj

FLATTENING = 1 / 298.257223563
SQUARED = FLATTENING * (2 - FLATTENING)
AXIS = 6378137.0
LATITUDES = np.linspace(-90, 90, 181)
LONGITUDE = 10.0
RADIUS = 6371e3
# kilometres, and the range of the error in metres
HEIGHTS = {0: (0, 1e-6), 10: (0, 1e-6), 400: (1e-4, 1e-2), 2000: (0.03, 1), 20000: (10, 100), 36000: (30, 200)}
to_geodetic = pyproj.Transformer.from_crs(4978, 4979, always_xy=True)
to_earth = pyproj.Transformer.from_crs(4979, 4978, always_xy=True)


def iterated(x, y, z):
    """Return the latitude in degrees."""
    out = np.hypot(x, y)
    latitude = np.arctan2(z, out)
    for _ in range(5):
        sine = np.sin(latitude)
        latitude = np.arctan2(z + SQUARED * AXIS / np.sqrt(1 - SQUARED * sine ** 2) * sine, out)
    return np.degrees(latitude)


as_seen = True
for kilometres, (least, most) in HEIGHTS.items():
    height = np.full_like(LATITUDES, 1e3 * kilometres)
    places = np.stack(to_earth.transform(np.full_like(LATITUDES, LONGITUDE), LATITUDES, height))
    there = np.abs(np.stack(pymap3d.geodetic2ecef(LATITUDES, LONGITUDE, height)) - places).max()
    latitude, longitude, up = pymap3d.ecef2geodetic(*places)
    by_proj = to_geodetic.transform(*places)[1]
    metres = np.radians(1) * (RADIUS + height)
    off = np.abs(latitude - LATITUDES) * metres
    worst = int(off.argmax())
    single = abs(pymap3d.ecef2geodetic(*(float(each) for each in places[:, worst]))[0] - LATITUDES[worst])
    projs, rounds = ((np.abs(each - LATITUDES) * metres).max() for each in (by_proj, iterated(*places)))
    print(f'{kilometres:6} km: there {there:.0e} m off; back, latitude {off[worst]:.2g} m off (at '
          f'{LATITUDES[worst]:.0f} degrees), height {np.abs(up - height).max():.0e} m; PROJ {projs:.0e} m, '
          f'iterated {rounds:.0e} m')
    as_seen &= bool(there < 1e-6 and rounds < 1e-6 and np.abs(up - height).max() < 1e-4)
    as_seen &= bool(least <= off[worst] <= most and abs(single * metres[0] - off[worst]) < 1e-3)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
