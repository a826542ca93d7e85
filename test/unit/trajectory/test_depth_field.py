"""Depth that is bent to agree with landmarks, and left alone where it agrees."""

import numpy as np
import pytest

from xsvggt_ros.trajectory.depth_field import depth_correction, LandmarkRatios

SIZE = (84, 112)
DEPTH_FROM_IMAGE = np.array([[0.35, 0, -0.325], [0, 0.35, -0.325], [0, 0, 1]])


def seen(error, count=200, noise=0.0, seed=0):
    """Return landmarks where the log ratio is `error` of places in the depth map, 0 ... 1."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(0, (319, 239), (count, 2))
    ratio = error(pixels / (320, 240)) + rng.normal(0, noise, count)
    return LandmarkRatios(pixels, ratio, np.full(count, 0.02 ** 2))


def factors(landmarks, log_scale=0.0):
    return depth_correction(landmarks, log_scale, SIZE, DEPTH_FROM_IMAGE, 320)


def truth(error):
    rows, columns = np.mgrid[0:SIZE[0], 0:SIZE[1]]
    return error(np.stack([columns / SIZE[1], rows / SIZE[0]], -1))


def wave(places):
    return 0.3 * np.sin(4 * places[..., 0]) * np.cos(3 * places[..., 1])


def test_a_smooth_error_is_taken_out():
    found = np.log(factors(seen(wave, noise=0.03)))
    left = np.abs(found - truth(wave))
    assert left.mean() < 0.2 * np.abs(truth(wave)).mean()


def test_depth_that_agrees_is_not_touched():
    found = factors(seen(lambda places: 0.0 * places[..., 0], noise=0.02), np.log(1.7))
    np.testing.assert_allclose(found, 1.7, rtol=1e-6)


def test_landmarks_that_are_known_exactly_and_lie_in_one_place_are_solved_for():
    landmarks = seen(wave)
    crowded = LandmarkRatios(np.tile([160.0, 120.0], (200, 1)),
                             0.3 + np.random.default_rng(1).normal(0, 0.2, 200), np.zeros(200))
    middle = np.log(factors(crowded))[42, 56]
    assert abs(middle - np.median(crowded.log_ratio)) < 0.1
    assert np.isfinite(factors(landmarks)).all() and factors(crowded).dtype == np.float32


def test_noise_of_the_landmarks_moves_little():
    found = np.log(factors(seen(lambda places: 0.0 * places[..., 0], noise=0.08)))
    assert np.abs(found).mean() < 0.04


def test_wrong_landmarks_do_not_bend_it():
    landmarks = seen(wave, noise=0.03)
    wrong = np.random.default_rng(1).choice(200, 20, replace=False)
    landmarks.log_ratio[wrong] += 5.0
    left = np.abs(np.log(factors(landmarks)) - truth(wave))
    assert left.mean() < 0.5 * np.abs(truth(wave)).mean()


def test_where_there_are_no_landmarks_the_scale_alone_counts():
    landmarks = seen(lambda places: 0.4 * (places[..., 0] > 0.2) - 0.2)
    left = landmarks.pixels[:, 0] < 110
    few = LandmarkRatios(landmarks.pixels[left], landmarks.log_ratio[left],
                         landmarks.variance[left])
    found = np.log(factors(few))
    assert np.abs(found[:, -20:]).max() < 0.01


@pytest.mark.parametrize('count', [0, 5])
def test_too_few_landmarks_change_nothing_but_the_scale(count):
    np.testing.assert_allclose(factors(seen(wave, count), 0.5), np.exp(0.5), rtol=1e-6)


def test_what_is_not_finite_is_left_out():
    landmarks = seen(wave, noise=0.03)
    landmarks.log_ratio[::2] = np.nan
    landmarks.variance[1::8] = np.inf
    assert np.isfinite(factors(landmarks)).all()
    everything = LandmarkRatios(landmarks.pixels, np.full(200, np.nan), landmarks.variance)
    np.testing.assert_array_equal(factors(everything), 1)


@pytest.mark.parametrize('size', [(1, 1), (2, 500), (300, 2)])
def test_maps_of_any_size(size):
    found = depth_correction(seen(wave), 0.0, size,
                             np.diag([size[1] / 320, size[0] / 240, 1.0]), 320)
    assert found.shape == size and np.isfinite(found).all()
