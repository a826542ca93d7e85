"""Messages of poses: moved by similarities, many at once."""

from geometry_msgs.msg import Pose as PoseMsg
import numpy as np
from std_msgs.msg import Header

from xsvggt_ros.node.messages import move_pose, pose_array


def test_a_pose_moves_and_its_axes_turn_without_the_scale():
    message = PoseMsg()
    message.position.x, message.orientation.w = 1.0, 1.0
    move_pose(message, np.array([[0.0, -3, 0, 5], [3, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]]))
    at, turn = message.position, message.orientation
    np.testing.assert_allclose((at.x, at.y, at.z), (5, 3, 0), atol=1e-12)
    np.testing.assert_allclose((turn.x, turn.y, turn.z, turn.w),
                               (0, 0, 0.5 ** 0.5, 0.5 ** 0.5), atol=1e-12)


def test_an_array_has_all_poses_in_the_frame_asked_for():
    header = Header(frame_id='camera')
    header.stamp.sec = 7
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 0, 3] = 1, 2, 3
    message = pose_array(header, 'odom', poses)
    assert message.header.frame_id == 'odom' and message.header.stamp.sec == 7
    assert [pose.position.x for pose in message.poses] == [1.0, 2.0, 3.0]
    assert pose_array(header, 'odom', poses[:0]).poses == []
