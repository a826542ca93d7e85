"""The topics the node publishes, and their QoS."""

from nav_msgs.msg import Odometry
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import PointCloud2
from tf2_msgs.msg import TFMessage

from xsvggt_ros.msg import CacheStatus, StreamStatus


class Publishers:
    """All of them silent while the node is not active."""

    def __init__(self, node: LifecycleNode) -> None:
        """Create the publishers on a node that is being configured."""
        self._node = node
        self.points = self._create(PointCloud2, '~/points', 1)
        self.odometry = self._create(Odometry, '~/odometry', 10)
        self.cache_status = self._create(CacheStatus, '~/cache_status', 10)
        self.status = self._create(StreamStatus, '~/status', 10)
        self.tf = self._create(TFMessage, '/tf', 100)

    def destroy(self) -> None:
        """Remove the publishers from the node."""
        for publisher in (self.points, self.odometry, self.cache_status, self.status, self.tf):
            self._node.destroy_lifecycle_publisher(publisher)

    def _create(self, message_type: type, topic: str, depth: int):
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE)
        return self._node.create_lifecycle_publisher(
            message_type, topic, qos,
            qos_overriding_options=QoSOverridingOptions.with_default_policies())
