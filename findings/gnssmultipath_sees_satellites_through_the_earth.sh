#!/usr/bin/env bash
# gnssmultipath 2.2.0 (multipath of GNSS receivers, PyPI): satellites below the horizon get elevations of 270 to 360 degrees.
#
# Elevation is from -90 to 90 degrees; satellites are left out below a mask of 5 to 15 degrees.
#
# Guess: compute_azimut_elev of satellite and receiver in ECEF gives the direction that the satellite was placed in, to 0.001
# degrees, above the horizon and below it.
# Seen: azimuths are right, elevations of 0 to 90 as well. -1 comes as 359, -20 as 340, -60 as 300: above any mask, and
# the sine that a weight or a delay is made of is negative. compute_satellite_azimut_and_elevation_angle of the same
# module, documented with the same words, agrees above the horizon and gives NaN below it.
# What to do: (elevation + 180) % 360 - 180, or the other function.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check gnssmultipath==2.2.0 numpy==2.4.6 pymap3d==3.2.0
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
import pymap3d
from gnssmultipath.Geodetic_functions import compute_azimut_elev, compute_satellite_azimut_and_elevation_angle

as_seen, passed, below = True, 0, 0
for lat, lon in ((47, 8), (-33, 151), (10, -100), (-60, -170)):
    receiver = np.array(pymap3d.geodetic2ecef(lat, lon, 100))
    for elevation in (-60, -20, -1, 1, 20, 60):
        for azimuth in (1, 89, 135, 181, 271):
            satellite = np.array(pymap3d.aer2ecef(azimuth, elevation, 2.2e7, lat, lon, 100))
            got = [float(np.ravel(part)[0]) for part in compute_azimut_elev(*satellite, *receiver)]
            other = [float(part[0]) for part in compute_satellite_azimut_and_elevation_angle(*satellite[:, None], *receiver)]
            if (lat, azimuth) == (47, 89):
                print(f'azimuth {azimuth}, elevation {elevation}: {got[0]:.3f}, {got[1]:.3f};',
                      f'by the other function {other[0]:.3f}, {other[1]:.3f}')
            wanted = [azimuth, elevation if elevation > 0 else np.nan]
            as_seen &= np.allclose(got, [azimuth, elevation % 360], atol=1e-3)
            as_seen &= np.allclose(other, wanted, atol=1e-3, equal_nan=True)
            below += elevation < 0
            passed += elevation < 0 and got[1] > 15
print(f'{passed} of {below} satellites below the horizon pass a mask of 15 degrees')
raise SystemExit(not (as_seen and passed == below))
PYTHON
venv/bin/python -W ignore probe.py
