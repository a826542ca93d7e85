"""Errors of depth that a keyframe's landmarks have in common, and what they do to a pose."""

from dataclasses import replace

import numpy as np
import pytest
from scenes import make_problem

from xsvggt_ros.trajectory.adjustment import solve
from xsvggt_ros.trajectory.shared_depth import shared_covariance, shared_error

ANCHOR = np.repeat([3, 4, 7], 10)


def test_the_error_in_common_is_found_under_that_of_each_landmark():
    rng = np.random.default_rng(0)
    off = np.repeat([0.1, -0.1, 0.1], 10) + rng.normal(0, 0.01, 30)
    assert shared_error(off, np.ones(30, bool), ANCHOR) == pytest.approx(0.01, rel=0.2)
    # A keyframe whose landmarks' depths the network alone tells has nothing to say.
    off[:10] = 5.0
    assert shared_error(off, ANCHOR > 3, ANCHOR) == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize('off', [np.zeros(30), np.full(30, np.nan)])
def test_while_nothing_tells_it_is_not_taken_for_none(off):
    nothing = np.zeros(30, bool) if np.isfinite(off).all() else np.ones(30, bool)
    assert shared_error(off, nothing, ANCHOR) == pytest.approx(0.01)


def test_landmarks_of_a_keyframe_count_together_and_keyframes_by_themselves():
    one = shared_covariance(np.full((30, 6), 0.1), ANCHOR, 0.04)
    np.testing.assert_allclose(one, np.full((6, 6), 3 * 0.04))
    np.testing.assert_allclose(shared_covariance(np.zeros((0, 6)), ANCHOR[:0], 0.04), 0 * one)


def test_it_says_how_far_a_pose_moves_with_the_depths_of_a_keyframe():
    truth = make_problem(np.random.default_rng(100), noise=0.0)
    middle = solve(truth)
    found = solve(replace(truth, prior=truth.prior + 0.02))
    moved = np.linalg.inv(middle.poses[-1]) @ found.poses[-1]
    assert len(np.unique(truth.anchor)) == 1 and np.abs(moved[:3, 3]).max() > 1e-3
    told = np.sqrt(np.diag(middle.shared)[3:])     # by an error of _UNTOLD, or what was found
    size = np.sqrt(shared_error(middle.log_inverse_depth - truth.prior,
                                middle.depth_information > 2 / truth.prior_sigma ** 2,
                                truth.anchor))
    np.testing.assert_allclose(told * 0.02, np.abs(moved[:3, 3]) * size, rtol=0.1, atol=1e-6)
