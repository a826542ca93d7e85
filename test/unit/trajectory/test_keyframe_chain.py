"""The chain of keyframes: what joins them, what moves them, what is left when some go."""

from dataclasses import replace

from loop_scene import Room, round_way, snapshots
import numpy as np
import pytest

from xsvggt_ros.trajectory.corrections import Corrections
from xsvggt_ros.trajectory.gaps import Gap
from xsvggt_ros.trajectory.keyframe_chain import KeyframeChain
from xsvggt_ros.trajectory.loop_check import Loop
from xsvggt_ros.trajectory.loop_gate import is_plausible


def chain_of(count=20, **changes):
    true, chain = round_way(count), KeyframeChain()
    for snapshot in snapshots(Room(landmarks=100), true, true):
        chain.update(snapshot, Corrections.none())
    return chain, true


def loop_of(first, second, true, shift=0.0):
    between = np.linalg.inv(true[first]) @ true[second]
    between[0, 3] += shift
    return Loop(first, second, between, np.array([0.004] * 3 + [0.02] * 3 + [0.02]), 60)


def test_neighbours_are_joined_by_what_the_odometry_says():
    chain, true = chain_of()
    edges = chain.edges()
    assert len(edges) == 19 and np.allclose(edges.measured, np.linalg.inv(true[:-1]) @ true[1:])
    assert 7 in chain and 20 not in chain and chain.before(7) == 6


def test_nodes_follow_the_window_under_the_correction_there_is():
    chain, true = chain_of()
    shift = np.eye(4)
    shift[2, 3] = 5.0
    moved = true[18:].copy()
    moved[:, 0, 3] += 1
    chain.move(np.array([18, 19, 33]), np.concatenate([moved, moved[:1]]),
               Corrections(np.array([0]), shift[None]))
    assert np.allclose(chain.poses[18:], moved) and np.allclose(chain.nodes[18:], shift @ moved)
    assert np.allclose(chain.poses[:18], true[:18]) and np.allclose(chain.newest_pose, moved[-1])


def test_one_that_goes_leaves_the_way_as_sure_as_it_was():
    chain, true = chain_of()
    before = chain.edges()
    unsure = (1 / before.weight[3:5] ** 2).sum(0)
    joint, variance = chain.joint(4)
    assert np.allclose(joint, np.linalg.inv(true[3]) @ true[4])
    assert np.allclose(variance, 1 / before.weight[3] ** 2)
    chain.remove(4)
    after = chain.edges()
    assert len(after) == 18 and np.allclose(after.measured[3], np.linalg.inv(true[3]) @ true[5])
    assert np.allclose(1 / after.weight[3] ** 2, unsure)


def test_the_most_crowded_one_is_between_near_neighbours_and_never_the_newest():
    chain, true = chain_of()
    poses = true.copy()
    poses[5:8] = poses[5]
    chain.move(np.arange(20), poses, Corrections.none())
    assert chain.most_crowded(5) == 6
    poses[16:] = poses[16]
    chain.move(np.arange(20), poses, Corrections.none())
    assert chain.most_crowded(5) == 6


@pytest.mark.parametrize('shift, plausible', [(0.02, True), (2.5, False)])
def test_a_loop_far_beyond_what_may_have_drifted_is_implausible(shift, plausible):
    chain, true = chain_of()
    assert is_plausible(loop_of(1, 19, true, shift), chain, chain.edges(), 5.0) == plausible


def test_a_guess_on_the_way_makes_more_plausible():
    chain, true = chain_of()
    chain._variance[10] = np.array([0.15] * 3 + [0.6] * 3 + [0.1]) ** 2
    assert is_plausible(loop_of(1, 19, true, 2.5), chain, chain.edges(), 5.0)
    assert not is_plausible(loop_of(1, 9, true, 2.5), chain, chain.edges(), 5.0)


def test_what_is_known_of_a_gap_stays_when_keyframes_beside_it_go():
    true, chain = round_way(20), KeyframeChain()
    joint = np.eye(4)
    joint[:3, 3] = 1, 2, 3
    for snapshot in snapshots(Room(landmarks=100), true, true):
        if snapshot.keyframe.id == 12:
            snapshot = replace(snapshot, gap=Gap(10, joint, np.full(7, 0.5)))
        chain.update(snapshot, Corrections.none())
    edges = chain.edges()
    assert np.array_equal(edges.measured[9], joint) and np.allclose(edges.weight[9], 2.0)
    after = joint @ np.linalg.inv(true[10]) @ true[11]
    chain.remove(10)
    assert np.allclose(chain.edges().measured[9], after)
    chain.remove(9)
    assert np.allclose(chain.edges().measured[8], np.linalg.inv(true[8]) @ true[9] @ after)
