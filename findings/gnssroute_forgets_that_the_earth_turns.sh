#!/usr/bin/env bash
# gnssroute 0.1.1 (routes of survey drones from RINEX and DJI's MRK files, PyPI): single point positions are 12 to 36 m too
# far east, and waypoints south of the equator, west of Greenwich or below the ellipsoid are not read.
#
# A satellite's place at transmission has to be turned by the Earth's rotation during the 0.07 s to the receiver
# (IS-GPS-200, 20.3.3.4.3.4). An observation in RINEX is F14.3, a digit for loss of lock and one for strength, or blanks.
#
# Guess: solve_spp() of exact pseudoranges, without any delay in the air, gives the place of the receiver to a
# decimetre; read_mrk() gives the waypoint of each line, read_obs() the pseudoranges of a RINEX 3.05 file.
# Seen: positions are 12 m off in Tromsoe, 32 in Shenzhen, 36 in Quito, nearly all of it to the east; for an Earth that
# stands still they are right to 0.2 m. Of an MRK file with a line for each of five places only the two with three
# positive numbers are read, so a flight in America or Australia is not corrected by its waypoints at all. A range with a
# strength digit behind a blank is left out, and both digits are taken for decimals of it. Nothing is raised.
# What to do: RTKLIB for positions and ranges; read the MRK file by its commas.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check gnssroute==0.1.1 numpy==2.4.6 pymap3d==3.2.0
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
import pymap3d
from gnssroute.common.types import EpochObs, SatObs
from gnssroute.io.mrk import read_mrk
from gnssroute.io.rinex_obs import read_obs
from gnssroute.positioning.satellite import EphemerisProvider, SatEphemeris
from gnssroute.positioning.spp import solve_spp

LIGHT, TURN = 299_792_458.0, 7.2921151467e-5  # m/s, rad/s
PLACES = {'Tromsoe': (69.65, 18.96, 40.0), 'Shenzhen': (22.54, 113.95, 30.0), 'Quito': (-0.18, -78.47, 2900.0),
          'Sydney': (-33.87, 151.21, 60.0), 'Male': (4.18, 73.51, -90.0)}
SATELLITES = {f'G{6 * plane + slot + 1:02d}': SatEphemeris(
    prn=f'G{6 * plane + slot + 1:02d}', sqrtA=5153.7, e=0.005, i0=0.96, OMEGA0=plane * np.pi / 3, omega=0.4, toe=345600.0,
    M0=slot * np.pi / 3 + plane * 0.35, af0=1e-4 * (slot - 2), toc=345600.0) for plane in range(6) for slot in range(6)}
TIME = 345700.0  # seconds of the week


def turned(place, seconds):
    """Return an earth-fixed place in the axes of the Earth some seconds later."""
    cosine, sine = np.cos(TURN * seconds), np.sin(TURN * seconds)
    x, y, z = place
    return np.array([cosine * x + sine * y, cosine * y - sine * x, z])


def pseudorange(satellite, receiver, rotation=True):
    """Return the pseudorange of a satellite by IS-GPS-200 in metres."""
    travel = 0.07
    for _ in range(10):
        sent = TIME - travel
        place, _ = satellite.position(sent)
        place = turned(place, travel) if rotation else np.array(place)
        travel = np.linalg.norm(place - receiver) / LIGHT
    return travel * LIGHT - LIGHT * satellite.af0 + 150.0  # 150 m of the receiver's clock


def solve(name, rotation=True):
    """Return the number of satellites and the errors to east, north and up in metres."""
    receiver = np.array(pymap3d.geodetic2ecef(*PLACES[name]))
    seen = []
    for number, satellite in SATELLITES.items():
        _, elevation, _ = pymap3d.ecef2aer(*satellite.position(TIME)[0], *PLACES[name])
        if elevation > 12:
            seen.append(SatObs(prn=number, pseudorange=pseudorange(satellite, receiver, rotation)))
    point = solve_spp([EpochObs(t=TIME, week=2400, obs=seen)], EphemerisProvider(SATELLITES)).points[0]
    return len(seen), np.array(pymap3d.geodetic2enu(point.lat, point.lon, point.height, *PLACES[name]))


as_seen = True
for name in PLACES:
    number, error = solve(name)
    still = solve(name, rotation=False)[1]
    print(f'{name}: {number} satellites, {np.round(error, 1)} m to east, north and up; on an Earth that stands still '
          f'{np.round(still, 2)}')
    as_seen &= 10 < error[0] < 40 and abs(error[1]) < 5 and np.abs(still).max() < 0.2
with open('flight.MRK', 'w') as file:
    for index, (latitude, longitude, height) in enumerate(PLACES.values(), 1):
        file.write(f'{index}\t{TIME + index:.6f}\t[2400]\t   12,N\t   -3,E\t   195,V\t'
                   f'{latitude:.8f},Lat\t{longitude:.8f},Lon\t{height:.3f},Ellh\t0.012, 0.011, 0.030\t50,Q\n')
waypoints = [(point.lat, point.lon, point.height) for point in read_mrk('flight.MRK')]
print('waypoints of', len(PLACES), 'lines:', waypoints)
as_seen &= waypoints == [PLACES['Tromsoe'], PLACES['Shenzhen']]
header = [('     3.05           OBSERVATION DATA    M', 'RINEX VERSION / TYPE'),
          ('G    3 C1C L1C S1C', 'SYS / # / OBS TYPES'), ('', 'END OF HEADER')]
with open('flight.obs', 'w') as file:
    for text, label in header:
        file.write(f'{text:<60}{label}\n')
    file.write('> 2026 01 08 00 01 40.0000000  0  4\n')
    for number, digits in (('G01', '  '), ('G02', ' 7'), ('G03', '17'), ('G04', ' 9')):
        file.write(f'{number}{21_000_123.456:14.3f}{digits}{110_000_000.123:14.3f}{digits}{45.0:14.3f}  \n')
ranges = {each.prn: each.pseudorange for epoch in read_obs('flight.obs') for each in epoch.obs}
print('ranges of G01 to G04:', ranges)
as_seen &= ranges == {'G01': 21_000_123.456, 'G03': 21_000_123.45617}
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
