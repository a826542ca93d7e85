#!/usr/bin/env bash
# megham 1.4.0 (transforms between clouds, PyPI): what decompose_affine calls the rotation of a matrix with shear is no
# rotation, and its three parts do not make the matrix again.
#
# Its words: the affine matrix is rotation * shear * scale, and decompose_rotation gives the Euler angles of the rotation.
#
# Guess: for affine = R S D (R a turn, S unit upper triangular, D scales) the turn is orthogonal and R, the angles are those of
# R, and the parts multiply back to the matrix.
# Seen: they do for a turn and for a turn with scales. With a shear of 0.3 the "rotation" is not orthogonal (by 0.1), its angles
# are 18 to 20 degrees from R's, the shears come out as 0, and no product of the three, in any order and with any of them
# transposed, is the matrix. Shears are 0 always: they are read above the diagonal of a Cholesky factor that has been transposed
# to the lower one. No message.
# What to do: scipy.linalg.polar, or numpy.linalg.qr.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check megham==1.4.0 numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1
cd "$folder"
cat >probe.py <<'PYTHON'
import itertools

import numpy as np
from megham.transform import decompose_affine, decompose_rotation
from scipy.spatial.transform import Rotation

EULER = np.radians([20.0, -30.0, 40.0])
turn = Rotation.from_euler('xyz', EULER).as_matrix()
as_seen = True
for name, scales, shears in (('turn alone', (1, 1, 1), (0, 0, 0)), ('turn and scales', (1.5, 0.8, 1.2), (0, 0, 0)),
                             ('turn and shear', (1, 1, 1), (0.3, 0, 0)), ('all three', (1.5, 0.8, 1.2), (0.3, -0.2, 0.1))):
    triangle = np.eye(3)
    triangle[np.triu_indices(3, 1)] = shears
    matrix = turn @ triangle @ np.diag(scales)
    got_scales, got_shears, rotation = decompose_affine(matrix)
    parts = [rotation, np.eye(3), np.diag(got_scales)]
    parts[1][np.triu_indices(3, 1)] = got_shears
    products = [a @ b @ c for order in itertools.permutations(parts) for a, b, c in
                itertools.product(*[(part, part.T) for part in order])]
    remade = min(np.abs(product - matrix).max() for product in products)
    square = np.abs(rotation.T @ rotation - np.eye(3)).max()
    angles = np.degrees(np.abs(decompose_rotation(rotation) - EULER).max())
    print(f'{name}: not orthogonal by {square:.1e}, angles off by {angles:.1f} degrees, nearest product off by {remade:.1e};',
          f'scales {got_scales.round(3).tolist()}, shears {got_shears.round(3).tolist()}')
    if any(shears):
        as_seen &= square > 0.05 and angles > 10 and remade > 0.1 and not got_shears.any()
    else:
        as_seen &= square < 1e-9 and angles < 1e-6 and remade < 1e-9
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
