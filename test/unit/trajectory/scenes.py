"""Exact scenes for the tests of the trajectory: points, cameras and what they see."""

import numpy as np

from xsvggt_ros.trajectory.adjustment import Problem
from xsvggt_ros.trajectory.projection import motion, project, rays, to_camera

CAMERA = np.array([[300.0, 0.0, 160.0], [0.0, 310.0, 120.0], [0.0, 0.0, 1.0]])


def way(count, rng, step=0.08):
    """Return poses [count, 4, 4] of a camera that goes sideways and turns a little."""
    poses = [np.eye(4)]
    for _ in range(count - 1):
        small = np.r_[rng.normal(0, 0.02, 3), step, rng.normal(0, 0.2 * step, 2)]
        poses.append(poses[-1] @ motion(small))
    return np.array(poses)


def make_problem(rng, cameras=5, landmarks=60, noise=0.0, **changes):
    """Return a problem that starts at the truth: landmarks are anchored in the first camera."""
    poses = way(cameras, rng)
    pixels = np.stack([rng.uniform(20, 300, landmarks), rng.uniform(20, 220, landmarks)], -1)
    directions = rays(pixels, CAMERA)
    depth = rng.uniform(1.5, 5, landmarks)
    world = directions * depth[:, None]
    landmark = np.repeat(np.arange(landmarks), cameras - 1)
    seen_by = np.tile(np.arange(1, cameras), landmarks)
    seen = np.array([project(to_camera(world[[m]], poses[c]), CAMERA)[0]
                     for m, c in zip(landmark, seen_by)])
    values = dict(
        poses=poses, free=np.arange(1, cameras), rays=directions,
        log_inverse_depth=-np.log(depth), prior=-np.log(depth),
        prior_sigma=np.full(landmarks, 0.15), anchor=np.zeros(landmarks, int), seen_by=seen_by,
        landmark=landmark, pixels=seen + rng.normal(0, noise, seen.shape), camera=CAMERA,
        pixel_sigma=0.5, huber=2.0, cauchy=2.0, iterations=20)
    return Problem(**values | changes)
