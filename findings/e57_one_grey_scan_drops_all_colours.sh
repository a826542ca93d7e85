#!/usr/bin/env bash
# e57 0.2.3 (the Rust reader): one scan without colour and intensity takes them from all scans.
#
# Guess: read_points gives a row of colour and of intensity for each point, empty, zero or NaN where
# a scan of the file has none.
# Seen: with one coloured scan, or two, there is a row for each point. As soon as one scan of the
# file has coordinates only, colour and intensity are empty for all of them; the points are complete
# and nothing is said.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  e57==0.2.3 pye57==0.4.19 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import e57
import numpy as np
import pye57

COUNT = 10


def rows(*coloured):
    """Write a file with a scan for each flag; return the rows of points, colour, intensity."""
    name = ''.join(map(str, coloured)) + '.e57'
    file = pye57.E57(name, mode='w')
    for is_coloured in coloured:
        scan = {f'cartesian{axis}': np.linspace(0, 1, COUNT) for axis in 'XYZ'}
        if is_coloured:
            scan['intensity'] = np.linspace(0, 1, COUNT)
            scan |= {f'color{name}': np.arange(COUNT, dtype=np.uint8) * 20
                     for name in ('Red', 'Green', 'Blue')}
        file.write_scan_raw(scan)
    file.close()
    cloud = e57.read_points(name)
    return [len(np.asarray(values)) for values in (cloud.points, cloud.color, cloud.intensity)]


seen = {flags: rows(*flags) for flags in ((1,), (1, 1), (1, 0), (0, 1))}
for flags, counts in seen.items():
    print('scans with colour', flags, '-> rows of points, colour, intensity:', counts)
raise SystemExit(seen != {(1,): [10, 10, 10], (1, 1): [20, 20, 20],
                          (1, 0): [20, 0, 0], (0, 1): [20, 0, 0]})
PYTHON
venv/bin/python probe.py
