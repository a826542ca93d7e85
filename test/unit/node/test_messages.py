"""Messages of poses: their numbers, many at once."""

from geometry_msgs.msg import Pose as PoseMsg
import numpy as np
from std_msgs.msg import Header

from xsvggt_ros.node.messages import fill_pose, numbers_of, pose_array


def test_a_pose_is_seven_numbers_both_ways():
    message, numbers = PoseMsg(), (1.0, 2.0, 3.0, 0.5, -0.5, 0.5, -0.5)
    fill_pose(message, numbers)
    at, turn = message.position, message.orientation
    assert (at.x, at.y, at.z, turn.x, turn.y, turn.z, turn.w) == numbers == numbers_of(message)


def test_an_array_has_all_poses_in_the_frame_asked_for():
    header = Header(frame_id='camera')
    header.stamp.sec = 7
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 0, 3] = 1, 2, 3
    message = pose_array(header, 'odom', poses)
    assert message.header.frame_id == 'odom' and message.header.stamp.sec == 7
    assert [pose.position.x for pose in message.poses] == [1.0, 2.0, 3.0]
    assert pose_array(header, 'odom', poses[:0]).poses == []
