#!/usr/bin/env bash
# OpenCV 5.0.0: savePointCloud writes 8-bit colours 255 times too large into a PLY, and they are
# wrapped when it is read.
#
# savePointCloud(filename, vertices, normals, rgb) is new in 5.0. Its documentation says of colours
# "each value contains 3 floats" and names no range; colours of an image are uint8, 0 to 255.
#
# Guess: uint8 colours are taken as they are, as the PLY's `uchar` and as its arrays everywhere else
# in OpenCV, or refused; a PLY and an OBJ of one cloud have one set of colours.
# Seen: uint8, and floats of 0 to 255, are multiplied by 255 in a PLY: 125 is written as 31875 under
# `property uchar red`. Readers wrap it: (125, 200, 255) comes back as (131, 56, 1), without an error.
# The same arrays in an OBJ are written as they are. saveMesh does it too. Floats of 0 to 1 are right.
# What to do: savePointCloud(..., rgb / numpy.float32(255)).
#
# 5.1.0 (opencv-contrib-python 5.1.0.95) does the same.
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import cv2
import numpy as np

points = np.arange(9, dtype=np.float32).reshape(3, 1, 3)
normals = np.tile(np.float32([0, 0, 1]), (3, 1, 1))
colours = np.array([[10, 20, 30], [125, 200, 255], [1, 2, 3]], np.uint8).reshape(3, 1, 3)


def written(kind, rgb):
    """Return the second point's colour as text of the file and as OpenCV reads it, times 255."""
    name = f'cloud.{kind}'
    cv2.savePointCloud(name, points, normals, rgb)
    with open(name) as file:
        line = next(line for line in file if line.removeprefix('v ').startswith('3 4 5'))
    text = [float(word) for word in line.removeprefix('v ').split()[3:6]]
    loaded = cv2.loadPointCloud(name)[2].reshape(-1, 3)[1]
    return text, np.round(loaded * 255).astype(int).tolist()


print('OpenCV', cv2.__version__)
seen = {}
for name, rgb in (('uint8', colours), ('float 0-255', colours.astype(np.float32)),
                  ('float 0-1', colours / np.float32(255))):
    for kind in 'ply', 'obj':
        seen[name, kind] = written(kind, rgb)
        print(f'{name:12}{kind}  written', seen[name, kind][0], ' read, times 255:',
              seen[name, kind][1])
cv2.saveMesh('mesh.ply', points, [np.array([0, 1, 2], np.int32)], normals, colours)
with open('mesh.ply') as file:
    text = file.read()
print('the mesh:', *[line for line in text.splitlines() if line.endswith(' red')],
      *[line for line in text.splitlines() if line.startswith('3 4 5')])
large, right = [31875, 51000, 65025], [125, 200, 255]
raise SystemExit(not (
    seen['uint8', 'ply'] == seen['float 0-255', 'ply'] == (large, [131, 56, 1])
    and seen['uint8', 'obj'][0] == seen['float 0-255', 'obj'][0] == right
    and seen['float 0-1', 'ply'] == (right, right)
    and 'property uchar red' in text and '3 4 5 31875 51000 65025' in text))
PYTHON
venv/bin/python probe.py
