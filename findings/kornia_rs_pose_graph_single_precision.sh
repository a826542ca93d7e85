#!/usr/bin/env bash
# kornia-rs 0.2.0: pose graph and bundle adjustment take and return float64 but are as exact as
# float32 only, and an edge's weight multiplies its residual, so that it counts squared.
#
# Guess: both keep float64, so a graph of exact edges that begins at the truth stays there, also
# with map coordinates (UTM: millions of metres); a weight of 9 against 1 averages 9 to 1.
# Seen: begun at the truth, a graph 5,000 km from the origin (float32 has steps of half a metre
# there) is off by a metre and `converged` is True; a bundle adjustment moves its points by metres.
# Two edges that say 1 m and 2 m with weights 9 and 1 give 1.0122 m (81 to 1), not 1.1.
# What to do: subtract a local origin first; give the square root of the information as weight.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check kornia-rs==0.2.0 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import kornia_rs
import numpy as np

k3d = kornia_rs.k3d
rng = np.random.default_rng(1)


def about_y(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def edge(a, b, rotation, translation, weight):
    return [a, b, *rotation.ravel(), *translation, weight]


def graph_error(origin):
    """Return how far camera centres move in a graph of exact edges that begins at the truth."""
    rotations = np.stack([about_y(0.3 * i) for i in range(12)])
    centres = rng.normal(size=(12, 3)) * 3 + origin
    translations = -np.einsum('nij,nj->ni', rotations, centres)
    edges = []
    for a, b in [(i, i + 1) for i in range(11)] + [(0, 11)]:
        relative = rotations[b] @ rotations[a].T
        edges.append(edge(a, b, relative, translations[b] - relative @ translations[a], 1))
    out_rotations, out, _, converged = k3d.pose_graph_optimize(
        rotations, translations, np.array(edges), [0], 50)
    out_rotations, out = np.array(out_rotations), np.array(out)
    moved = -np.einsum('nji,nj->ni', out_rotations, out) - centres
    return float(np.abs(moved).max()), converged, out.dtype


def adjustment_error(origin):
    """Return how far points move in a bundle adjustment that begins at the truth."""
    k = np.array([[600, 0, 320], [0, 600, 240], [0, 0, 1.]])
    points = rng.uniform(-2, 2, (80, 3)) + [0, 0, 6] + origin
    rotations = np.stack([about_y(0.05 * i) for i in range(4)])
    centres = np.stack([[0.3 * i, 0, 0] + origin for i in range(4)])
    translations = -np.einsum('nij,nj->ni', rotations, centres)
    seen = []
    for i in range(4):
        local = points @ rotations[i].T + translations[i]
        pixels = local[:, :2] / local[:, 2:] * 600 + [320, 240]
        seen += [[i, j, *pixel] for j, pixel in enumerate(pixels)]
    out = k3d.bundle_adjust(rotations, translations, points, np.array(seen), k,
                            fixed_pose_indices=[0, 1], max_iterations=30)
    return float(np.abs(np.array(out[2]) - points).max())


far = np.array([5e6, 5e5, 0])
near_error, *_ = graph_error(np.zeros(3))
far_error, converged, dtype = graph_error(far)
print(f'pose graph: {near_error:.1e} m at the origin, {far_error:.2f} m far away; '
      f'converged {converged}, {dtype}')
near_points, far_points = adjustment_error(np.zeros(3)), adjustment_error(far)
print(f'bundle adjustment: {near_points:.1e} m at the origin, {far_points:.1f} m far away')
eye = np.eye(3)
edges = np.array([edge(0, 1, eye, [1, 0, 0], 9), edge(0, 1, eye, [2, 0, 0], 1)], float)
x = np.array(k3d.pose_graph_optimize(
    np.stack([eye, eye]), np.zeros((2, 3)), edges, [0], 100)[1])[1, 0]
print(f'edges of 1 m (weight 9) and 2 m (weight 1): {x:.4f} m')
raise SystemExit(not (converged and near_error < 1e-5 and far_error > 0.05
                      and near_points < 1e-4 and far_points > 1 and abs(x - 83 / 82) < 1e-4))
PYTHON
venv/bin/python probe.py
