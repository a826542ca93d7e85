#!/usr/bin/env bash
# magyc 1.0.0 (calibration of magnetometers and gyroscopes of vehicles, PyPI): the calibrated field that it returns beside a
# right calibration is scrambled, and sar_ls gives a wrong hard iron.
#
# Guess: of noise-free samples (hard iron, soft iron, known turn rates) each method gives the iron to 5 %, and the field that it
# returns is the soft iron's inverse times what is left without the hard iron, for N x 3 and for 3 x N.
# Seen: ellipsoid_fit_fang, magyc_ls and magyc_nls give the hard iron to 0.001, and with it and their soft iron the lengths by
# hand vary by less than 0.1 %. Those of the fields that they return vary by 40 %, and the fields look up to 174 degrees beside
# the ones by hand: N x 3 samples are reshaped to 3 x N, which mixes times and axes. It is the same for 3 x N ones. sphere_fit
# is right. sar_ls, with exact rates and hard iron alone, gives (0.13, -0.27, 0.05) for (0.05, -0.08, 0.03): it squares the
# elements of the cross-product matrix, not the matrix.
# What to do: np.linalg.inv(soft) @ (field - hard); a least squares of the rates' equation by hand.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  magyc==1.0.0 gtsam==4.3.0 jax==0.4.38 jaxlib==0.4.38 navlib==0.1.7 matplotlib==3.11.2 numpy==1.26.4 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import warnings

import magyc
import numpy as np
from scipy.spatial.transform import Rotation

warnings.filterwarnings('ignore')
COUNT, STEP = 3000, 0.02
HARD, WORLD = np.array([0.05, -0.08, 0.03]), np.array([0.2, 0.05, 0.4])
SOFT = np.array([[1.1, 0.03, 0.02], [0.03, 0.95, -0.04], [0.02, -0.04, 1.02]])
time = np.arange(COUNT) * STEP
rates = np.column_stack([0.5 * np.sin(0.7 * time), 0.6 * np.cos(0.9 * time + 0.3), 0.4 * np.sin(1.1 * time + 1)])
turn, seen = Rotation.identity(), []
for rate in rates:
    seen.append(turn.inv().apply(WORLD))
    turn = turn * Rotation.from_rotvec(rate * STEP)
seen = np.array(seen)
raw = seen @ SOFT.T + HARD


def angle(one, other):
    """Largest angle between rows of two fields, in degrees."""
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1))).max()


as_seen = True
for name, arguments in (('ellipsoid_fit_fang', ()), ('magyc_ls', (rates, time)), ('magyc_nls', (rates, time))):
    hard, soft, *rest = getattr(magyc, name)(raw, *arguments)
    other = getattr(magyc, name)(raw.T, *[part.T for part in arguments])
    field = rest[0] if name != 'magyc_nls' else rest[1]
    across = other[2] if name != 'magyc_nls' else other[3]
    by_hand = (raw - hard) @ np.linalg.inv(soft).T
    lengths = [np.linalg.norm(part, axis=1) for part in (field, by_hand)]
    spread = [part.std() / part.mean() for part in lengths]
    print(f'{name}: hard iron {hard.round(4).tolist()}; lengths vary by {100 * spread[0]:.0f} %,',
          f'by hand {100 * spread[1]:.2f} %; directions {angle(field, by_hand):.0f} degrees from those by hand')
    as_seen &= np.abs(hard - HARD).max() < 0.002 and spread[1] < 0.01 and spread[0] > 0.2 and angle(field, by_hand) > 90
    as_seen &= np.allclose(field, across, atol=1e-3)
    as_seen &= np.allclose(field, (np.linalg.inv(soft) @ (raw.reshape(3, -1) - hard[:, None])).T)
hard, field = magyc.sphere_fit(seen + HARD)
print('sphere_fit: hard iron', hard.round(4).tolist(), f'directions off by {angle(field, seen):.1e} degrees')
as_seen &= np.allclose(hard, HARD) and angle(field, seen) < 1e-3
hard, field = magyc.sar_ls(seen + HARD, rates, time)
crosses = np.cross(rates[:, None, :], np.eye(3)).transpose(0, 2, 1)
change = np.gradient(seen + HARD, STEP, axis=0)
right = np.linalg.lstsq(crosses.reshape(-1, 3), (change + np.cross(rates, seen + HARD)).ravel(), rcond=None)[0]
print('sar_ls: hard iron', hard.round(3).tolist(), 'least squares', right.round(3).tolist(),
      f'directions off by {angle(field, seen):.0f} degrees')
as_seen &= np.abs(hard - HARD).max() > 0.1 and np.abs(right - HARD).max() < 0.005 and angle(field, seen) > 10
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
