"""Corrections at keyframes that have one, between them, before the first and behind the last."""

import numpy as np

from xsvggt_ros.trajectory.corrections import Corrections


def shifts(*lengths):
    made = np.tile(np.eye(4), (len(lengths), 1, 1))
    made[:, 0, 3] = lengths
    return made


def test_each_keyframe_has_that_of_the_one_before_it():
    corrections = Corrections(np.array([0, 3, 7]), shifts(1.0, 2.0, 3.0))
    found = corrections.at(np.array([0, 1, 3, 6, 7, 90]))[:, 0, 3]
    assert found.tolist() == [1, 1, 2, 2, 3, 3]
    assert corrections.at(4)[0, 3] == 2


def test_none_leaves_everything_where_it_is():
    pose = np.eye(4)
    pose[:3, 3] = 1, 2, 3
    assert np.array_equal(Corrections.none().pose(5, pose), pose)


def test_a_pose_is_scaled_and_stays_rigid():
    similarity = np.diag([2.0, 2, 2, 1])
    pose = np.eye(4)
    pose[:3, 3] = 1, 2, 3
    moved = Corrections(np.array([0]), similarity[None]).pose(0, pose)
    assert np.allclose(moved[:3, 3], (2, 4, 6)) and np.allclose(moved[:3, :3], np.eye(3))
