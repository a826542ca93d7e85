"""What the network says of the way over a gap, by all frames on both sides."""

import numpy as np
import pytest

from xsvggt_ros.trajectory.gaps import GapWatch
from xsvggt_ros.trajectory.projection import inverse, motion

JUMP = motion(np.array([0.0, 0.4, 0.0, 1.0, 0.0, 0.5]))


def watched(noise, frames=20, scale=1.0, seed=0):
    """Return a watch over a way with a jump whose middle was guessed wrong, and the true joint."""
    rng = np.random.default_rng(seed)
    way = [np.eye(4)]
    for number in range(2 * frames - 1):
        step = motion(np.r_[rng.normal(0, 0.02, 3), 0.05, 0.0, 0.02])
        way.append(way[-1] @ (JUMP if number == frames - 1 else step))
    other = motion(np.array([0.3, -0.2, 0.1, 4.0, 5.0, 6.0]))   # the network's own world
    networks = [other @ pose @ motion(np.r_[rng.normal(0, noise / 3, 3),
                                            rng.normal(0, noise, 3)]) for pose in way]
    for network in networks:
        network[:3, 3] /= scale
    wrong = way[frames - 1] @ motion(np.array([0.0, 0.1, 0.0, 0.3, 0.1, 0.0]))
    believed = way[:frames] + [wrong @ inverse(way[frames]) @ pose for pose in way[frames:]]
    watch = GapWatch()
    for number, (pose, network) in enumerate(zip(believed, networks)):
        if number == frames:
            watch.begin(7)
        watch.add(pose, network, scale)
    return watch, believed[frames - 1], believed[frames], JUMP


@pytest.mark.parametrize('scale', [1.0, 2.5])
def test_the_jump_is_what_the_network_says_in_the_trajectorys_unit(scale):
    watch, before, after, jump = watched(0.0, scale=scale)
    gap = watch.gap(before, after)
    assert gap.keyframe == 7 == watch.keyframe
    assert np.allclose(gap.before_from_keyframe, jump, atol=1e-6)


def test_many_frames_tell_more_than_one_and_how_sure_they_are():
    off = {}
    for frames in (2, 25):
        errors = []
        for seed in range(20):
            watch, before, after, jump = watched(0.2, frames, seed=seed)
            gap = watch.gap(before, after)
            errors.append(np.linalg.norm(gap.before_from_keyframe[:3, 3] - jump[:3, 3]))
        off[frames] = np.mean(errors)
        assert np.mean(errors) < 3 * np.linalg.norm(gap.sigma[3:6])
    assert off[25] < 0.5 * off[2]


def test_nothing_new_is_not_told_again():
    watch, before, after, _ = watched(0.0)
    assert watch.gap(before, after) is not None and watch.gap(before, after) is None
    watch.add(after, np.eye(4), 1.0)
    assert watch.gap(before, after) is not None


def test_without_a_gap_or_behind_one_of_which_nothing_is_known_there_is_none():
    watch = GapWatch()
    watch.add(np.eye(4), np.eye(4), 1.0)
    assert watch.gap(np.eye(4), np.eye(4)) is None and watch.keyframe == -1
    watch, before, after, _ = watched(0.0)
    watch.forget()
    watch.add(after, np.eye(4), 1.0)
    assert watch.gap(before, after) is None
