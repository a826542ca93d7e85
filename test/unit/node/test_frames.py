"""Poses in ROS frames: what a camera's motion must look like in x forward, y left, z up."""

import numpy as np
import pytest
import torch

from xsvggt_ros.geometry.se3 import (
    flu_from_optical,
    invert_transform,
    make_transform,
    matrix_to_quaternion,
    quaternion_to_matrix,
)
from xsvggt_ros.node.frames import level_from_optical, OdometryFrame, Pose, world_from_optical

EYE = torch.eye(3, dtype=torch.float64)


def camera_from_world(rotation=EYE, position=(0.0, 0.0, 0.0)):
    """Return the inverse of a camera's pose in the world, both with optical axes."""
    world_from_camera = make_transform(rotation, torch.tensor(position, dtype=torch.float64))
    return invert_transform(world_from_camera).numpy()


def odom_from_optical(transform):
    """Return the pose of the camera in the first stream's odometry frame."""
    frame = OdometryFrame()
    frame.place(level_from_optical(), np.eye(4))
    return Pose.from_matrix(frame.odom_from_camera(world_from_optical(transform)))


def test_the_first_camera_looks_along_x():
    pose = odom_from_optical(camera_from_world())
    assert pose.position == pytest.approx((0, 0, 0))
    assert pose.orientation == pytest.approx((-0.5, 0.5, -0.5, 0.5))  # REP-103's optical frame


def test_a_pose_of_fp32_becomes_one_whose_rotation_is_exact():
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q.numpy()
    transform = np.eye(4, dtype=np.float32)
    transform[:3, :3], transform[:3, 3] = turn * np.linalg.det(turn), (15, -9, 4)
    assert abs(transform[:3, :3] @ transform[:3, :3].T - np.eye(3)).max() > 1e-8
    pose = world_from_optical(transform)
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), rtol=0, atol=1e-14)
    np.testing.assert_allclose(pose @ transform, np.eye(4), rtol=0, atol=1e-5)


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
    broken[0, 3] = np.nan
    with pytest.raises(ValueError, match='not finite'):
        odom_from_optical(broken)


def pose_at(x, y, yaw):
    """Return a camera's place [4, 4] in a network's world, which is an optical frame."""
    turn = torch.tensor(-yaw, dtype=torch.float64) / 2
    rotation = quaternion_to_matrix(torch.stack([turn * 0, turn.sin(), turn * 0, turn.cos()]))
    return make_transform(rotation, torch.tensor((x, 0.0, y), dtype=torch.float64)).numpy()


def test_a_new_stream_goes_on_where_the_camera_was():
    frame = OdometryFrame()
    frame.place(level_from_optical(), np.eye(4))
    np.testing.assert_allclose(frame.map_from_odom(), np.eye(4), atol=1e-12)
    before = frame.odom_from_camera(pose_at(1.0, 2.0, 0.5)).copy()
    frame.begin_stream()
    assert not frame.is_placed
    seen = pose_at(0.01, 0.02, 0.01)  # the network is not quite sure of its own first camera
    frame.place(level_from_optical(), seen)
    np.testing.assert_allclose(frame.odom_from_camera(seen), before, atol=1e-12)
    # What jumps is the map, in which the new stream begins at its origin.
    np.testing.assert_allclose(
        frame.map_from_odom() @ before, level_from_optical() @ seen, atol=1e-12)


@pytest.mark.parametrize('factor', [0.3, 1.0, 7.0])
def test_another_unit_leaves_the_camera_where_it_is(factor):
    frame = OdometryFrame()
    frame.place(level_from_optical(), np.eye(4))
    seen, later = pose_at(1.0, 2.0, 0.5), pose_at(1.5, 2.0, 0.5)
    before = frame.odom_from_camera(seen).copy()
    step = frame.odom_from_camera(later) - before
    frame.odom_from_camera(seen)
    centre = frame.rescale(factor)
    np.testing.assert_allclose(centre, before[:3, 3])
    scaled = [pose.copy() for pose in (seen, later)]
    for pose in scaled:
        pose[:3, 3] *= factor
    np.testing.assert_allclose(frame.odom_from_camera(scaled[0]), before, atol=1e-12)
    moved = frame.odom_from_camera(scaled[1])
    np.testing.assert_allclose(moved[:3, 3] - before[:3, 3], factor * step[:3, 3], atol=1e-12)


def test_a_robot_begins_at_its_own_origin():
    base_from_optical = level_from_optical()
    base_from_optical[:3, 3] = 0.2, 0.0, 0.5
    frame = OdometryFrame()
    frame.place(base_from_optical, np.eye(4))
    odom_from_base = frame.odom_from_camera(np.eye(4)) @ np.linalg.inv(base_from_optical)
    np.testing.assert_allclose(odom_from_base, np.eye(4), atol=1e-12)


def test_a_closed_loop_moves_the_map_under_the_odometry():
    frame = OdometryFrame()
    frame.place(level_from_optical(), np.eye(4))
    seen = pose_at(1.0, 2.0, 0.5)
    odom = frame.odom_from_camera(seen).copy()
    correction = pose_at(0.3, -0.1, 0.2)
    np.testing.assert_allclose(frame.map_from_odom(correction) @ odom,
                               level_from_optical() @ correction @ seen, atol=1e-12)
    # A saved map's frame is where that map has it.
    np.testing.assert_allclose(frame.map_from_odom(correction, is_placed=True) @ odom,
                               correction @ seen, atol=1e-12)
    # A motion of the network's world, seen in odometry.
    moved = frame.in_odom(correction) @ odom
    np.testing.assert_allclose(moved, frame.placed(correction @ seen), atol=1e-12)
