"""The topics the node publishes, and their QoS."""

from geometry_msgs.msg import PoseArray, PoseStamped
from nav_msgs.msg import OccupancyGrid, Odometry, Path
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from xsvggt_ros.msg import CacheStatus, StreamStatus
from xsvggt_ros.node.loading import StartError


class Publishers:
    """All of them silent while the node is not active."""

    def __init__(self, node: LifecycleNode) -> None:
        """Create the publishers on a node that is being configured."""
        self._node = node
        self._all: list[LifecyclePublisher] = []
        try:
            self._create_all()
        except Exception:
            self.destroy()  # those that are there already
            raise

    def destroy(self) -> None:
        """Remove the publishers from the node."""
        publishers, self._all = self._all, []
        for publisher in publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def _create_all(self) -> None:
        self.points = self._create(PointCloud2, '~/points', 1)
        self.depth = self._create(Image, '~/depth/image_rect', 1)
        self.depth_info = self._create(CameraInfo, '~/depth/camera_info', 1)
        self.rgb = self._create(Image, '~/rgb/image_rect_color', 1)
        self.rgb_info = self._create(CameraInfo, '~/rgb/camera_info', 1)
        self.confidence = self._create(Image, '~/confidence', 1)
        self.odometry = self._create(Odometry, '~/odometry', 10)
        self.pose = self._create(PoseStamped, '~/pose', 10)
        self.path = self._create(Path, '~/path', 1, DurabilityPolicy.TRANSIENT_LOCAL)
        self.keyframes = self._create(
            PoseArray, '~/keyframes', 1, DurabilityPolicy.TRANSIENT_LOCAL)
        self.map_points = self._create(
            PointCloud2, '~/map_points', 1, DurabilityPolicy.TRANSIENT_LOCAL)
        self.occupancy = self._create(
            OccupancyGrid, '~/occupancy', 1, DurabilityPolicy.TRANSIENT_LOCAL)
        self.cache_status = self._create(CacheStatus, '~/cache_status', 10)
        self.status = self._create(StreamStatus, '~/status', 10)
        self.tf = self._create(TFMessage, '/tf', 100)

    def _create(
        self, message_type: type, topic: str, depth: int,
        durability: DurabilityPolicy = DurabilityPolicy.VOLATILE,
    ) -> LifecyclePublisher:
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=depth, durability=durability,
            reliability=ReliabilityPolicy.RELIABLE)
        try:
            publisher: LifecyclePublisher = self._node.create_lifecycle_publisher(
                message_type, topic, qos,
                qos_overriding_options=QoSOverridingOptions.with_default_policies())
        except Exception as error:  # of rclpy or of C++, without the topic's name
            raise StartError(
                f'{topic} cannot be published, check its qos_overrides: '
                f'{type(error).__name__}: {error}') from error
        self._all.append(publisher)
        return publisher
