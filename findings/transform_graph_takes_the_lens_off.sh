#!/usr/bin/env bash
# transform-graph 0.1.2 (frames and cameras, PyPI): a camera keeps its lens only for points in its own frame; composed with
# any pose, also in the graph, it projects as a pinhole.
#
# Guess: project_points(points, graph, 'world', 'image') gives the pixels that project_points(points, camera) gives of the
# points in the camera's frame, whatever the model; and so does camera * pose.
# Seen: project_points(points, camera) applies the lens as published, and so does the graph from the camera's frame to its
# image. One more frame, even if its pose is the identity, or camera * Translation(0, 0, 0), drops it: 33 pixels for a
# Brown-Conrady lens with k1 = -0.2 in an image of 640 by 480, 176 for MeiUnified, for all six models with a lens. Nothing
# is said; the model and coefficients stay in the graph. unproject(), by its documentation, knows pinholes only.
# What to do: transform the points to the camera's frame first, then project_points(points, camera).
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transform-graph==0.1.2 numpy==2.4.6 scipy==1.17.1
cd "$folder"
cat >probe.py <<'PYTHON'
import numpy as np
import tgraph.transform as tf

MATRIX = np.array([[500.0, 0, 300], [0, 510, 250], [0, 0, 1]])
LENSES = {'Pinhole': None, 'BrownConrady': [-0.2, 0.05, 0.001, -0.002, 0.01], 'KannalaBrandt': [0.05, -0.01, 0.002, 0.001],
          'Division': [-0.1], 'Rational': [-0.2, 0.05, 0.001, -0.002, 0.01, 0.1, 0.02, 0.003],
          'Fisheye62': [0.05, -0.01, 0.002, 0.001, 0, 0, 0.001, -0.002], 'MeiUnified': [0.8, -0.1, 0.02, 0.001, -0.002]}
points = np.random.default_rng(0).uniform(-1, 1, (50, 3)) * [1.5, 1, 1] + [0, 0, 3]
x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
pinhole = np.stack([x, y], axis=1) * [500, 510] + [300, 250]


def brown_conrady(k1, k2, p1, p2, k3):
    """Return where the points project to by the published model."""
    square = x ** 2 + y ** 2
    radial = 1 + k1 * square + k2 * square ** 2 + k3 * square ** 3
    moved = np.stack([x * radial + 2 * p1 * x * y + p2 * (square + 2 * x ** 2),
                      y * radial + p1 * (square + 2 * y ** 2) + 2 * p2 * x * y], axis=1)
    return moved * [500, 510] + [300, 250]


def apart(one, other):
    return float(np.abs(np.asarray(one)[:, :2] - np.asarray(other)[:, :2]).max())


as_seen = True
for model, lens in LENSES.items():
    camera = tf.CameraProjection(intrinsic_matrix=MATRIX, dist_coeffs=lens, projection_model=tf.ProjectionModel[model],
                                 image_size=(640, 480))
    graph = tf.TransformGraph()
    graph.add_transform('world', 'camera', tf.Translation(0, 0, 0))
    graph.add_transform('camera', 'image', camera)
    direct = tf.project_points(points, camera)
    own, world = (tf.project_points(points, graph, frame, 'image') for frame in ('camera', 'world'))
    product = tf.project_points(points, camera * tf.Translation(0, 0, 0))
    off = apart(world, direct)
    print(f'{model}: the lens moves pixels by up to {apart(direct, pinhole):.1f}; through the graph from the camera '
          f'{apart(own, direct):.1f} off, from the world {off:.1f}, camera * pose {apart(product, direct):.1f}')
    as_seen &= apart(own, direct) < 1e-9 and max(apart(world, pinhole), apart(product, pinhole)) < 1e-9
    as_seen &= off < 1e-9 if lens is None else off > 10
    if model == 'BrownConrady':
        as_seen &= apart(direct, brown_conrady(*lens)) < 1e-9
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
