"""Covariances are finite and positive definite, whatever is known, and grow with the way."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.projection import inverse, motion
from xsvggt_ros.trajectory.uncertainty import (
    adjoint,
    bounded,
    Drift,
    HALF_NORMAL,
    misfit,
    pose_covariance,
    propagated,
    RAYLEIGH,
    UNKNOWN,
)

INFORMATION = np.diag([1e6, 1e6, 1e6, 1e5, 1e5, 1e4])
AHEAD = motion(np.array([0.0, 0.05, 0.0, 0.02, 0.0, 0.1]))
numbers = st.floats(-1e12, 1e12) | st.sampled_from([0.0, np.inf, -np.inf, np.nan, 1e300])


def check(covariance):
    assert covariance.shape == (6, 6) and np.isfinite(covariance).all()
    assert np.array_equal(covariance, covariance.T)
    assert (np.linalg.eigvalsh(covariance) > 0).all()


def test_what_is_foreseen_is_what_comes_and_changes_nothing():
    plain, asked = start(), start()
    for lost in (False, False, True, False):
        given = AHEAD, None if lost else INFORMATION, np.eye(4), 1.3, 1.5
        if lost:
            assert np.array_equal(plain.step(*given), asked.step(*given))
            continue
        for _ in range(3):
            ahead = asked.foresee(*given, landmarks=90)
        assert np.array_equal(plain.step(*given, landmarks=90), asked.take(ahead))
        assert np.array_equal(plain.covariance, asked.covariance)


def grown(drift, steps, step=AHEAD, information=INFORMATION, every=3):
    """Return the position's RMS after so many steps, each `every`-th of which is a keyframe."""
    for number in range(steps):
        drift.step(step, information, np.eye(4))
        if not (number + 1) % every:
            drift.add_keyframe()
    return float(np.sqrt(drift.covariance[3:, 3:].trace()))


def start(window=True):
    drift = Drift(TrajectoryConfig())
    drift.add_keyframe()
    if window:
        drift.take_window(np.kron(np.eye(10), np.diag([4e-6] * 3 + [1e-4] * 3)))
    return drift


def test_a_motion_is_the_same_seen_from_another_frame():
    transform = motion(np.array([0.3, -0.5, 0.2, 1.0, 2.0, -1.0]))
    small = 1e-6 * np.array([1.0, 2.0, -1.0, 0.5, -2.0, 3.0])
    there = transform @ motion(small) @ np.linalg.inv(transform)
    np.testing.assert_allclose(there, motion(adjoint(transform) @ small), atol=1e-10)


def test_a_rotation_that_is_not_known_makes_the_end_of_a_way_unsure_across_it():
    turn = np.diag([0.0, 1e-4, 0.0, 0.0, 0.0, 0.0])   # about y, 0.01 rad
    way = np.eye(4)
    way[2, 3] = 5.0   # ahead
    np.testing.assert_allclose(np.diag(propagated(turn, way))[3:], [25 * 1e-4, 0, 0], atol=1e-12)


def test_carried_errors_are_those_of_ways_that_began_wrong():
    rng = np.random.default_rng(0)
    first = np.diag([1e-4, 2e-4, 3e-4, 1e-3, 2e-3, 1e-3])
    step = motion(np.array([0.2, -0.4, 0.1, 1.0, 0.3, 2.0]))
    errors = []
    for small in 0.1 * rng.multivariate_normal(np.zeros(6), first, 4000):
        off = inverse(step) @ motion(small) @ step
        errors.append(np.concatenate([[off[2, 1], off[0, 2], off[1, 0]], off[:3, 3]]))
    sampled = 100 * np.cov(np.array(errors).T)
    expected = propagated(first, step)
    assert np.abs(sampled - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize('information', [
    np.zeros((6, 6)), np.diag([1e20, 1, 1, 0, 0, 0.0]), -np.eye(6), np.full((6, 6), 1e3),
    np.full((6, 6), np.inf), np.full((6, 6), np.nan)])
def test_any_information_gives_a_covariance(information):
    check(pose_covariance(information))
    check(start().step(AHEAD, information, np.eye(4)))
    check(UNKNOWN)


def test_well_known_information_is_inverted():
    np.testing.assert_allclose(pose_covariance(INFORMATION), np.linalg.inv(INFORMATION), rtol=1e-3,
                               atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(
    st.lists(numbers, min_size=6, max_size=6), st.lists(st.floats(-3, 3), min_size=6, max_size=6),
    st.booleans(), st.booleans(), st.floats(0.01, 100)), min_size=1, max_size=6),
    st.lists(numbers, min_size=12, max_size=12))
def test_whatever_comes_covariances_are_finite_and_positive_definite(steps, window):
    drift = start(window=False)
    drift.take_window(np.diag(window), misfit(np.array(window), HALF_NORMAL))
    for diagonal, small, lost, keyframe, unit in steps:
        step = motion(np.array(small))
        check(drift.step(step, None if lost else np.diag(diagonal), step, unit,
                         misfit(diagonal[0], RAYLEIGH)))
        check(drift.covariance)
        if keyframe:
            drift.add_keyframe()


@pytest.mark.slow
def test_a_long_way_stays_positive_definite():
    drift = start()
    grown(drift, 4_000, motion(np.array([0.0, 0.05, 0.0, 0.0, 0.0, 50.0])))
    check(drift.covariance)


def test_the_way_grows_less_sure_as_a_random_walk():
    drift = start()
    straight = motion(np.array([0, 0, 0, 0, 0, 1e-6]))
    quarter, whole = grown(drift, 60, straight), grown(drift, 180, straight)
    assert whole == pytest.approx(2 * quarter, rel=0.1)


def test_twice_the_frames_say_the_same_of_a_way():
    seldom = grown(start(), 60, every=2)
    often = grown(start(), 120, motion(0.5 * np.array([0.0, 0.05, 0.0, 0.02, 0.0, 0.1])), every=4)
    assert often == pytest.approx(seldom, rel=0.05)


def test_a_camera_that_stands_still_hardly_drifts():
    drift = start()
    before = grown(drift, 30)
    after = grown(drift, 300, np.eye(4), every=10_000)
    assert after ** 2 < before ** 2 + 60 / 30 * before ** 2


def test_no_window_says_less_than_one():
    assert grown(start(window=False), 30) > 0
    alone = start(window=False).step(AHEAD, INFORMATION, np.eye(4))
    config = TrajectoryConfig()
    np.testing.assert_allclose(np.diag(alone), config.alone_inflation / np.diag(INFORMATION),
                               rtol=1e-3)


def test_a_gap_makes_the_way_unsure_and_more_so_the_longer_it_is():
    drift = start()
    grown(drift, 10)
    sizes = [drift.covariance[3:, 3:].trace()]
    for _ in range(5):
        drift.step(np.eye(4), None, np.eye(4))
        sizes.append(drift.covariance[3:, 3:].trace())
    assert sizes[1] > sizes[0] + 2.9 and (np.diff(sizes) > 0.2).all()


def test_who_is_found_again_where_he_was_lost_is_as_sure_as_before():
    drift, never = start(), start()
    grown(drift, 10)
    grown(never, 11)
    for _ in range(5):
        drift.step(np.eye(4), None, np.eye(4))
    step = drift.step(AHEAD, INFORMATION, np.eye(4))
    assert step[3, 3] > 1   # back from the guess
    assert drift.covariance[3:, 3:].trace() < 1.2 * never.covariance[3:, 3:].trace()


def test_a_guess_by_an_odometry_adds_what_that_says_and_no_more():
    told = np.diag([1e-4] * 3 + [4e-4] * 3)
    drift, never = start(), start()
    grown(drift, 10)
    grown(never, 11)
    before = drift.covariance
    for count in range(1, 6):
        added = drift.step(np.eye(4), None, np.eye(4), unit=2.0, carried_by=told)
        np.testing.assert_allclose(np.diag(added), [1e-4] * 3 + [16e-4] * 3, rtol=1e-3)
        np.testing.assert_allclose(drift.covariance, before + count * np.diag(np.diag(added)),
                                   atol=1e-6)
    step = drift.step(AHEAD, INFORMATION, np.eye(4))
    assert 5 * 16e-4 < step[3, 3] < 0.05      # back from where the odometry had it
    assert drift.covariance[3:, 3:].trace() < 1.2 * never.covariance[3:, 3:].trace()
    # One that nothing tells of in between is as unsure as it ever was.
    for odometry in (told, None, told):
        drift.step(np.eye(4), None, np.eye(4), carried_by=odometry)
    assert drift.covariance[3, 3] > 1 and drift.step(AHEAD, INFORMATION, np.eye(4))[3, 3] > 1


def test_a_keyframe_that_was_guessed_stays_unsure():
    drift = start()
    grown(drift, 10)
    drift.step(np.eye(4), None, np.eye(4))
    drift.add_keyframe()
    step = drift.step(AHEAD, INFORMATION, np.eye(4))
    assert drift.covariance[3, 3] > 1 and step[3, 3] < 0.1


def test_lengths_grow_with_the_unit():
    one = start().step(AHEAD, INFORMATION, np.eye(4))
    two = start().step(AHEAD, INFORMATION, np.eye(4), unit=2.0)
    np.testing.assert_allclose(np.diag(two), np.diag(one) * [1, 1, 1, 4, 4, 4], rtol=1e-4)


def test_residuals_larger_than_their_sigmas_make_variances_larger():
    rng = np.random.default_rng(0)
    sizes = np.abs(rng.normal(0, 1, 10_000))
    assert misfit(sizes, HALF_NORMAL) == pytest.approx(1, rel=0.05)
    assert misfit(3 * sizes, HALF_NORMAL) == pytest.approx(9, rel=0.05)
    assert misfit(0.1 * sizes, HALF_NORMAL) == 1
    lengths = np.linalg.norm(rng.normal(0, 1, (10_000, 2)), axis=1)
    assert misfit(2 * lengths, RAYLEIGH) == pytest.approx(4, rel=0.05)
    assert [misfit(np.empty(0), 1.0), misfit(float('nan'), 1.0), misfit(1e9, 1.0)] == [1, 1, 100]
    one = start().step(AHEAD, INFORMATION, np.eye(4))
    twice = start().step(AHEAD, INFORMATION, np.eye(4), pixel_misfit=2.0)
    np.testing.assert_allclose(np.diag(twice), 2 * np.diag(one), rtol=1e-4)


def test_depth_errors_in_common_make_the_window_less_sure():
    def first(shared):
        drift = start(window=False)
        drift.take_window(np.eye(60) * 1e-4, shared=shared)
        return drift.step(AHEAD, INFORMATION, np.eye(4))
    shared = np.diag([0, 0, 0, 1e-3, 0, 0])
    np.testing.assert_allclose(first(shared) - first(None),
                               TrajectoryConfig().depth_inflation / 10 * shared, atol=1e-8)
    check(first(np.full((6, 6), np.nan)))


def test_a_misfit_that_lasts_counts_more_the_more_landmarks_share_it():
    def last(misfits, landmarks):
        drift = start()
        return [drift.step(AHEAD, INFORMATION, np.eye(4), pixel_misfit=one, landmarks=landmarks)
                for one in misfits][-1][3, 3]
    well = last([1.0] * 20, 240)
    assert well == pytest.approx(last([1.0] * 20, 0), rel=1e-6)
    assert last([1.0] * 19 + [2.0], 240) == pytest.approx(2 * well, rel=1e-3)    # of chance
    assert last([2.0] * 20, 10) == pytest.approx(2 * well, rel=1e-3)
    assert last([2.0] * 20, 240) == pytest.approx((2 + 9) * well, rel=1e-3)
    over = last([2.0] * 20 + [1.0] * 16, 240)
    assert over == pytest.approx(last([1.0] * 36, 240), rel=1e-3)


def test_what_is_endless_is_bounded():
    huge = bounded(np.diag([1e9] * 3 + [1e12] * 3))
    check(huge)
    assert huge[0, 0] < 20 and huge[3, 3] < 2e6
    check(bounded(np.full((6, 6), np.nan)))
