"""The way of a stream: moved with its keyframes, thinned when there is no room."""

import numpy as np
import pytest

from xsvggt_ros.geometry.similarity import apply_to_pose
from xsvggt_ros.mapping.trajectory import StampedPose, Trajectory


def pose(number):
    return StampedPose(number, (float(number), 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def test_poses_move_with_their_keyframes_and_stay_rigid():
    way = Trajectory(8)
    for number in range(4):
        way.add(pose(number), keyframe=10 * (number // 2))
    turn = np.array([[0.0, -2, 0, 0], [2, 0, 0, 0], [0, 0, 2, 1], [0, 0, 0, 1]])
    way.move(lambda keyframes: np.where((keyframes == 10)[:, None, None], turn, np.eye(4)))
    found = way.poses()
    assert [one.position for one in found] == [(0, 0, 0), (1, 0, 0), (0, 4, 1), (0, 6, 1)]
    np.testing.assert_allclose(found[3].quaternion, (0, 0, 0.5 ** 0.5, 0.5 ** 0.5), atol=1e-12)
    assert found[1].quaternion == (0, 0, 0, 1)


def test_what_is_left_of_a_long_way_keeps_its_keyframes():
    way = Trajectory(4)
    for number in range(6):
        way.add(pose(number), keyframe=number)
    asked = []
    way.move(lambda keyframes: asked.append(keyframes.copy()) or np.tile(
        np.eye(4), (len(keyframes), 1, 1)))
    assert asked[0].tolist() == [0, 2, 4] and [one.stamp_ns for one in way.poses()] == [0, 2, 4]
    Trajectory(4).move(None)   # nothing to move


def test_each_keyframe_is_asked_for_once():
    way, asked = Trajectory(100), []
    for number in range(60):
        way.add(pose(number), keyframe=number // 20)
    way.move(lambda keyframes: asked.append(keyframes.tolist()) or np.tile(np.eye(4), (3, 1, 1)))
    assert asked == [[0, 1, 2]]


@pytest.mark.slow
def test_a_long_trajectory_is_moved_in_blocks_each_pose_as_one_alone():
    rng = np.random.default_rng(0)
    count = 9000
    rotations = np.linalg.qr(rng.normal(size=(2, count, 3, 3)))[0]
    rotations *= np.linalg.det(rotations)[..., None, None]
    poses, moves = np.tile(np.eye(4), (2, count, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = rotations[0], rng.normal(size=(count, 3))
    moves[:, :3, :3] = rotations[1] * rng.uniform(0.5, 2, (count, 1, 1))
    moves[:, :3, 3] = rng.normal(size=(count, 3))
    trajectory = Trajectory(count)
    for number, matrix in enumerate(poses):
        trajectory.add(StampedPose.from_matrix(number, matrix), keyframe=number)
    asked = []
    trajectory.move(lambda keyframes: asked.append(len(keyframes)) or moves[keyframes])
    assert sum(asked) == count and max(asked) < 5000
    moved = np.array([one.matrix() for one in trajectory.poses()])
    np.testing.assert_allclose(moved, apply_to_pose(moves, poses), atol=1e-9)
