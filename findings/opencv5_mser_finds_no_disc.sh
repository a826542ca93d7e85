#!/usr/bin/env bash
# OpenCV 5.0.0: MSER no longer finds the plainest region there is, a filled disc.
#
# cv2.MSER looks for regions that stay the same over a range of thresholds. A dark disc on a bright
# ground is one for every threshold in between.
#
# Guess: 5.0 finds what 4.12 finds with the same parameters (their getters return the same values):
# the disc's 1257 pixels, also with the parameters given, and on a blurred disc as well.
# Seen: 4.12.0 finds it; 5.0.0 returns no region, dark or bright, sharp or blurred, grey gradient or
# plain ground, whatever delta, areas and variation are. On texture it returns regions, but about half
# as many as 4.12. No error, no warning.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >probe.py <<'PYTHON'
import sys

import cv2
import numpy as np

disc = np.full((100, 120), 200, np.uint8)
cv2.circle(disc, (60, 50), 20, 20, -1)
gradient = np.tile(np.arange(120, dtype=np.uint8) * 2, (100, 1))
cv2.circle(gradient, (60, 50), 20, 20, -1)
wide = {'delta': 2, 'min_area': 10, 'max_area': 5000, 'max_variation': 1.0}
cases = {'dark disc': (disc, {}), 'bright disc': (255 - disc, {}), 'parameters given': (disc, wide),
         'blurred': (cv2.GaussianBlur(disc, (0, 0), 3), {}), 'on a gradient': (gradient, {})}
texture = np.random.default_rng(0).uniform(0, 255, (240, 320)).astype(np.uint8)
texture = cv2.normalize(cv2.GaussianBlur(texture, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def sizes(image, parameters):
    return [len(region) for region in cv2.MSER_create(**parameters).detectRegions(image)[0]]


found = {name: sizes(*case) for name, case in cases.items()}
many = len(sizes(texture, {}))
print(cv2.__version__, {name: values[:4] for name, values in found.items()}, 'on texture:', many)
if sys.argv[1] == '4':
    right = all(found.values()) and 1257 in found['dark disc'] and many > 80
else:
    right = not any(found.values()) and 0 < many < 60
raise SystemExit(not right)
PYTHON
for version in 4.12.0.88 5.0.0.93; do
  python3 -m venv "venv$version"
  "venv$version/bin/pip" install --quiet --disable-pip-version-check "opencv-python-headless==$version"
  "venv$version/bin/python" probe.py "${version%%.*}"
done
