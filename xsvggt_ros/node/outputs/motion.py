"""Covariance and twist of ~/odometry, from the camera's axes to those of the message."""

from nav_msgs.msg import Odometry
import numpy as np

from xsvggt_ros.node.message_fields import fill, fill_xyz
from xsvggt_ros.node.tracked_pose import TrackedPose
from xsvggt_ros.trajectory.uncertainty import adjoint

_ORDER = np.ix_([3, 4, 5, 0, 1, 2], [3, 4, 5, 0, 1, 2])


def fill_motion(message: Odometry, tracked: TrackedPose, base_from_optical: np.ndarray,
                odom_from_body: np.ndarray) -> None:
    """
    Give an odometry message the covariance and the twist of a pose that was tracked.

    As nav_msgs/Odometry has it: the pose's covariance in the axes of the odometry frame, the
    twist in those of the body; each position, then rotation about fixed axes. base_from_optical,
    odom_from_body: [4, 4].
    """
    body_from_camera = adjoint(base_from_optical)
    covariance = body_from_camera @ tracked.covariance @ body_from_camera.T
    turn = np.zeros((6, 6))
    turn[:3, :3] = turn[3:, 3:] = odom_from_body[:3, :3]
    fill(message.pose, covariance=_ordered(turn @ covariance @ turn.T))
    if tracked.velocity is None:
        return
    velocity = body_from_camera @ tracked.velocity
    fill_xyz(message.twist.twist.linear, velocity[3:])
    fill_xyz(message.twist.twist.angular, velocity[:3])
    covariance = body_from_camera @ tracked.velocity_covariance @ body_from_camera.T
    fill(message.twist, covariance=_ordered(covariance))


def _ordered(covariance: np.ndarray) -> np.ndarray:
    """Return a covariance [6, 6] of rotation and translation as that of position and rotation."""
    symmetric = 0.5 * (covariance + covariance.T)
    return symmetric[_ORDER]
