#!/usr/bin/env bash
# transform-base 0.0.7 (rotations, UTM, ENU and TUM trajectories of vehicles, PyPI): away from the middle of a UTM zone, what it
# writes looks beside its own path. Positions are in the grid, orientations are counted from true north.
#
# Grid north is not true north: they differ by the meridian convergence, up to 3 degrees. A TUM file has one frame for both.
#
# Guess: a vehicle that looks where it drives does so in the file that geodetic_pose_to_utm_tum writes of it, and still does
# after convert_tum_utm_rows_to_enu_rows, as in the middle of the zone so at its edge.
# Seen: for a drive due north 2.9 degrees east of the middle the path turns by 1.1 degrees (22 N), 1.9 (40 N) or 2.5 (60 N)
# against the same drive in the middle; the quaternion is the same. Other way round, a UTM trajectory that looks along its path
# looks 1.1, 1.9 and 2.5 degrees beside it once it is ENU: x and y are turned, the quaternions are copied. Height is copied too:
# the first pose is (0, 0, 50).
# What to do: turn the orientations by the convergence (pyproj, Proj.get_factors), and take the first height off.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transform-base==0.0.7 numpy==2.4.6 scipy==1.17.1 pyproj==3.7.2
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
import transform_base
from pyproj import Proj
from scipy.spatial.transform import Rotation

ZONE, MIDDLE, HEIGHT = 50, 117.0, 50.0
grid = Proj(proj='utm', zone=ZONE, ellps='WGS84')


def beside(rows):
    """How far the x axis of the first pose of TUM rows is turned from the way to the last one, in degrees, left is positive."""
    numbers = np.array([[float(value) for value in row.split()] for row in rows])
    way = np.arctan2(*(numbers[-1, 1:3] - numbers[0, 1:3])[::-1])
    look = Rotation.from_quat(numbers[0, 4:]).apply([1, 0, 0])
    return np.degrees(np.angle(np.exp(1j * (np.arctan2(look[1], look[0]) - way))))


def north(latitude, longitude):
    """TUM rows that the package writes of a level vehicle which drives 2 km due north without a turn."""
    rows = []
    for step in range(3):
        pose = transform_base.geodetic_pose_to_utm_tum(lat=latitude + 0.009 * step, lon=longitude, height=HEIGHT, zone=ZONE,
                                                       geoid_undulation=0.0, roll_deg=0, pitch_deg=0, yaw_deg=0)
        rows.append(' '.join(map(str, (step, pose.easting, pose.northing, pose.up, *pose.quaternion_xyzw))))
    return rows


as_seen = True
for latitude, least in ((22.0, 1.0), (40.0, 1.8), (60.0, 2.4)):
    convergence = grid.get_factors(MIDDLE + 2.9, latitude).meridian_convergence
    written = [beside(north(latitude, longitude)) for longitude in (MIDDLE, MIDDLE + 2.9)]
    points = [grid(MIDDLE + 2.9, latitude + 0.009 * step) for step in range(3)]
    along = Rotation.from_euler('z', np.arctan2(points[2][1] - points[0][1], points[2][0] - points[0][0])).as_quat()
    utm = [' '.join(map(str, (step, *point, HEIGHT, *along))) for step, point in enumerate(points)]
    enu = transform_base.convert_tum_utm_rows_to_enu_rows(utm, utm_zone=ZONE)
    print(f'{latitude} N: written, view from path {written[0]:.2f} degrees in the middle, {written[1]:.2f} at the edge;',
          f'read, {beside(utm):.2f} in UTM and {beside(enu):.2f} in ENU; convergence {convergence:.2f}')
    print(f'  first row in ENU: {enu[0]}')
    parts = abs(written[1] - written[0]), abs(beside(enu))
    as_seen &= all(abs(part - convergence) < 0.05 and part > least for part in parts) and abs(beside(utm)) < 1e-6
    as_seen &= [float(value) for value in enu[0].split()[1:4]] == [0, 0, HEIGHT]
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
