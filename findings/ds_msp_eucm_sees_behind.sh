#!/usr/bin/env bash
# ds-msp 0.22.2 (camera models for fisheye lenses): EUCM, the enhanced unified model, projects points behind the camera
# into the image and calls them valid.
#
# project() returns pixels and which of them are valid; bundle adjustment, visibility and rendering go by that.
#
# Guess: for every model a valid pixel is that of one direction: unproject() gives the direction of the point back, to a
# millionth of a degree, and what is behind the lens's field of view is not valid.
# Seen: so for double sphere, the unified model, Kannala-Brandt, OCam and the radial-tangential one, whose limits are
# kept. EUCM with alpha 0.6 and beta 1.1 (its sample) has no limit: all directions are valid, up to 180 degrees
# from the axis. One that is 170 degrees away has the pixel of one at 48 degrees, in the image; of random
# directions one in six has the pixel of another. For alpha over 0.5 a pixel has two directions, of which the one with z < -d (1 - alpha) / alpha is none that
# the lens sees; UCM, the same model with beta 1, leaves that one out.
# What to do: with EUCM keep what unproject(project(point)) gives back.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ds-msp==0.22.2 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
from ds_msp.models.registry import model_class

random = np.random.default_rng(0)
directions = random.normal(size=(20000, 3))
directions /= np.linalg.norm(directions, axis=1, keepdims=True)


def degrees(one, other):
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(one, other), axis=1), (one * other).sum(1)))


as_seen = True
for name in 'radtan', 'ds', 'ucm', 'kb', 'ocam', 'eucm':
    model = model_class(name).sample()
    pixels, valid = model.project(directions)
    rays, known = model.unproject(pixels)
    both = valid & known
    off = degrees(rays[both], directions[both])
    away = np.degrees(np.arccos(directions[valid, 2])).max()
    print(f'{name:6}: {100 * valid.mean():3.0f} % of all directions valid, up to {away:.0f} degrees from the axis; '
          f'{(off > 1).sum()} of {both.sum()} come back as another, up to {off.max():.1e} degrees away')
    as_seen &= bool(valid.all() and off.max() > 150) if name == 'eucm' else bool(off.max() < 1e-3)

eucm = model_class('eucm').sample()
behind = np.array([[np.sin(np.radians(170)), 0, np.cos(np.radians(170))]])
pixel, valid = eucm.project(behind)
ray = eucm.unproject(pixel)[0]
print('170 degrees from the axis: pixel', np.round(pixel[0], 1), 'valid', valid[0], 'which is that of',
      np.round(degrees(ray, np.array([[0., 0, 1]]))[0], 2), 'degrees from the axis')
bound = -(1 - eucm.alpha) / eucm.alpha
length = np.sqrt(eucm.beta * (directions[:, :2] ** 2).sum(1) + directions[:, 2] ** 2)
seen = directions[:, 2] > bound * length
exact = degrees(eucm.unproject(eucm.project(directions[seen])[0])[0], directions[seen]).max()
print(f'with the limit {100 * seen.mean():.0f} % are left, and come back to {exact:.0e} degrees')
raise SystemExit(not (as_seen and bool(valid[0]) and exact < 1e-3))
PYTHON
venv/bin/python -W ignore probe.py
