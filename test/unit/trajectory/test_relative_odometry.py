"""Motions of the camera by an odometry from elsewhere: between which times, and how sure."""

import numpy as np
import pytest

from xsvggt_ros.geometry.quaternions import quaternion_from_matrix
from xsvggt_ros.mapping.odometry_hint import MAX_GAP, OdometryHint
from xsvggt_ros.trajectory.projection import inverse, motion, rotation_vector
from xsvggt_ros.trajectory.relative_odometry import MAX_AHEAD, RelativeOdometry, View

MILLI = 10 ** 6
NOTHING = np.zeros(36)


def driven(seconds):
    """Return where a robot is that drives a curve at 0.5 m/s, turning by 0.4 rad/s."""
    pose = motion(np.array([0.0, 0.0, 0.4 * seconds, 0.0, 0.0, 0.0]))
    pose[:2, 3] = (0.5 / 0.4 * np.sin(0.4 * seconds), 0.5 / 0.4 * (1 - np.cos(0.4 * seconds)))
    return pose


def add(hint, milliseconds, pose, covariance=NOTHING):
    hint.add(milliseconds * MILLI, tuple(pose[:3, 3]), quaternion_from_matrix(pose[:3, :3]),
             np.asarray(covariance, float).ravel())


def filled(until=3000, period=20, covariance=lambda seconds: NOTHING):
    hint = OdometryHint()
    for milliseconds in range(0, until + 1, period):
        seconds = milliseconds / 1000
        add(hint, milliseconds, driven(seconds), covariance(seconds))
    return hint


def view(milliseconds, base_from_camera=np.eye(4)):
    return View(round(milliseconds * MILLI), base_from_camera)


def growing(position, turn):
    return lambda seconds: np.diag([position * seconds] * 3 + [turn * seconds] * 3)


def test_motions_are_interpolated_and_moved_to_the_camera():
    relative = RelativeOdometry(filled())
    mounts = [motion(np.array([0.3, -1.2, 0.8, 0.2, 0.1, 0.5])),
              motion(np.array([0.3, -1.2, 1.1, 0.2, 0.1, 0.5]))]   # it turns on the robot
    found = relative.between(view(507, mounts[0]), view(1733, mounts[1]))
    true = inverse(driven(0.507) @ mounts[0]) @ driven(1.733) @ mounts[1]
    np.testing.assert_allclose(found.before_from_after, true, atol=1e-4)
    assert found.is_exact
    # A rotation half way between two poses lies on the arc between them, not on its chord.
    hint = OdometryHint()
    for milliseconds, turn in ((0, 0.0), (400, 2.0)):
        add(hint, milliseconds, motion(np.array([0, 0, turn, 0, 0, 0])))
    turned = RelativeOdometry(hint).between(view(0), view(100)).before_from_after
    np.testing.assert_allclose(rotation_vector(turned[:3, :3]), (0, 0, 0.5), atol=1e-9)


def test_nothing_is_told_outside_of_the_poses_or_back_in_time():
    relative = RelativeOdometry(filled())
    assert RelativeOdometry(OdometryHint()).between(view(0), view(10), ahead=True) is None
    assert relative.between(view(-10), view(100)) is None
    assert relative.between(view(2900), view(3001)) is None
    assert relative.between(view(100), view(100)) is None
    assert relative.between(view(200), view(100)) is None
    assert relative.between(view(0), view(3000)) is not None


def test_the_newest_motion_is_gone_on_with_for_a_moment_only():
    relative = RelativeOdometry(filled())
    exact = relative.between(view(2800), view(3000))
    ahead = relative.between(view(2800), view(3100), ahead=True)
    true = inverse(driven(2.8)) @ driven(3.1)
    assert exact.is_exact and not ahead.is_exact
    np.testing.assert_allclose(ahead.before_from_after, true, atol=2e-3)
    assert ahead.covariance[3, 3] > 2 * exact.covariance[3, 3]
    # Both ends may be later than the newest pose.
    assert relative.between(view(3020), view(3080), ahead=True) is not None
    assert relative.between(view(2800), view(3001 + 1000 * MAX_AHEAD), ahead=True) is None


@pytest.mark.parametrize('fault', ['jump', 'turn', 'gap', 'lost', 'position only'])
def test_nothing_is_told_across_what_is_not_continuous(fault):
    hint, jump = filled(1000), np.eye(4)
    start = 1020
    if fault == 'jump':
        jump[0, 3] = 40.0
    elif fault == 'turn':
        jump = motion(np.array([0, 0, 1.5, 0, 0, 0]))
    elif fault == 'gap':
        start = 1000 + round(1000 * MAX_GAP) + 20
    elif fault == 'lost':
        hint.lose('its quaternion is zero')
    else:
        hint.add(1010 * MILLI, tuple(driven(1.01)[:3, 3]))
    for milliseconds in range(start, start + 1001, 20):
        pose = driven(milliseconds / 1000)
        pose[:3, :3] = pose[:3, :3] @ jump[:3, :3]
        pose[:3, 3] += jump[:3, 3]
        add(hint, milliseconds, pose)
    relative = RelativeOdometry(hint)
    if fault == 'position only':   # that one alone is missing
        assert relative.between(view(900), view(1012)) is None
        assert relative.between(view(900), view(1100)) is not None
        return
    assert relative.between(view(900), view(start + 100)) is None
    assert relative.between(view(900), view(1000)) is not None
    assert relative.between(view(start), view(start + 100)) is not None


def test_positions_for_the_scale_are_as_before_where_only_the_turn_jumps():
    hint = filled(1000)
    add(hint, 1020, driven(1.02) @ motion(np.array([0, 0, 1.5, 0, 0, 0])))
    add(hint, 1040, driven(1.04) @ motion(np.array([0, 0, 1.5, 0, 0, 0])))
    assert hint.at(1030 * MILLI)[1] == hint.at(500 * MILLI)[1]


def test_a_sender_who_tells_no_covariance_gets_one_that_grows_with_the_way():
    relative = RelativeOdometry(filled(covariance=lambda seconds: np.diag([0.01] * 6)))
    silent = RelativeOdometry(filled())
    whole, parts = silent.between(view(0), view(2000)), np.zeros((6, 6))
    np.testing.assert_allclose(   # a constant covariance tells as little as none
        relative.between(view(0), view(2000)).covariance, whole.covariance, rtol=1e-6)
    for start in range(0, 2000, 100):
        parts += silent.between(view(start), view(start + 100)).covariance
    # As sure in one as in parts: about 5 cm after a metre.
    assert np.trace(parts) == pytest.approx(np.trace(whole.covariance), rel=0.1)
    assert 0.03 ** 2 < whole.covariance[3, 3] < 0.08 ** 2


def test_what_the_sender_tells_of_its_drift_is_taken_over():
    told = RelativeOdometry(filled(covariance=growing(0.04, 0.02)))
    found = told.between(view(1000), view(2000)).covariance
    assert found[2, 2] == pytest.approx(0.02, rel=0.1)    # of the rotation
    # Across the way less, by what the heading's error at the start explains: 0.02 * (0.5 m)^2.
    assert 0.03 < found[4, 4] < found[3, 3] - 0.003 < 0.04
    sure = RelativeOdometry(filled(covariance=growing(1e-9, 1e-9)))
    default = RelativeOdometry(filled())
    least, most = (one.between(view(1000), view(2000)).covariance for one in (sure, default))
    assert 0.02 < least[3, 3] / most[3, 3] < 0.1          # bounded below


def test_what_the_sender_does_not_know_stays_unknown_and_everything_positive_definite():
    planar = np.diag([0.01, 0.01, 1e6, 1e6, 1e6, 0.01])   # as wheels often say it
    strange = np.full((6, 6), np.nan)
    shrinking = RelativeOdometry(filled(covariance=lambda s: np.eye(6) * (5 - s)))
    mount = motion(np.array([-1.2, 1.2, -1.2, 0.3, 0.0, 1.0]))
    for covariance in (planar, strange, -np.eye(6), np.eye(6) * 1e-12, np.ones((6, 6))):
        relative = RelativeOdometry(filled(covariance=lambda seconds: covariance))
        for start, end in ((0, 40), (0, 3000), (7, 9)):
            found = relative.between(view(start, mount), view(end, mount)).covariance
            values = np.linalg.eigvalsh(found)
            assert np.isfinite(found).all() and values.min() > 0
            np.testing.assert_allclose(found, found.T)
    assert np.linalg.eigvalsh(shrinking.between(view(0), view(1000)).covariance).min() > 0
    relative = RelativeOdometry(filled(covariance=lambda seconds: planar))
    found = relative.between(view(0), view(1000)).covariance
    assert found[5, 5] > 20 * found[3, 3] and found[0, 0] > 20 * found[2, 2]
