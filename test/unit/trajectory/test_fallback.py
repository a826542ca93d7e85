"""Which guess is taken when tracks are lost."""

import numpy as np

from xsvggt_ros.trajectory.fallback import Fallback, Located, network_step
from xsvggt_ros.trajectory.projection import motion


def at(x):
    return motion(np.array([0, 0, 0, x, 0, 0.0]))


def located(step, jitter, scale=2.0, frames=30, shake=0.0):
    """Return a fallback for which the camera went by `step` a frame, and shook meanwhile."""
    rng = np.random.default_rng(0)
    fallback = Fallback(60)
    for index in range(frames):
        place = step * index + shake * (-1) ** index
        network = at((place + rng.normal(0, jitter)) / scale)
        fallback.add(Located(index, at(place), network, scale))
    return fallback


def test_a_good_network_is_followed_in_the_trajectorys_unit():
    fallback = located(0.1, 0.005)
    pose, source = fallback.guess(32, at(3.2 / 2.0), blind=False)
    assert source == 'network' and abs(pose[0, 3] - 3.2) < 0.05


def test_a_network_that_jitters_more_than_the_camera_moves_is_not():
    fallback = located(0.01, 0.25, shake=0.02)
    pose, source = fallback.guess(31, at(0.3), blind=False)
    assert source == 'hold' and pose[0, 3] == 0.29 - 0.02


def test_a_camera_that_goes_on_evenly_goes_on_before_it_stands_still():
    fallback = located(0.1, 0.25)
    for index, jitter in ((30, 0.25), (32, 0.25), (34, 0.25), (40, 2.0)):
        last = min(0.1 * index, 3.4)
        pose, source = located(0.1, jitter).guess(index, at(last / 2.0), blind=False)
        assert source == 'motion' and abs(pose[0, 3] - last) < 1e-9, index
    assert fallback.guess(30, at(3.0 / 2.0), blind=True)[1] == 'hold'


def test_a_motion_across_a_loss_is_not_gone_on_with():
    fallback = located(0.1, 0.25)
    fallback.add(Located(49, at(4.9), at(4.9 / 2.0), 2.0))   # found again after twenty frames
    pose, source = fallback.guess(50, at(5.0 / 2.0), blind=False)
    assert source != 'motion' and abs(pose[0, 3] - 5.0) < 0.5


def test_what_was_long_ago_says_nothing_of_a_camera_that_has_begun_to_move():
    rng = np.random.default_rng(0)
    fallback = Fallback(60)
    for index in range(40):   # stands still, the network sure of it, then goes while that jitters
        place = 0.1 * max(0, index - 25)
        fallback.add(Located(index, at(place), at(place + rng.normal(0, 0.3 * (place > 0))), 1))
    pose, source = fallback.guess(40, at(1.9), blind=False)
    assert source == 'motion' and abs(pose[0, 3] - 1.5) < 1e-9


def test_a_jump_that_is_far_beyond_its_jitter_is_believed():
    fallback = located(0.01, 0.25)
    pose, source = fallback.guess(30, at(5.0), blind=False)
    assert source == 'network' and pose[0, 3] > 5
    assert fallback.guess(30, at(5.0), blind=True)[1] == 'hold'


def test_over_a_long_gap_even_a_jittering_network_is_better_than_none():
    fallback = located(0.1, 0.25, shake=0.05)
    assert fallback.guess(30, at(3.0 / 2.0), blind=False)[1] == 'hold'
    assert fallback.guess(50, at(5.0 / 2.0), blind=False)[1] == 'network'


def test_a_blind_camera_is_held():
    assert located(0.1, 0.0).guess(31, at(9), blind=True)[1] == 'hold'


def test_without_history_there_is_a_guess_all_the_same():
    fallback = Fallback(10)
    pose, source = fallback.guess(0, at(1), blind=False)
    assert source == 'hold' and np.array_equal(pose, np.eye(4))
    fallback.add(Located(0, at(0), at(0), 1.0))
    assert fallback.guess(1, at(0.5), blind=False)[1] == 'network'


def test_a_step_has_the_trajectorys_unit():
    turn = motion(np.array([0.3, 0, 0, 1.0, 2.0, 3.0]))
    step = network_step(turn, turn @ at(2.0), 3.0)
    np.testing.assert_allclose(step, at(6.0), atol=1e-12)


def test_the_mean_of_several_frames_is_nearer_than_the_last_one():
    errors = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        fallback = Fallback(60)
        for index in range(20):
            fallback.add(Located(index, at(0.1 * index), at(0.1 * index + rng.normal(0, 0.2)), 1))
        errors.append(fallback.network(at(5.0))[0, 3] - 5.0)
    assert np.std(errors) < 0.14   # 0.2 of one frame alone
