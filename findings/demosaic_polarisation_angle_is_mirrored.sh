#!/usr/bin/env bash
# demosaic 1.1.3 (colour and polarisation cameras, PyPI): its angle of linear polarisation is 45 degrees less the angle.
#
# The angle is half the angle of (S1, S2): light through a polariser at 0 degrees has S = (1, 1, 0), at 45 degrees (1, 0, 1).
#
# Guess: angle() of the Stokes parameters of light at 0, 20, 45, 80 and 145 degrees is these, modulo 180; so it is from a
# mosaic, and degree() is what was put in.
# Seen: 45, 25, 0, 145 and 80 degrees: 45 - angle. It turns the other way than the polariser, so no constant offset mends it.
# The degree is right. The constants' names go by columns, not by rows as those of Bayer patterns do: with the layout of Sony's
# sensors (90 and 45 in the upper row, 135 and 0 in the lower) and MONO_090_045_135_000, 45 and 135 change places, S2 changes
# its sign, and 20 comes as 65: then 45 + angle.
# What to do: 0.5 * arctan2(S2, S1) of stokes(), with MONO_090_135_045_000 for Sony's layout.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check demosaic==1.1.3 numpy==2.4.6 opencv-python==5.0.0.93
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
from demosaic import colour, polarisation

SONY, DEGREE = ((90, 45), (135, 0)), 0.6


def read(mosaic, code):
    """Give the degree, the angle in degrees and the Stokes parameters of one pixel inside."""
    channels = polarisation.demosaic(mosaic, blur_kernel=1)
    parts = [np.asarray(call(channels, code))[2, 2] for call in (polarisation.degree, polarisation.angle, polarisation.stokes)]
    return float(parts[0]), float(np.degrees(parts[1])), parts[2]


as_seen = True
for degrees in (0, 20, 45, 80, 145):
    true = np.radians(degrees)
    stokes = np.tile([1.0, DEGREE * np.cos(2 * true), DEGREE * np.sin(2 * true)], (4, 4, 1))
    alone = float(np.degrees(np.asarray(polarisation.angle(stokes))[2, 2]))
    mosaic = np.zeros((8, 8))
    for row in (0, 1):
        for column in (0, 1):
            mosaic[row::2, column::2] = 0.5 * (1 + DEGREE * np.cos(2 * (np.radians(SONY[row][column]) - true)))
    degree, by_rows, seen = read(mosaic, colour.MONO_090_045_135_000)
    other_degree, by_columns, right = read(mosaic, colour.MONO_090_135_045_000)
    mended = float(np.degrees(0.5 * np.arctan2(right[2], right[1])))
    print(f'{degrees} degrees: of Stokes parameters {alone:.1f}; of a mosaic with the name by columns {by_columns:.1f}, by rows',
          f'{by_rows:.1f} (S2 {seen[2]:.3f} for {DEGREE * np.sin(2 * true):.3f}); degree {degree:.3f}; mended {mended % 180:.1f}')
    off = np.mod([alone - 45 + degrees, by_columns - 45 + degrees, by_rows - 45 - degrees, mended - degrees], 180)
    as_seen &= np.allclose(np.minimum(off, 180 - off), 0, atol=1e-3)
    as_seen &= np.allclose([degree, other_degree], DEGREE) and np.allclose(seen[2], -right[2])
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
