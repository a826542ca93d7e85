"""Positions of another odometry at the times of images, and which of them are none."""

import math
import re

from nav_msgs.msg import Odometry
import numpy as np
import pytest

from xsvggt_ros.mapping.odometry_hint import (
    LOST_VARIANCE,
    MAX_MESSAGES,
    OdometryHint,
    RECENT,
    refusal,
    SENDER_PATIENCE,
    TURNED_BACK,
)

MILLI = 10 ** 6


def message(
    milliseconds=0, position=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0, 1.0), variances=(0.1, 0.1, 0.1),
    frames=('odom', 'base_link'),
):
    sample = Odometry(child_frame_id=frames[1])
    sample.header.frame_id = frames[0]
    sample.header.stamp.sec, sample.header.stamp.nanosec = divmod(milliseconds * MILLI, 10 ** 9)
    place, quaternion = sample.pose.pose.position, sample.pose.pose.orientation
    place.x, place.y, place.z = position
    quaternion.x, quaternion.y, quaternion.z, quaternion.w = turn
    sample.pose.covariance[0], sample.pose.covariance[7], sample.pose.covariance[14] = variances
    return sample


class Clock:
    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


def place(hint, milliseconds):
    known = hint.at(milliseconds * MILLI)
    return None if known is None else known[0]


def piece(hint, milliseconds):
    return hint.at(milliseconds * MILLI)[1]


def test_positions_are_interpolated_between_messages_and_nowhere_else():
    hint = OdometryHint()
    assert place(hint, 0) is None
    for index in range(5):
        hint.add(index * 100 * MILLI, (float(index), 2.0 * index, 0.0))
    np.testing.assert_allclose(place(hint, 150), (1.5, 3.0, 0.0))
    np.testing.assert_allclose(place(hint, 400), (4, 8, 0))
    np.testing.assert_allclose(place(hint, 0), (0, 0, 0))
    assert place(hint, 401) is None and place(hint, -1) is None
    hint.add(2000 * MILLI, (9.0, 9.0, 9.0))
    assert place(hint, 1000) is None   # between messages too far apart
    np.testing.assert_allclose(place(hint, 2000), (9, 9, 9))
    assert hint.distance(2100 * MILLI) == pytest.approx(0.1)


def test_each_stamp_twice_is_once():
    hint = OdometryHint()
    for index in range(1, 10):
        for _ in range(2):
            hint.take(message(20 * index, (0.1 * index, 0.0, 0.0)))
    np.testing.assert_allclose(place(hint, 150), (0.75, 0, 0))
    assert (hint.taken, hint.repeated, hint.fault()) == (9, 9, None)
    assert piece(hint, 30) == piece(hint, 150) and '9 repeated' in hint.description()


def test_memory_ends_and_time_may_begin_anew():
    hint = OdometryHint()
    for index in range(MAX_MESSAGES + 10):
        hint.add((1000 + index) * MILLI, (float(index), 0.0, 0.0))
    assert place(hint, 1005) is None and place(hint, 1020)[0] == 20
    before = piece(hint, 1020)
    for index in range(1, TURNED_BACK):   # some that are late begin nothing
        hint.take(message(index, (1.0, 1.0, 1.0)))
    assert place(hint, 1020)[0] == 20 and 'older than one before' in hint.fault()[1]
    hint.take(message(TURNED_BACK, (1.0, 1.0, 1.0)))
    assert place(hint, 1020) is None and place(hint, TURNED_BACK)[1] == 1
    assert piece(hint, TURNED_BACK) != before


def test_one_stamp_of_the_future_costs_little():
    hint = OdometryHint()
    hint.add(0, (0.0, 0.0, 0.0))
    hint.add(5000 * MILLI, (0.0, 0.0, 0.0))
    for index in range(1, 30):
        hint.add(20 * index * MILLI, (0.01 * index, 0.0, 0.0))
    np.testing.assert_allclose(place(hint, 500), (0.25, 0, 0))


NAN, INF = math.nan, math.inf
NOWHERE = [
    ({'turn': (0.0, 0.0, 0.0, 0.0), 'variances': (9999.0, 9999.0, 9999.0)}, 'quaternion is zero'),
    ({'turn': (0.0, 0.0, 0.0, 0.0)}, 'quaternion is zero'),
    ({'turn': (0.0, NAN, 0.0, 1.0)}, 'not finite'),
    ({'position': (0.0, INF, 0.0)}, 'not finite'), ({'position': (NAN, 0.0, 0.0)}, 'not finite'),
    ({'position': (0.0, 1e30, 0.0)}, '1e.30 m away'),
    ({'variances': (9999.0, 0.0, 0.0)}, '1e.04 m.2'),
    ({'variances': (0.1, LOST_VARIANCE, 0.1)}, 'lost'), ({'variances': (0.1, INF, 0.1)}, 'inf'),
    ({'variances': (-1.0, 0.0, 0.0)}, 'negative'), ({'variances': (0.0, 0.0, -1.0)}, 'negative')]


@pytest.mark.parametrize(('fields', 'reason'), NOWHERE)
def test_who_says_that_he_is_lost_is_believed(fields, reason):
    hint = OdometryHint()
    for index in range(1, 6):
        hint.take(message(20 * index, (0.1 * index, 0.0, 0.0)))
    for index in range(6, 10):
        hint.take(message(20 * index, **fields))
    assert hint.refused['lost'] == 4 and hint.taken == 5
    assert hint.fault()[0] == 'lost' and re.search(reason, hint.fault()[1])
    for index in range(10, 15):  # found again, elsewhere
        hint.take(message(20 * index, (0.2 * index, 0.0, 0.0)))
    assert place(hint, 150) is None   # between what was known before and after
    assert piece(hint, 90) != piece(hint, 250)
    assert hint.fault() is None and '4 refused (lost)' in hint.description()


def test_who_does_not_know_his_height_or_his_covariance_is_not_lost():
    assert not refusal(message(variances=(1e-3, 1e-3, 1e6)))   # wheels
    assert not refusal(message(variances=(NAN, 0.0, 0.0)))     # MAVROS: not known
    assert not refusal(message(position=(6.4e6, 0.0, 0.0)))    # on the earth
    assert not refusal(message(variances=(0.0, 0.0, 0.0)))


def walk(count, speed=0.02):
    """Return positions of a camera that accelerates, drives and stops, at 50 Hz."""
    steps = speed * np.sin(np.linspace(0, 3 * np.pi, count)).clip(0)
    return np.cumsum(np.stack((steps, 0.5 * steps, 0 * steps), -1), axis=0)


@pytest.mark.parametrize('size', [0.3, 2.0, 100.0])
def test_a_jump_ends_a_piece_and_nothing_is_known_in_between(size):
    hint, way = OdometryHint(), walk(100)
    way[60:] += (0.0, size, 0.0)
    for index, position in enumerate(way):
        hint.add(20 * index * MILLI, tuple(position.tolist()))
    pieces = [piece(hint, 20 * index) for index in range(100)]
    assert pieces == [pieces[0]] * 60 + [pieces[60]] * 40 and pieces[0] != pieces[60]
    assert place(hint, 59 * 20 + 10) is None
    np.testing.assert_allclose(place(hint, 58 * 20 + 10), way[58:60].mean(axis=0))


def test_a_jump_is_not_believed_before_it_is_known_to_be_one():
    hint = OdometryHint()
    for index in range(10):
        hint.add(20 * index * MILLI, (0.01 * index, 0.0, 0.0))
    hint.add(200 * MILLI, (0.6, 0.0, 0.0))
    assert place(hint, 190) is None and place(hint, 200) is None   # a jump, or full throttle?
    hint.add(220 * MILLI, (1.1, 0.0, 0.0))
    np.testing.assert_allclose(place(hint, 190), (0.345, 0, 0))
    assert piece(hint, 190) == piece(hint, 100)


@pytest.mark.parametrize('seed', range(3))
def test_going_stopping_and_noise_are_no_jumps(seed):
    rng = np.random.default_rng(seed)
    hint = OdometryHint()
    way = np.concatenate((np.zeros((50, 3)), 5 * walk(200)))   # 5 m/s after standing still
    way = np.concatenate((way, way[-1:] + np.zeros((50, 3))))
    for index, position in enumerate(way + rng.normal(0, 0.01, way.shape)):
        hint.add(20 * index * MILLI, tuple(position.tolist()))
    assert piece(hint, 0) == piece(hint, 20 * (len(way) - 2))


def test_of_two_odometries_on_one_topic_one_is_listened_to():
    clock = Clock()
    hint = OdometryHint(clock)
    for index in range(1, 50):
        clock.seconds += 0.02
        hint.take(message(20 * index, (0.02 * index, 0.0, 0.0)))
        hint.take(message(20 * index + 5, (50.0, 0.0, 0.0), frames=('map', 'imu')))
        hint.take(message(20 * index + 5, turn=(0.0,) * 4, frames=('map', 'imu')))
    np.testing.assert_allclose(place(hint, 510), (0.51, 0, 0))
    assert piece(hint, 30) == piece(hint, 900) and hint.refused['frames'] == 98
    assert "'map'" in hint.fault()[1] and "'odom'" in hint.fault()[1]
    assert hint.fault()[0] == 'frames'
    clock.seconds += SENDER_PATIENCE + 0.1   # it has ended: the other may take over
    for index in range(200, 220):
        hint.take(message(20 * index, (50.0, 0.0, 0.0), frames=('/map', '/imu')))
    assert piece(hint, 4100) != piece(hint, 900)
    clock.seconds += RECENT
    hint.take(message(5000, (50.0, 0.0, 0.0), frames=('map', 'imu')))
    assert hint.fault() is None


def test_messages_without_a_stamp_are_named():
    hint = OdometryHint()
    hint.take(message(0))
    assert 'no stamp' in hint.fault()[1] and hint.taken == 0
    assert OdometryHint().description() == 'nothing yet'
