#!/usr/bin/env bash
# jaklas 0.4.4 (writes pandas frames as LAS, PyPI; with laspy 2.7.0): return numbers, numbers of returns, scan angles, user
# data, source ids and flags are written as zeros, though its README lists them as columns that it takes.
#
# The list there: gps_time, intensity, classification, red, green, blue, edge_of_flight_line, number_of_returns,
# point_source_id, return_number, scan_angle, scan_angle_rank, user_data, withheld and others.
#
# Guess: each column of that list comes back as it was from laspy and from jaklas itself, in the point format that jaklas
# chooses and in formats 3, 6 and 7.
# Seen: coordinates, intensity, classification, colours, time and columns of other names do; return_number, number_of_returns,
# scan angle, user_data, point_source_id and the flags are 0 for all points, in each format. Return number 0 is not valid in
# LAS. Columns of other names become extra bytes; these are taken out as standard ones and then left. No message.
# What to do: write with laspy; or give such columns another name, which makes them extra bytes.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  jaklas==0.4.4 laspy==2.7.0 lazrs==0.8.2 numpy==2.4.6 pandas==3.1.1 pyproj==3.7.2
cd "$folder"
cat >probe.py <<'PYTHON'
import jaklas
import laspy
import numpy as np
import pandas as pd

COUNT = 200
random = np.random.default_rng(0)
KEPT = {'x': 500000 + random.uniform(0, 100, COUNT), 'y': 5.3e6 + random.uniform(0, 100, COUNT),
        'z': random.uniform(-5, 5, COUNT), 'gps_time': 1e9 + random.uniform(0, 1, COUNT),
        'intensity': random.integers(1, 65536, COUNT).astype(np.uint16),
        'classification': random.integers(1, 20, COUNT).astype(np.uint8)}
COLOURS = {name: random.integers(1, 65536, COUNT).astype(np.uint16) for name in ('red', 'green', 'blue')}
LOST = {'return_number': random.integers(1, 4, COUNT).astype(np.uint8), 'number_of_returns': np.full(COUNT, 4, np.uint8),
        'user_data': random.integers(1, 256, COUNT).astype(np.uint8),
        'point_source_id': random.integers(1, 65536, COUNT).astype(np.uint16),
        'edge_of_flight_line': np.ones(COUNT, np.uint8), 'withheld': np.ones(COUNT, np.uint8)}
OWN = {'my_returns': LOST['return_number']}
as_seen = True
for wanted in (None, 3, 6, 7):
    angle = 'scan_angle' if wanted in (6, 7) else 'scan_angle_rank'
    columns = KEPT | LOST | OWN | {angle: np.full(COUNT, -15, np.int8 if angle.endswith('rank') else np.int16)}
    columns |= {} if wanted == 6 else COLOURS
    jaklas.write(pd.DataFrame(columns), 'cloud.las', point_format=wanted)
    cloud, own = laspy.read('cloud.las'), jaklas.read_pandas('cloud.las')
    chosen = cloud.header.point_format
    kept = {name: np.allclose(np.asarray(getattr(cloud, name), float), np.asarray(values, float), rtol=0, atol=1e-6)
            for name, values in columns.items()}
    zeros = [name for name in columns if not np.asarray(getattr(cloud, name)).any() and not np.asarray(own[name]).any()]
    print(f'format asked {wanted}, written {chosen.id}: kept {[name for name, right in kept.items() if right]}, zeros {zeros}')
    as_seen &= set(zeros) == set(LOST) | {angle} and set(zeros) <= set(chosen.dimension_names)
    as_seen &= {name for name, right in kept.items() if right} == set(columns) - set(zeros)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
