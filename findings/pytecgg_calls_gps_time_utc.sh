#!/usr/bin/env bash
# pytecgg 1.4.0 and pygnss-tec 0.4.2 (RINEX and electron content, PyPI): both give the epochs of one RINEX file with the time
# zone UTC, 18 seconds apart.
#
# RINEX 3: the epochs are in the time system that TIME OF FIRST OBS names; GPS time is 18 s ahead of UTC since 2017.
#
# Guess: the epoch 2026-11-20 00:00:00 GPS comes as 2026-11-19 23:59:42 UTC, or without a time zone.
# Seen: pygnss-tec: 23:59:42 UTC (or GPS time on demand, utc=False). pytecgg: 00:00:00 UTC, in the column's type, by which
# anything that compares or joins aware times (a camera's, a log's, pygnss-tec's) is 18 s off: 70 km of a satellite's way,
# 250 m of a car's at 50 km/h. Its own satellite positions take the label back as GPS time and are not touched.
# What to do: epoch.dt.replace_time_zone(None), and 18 s off for UTC.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pytecgg==1.4.0 pygnss-tec==0.4.2 polars==2.1.0 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
from datetime import datetime, timedelta, timezone

import gnss_tec
from pytecgg.parsing import read_rinex_obs

FILE = 'SITE00XXX_R_20263240000_01H_30S_MO.rnx'
HEADER = [
    ('     3.04           OBSERVATION DATA    M', 'RINEX VERSION / TYPE'),
    ('made                test                20261120 000000 UTC', 'PGM / RUN BY / DATE'),
    ('SITE', 'MARKER NAME'), ('1', 'MARKER NUMBER'), ('someone             somewhere', 'OBSERVER / AGENCY'),
    ('1                   RECEIVER            1', 'REC # / TYPE / VERS'),
    ('1                   ANTENNA         NONE', 'ANT # / TYPE'),
    ('  3513649.6320   778954.9500  5248202.3170', 'APPROX POSITION XYZ'),
    ('        0.0000        0.0000        0.0000', 'ANTENNA: DELTA H/E/N'),
    ('G    4 C1C L1C C2W L2W', 'SYS / # / OBS TYPES'), ('    30.000', 'INTERVAL'),
    ('  2026    11    20     0     0    0.0000000     GPS', 'TIME OF FIRST OBS'), ('', 'END OF HEADER')]
values = ''.join(f'{value:14.3f}  ' for value in (20000000.125, 105100000.5, 20000001.5, 81900000.25))
with open(FILE, 'w') as stream:
    stream.writelines(f'{text:<60}{label}\n' for text, label in HEADER)
    for second in (0, 30):
        stream.write(f'> 2026 11 20  0  0 {second:2d}.0000000  0  1\nG07{values}\n')

first = datetime(2026, 11, 20, tzinfo=timezone.utc)
one = read_rinex_obs(FILE)[0]['epoch'].unique().sort()
other = gnss_tec.read_rinex_obs(FILE)[1].collect()['time'].unique().sort()
print('pytecgg:', one.dtype, *one.to_list(), '\npygnss-tec:', other.dtype, *other.to_list())
as_seen = one.to_list() == [first, first + timedelta(seconds=30)] and one.dtype.time_zone == other.dtype.time_zone == 'UTC'
as_seen &= other.to_list() == [first - timedelta(seconds=18), first + timedelta(seconds=12)]
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
