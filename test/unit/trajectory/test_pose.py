"""Poses against landmarks that are known, partly known and wrong."""

import numpy as np
import pytest
from scenes import CAMERA

from xsvggt_ros.trajectory.pose import find_pose, fit_pose
from xsvggt_ros.trajectory.projection import (
    inverse,
    motion,
    project,
    rays,
    rotation_vector,
    to_camera,
)

POSE = motion(np.array([0.05, -0.1, 0.02, 0.2, -0.1, 0.15]))


def scene(count=80, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.uniform((-2, -1.5, 2), (2, 1.5, 6), (count, 3))
    return rng, points, project(to_camera(points, POSE), CAMERA)


def fit(points, pixels, variance=0.0, initial=None):
    return fit_pose(points, points, np.full(len(points), variance), pixels, CAMERA,
                    np.eye(4) if initial is None else initial, 0.5, 2.0, 4.0)


def test_an_exact_pose_is_found():
    _, points, pixels = scene()
    found = fit(points, pixels)
    np.testing.assert_allclose(found.pose, POSE, atol=1e-4)
    assert found.inliers.all() and found.error < 1e-2
    assert np.linalg.eigvalsh(found.information).min() > 0


def test_a_third_of_wrong_points_is_told_apart():
    rng, points, pixels = scene()
    wrong = rng.choice(80, 26, replace=False)
    pixels[wrong] += rng.choice([-1, 1], (26, 2)) * rng.uniform(15, 40, (26, 2))
    found = fit(points, pixels)
    np.testing.assert_allclose(found.pose, POSE, atol=5e-3)
    assert not found.inliers[wrong].any() and found.inliers.sum() == 54


def test_landmarks_of_uncertain_depth_tell_the_turn_and_little_of_the_way():
    _, points, pixels = scene()
    sure, unsure = fit(points, pixels), fit(points, pixels, variance=0.3 ** 2)
    spread = [np.sqrt(np.diag(np.linalg.inv(one.information))) for one in (sure, unsure)]
    assert (spread[1][3:] > 1.5 * spread[0][3:]).all()


def test_wrong_depths_do_less_harm_when_they_are_known_to_be_unsure():
    rng, points, pixels = scene(200)
    off = points * np.exp(rng.normal(0, 0.2, (200, 1)))
    sure, unsure = fit(off, pixels), fit(off, pixels, variance=0.2 ** 2)
    assert (np.linalg.norm(unsure.pose[:3, 3] - POSE[:3, 3])
            < np.linalg.norm(sure.pose[:3, 3] - POSE[:3, 3]))


def test_without_a_guess_a_pose_is_found_among_many_wrong_points():
    rng, points, pixels = scene()
    wrong = rng.choice(80, 40, replace=False)
    pixels[wrong] = rng.uniform(0, 300, (40, 2))
    turn = motion(np.array([0.0, 2.5, 0.0, 5.0, 0.0, 0.0]))   # far from any guess
    found = find_pose(to_camera(points, turn), pixels, CAMERA, 2.0)
    np.testing.assert_allclose(found, inverse(turn) @ POSE, atol=1e-3)


@pytest.mark.parametrize('points', [
    np.empty((0, 3)), np.ones((5, 3)), np.ones((30, 3)),
    np.linspace(0, 1, 30)[:, None] * (1.0, 2.0, 3.0)])
def test_what_tells_no_pose_is_no_error(points):
    pixels = np.zeros((len(points), 2))
    found = find_pose(points, pixels, CAMERA, 2.0)
    assert found is None or np.isfinite(found).all()
    fitted = fit(points, pixels)
    assert fitted is None or np.isfinite(fitted.pose).all()


def test_no_points_have_no_inliers():
    found = fit(np.empty((0, 3)), np.empty((0, 2)))
    assert found is None or not found.inliers.any()


def test_information_is_that_of_all_points_with_their_uncertain_depths():
    rng, points, pixels = scene()
    variance = rng.uniform(0.0, 0.2, len(points))
    found = fit_pose(points, points, variance, pixels, CAMERA, POSE, 0.5, 2.0, 4.0)
    expected = np.zeros((6, 6))
    steps = 1e-6 * np.eye(6)
    for point, depth_variance in zip(points, variance):
        def seen(pose, log_depth=0.0):
            return project(to_camera(point[None] * np.exp(log_depth), pose), CAMERA)[0]
        jacobian = np.array([(seen(POSE @ motion(step)) - seen(POSE)) / 1e-6 for step in steps]).T
        by_depth = (seen(POSE, 1e-6) - seen(POSE)) / 1e-6
        covariance = 0.5 ** 2 * np.eye(2) + depth_variance * np.outer(by_depth, by_depth)
        expected += jacobian.T @ np.linalg.inv(covariance) @ jacobian
    np.testing.assert_allclose(found.information, expected, rtol=1e-3, atol=1e-3 * expected.max())


def test_a_pose_is_where_another_fit_from_there_would_leave_it():
    rng, points, pixels = scene(200)
    pixels += rng.normal(0, 0.5, pixels.shape)
    pixels[:40] += rng.uniform(-20, 20, (40, 2))
    first = fit(points, pixels, variance=0.05 ** 2)
    again = fit(points, pixels, variance=0.05 ** 2, initial=first.pose)
    step = inverse(first.pose) @ again.pose
    small = np.concatenate([rotation_vector(step[:3, :3]), step[:3, 3]])
    assert small @ first.information @ small < 0.1 ** 2   # a tenth of its sigmas


def test_points_behind_the_camera_neither_count_nor_agree():
    _, points, pixels = scene()
    points[:20] *= (1.0, 1.0, -1.0)
    found = fit(points, pixels)
    np.testing.assert_allclose(found.pose, POSE, atol=1e-3)
    assert not found.inliers[:20].any() and found.inliers[20:].all()


def test_what_is_far_off_does_not_pull_away_a_pose_that_is_known_badly():
    rng = np.random.default_rng(3)
    # All in one corner of the image, of depths known to 15 %: a turn and a step look alike.
    pixels = rng.uniform((250, 40), (310, 120), (30, 2))
    points = rays(pixels, CAMERA) * rng.uniform(2, 4, (30, 1))
    seen = project(to_camera(points, motion(np.array([0, 0.02, 0, -0.02, 0, 0.1]))), CAMERA)
    seen += rng.normal(0, 0.3, seen.shape)
    off = slice(0, 8)
    seen[off] += (-55, 12)
    found = fit(points, seen, variance=0.15 ** 2)
    without = fit(points[8:], seen[8:], variance=0.15 ** 2)
    assert not found.inliers[off].any() and found.inliers[8:].all()
    np.testing.assert_allclose(found.pose, without.pose, atol=5e-3)


def test_points_that_do_not_belong_to_their_pixels_tell_no_pose():
    rng, points, pixels = scene()
    assert find_pose(points, rng.permutation(pixels), CAMERA, 2.0) is None
