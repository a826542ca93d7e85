"""Where the camera is: TF, odometry, pose and path."""

from collections import deque
from collections.abc import Mapping

from geometry_msgs.msg import PoseStamped
from std_msgs.msg import Header

from xsvggt_ros.node import messages
from xsvggt_ros.node.frames import Pose
from xsvggt_ros.node.parameters import Value
from xsvggt_ros.node.publishers import Publishers
from xsvggt_ros.node.stream_statistics import FaultLog


class PoseOutputs:
    """Publishes the poses of one stream."""

    def __init__(self, publishers: Publishers, faults: FaultLog, longest_path: int) -> None:
        """Begin without a path, which will have at most ``longest_path`` poses."""
        self._publishers = publishers
        self._faults = faults
        self._path: deque[PoseStamped] = deque(maxlen=longest_path)

    def forget(self) -> None:
        """Begin a new path."""
        self._path.clear()

    def publish(self, header: Header, pose: Pose, values: Mapping[str, Value]) -> None:
        """Publish the pose of the camera in the odometry frame; TF first, the others need it."""
        publishers = self._publishers
        odom_frame, child = values['odom_frame'], header.frame_id
        if values['publish_tf'] and self._is_edge(odom_frame, child):
            publishers.tf.publish(messages.transform(header, odom_frame, child, pose))
        publishers.odometry.publish(messages.odometry(
            header, odom_frame, child, pose, values['position_covariance'],
            values['orientation_covariance']))
        stamped = messages.pose_stamped(header, odom_frame, pose)
        self._path.append(stamped)
        if publishers.pose.get_subscription_count():
            publishers.pose.publish(stamped)
        if publishers.path.get_subscription_count():
            publishers.path.publish(messages.path(self._path))

    def _is_edge(self, odom_frame: str, child: str) -> bool:
        """Return whether TF can have this edge; say so if not."""
        if child and child != odom_frame and not child.startswith('/'):
            self._faults.clear('frame_id')
            return True
        self._faults.report(
            'frame_id', f"images have the frame_id '{child}', which cannot be a child of "
            f"'{odom_frame}' in TF; set a frame_id in the camera driver (no leading slash). No TF "
            'is published')
        return False
