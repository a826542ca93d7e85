"""Poses in ROS frames: what a camera's motion must look like in x forward, y left, z up."""

import pytest
import torch

from xsvggt_ros.geometry import (
    flu_from_optical, invert_transform, make_transform, matrix_to_quaternion, quaternion_to_matrix
)
from xsvggt_ros.node.frames import odom_from_optical

EYE = torch.eye(3, dtype=torch.float64)


def camera_from_world(rotation=EYE, position=(0.0, 0.0, 0.0)):
    """Return the inverse of a camera's pose in the world, both with optical axes."""
    world_from_camera = make_transform(rotation, torch.tensor(position, dtype=torch.float64))
    return invert_transform(world_from_camera)


def test_the_first_camera_looks_along_x():
    pose = odom_from_optical(camera_from_world())
    assert pose.position == pytest.approx((0, 0, 0))
    assert pose.orientation == pytest.approx((-0.5, 0.5, -0.5, 0.5))  # REP-103's optical frame


@pytest.mark.parametrize('optical, flu', [
    ((0.0, 0.0, 2.0), (2.0, 0.0, 0.0)),  # forward
    ((3.0, 0.0, 0.0), (0.0, -3.0, 0.0)),  # to the right
    ((0.0, 1.5, 0.0), (0.0, 0.0, -1.5)),  # down
])
def test_motion_along_each_axis(optical, flu):
    assert odom_from_optical(camera_from_world(position=optical)).position == pytest.approx(flu)


def test_a_turn_to_the_left_is_a_positive_yaw():
    half = torch.tensor(-0.3 / 2, dtype=torch.float64)  # about the optical y axis, which is down
    turn = quaternion_to_matrix(torch.stack([half * 0, half.sin(), half * 0, half.cos()]))
    pose = odom_from_optical(camera_from_world(turn))
    rotation = quaternion_to_matrix(torch.tensor(pose.orientation, dtype=torch.float64))
    odom_from_body = rotation @ flu_from_optical().T
    expected = matrix_to_quaternion(odom_from_body)
    assert expected.tolist() == pytest.approx([0, 0, torch.sin(-half).item(),
                                               torch.cos(half).item()])


def test_a_pose_that_is_not_finite_is_refused():
    broken = camera_from_world()
    broken[0, 3] = torch.nan
    with pytest.raises(ValueError, match='not finite'):
        odom_from_optical(broken)
