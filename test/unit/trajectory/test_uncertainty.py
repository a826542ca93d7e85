"""Covariances are finite and positive definite, whatever is known."""

import numpy as np
import pytest

from xsvggt_ros.trajectory.projection import motion
from xsvggt_ros.trajectory.uncertainty import adjoint, frame_covariance, UNKNOWN


def test_a_motion_is_the_same_seen_from_another_frame():
    transform = motion(np.array([0.3, -0.5, 0.2, 1.0, 2.0, -1.0]))
    small = 1e-6 * np.array([1.0, 2.0, -1.0, 0.5, -2.0, 3.0])
    there = transform @ motion(small) @ np.linalg.inv(transform)
    np.testing.assert_allclose(there, motion(adjoint(transform) @ small), atol=1e-10)


def test_a_frame_is_as_unsure_as_itself_and_its_keyframe():
    information = np.diag([1e4, 1e4, 1e4, 100.0, 100.0, 100.0])
    keyframe = np.diag([1e-4] * 3 + [0.03] * 3)
    alone = frame_covariance(information, None, np.eye(4), 4.0)
    np.testing.assert_allclose(np.diag(alone), 4 / np.diag(information), rtol=1e-6)
    both = frame_covariance(information, keyframe, np.eye(4), 1.0)
    np.testing.assert_allclose(np.diag(both), np.diag(keyframe) + 1 / np.diag(information),
                               rtol=1e-5)


@pytest.mark.parametrize('information', [
    np.zeros((6, 6)), np.diag([1e20, 1, 1, 0, 0, 0.0]), -np.eye(6), np.full((6, 6), 1e3),
    np.full((6, 6), np.inf), np.full((6, 6), np.nan)])
def test_any_information_gives_a_covariance(information):
    covariance = frame_covariance(information, None, np.eye(4), 4.0)
    assert np.isfinite(covariance).all() and np.array_equal(covariance, covariance.T)
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    assert (np.linalg.eigvalsh(UNKNOWN) > 0).all()
