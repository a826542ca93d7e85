#!/usr/bin/env bash
# pytheia 1.2.1 (structure from motion, PyPI): AlignPointCloudsUmeyama() does not align flat point sets, such as the path of a
# car on a plain: it returns the identity with a scale of 1.
#
# Umeyama's method has one solution for points in a plane; only points on a line leave a turn about it open.
#
# Guess: the similarity between two noise-free sets comes back to 1e-9, for a flat path too.
# Seen: it does while the third extent is more than about 0.1 % of the others. Below, rotation, translation and scale are
# those of no change at all: a path of a kilometre with a metre of hills, seen at 2.3 times its size, stays hundreds of
# metres off. A line of the log says that the clouds are degenerate; the return value does not. Sets that are thin in
# two directions but not quite a line, which do leave a turn nearly open, are aligned. AlignPointCloudsUmeyamaWithWeights
# does the same.
# What to do: pycolmap's estimate_sim3d, the package umeyama, or a rotation that one sets by the normal of the plane first.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pytheia==1.2.1 umeyama==0.1.0 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
import pytheia
from scipy.spatial.transform import Rotation
from umeyama import umeyama

SCALE, SHIFT = 2.3, np.array([10.0, -20.0, 5.0])
TURN = Rotation.from_rotvec([0.4, -0.6, 1.0]).as_matrix()
random = np.random.default_rng(0)


def left(points, scale, turn, shift, target):
    """Return how far from their targets the points end up, in metres on average."""
    return np.linalg.norm(scale * points @ np.asarray(turn).T + shift - target, axis=1).mean()


def off(points):
    """Return that for pytheia, with and without weights, and for the package umeyama, and whether pytheia did nothing."""
    target = SCALE * points @ TURN.T + SHIFT
    turn, shift, scale = pytheia.sfm.AlignPointCloudsUmeyama([*points], [*target])
    weighted = pytheia.sfm.AlignPointCloudsUmeyamaWithWeights([*points], [*target], [1.0] * len(points))
    other = umeyama(points, target)
    nothing = scale == 1 and np.array_equal(turn, np.eye(3)) and not np.any(shift)
    return (left(points, scale, turn, shift, target), left(points, weighted[2], weighted[0], weighted[1], target),
            left(points, other.scale, other.rotation, other.translation, target), nothing)


as_seen = True
for height in (500.0, 50.0, 5.0, 1.0, 0.1, 0.0):
    mine, weighted, other, nothing = off(random.uniform(-500, 500, (200, 3)) * [1, 1, height / 1000])
    print(f'a path of 1000 by 1000 by {height:g} m: {mine:.3g} m off, with weights {weighted:.3g} m, umeyama {other:.3g} m'
          + (', as if nothing had been asked' if nothing else ''))
    flat = height <= 1
    as_seen &= other < 1e-9 and nothing == flat and (min(mine, weighted) > 100 if flat else max(mine, weighted) < 1e-9)
thin = off(random.uniform(-500, 500, (200, 3)) * [1, 0.002, 0.002])
print(f'a path of 1000 by 2 by 2 m: {thin[0]:.3g} m off')
as_seen &= thin[0] < 1e-9
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
