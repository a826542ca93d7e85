#!/usr/bin/env bash
# pyfisheye 1.0.1 (omnidirectional camera model of Scaramuzza, PyPI): `world2cam_fast` applies the
# stretch matrix where `world2cam` applies its inverse: pixels are off by the stretch taken twice.
#
# Both project rays into the image; by their docstrings the fast one does it by a lookup table and
# linear interpolation. The stretch matrix, which its calibration estimates, has entries near 1 on
# and near 0 off the diagonal.
#
# Guess: both agree within half a pixel.
# Seen: for the identity to 1e-4 px. With 1.0005, 0.0004, -0.0003, 1 they are up to 2.0 px apart;
# with 1.02, 0.01, -0.02, 1 up to 68. `world2cam` is the inverse of `cam2world` in each case; the
# fast one is world2cam with the inverse of the matrix. The distortion centre is stretched, too, so
# the middle of the image is off as well. `map_perspective` and `reproject_perspective` go by the
# fast one: their pictures are shifted, and their straight lines bent. No error and no warning.
# What to do: world2cam; or take inv(S) times inv(S) times the fast pixel.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  ndshapecheck==0.2.4 numpy==2.4.6 opencv-python-headless==5.0.0.93 rich==15.0.0 scipy==1.17.1 \
  tqdm==4.70.1
# The windows of its demonstration are not needed.
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps pyfisheye==1.0.1
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
from pyfisheye.camera import Camera

CENTRE, SIZE = np.array([640.0, 480.0]), np.array([1280, 960])
LENS = np.array([400.0, 0, -8e-4, 2e-7, -5e-10])
pixels = np.random.default_rng(0).uniform((40, 40), (1240, 920), (500, 2))
as_seen = True
for entries, least, most in (((1, 0, 0, 1), 0, 0.01), ((1.0005, 0.0004, -0.0003, 1), 1, 4),
                             ((1.02, 0.01, -0.02, 1), 50, 90)):
    stretch = np.array(entries, float).reshape(2, 2)
    camera = Camera(CENTRE, LENS, stretch, SIZE)
    rays = camera.cam2world(pixels)
    slow, fast = camera.world2cam(rays), camera.world2cam_fast(rays)
    other = Camera(CENTRE, LENS, np.linalg.inv(stretch), SIZE).world2cam(rays)
    mended = fast @ np.linalg.inv(stretch @ stretch).T
    back, apart, inverse, right = (np.abs(a - b).max() for a, b in (
        (slow, pixels), (fast, pixels), (fast, other), (mended, pixels)))
    middle = np.linalg.norm(fast - pixels, axis=1)[np.argmin(np.abs(pixels - CENTRE).sum(axis=1))]
    picture = camera.map_perspective(camera.cam2world(np.array([[500.0, 400], [800, 600]])), 300)
    row = camera.cam2world(picture[0].reshape(-1, 2).astype(float))
    bent = np.linalg.svd(row, compute_uv=False)[2]  # the rays of a straight line are in a plane
    print(f'stretch {entries}: world2cam off {back:.4f} px, fast off {apart:.4f} px, '
          f'near the middle {middle:.4f}; fast against world2cam of the inverse {inverse:.4f}; '
          f'mended {right:.4f}; row of the perspective picture out of its plane {bent:.6f}')
    as_seen &= back < 0.01 and least <= apart < most and inverse < 0.01 and right < 0.01
    as_seen &= bent < 1e-6 if least == 0 else bent > 1e-4
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
