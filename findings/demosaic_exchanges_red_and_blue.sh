#!/usr/bin/env bash
# demosaic 1.1.3 (colour and polarisation cameras, PyPI): of RGGB and GBRG sensors red and blue are exchanged by its own methods,
# and right by its method 'cv'.
#
# The name of a Bayer pattern gives the colours of the first two rows: RGGB has red at the top left, BGGR blue. RGGB2RGB
# asks for red, green, blue.
#
# Guess: a flat mosaic of red 50, green 120, blue 200 gives (50, 120, 200) in every pixel inside, for each pattern and method.
# Seen: BGGR and GRBG do. RGGB and GBRG give (200, 120, 50) by 'none', 'bilinear' and 'malvar', the default; 'cv' gives
# (50, 120, 200). get_red_mask of RGGB2RGB and of BGGR2RGB is one mask. Nothing is said, and a change of method for speed
# changes the colours of half the sensors.
# What to do: the method 'cv', or take the constants ...2BGR for RGGB and GBRG.
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
from demosaic import bayer, colour

WANTED = {'R': 50, 'G': 120, 'B': 200}
RIGHT, EXCHANGED = [50, 120, 200], [200, 120, 50]
as_seen = True
for pattern in ('RGGB', 'BGGR', 'GRBG', 'GBRG'):
    mosaic = np.zeros((32, 40), np.uint8)
    for place, name in enumerate(pattern):
        mosaic[place // 2::2, place % 2::2] = WANTED[name]
    found = {}
    for method in ('none', 'bilinear', 'malvar', 'cv'):
        image = np.asarray(bayer.demosaic(mosaic, method=method, colour=getattr(colour, f'{pattern}2RGB'), blur_kernel=1))
        inside = image[4:-4, 4:-4].reshape(-1, 3)
        as_seen &= bool((inside == inside[0]).all())
        found[method] = inside[0].tolist()
    print(pattern, found)
    own = EXCHANGED if pattern in ('RGGB', 'GBRG') else RIGHT
    as_seen &= found == {'none': own, 'bilinear': own, 'malvar': own, 'cv': RIGHT}
red = [bayer.get_red_mask((4, 4), getattr(colour, f'{pattern}2RGB'), False) for pattern in ('RGGB', 'BGGR')]
print('red masks of RGGB and BGGR are the same:', bool((red[0] == red[1]).all()))
raise SystemExit(not (as_seen and (red[0] == red[1]).all()))
PYTHON
venv/bin/python probe.py
