"""The window's adjustment: derivatives against autograd, and exact scenes."""

from dataclasses import replace

import numpy as np
import pytest
from scenes import CAMERA, make_problem
import torch

from xsvggt_ros.trajectory.adjustment import _Solver, _State, FocalPrior, rescaled, solve
from xsvggt_ros.trajectory.projection import motion


def residuals(problem, small, depths, focal):
    """Return the reprojection errors [n, 2] with torch, as the documentation defines them."""
    poses = torch.from_numpy(problem.poses).clone()
    moved = []
    for row in range(len(poses)):
        where = np.flatnonzero(problem.free == row)
        if not len(where):
            moved.append(poses[row])
            continue
        step = small[6 * where[0]:6 * where[0] + 6]
        generator = torch.zeros(4, 4, dtype=torch.float64)
        x, y, z = step[:3]
        zero = torch.zeros_like(x)
        turn = torch.stack([torch.stack([zero, -z, y]), torch.stack([z, zero, -x]),
                            torch.stack([-y, x, zero])])
        generator = torch.cat([torch.cat([torch.linalg.matrix_exp(turn), step[3:, None]], 1),
                               torch.tensor([[0.0, 0, 0, 1]], dtype=torch.float64)])
        moved.append(poses[row] @ generator)
    poses = torch.stack(moved)
    camera = torch.from_numpy(problem.camera)
    rays = torch.from_numpy(problem.rays)
    grown = torch.exp(focal)
    rays = torch.stack([rays[:, 0] / grown, rays[:, 1] / grown, rays[:, 2]], 1)
    points = rays * torch.exp(-depths)[:, None]
    anchors = poses[torch.from_numpy(problem.anchor)]
    world = (anchors[:, :3, :3] @ points[:, :, None])[..., 0] + anchors[:, :3, 3]
    observers = poses[torch.from_numpy(problem.seen_by)]
    local = (observers[:, :3, :3].mT @ (world[torch.from_numpy(problem.landmark)]
                                        - observers[:, :3, 3])[..., None])[..., 0]
    return torch.stack([
        camera[0, 0] * grown * local[:, 0] / local[:, 2] + camera[0, 2],
        camera[1, 1] * grown * local[:, 1] / local[:, 2] + camera[1, 2]], 1)


def test_the_derivatives_are_those_of_autograd():
    rng = np.random.default_rng(0)
    problem = make_problem(rng, landmarks=12, noise=2.0)
    anchor = rng.integers(0, 2, 12)   # some in a camera that moves
    keep = problem.seen_by != anchor[problem.landmark]
    problem = replace(problem, anchor=anchor, seen_by=problem.seen_by[keep],
                      landmark=problem.landmark[keep], pixels=problem.pixels[keep],
                      focal=FocalPrior(0.0, 0.1))
    solver = _Solver(problem)
    state = _State(problem.poses, problem.log_inverse_depth + 0.1, 0.03)
    by_state, by_depth = solver._jacobians(state, *solver._points(state))
    small = torch.zeros(6 * len(problem.free), dtype=torch.float64)
    depths = torch.from_numpy(state.depth)
    focal = torch.tensor(0.03, dtype=torch.float64)
    one, two, three = torch.autograd.functional.jacobian(
        lambda *values: residuals(problem, *values), (small, depths, focal))
    np.testing.assert_allclose(by_state[:, :, :-1], one, atol=1e-8)
    rows = np.arange(len(problem.landmark))
    np.testing.assert_allclose(by_depth, two.numpy()[rows, :, problem.landmark], atol=1e-8)
    np.testing.assert_allclose(by_state[:, :, -1], three, atol=1e-8)


@pytest.mark.parametrize('seed', range(3))
def test_an_exact_scene_is_recovered(seed):
    rng = np.random.default_rng(seed)
    truth = make_problem(rng)
    poses = truth.poses.copy()
    poses[1:] = poses[1:] @ motion(rng.normal(0, 0.02, (len(poses) - 1, 6)))
    depths = truth.log_inverse_depth + rng.normal(0, 0.1, len(truth.prior))
    found = solve(replace(truth, poses=poses, log_inverse_depth=depths, iterations=50))
    np.testing.assert_allclose(found.poses, truth.poses, atol=2e-3)
    np.testing.assert_allclose(found.log_inverse_depth, truth.log_inverse_depth, atol=1e-2)
    assert np.median(found.errors) < 0.05


def test_poses_that_are_held_do_not_move_and_the_solution_moves_with_the_world():
    rng = np.random.default_rng(4)
    problem = make_problem(rng, noise=0.5)
    found = solve(problem)
    np.testing.assert_array_equal(found.poses[0], problem.poses[0])
    world = motion(np.array([0.5, -1.0, 0.3, 4.0, 5.0, -6.0]))
    moved = solve(replace(problem, poses=world @ problem.poses))
    np.testing.assert_allclose(moved.poses, world @ found.poses, atol=1e-6)
    np.testing.assert_allclose(moved.log_inverse_depth, found.log_inverse_depth, atol=1e-6)
    np.testing.assert_allclose(moved.covariance, found.covariance, rtol=1e-4, atol=1e-12)


def test_scale_follows_the_depths_when_the_images_say_nothing_about_it():
    """Two cameras and pixels alone leave the scale free: the prior sets it."""
    rng = np.random.default_rng(5)
    truth = make_problem(rng, cameras=2)
    found = solve(replace(truth, prior=truth.prior - np.log(2.0), iterations=100))
    grown = np.linalg.norm(found.poses[1, :3, 3]) / np.linalg.norm(truth.poses[1, :3, 3])
    assert grown == pytest.approx(2.0, rel=0.02)


def test_a_fifth_of_wrong_observations_and_depths_costs_little():
    rng = np.random.default_rng(6)
    truth = make_problem(rng, landmarks=100, noise=0.3)
    pixels, prior = truth.pixels.copy(), truth.prior.copy()
    wrong = rng.choice(len(pixels), len(pixels) // 5, replace=False)
    pixels[wrong] += rng.normal(0, 30, (len(wrong), 2))
    prior[rng.choice(100, 20, replace=False)] += 1.0
    found = solve(replace(truth, pixels=pixels, prior=prior, log_inverse_depth=prior))
    off = np.linalg.norm(found.poses[:, :3, 3] - truth.poses[:, :3, 3], axis=1)
    assert off.max() < 0.03 and np.median(found.errors) < 1.0


def test_a_wrong_focal_length_is_found():
    rng = np.random.default_rng(7)
    truth = make_problem(rng, cameras=8, landmarks=120)
    camera, directions = rescaled(truth.camera, truth.rays, np.log(1.08))
    guess = replace(truth, camera=camera, rays=directions, focal=FocalPrior(0.0, 0.1),
                    iterations=60)
    found = solve(guess)
    assert np.exp(found.log_focal) * 1.08 == pytest.approx(1.0, abs=0.01)
    assert 0 < found.focal_variance < 0.1 ** 2
    held = solve(replace(guess, focal=None))
    assert held.cost > found.cost and held.log_focal == 0.0


def test_the_covariance_says_how_far_off_the_poses_are():
    errors = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        truth = make_problem(np.random.default_rng(100), noise=0.0)
        noisy = replace(truth, pixels=truth.pixels + rng.normal(0, 0.5, truth.pixels.shape),
                        prior=truth.prior + rng.normal(0, 0.15, truth.prior.shape))
        found = solve(noisy)
        last = np.linalg.inv(truth.poses[-1]) @ found.poses[-1]
        small = np.array([last[2, 1], last[0, 2], last[1, 0], *last[:3, 3]])
        errors.append(small @ np.linalg.solve(found.covariance[-6:, -6:], small) / 6)
    assert 0.5 < np.mean(errors) < 2.0


def test_nothing_to_go_by_changes_nothing_and_stays_finite():
    rng = np.random.default_rng(8)
    truth = make_problem(rng)
    none = replace(truth, seen_by=truth.seen_by[:0], landmark=truth.landmark[:0],
                   pixels=truth.pixels[:0], free=np.array([1]))
    found = solve(none)
    np.testing.assert_allclose(found.poses, truth.poses, atol=1e-12)
    behind = replace(truth, poses=truth.poses @ motion(np.array([0, np.pi, 0, 0, 0, 0.0])))
    found = solve(behind)
    assert np.isfinite(found.poses).all() and np.isfinite(found.log_inverse_depth).all()


def test_another_focal_length_keeps_the_pixels():
    directions = np.array([[0.1, -0.2, 1.0]])
    camera, bent = rescaled(CAMERA, directions, 0.2)
    np.testing.assert_allclose((bent @ camera.T)[:, :2], (directions @ CAMERA.T)[:, :2])
