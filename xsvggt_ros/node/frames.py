"""From the network's world to the frames of REP-103 and REP-105."""

from dataclasses import dataclass

import torch
from torch import Tensor

from xsvggt_ros.geometry import (
    flu_from_optical, invert_transform, make_transform, matrix_to_quaternion
)


@dataclass(frozen=True)
class Pose:
    """A rigid transform as ROS writes it."""

    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float]  # x, y, z, w, unit length


def odom_from_optical(camera_from_world: Tensor) -> Pose:
    """
    Return the pose of the camera's optical frame in the odometry frame.

    The network's world is the first camera's optical frame; the odometry frame has the same
    origin with x forward, y left, z up (REP-103). Raises ValueError if the pose is not finite.
    """
    camera_from_world = camera_from_world.detach().to('cpu', torch.float64)
    if not torch.isfinite(camera_from_world).all():
        raise ValueError(
            'the network predicted a pose that is not finite; if that goes on, call ~/reset')
    rotation = flu_from_optical()
    odom_from_world = make_transform(rotation, torch.zeros(3, dtype=rotation.dtype))
    transform = odom_from_world @ invert_transform(camera_from_world)
    return Pose(
        position=tuple(transform[:3, 3].tolist()),
        orientation=tuple(matrix_to_quaternion(transform[:3, :3]).tolist()))
