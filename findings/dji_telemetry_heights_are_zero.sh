#!/usr/bin/env bash
# dji-telemetry 1.0.1 (reads the .SRT beside DJI's videos, PyPI): the height above the sea is always 0, and the height above the
# start is 0 wherever the drone is below it.
#
# Today's files have both in one bracket, [rel_alt: -1.200 abs_alt: 543.800]. A drone that flies off a hill, a roof or
# a cliff writes negative rel_alt, and one that has landed often -0.1.
#
# Guess: rel_alt and abs_alt are those of the file, <ele> of the exported GPX is one of them, and the vertical speed of a drone
# that sinks at 1 m/s is -1 m/s throughout.
# Seen: abs_alt is 0 in each frame and in the CSV, and so is each <ele>: the whole flight is at sea level. rel_alt is right above
# the start, 0 below it, and the vertical speed there is 0. Coordinates with signs, times and the camera's values of the
# same lines are right. Nothing is said.
# What to do: match "rel_alt: (-?[0-9.]+) abs_alt: (-?[0-9.]+)" yourself.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dji-telemetry==1.0.1 opencv-python==5.0.0.93 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import csv
import re

from dji_telemetry import export, parse_srt

HEIGHTS = [round(10.05 - 0.1 * step, 2) for step in range(201)]
with open('flight.SRT', 'w') as stream:
    for step, height in enumerate(HEIGHTS):
        tenths = [f'00:00:{tenth // 10:02d},{tenth % 10}00' for tenth in (step, step + 1)]
        stream.write(f'{step + 1}\n{tenths[0]} --> {tenths[1]}\n<font size="28">FrameCnt: {step + 1}, DiffTime: 100ms\n'
                     f'2026-11-20 10:00:{step // 10:02d}.{step % 10}00\n[iso: 100] [shutter: 1/500.0] [fnum: 1.7] [ev: 0] '
                     f'[color_md: default] [focal_len: 24.00] [latitude: -33.850000] [longitude: -70.600000] '
                     f'[rel_alt: {height:.3f} abs_alt: {545 + height:.3f}] [ct: 5500] </font>\n\n')
flight = parse_srt('flight.SRT')
export(flight, 'flight.csv')
export(flight, 'flight.gpx')
with open('flight.csv', newline='') as stream:
    rows = list(csv.DictReader(stream))
with open('flight.gpx') as stream:
    elevations = [float(text) for text in re.findall('<ele>(.*?)</ele>', stream.read())]
as_seen = len(flight.frames) == len(rows) == len(elevations) == len(HEIGHTS)
for step, (frame, row, elevation, height) in enumerate(zip(flight.frames, rows, elevations, HEIGHTS, strict=True)):
    if step % 40 == 20:
        print(f'rel_alt {height}, abs_alt {545 + height} come as {frame.rel_alt} and {frame.abs_alt}, {frame.v_speed:+.2f} m/s; '
              f'CSV {row["rel_altitude_m"]} and {row["abs_altitude_m"]}; GPX {elevation}')
        as_seen &= abs(height) < 1 or abs(frame.v_speed + (height > 0)) < 0.01
    as_seen &= abs(frame.rel_alt - max(height, 0)) < 1e-6 and frame.abs_alt == float(row['abs_altitude_m']) == 0
    as_seen &= abs(float(row['rel_altitude_m']) - max(height, 0)) < 1e-6 and elevation == 0
    as_seen &= frame.latitude == -33.85 and frame.longitude == -70.6 and frame.iso == 100
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
