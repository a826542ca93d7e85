"""Small motions, projection and kernels."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from xsvggt_ros.trajectory import projection
from xsvggt_ros.trajectory.projection import (
    inverse,
    motion,
    nearest_pose,
    project,
    projection_jacobian,
    rays,
    rotation,
    rotation_vector,
)

CAMERA = np.array([[300.0, 0.0, 160.0], [0.0, 310.0, 120.0], [0.0, 0.0, 1.0]])
NUMBER = st.floats(-1.7, 1.7, allow_nan=False)


@given(st.tuples(NUMBER, NUMBER, NUMBER))
def test_rotation_and_its_vector_are_inverse(vector):
    matrix = rotation(np.array(vector))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rotation_vector(matrix), vector, atol=1e-7)


@pytest.mark.parametrize('axis', range(3))
@pytest.mark.parametrize('angle', [0.0, 1e-9, 1e-4, 2.0, 3.0, np.pi - 1e-6, np.pi])
def test_a_turn_of_any_angle_has_its_vector(axis, angle):
    vector = np.eye(3)[axis] * angle
    found = rotation_vector(rotation(vector))
    np.testing.assert_allclose(np.abs(found), np.abs(vector), atol=1e-7)


def test_rotation_vectors_of_many_are_those_of_each():
    vectors = np.random.default_rng(0).normal(size=(2, 5, 3))
    together = rotation_vector(rotation(vectors))
    np.testing.assert_allclose(together, vectors, atol=1e-9)
    alone = rotation_vector(rotation(vectors[1, 3]))
    np.testing.assert_allclose(together[1, 3], alone, atol=1e-12)


def test_motions_are_exponentials_to_first_order():
    small = 1e-5 * np.array([1.0, -2.0, 3.0, 4.0, -5.0, 6.0])
    expected = np.eye(4)
    expected[:3, :3] += projection.skew(small[:3])
    expected[:3, 3] = small[3:]
    np.testing.assert_allclose(motion(small), expected, atol=1e-8)


def test_the_inverse_of_a_nearest_pose_is_exact_after_many_products():
    pose = np.eye(4)
    step = motion(np.array([0.3, -0.2, 0.5, 0.1, 0.2, 0.3]))
    for _ in range(1000):
        pose = nearest_pose(pose @ inverse(pose) @ pose @ step)
    np.testing.assert_allclose(pose @ inverse(pose), np.eye(4), atol=1e-9)


def test_projection_has_its_derivatives():
    rng = np.random.default_rng(0)
    points = rng.uniform((-1, -1, 1), (1, 1, 4), (20, 3))
    jacobian = projection_jacobian(points, CAMERA)
    for axis in range(3):
        step = 1e-6 * np.eye(3)[axis]
        slope = (project(points + step, CAMERA) - project(points - step, CAMERA)) / 2e-6
        np.testing.assert_allclose(jacobian[:, :, axis], slope, rtol=1e-6, atol=1e-5)


def test_rays_lead_back_to_their_pixels():
    pixels = np.random.default_rng(1).uniform(0, 300, (20, 2))
    np.testing.assert_allclose(project(3.0 * rays(pixels, CAMERA), CAMERA), pixels, atol=1e-9)


def test_what_is_behind_the_camera_is_far_off_and_finite():
    pixels = project(np.array([[0.1, 0.1, -2.0], [0.0, 0.0, 0.0]]), CAMERA)
    assert np.isfinite(pixels).all() and (np.abs(pixels).max(1) > 900).all()


def test_kernels_are_least_squares_near_zero_and_their_weights_are_slopes():
    squares = np.linspace(0.0, 50.0, 200)
    for weights, cost in ((projection.huber_weights, projection.huber_cost),
                          (projection.cauchy_weights, projection.cauchy_cost)):
        for square in squares:
            slope = (cost(np.array([square + 1e-5]), 2.0) - cost(np.array([square]), 2.0)) / 1e-5
            assert weights(np.array([square]), 2.0)[0] == pytest.approx(slope, abs=1e-3)
