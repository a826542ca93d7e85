"""Positions of another odometry at the times of images."""

import numpy as np

from xsvggt_ros.node.odometry_hint import MOST, OdometryHint

MILLI = 10 ** 6


def test_positions_are_interpolated_between_messages_and_nowhere_else():
    hint = OdometryHint()
    assert hint.at(0) is None
    for index in range(5):
        hint.add(index * 100 * MILLI, (float(index), 2.0 * index, 0.0))
    np.testing.assert_allclose(hint.at(150 * MILLI), (1.5, 3.0, 0.0))
    np.testing.assert_allclose(hint.at(400 * MILLI), (4, 8, 0))
    np.testing.assert_allclose(hint.at(0), (0, 0, 0))
    assert hint.at(401 * MILLI) is None and hint.at(-1) is None
    hint.add(2000 * MILLI, (9.0, 9.0, 9.0))
    assert hint.at(1000 * MILLI) is None   # between messages too far apart
    np.testing.assert_allclose(hint.at(2000 * MILLI), (9, 9, 9))


def test_time_that_goes_back_and_memory_that_ends():
    hint = OdometryHint()
    for index in range(MOST + 10):
        hint.add(index * MILLI, (float(index), 0.0, 0.0))
    assert hint.at(5 * MILLI) is None and hint.at(20 * MILLI)[0] == 20
    hint.add(3 * MILLI, (1.0, 1.0, 1.0))
    assert hint.at(20 * MILLI) is None and hint.at(3 * MILLI)[1] == 1
