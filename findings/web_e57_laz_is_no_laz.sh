#!/usr/bin/env bash
# web-e57 1.2.0 (npm): what convertE57(data, 'LAZ') returns is no LAZ file, but text.
#
# Guess: written to a file as in its README, the result is a LAZ file with the points of the scans in the frame of the E57 file
# and their colours, as its XYZ has them.
# Seen: XYZ and JSON are right, poses of the scans and colours included. "LAZ" returns a string of base64 that holds text,
# which is base64 again, piece by piece for each point: 32 bytes with the three coordinates as doubles and the colours. It
# has no header (LAS and LAZ start with "LASF"), and laspy refuses the file. Nothing is said.
# What to do: XYZ, or pye57 and laspy.
#
# Exit 0: it is so. Exit 1: it has changed. Needs Node.js.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pye57==0.4.19 laspy==2.7.0 numpy==2.4.6
cd "$folder"
npm install --silent --no-audit --no-fund web-e57@1.2.0
cat >convert.mjs <<'JAVASCRIPT'
import {readFileSync, writeFileSync} from 'node:fs';
import {convertE57} from 'web-e57';

const data = new Uint8Array(readFileSync('scans.e57'));
for (const format of ['XYZ', 'LAZ']) writeFileSync(`scans.${format.toLowerCase()}`, convertE57(data, format));
JAVASCRIPT
cat >probe.py <<'PYTHON'
import base64
import subprocess
from pathlib import Path

import laspy
import numpy as np
import pye57

file = pye57.E57('scans.e57', mode='w')
turns = np.array([1.0, 0, 0, 0]), np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])  # none and 90 degrees about z
shifts = np.zeros(3), np.array([100.0, 200, 300])
for turn, shift in zip(turns, shifts):
    steps = np.arange(5)
    file.write_scan_raw({'cartesianX': steps + 0.5, 'cartesianY': 2.0 * steps + 0.25, 'cartesianZ': -1.0 * steps,
                         'colorRed': 10 * steps, 'colorGreen': 20 * steps + 1, 'colorBlue': np.full(5, 255)},
                        rotation=turn, translation=shift)
file.close()
file = pye57.E57('scans.e57')
scans = [file.read_scan(index, ignore_missing_fields=True, colors=True) for index in range(2)]
exact = np.concatenate([np.stack([scan[f'cartesian{axis}'] for axis in 'XYZ'], axis=1) for scan in scans])
subprocess.run(['node', '--no-warnings', '--experimental-wasm-modules', 'convert.mjs'], check=True)
text = np.loadtxt('scans.xyz')
as_seen = np.allclose(text[:, :3], exact) and np.array_equal(text[:5, 3], 10 * np.arange(5))
laz = Path('scans.laz').read_bytes()
inner = base64.b64decode(laz, validate=True)
pieces = [base64.b64decode(piece + b'=') for piece in inner.split(b'=') if piece]
print(f'XYZ: {len(text)} points, right: {as_seen}; LAZ: starts with {laz[:12]}, decoded with {inner[:12]}, twice decoded '
      f'{len(pieces)} pieces of {sorted({len(piece) for piece in pieces})} bytes')
try:
    laspy.read('scans.laz')
    as_seen = False
except laspy.errors.LaspyException as error:
    print(f'laspy: {error}')
as_seen &= not laz.startswith(b'LASF') and not inner.startswith(b'LASF') and {len(piece) for piece in pieces} == {32}
as_seen &= np.allclose([np.frombuffer(piece, '<f8', 3) for piece in pieces], exact)
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
