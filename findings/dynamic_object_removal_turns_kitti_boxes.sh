#!/usr/bin/env bash
# dynamic-object-removal 0.6.0 (takes moving objects out of LiDAR scans, PyPI): boxes of KITTI's label_2 files are turned by
# 90 degrees if the calibration is given, as its command requires: more than half of a car stays in the map.
#
# By KITTI's devkit a box's length is along the x axis of the camera where rotation_y is 0, and
# rotation_y turns about the camera's y axis (computeBox3D); location is the middle of the box's bottom.
#
# Guess: of a cloud the points inside the labelled box are removed, and no others.
# Seen: of cars of 4.2 by 1.8 m with any rotation_y 45 % of the points inside are removed, and more than half as many that
# are beside it: the box lies across the car. load_boxes() takes (sin, 0, cos) of rotation_y for the direction of the
# length, which is that of the width. With 90 degrees less yaw all points inside are removed and no others. Nothing is
# said, and without the calibration, where -rotation_y - 90 degrees is taken, the yaw is right.
# What to do: take 90 degrees off the yaw of each box that load_boxes() gives.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dynamic-object-removal==0.6.0 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
from dataclasses import replace
from pathlib import Path

import numpy as np
from dynamic_object_removal import load_boxes, remove_points_in_boxes

# The axes of KITTI's LiDAR (ahead, left, up) in those of its camera (right, down, ahead), and the shift between them.
TO_CAMERA = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27]])
HEIGHT, WIDTH, LENGTH = 1.5, 1.8, 4.2
BOTTOM = np.array([2.0, 1.6, 15.0])  # camera, metres
Path('calib.txt').write_text('R0_rect: 1 0 0 0 1 0 0 0 1\nTr_velo_to_cam: ' + ' '.join(map(str, TO_CAMERA.ravel())) + '\n')
random = np.random.default_rng(0)
cloud = random.uniform([8, -9, -3], [23, 5, 2], (100_000, 3))


def inside(rotation):
    """Return which points lie in the box by the devkit's computeBox3D."""
    camera = cloud @ TO_CAMERA[:, :3].T + TO_CAMERA[:, 3] - BOTTOM
    cosine, sine = np.cos(rotation), np.sin(rotation)
    turned = camera @ np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])  # the inverse of its R
    x, y, z = turned.T
    return (np.abs(x) < LENGTH / 2) & (np.abs(z) < WIDTH / 2) & (y < 0) & (y > -HEIGHT)


def removed(boxes):
    """Return which points are removed."""
    _, kept = remove_points_in_boxes(cloud, boxes, margin=(0, 0, 0))
    return ~np.asarray(kept, dtype=bool)


as_seen = True
for rotation in (0.0, -1.57, 0.7, 2.5):
    Path('label.txt').write_text(f'Car 0.00 0 0.0 0 0 10 10 {HEIGHT} {WIDTH} {LENGTH} {BOTTOM[0]} {BOTTOM[1]} {BOTTOM[2]} '
                                 f'{rotation}\n')
    boxes = load_boxes(Path('label.txt'), fmt='kitti', skip_invalid=False, calib_path=Path('calib.txt'))
    car = inside(rotation)
    gone, mended = removed(boxes), removed([replace(boxes[0], yaw=boxes[0].yaw - np.pi / 2)])
    plain = load_boxes(Path('label.txt'), fmt='kitti', skip_invalid=False)[0].yaw
    right = -rotation - np.pi / 2
    print(f'rotation_y {rotation}: of the {car.sum()} points of a car {(gone & car).sum()} are removed, and '
          f'{(gone & ~car).sum()} others; with 90 degrees less {(mended & car).sum()} and {(mended & ~car).sum()}')
    as_seen &= 0.4 < (gone & car).sum() / car.sum() < 0.5 and (gone & ~car).sum() > 0.45 * car.sum()
    as_seen &= np.array_equal(mended, car) and abs(np.sin(plain - right)) < 1e-9 and np.cos(plain - right) > 0
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
