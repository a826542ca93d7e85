"""How much of the network's relief is believed, and what depths become of it."""

import numpy as np
import pytest

from xsvggt_ros.trajectory.adjustment import UNKNOWN_SIGMA
from xsvggt_ros.trajectory.depth_trust import DepthTrust


def landmarks(slope, count=200, noise=0.05, seed=0):
    """Return log depths that a network says of landmarks, and those they have."""
    rng = np.random.default_rng(seed)
    told = rng.normal(0.4, 0.3, count)
    return told, slope * (told - 0.4) + 1.5 + rng.normal(0, noise, count)


def test_a_network_that_is_right_is_left_as_it_is():
    trust = DepthTrust()
    for seed in range(20):
        trust.add(*landmarks(0.9, seed=seed))
    depths, sigmas = np.array([0.5, 2.0]), np.array([0.1, 0.2])
    for before, after in zip((depths, sigmas), trust.judged(depths, sigmas, 1.0)):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize('slope, share', [(0.0, 0.0), (-1.0, 0.0), (0.15, 0.5)])
def test_relief_that_is_not_there_is_taken_out(slope, share):
    trust = DepthTrust()
    for seed in range(40):
        trust.add(*landmarks(slope, seed=seed))
    assert trust.share == pytest.approx(share, abs=0.05)
    depths, sigmas = trust.judged(np.array([0.5, 2.0, np.nan]), np.full(3, 0.1), 1.0)
    np.testing.assert_allclose(depths[:2], (0.5 ** share, 2.0 ** share), rtol=0.05)
    np.testing.assert_allclose(sigmas, np.hypot(0.1, (1 - share) * UNKNOWN_SIGMA), atol=0.03)


def test_it_is_learned_slowly_or_at_once():
    trust = DepthTrust()
    trust.add(*landmarks(0.0))
    assert trust.share == 1.0
    trust.begin_anew(*landmarks(0.0))
    assert trust.share == pytest.approx(0.0, abs=0.1)
    for seed in range(20):
        trust.add(*landmarks(1.0, seed=seed))
    assert trust.share == 1.0


def test_what_says_nothing_changes_nothing():
    trust = DepthTrust()
    trust.begin_anew(*landmarks(0.0, count=19))
    told, true = landmarks(0.0)
    trust.begin_anew(np.full_like(told, 0.4), true)
    assert trust.share == 1.0
    told[0], true[0] = 50.0, -50.0     # one that is far off counts little
    trust.begin_anew(*[np.append(values, extra) for values, extra in zip(
        landmarks(1.0), (50.0, -50.0))])
    assert trust.share == 1.0


def test_without_a_middle_depths_stay():
    trust = DepthTrust()
    trust.begin_anew(*landmarks(0.0))
    depths = np.array([1.0, 2.0])
    np.testing.assert_array_equal(trust.judged(depths, np.full(2, 0.1), 0.0)[0], depths)
