"""Measured motions in the bundle adjustment: derivatives, and what they change."""

from dataclasses import replace

import numpy as np
from scenes import make_problem, way

from xsvggt_ros.trajectory.adjustment import solve
from xsvggt_ros.trajectory.motion_factors import MotionFactors
from xsvggt_ros.trajectory.projection import inverse, motion


def measured(poses, noise=None, sigma=(0.01, 0.02), cauchy=5.0):
    rows = np.arange(len(poses) - 1)
    steps = np.array([inverse(poses[row]) @ poses[row + 1] for row in rows])
    if noise is not None:
        steps = steps @ motion(noise)
    information = np.diag(np.repeat(sigma, 3) ** -2.0)
    return MotionFactors(rows, rows + 1, steps, np.repeat(information[None], len(rows), 0), cauchy)


def test_derivatives_are_those_of_the_residuals():
    rng = np.random.default_rng(0)
    poses = way(5, rng, step=0.4)
    for size in (0.0, 1e-5, 0.3, 2.5):   # rad and length, by which the measurements miss
        factors = measured(poses, rng.normal(0, 1, (4, 6)) * size / 2.4)
        for side, rows in zip(factors.jacobians(poses), (factors.before, factors.after)):
            for column in range(6):
                small = np.zeros((4, 6))
                small[:, column] = 1e-6
                values = []
                for sign in (1, -1):
                    moved = poses.copy()
                    moved[rows] = moved[rows] @ motion(sign * small)
                    # One factor at a time: a pose in the middle belongs to two of them.
                    values.append(np.stack([replace(
                        factors, before=factors.before[n:n + 1], after=factors.after[n:n + 1],
                        measured=factors.measured[n:n + 1],
                        information=factors.information[n:n + 1]).residuals(np.where(
                            np.arange(5)[:, None, None] == rows[n], moved, poses))[0]
                        for n in range(4)]))
                numeric = (values[0] - values[1]) / 2e-6
                np.testing.assert_allclose(side[:, :, column], numeric, atol=1e-5)


def test_the_normal_equations_are_those_of_the_whole_jacobian():
    rng = np.random.default_rng(1)
    poses = way(5, rng)
    factors = measured(poses, rng.normal(0, 0.01, (4, 6)), cauchy=1e6)
    column = np.array([3, 0, 1, 2, 3])    # the first pose and the last one are held
    hessian, gradient = np.zeros((19, 19)), np.zeros(19)   # with a focal length behind them
    factors.add_to(hessian, gradient, poses, column, 3)
    whole = np.zeros((24, 24))
    for side, rows in zip(factors.jacobians(poses), (factors.before, factors.after)):
        for n in range(4):
            place = 6 * column[rows[n]]
            whole[6 * n:6 * n + 6, place:place + 6] += side[n]
    whole = whole[:, :18]
    weights = np.kron(np.eye(4), factors.information[0])
    np.testing.assert_allclose(hessian[:18, :18], whole.T @ weights @ whole, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        gradient[:18], whole.T @ weights @ factors.residuals(poses).ravel(), rtol=1e-6, atol=1e-6)
    assert not hessian[18].any() and not gradient[18]


def scene(seed=2, landmarks=12, noise=1.5):
    """Return a problem of few landmarks, seen badly, that starts off the truth; and the truth."""
    rng = np.random.default_rng(seed)
    problem = make_problem(rng, cameras=6, landmarks=landmarks, noise=noise, pixel_sigma=noise,
                           iterations=30)
    truth = problem.poses.copy()
    start = truth.copy()
    start[1:] = start[1:] @ motion(rng.normal(0, 0.02, (5, 6)))
    return replace(problem, poses=start), truth


def miss(solution, truth):
    return np.linalg.norm(solution.poses[:, :3, 3] - truth[:, :3, 3], axis=1).mean()


def test_motions_that_are_right_help_and_are_followed():
    gained = []
    for seed in range(5):
        problem, truth = scene(seed)
        alone = solve(problem)
        helped = solve(replace(problem, motions=measured(truth, sigma=(0.002, 0.002))))
        gained.append(miss(helped, truth) / miss(alone, truth))
        assert np.diag(helped.covariance).max() < np.diag(alone.covariance).max()
    assert np.median(gained) < 0.5


def test_a_motion_that_is_far_off_changes_next_to_nothing():
    problem, truth = scene(landmarks=60, noise=0.5)
    noise = np.zeros((5, 6))
    noise[2, 3] = 0.5                      # slipping wheels
    factors = measured(truth, noise, sigma=(0.01, 0.01))
    robust = solve(replace(problem, motions=factors))
    plain = solve(replace(problem, motions=replace(factors, cauchy=1e6)))
    alone = solve(problem)
    apart = np.linalg.norm(robust.poses[:, :3, 3] - alone.poses[:, :3, 3], axis=1).max()
    bent = np.linalg.norm(plain.poses[:, :3, 3] - alone.poses[:, :3, 3], axis=1).max()
    assert apart < 0.02 < bent


def test_a_rotation_alone_says_nothing_of_positions():
    problem, truth = scene(landmarks=60, noise=0.5)
    noise = np.zeros((5, 6))
    noise[:, 3:] = 1.0
    factors = measured(truth, noise)
    information = factors.information.copy()
    information[:, 3:] = information[:, :, 3:] = 0
    found = solve(replace(problem, motions=replace(factors, information=information)))
    np.testing.assert_allclose(found.poses, solve(problem).poses, atol=0.02)
