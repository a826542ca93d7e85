"""Records what the stream node publishes, as any subscriber could."""

from collections import OrderedDict
from collections.abc import Callable
import time
from typing import TypeVar

from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
import numpy as np
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from tf2_msgs.msg import TFMessage
import torch

from xsvggt_ros.demo.node_faults import NodeFaults
from xsvggt_ros.demo.ros_messages import from_stamp, image_pixels, TRUTH_TOPIC
from xsvggt_ros.mapping.map_files import format_stamp, pack
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.msg import CacheStatus, StreamStatus
from xsvggt_ros.recordings.outputs import CacheRow, cloud_from_message
from xsvggt_ros.recordings.recording import Recording

_UNKNOWN_NODE = '_NODE_NAME_UNKNOWN_'      # what rmw says before it knows
_WAITING_FRAMES = 200     # halves of a frame kept until the other half arrives
_MAX_ROWS = 200_000       # frames remembered, hours of a camera
_QUEUE = 200              # messages of a topic that wait while the map is built
Message = TypeVar('Message')


class StreamRecorder(Node):
    """
    Subscribes to the stream node's topics and to the camera, and keeps a `Recording`.

    Clouds come in the camera's frame, so each is moved by the odometry of the same stamp.
    """

    def __init__(self, node_name: str = 'xsvggt', image_topic: str = '/camera/image_raw') -> None:
        """Subscribe to what the node called `node_name` publishes; not yet to the camera."""
        super().__init__('xsvggt_recorder')
        self._node_name, self._image_topic = node_name, image_topic
        self.recording = Recording()
        self.status: StreamStatus | None = None
        self.images_received = 0
        self.edges: set[tuple[str, str]] = set()      # of the node's TF: parent, child
        self.last_stamp = 0                           # of the newest finished frame, ns
        self.messages_received = 0
        self._finished: list[tuple[float, int]] = []  # when the first and the last frame was, nth
        self._faults = NodeFaults(node_name)
        self._clouds: OrderedDict[int, PointCloud2] = OrderedDict()
        self._poses: OrderedDict[int, Odometry] = OrderedDict()
        self._rows: OrderedDict[int, CacheStatus] = OrderedDict()
        reliable = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=_QUEUE,
                              reliability=ReliabilityPolicy.RELIABLE)
        for message_type, topic, callback in (
                (PointCloud2, f'/{node_name}/points', self._on_points),
                (Odometry, f'/{node_name}/odometry', self._on_odometry),
                (Odometry, TRUTH_TOPIC, self._on_truth),
                (CacheStatus, f'/{node_name}/cache_status', self._on_cache_status),
                (StreamStatus, f'/{node_name}/status', self._on_status),
                (DiagnosticArray, '/diagnostics', self._faults.take),
                (TFMessage, '/tf', self._on_tf)):
            self.create_subscription(message_type, topic, self._counted(callback), reliable)

    # Public interface ----------------------------------------------------------------------------

    def watch_camera(self) -> None:
        """Subscribe to the camera's images too."""
        newest = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5,
                            reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(
            Image, self._image_topic, self._counted(self._on_image), newest)

    def node_is_ready(self) -> bool:
        """Return whether the node listens to the camera, which it does once it is active."""
        return any(info.node_name == self._node_name
                   for info in self.get_subscriptions_info_by_topic(self._image_topic))

    def other_cameras(self, own_name: str) -> list[str]:
        """
        Return who else publishes images on the camera's topic.

        A publisher is discovered before its node; until then its name is not known, and it is
        left out, because our own camera begins that way too.
        """
        return [f'{info.node_namespace.rstrip("/")}/{info.node_name}'
                for info in self.get_publishers_info_by_topic(self._image_topic)
                if info.node_name not in (own_name, _UNKNOWN_NODE)]

    @property
    def rate(self) -> float:
        """Return frames a second from the first finished one to the last; 0 for fewer than two."""
        if not self._finished:
            return 0.0
        (start, first), (end, last) = self._finished
        return (last - first) / (end - start) if end > start else 0.0

    @property
    def fault(self) -> str | None:
        """Return what the node's diagnostics call an error at the moment, or None."""
        return self._faults.first

    # Callbacks -----------------------------------------------------------------------------------

    def _counted(self, callback: Callable[[Message], None]) -> Callable[[Message], None]:
        def count_and_call(message: Message) -> None:
            self.messages_received += 1
            callback(message)
        return count_and_call

    def _on_image(self, message: Image) -> None:
        self.images_received += 1
        pixels = image_pixels(message)
        if pixels is not None:
            self.recording.image = pixels

    def _on_points(self, message: PointCloud2) -> None:
        _remember(self._clouds, from_stamp(message.header.stamp), message)
        self._join(from_stamp(message.header.stamp))

    def _on_odometry(self, message: Odometry) -> None:
        stamp = from_stamp(message.header.stamp)
        if len(self.recording.poses) < _MAX_ROWS:
            self.recording.poses.append(_stamped_pose(message))
        _remember(self._poses, stamp, message)
        self._join(stamp)

    def _on_truth(self, message: Odometry) -> None:
        if len(self.recording.truth) < _MAX_ROWS:
            self.recording.truth.append(_stamped_pose(message))

    def _join(self, stamp: int) -> None:
        """Put a cloud into the map as soon as the odometry of its stamp is there."""
        if stamp not in self._clouds or stamp not in self._poses:
            return
        cloud, odometry = self._clouds.pop(stamp), self._poses.pop(stamp)
        if cloud.header.frame_id != odometry.child_frame_id:
            self.get_logger().warning(
                f"cloud in frame '{cloud.header.frame_id}', odometry of "
                f"'{odometry.child_frame_id}': not added to the map",
                throttle_duration_sec=5.0)
            return
        odom_from_camera = _stamped_pose(odometry).matrix()
        if np.isfinite(odom_from_camera).all():
            self.recording.map.add(torch.from_numpy(pack(cloud_from_message(cloud))),
                                   torch.from_numpy(odom_from_camera))

    def _on_cache_status(self, message: CacheStatus) -> None:
        _remember(self._rows, from_stamp(message.header.stamp), message)
        self._finish(from_stamp(message.header.stamp))

    def _on_status(self, message: StreamStatus) -> None:
        self.status = message
        self.recording.model = message.model
        self.recording.random_weights = message.random_weights
        self.recording.metric = message.metric
        self.recording.frames_processed = message.frames_processed
        self._finish(from_stamp(message.header.stamp))

    def _finish(self, stamp: int) -> None:
        """Write a row as soon as both messages that end a frame are there."""
        status = self.status
        if stamp not in self._rows or status is None or from_stamp(status.header.stamp) != stamp:
            return
        cache = self._rows.pop(stamp)
        self.last_stamp = stamp
        now = (time.monotonic(), status.frames_processed)
        self._finished = [self._finished[0] if self._finished else now, now]
        if len(self.recording.cache) < _MAX_ROWS:
            self.recording.cache.append(CacheRow(
                format_stamp(stamp), cache.frame_index, cache.tokens_used, cache.tokens_budget,
                cache.occupancy, cache.tokens_evicted, cache.bytes_used, cache.bytes_budget,
                status.latency_total))

    def _on_tf(self, message: TFMessage) -> None:
        for edge in message.transforms:
            self.edges.add((edge.header.frame_id, edge.child_frame_id))


def _stamped_pose(message: Odometry) -> StampedPose:
    """Return the pose in an odometry message."""
    position, turn = message.pose.pose.position, message.pose.pose.orientation
    return StampedPose(from_stamp(message.header.stamp), (position.x, position.y, position.z),
                       (turn.x, turn.y, turn.z, turn.w))


def _remember(waiting: OrderedDict, stamp: int, message: object) -> None:
    """Keep `message` until its counterpart arrives, and forget the oldest of too many."""
    waiting[stamp] = message
    while len(waiting) > _WAITING_FRAMES:
        waiting.popitem(last=False)
