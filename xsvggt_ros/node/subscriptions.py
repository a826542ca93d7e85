"""The topics that the node listens to: their names, their QoS, and who publishes images."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from nav_msgs.msg import Odometry
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from xsvggt_ros.node.inputs.camera_calibration import CameraCalibration
from xsvggt_ros.node.inputs.hint_topic import HINTS, HintTopic
from xsvggt_ros.node.inputs.odometry_input import OTHERWISE
from xsvggt_ros.node.pipeline import Pipeline
from xsvggt_ros.node.settings import Settings

IMAGE_DEPTH = 5  # images that the middleware may hold for a busy executor


class InputTopics:
    """The names of the camera's topics, or of a rig's cameras, the reference first."""

    def __init__(self, node: LifecycleNode, settings: Settings) -> None:
        """Resolve the names; as with image_transport, remapping `image` moves both kinds."""
        self._node = node
        self._settings = settings.input
        suffix = '/compressed' if self._settings.is_compressed else ''
        names = self._settings.image_topics
        self.images = [node.resolve_topic_name(name) + suffix for name in names or ['image']]
        # Beside each image of a rig
        self.infos = [''.join(name.rpartition('/')[:2]) + 'camera_info' for name in names] or [
            'camera_info']

    def calibrations(self) -> list[CameraCalibration]:
        """Return what is to be known of each camera's lens."""
        topics = [self._node.resolve_topic_name(name) for name in self.infos]
        return [
            CameraCalibration(topic, image_topic, self._settings.use_camera_info,
                              self._settings.rectify,
                              partial(self._is_published, topic))
            for topic, image_topic in zip(topics, self.images)]

    def publishers(self) -> list[str]:
        """Return who publishes images of the reference, in words."""
        kind = 'CompressedImage' if self._settings.is_compressed else 'Image'
        wanted = f'sensor_msgs/msg/{kind}'
        found = []
        for info in self._node.get_publishers_info_by_topic(self.images[0]):
            reliability = info.qos_profile.reliability
            words = f'{info.node_name} ({info.topic_type}, {reliability.name.lower()})'
            if info.topic_type != wanted:
                words += f', which is not {wanted}: see image_transport'
            elif (reliability == ReliabilityPolicy.BEST_EFFORT
                  and self._settings.reliability == 'reliable'):
                words += (', which no reliable subscription receives: set '
                          'input.reliability:=best_effort')
            found.append(words)
        return found

    def publishing_nodes(self, camera: int) -> list[str]:
        """Return the full names of the nodes that publish a camera's images."""
        return sorted({f"{info.node_namespace.rstrip('/')}/{info.node_name}"
                       for info in self._node.get_publishers_info_by_topic(self.images[camera])})

    def _is_published(self, topic: str) -> bool:
        return self._node.count_publishers(topic) > 0


def subscribe(
    node: LifecycleNode, topics: InputTopics, pipeline: Pipeline, settings: Settings,
    subscriptions: list[Subscription],
) -> None:
    """Subscribe to all that the pipeline needs; fills ``subscriptions``, even if it fails."""
    reliability = (ReliabilityPolicy.RELIABLE if settings.input.reliability == 'reliable'
                   else ReliabilityPolicy.BEST_EFFORT)

    def add(
        kind: type, topic: str, callback: Any, depth: int,
        reliability: ReliabilityPolicy = ReliabilityPolicy.BEST_EFFORT,
    ) -> None:
        subscriptions.append(node.create_subscription(
            kind, topic, callback,
            QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability),
            qos_overriding_options=QoSOverridingOptions.with_default_policies()))

    def on_image(
        camera: int, message: Image | CompressedImage, info: Mapping[str, Any],
    ) -> None:
        sender = info.get('publisher_gid')  # not every rclpy tells
        pipeline.intake.on_image(message, camera, bytes(sender['data']) if sender else None)

    kind = CompressedImage if settings.input.is_compressed else Image
    for camera, (topic, info_topic) in enumerate(zip(topics.images, topics.infos)):
        # The mailbox keeps the newest image only. A depth of 1 would do so in the middleware, but
        # without counting what is lost (4 of 95 images on two busy cores).
        add(kind, topic, partial(on_image, camera), IMAGE_DEPTH, reliability)
        add(CameraInfo, info_topic, partial(pipeline.calibrations.on_message, camera), 1)
    mode, scale = settings.scale.mode, pipeline.scale
    if mode in HINTS:
        scale.listen(HintTopic(node, mode))
    if mode == 'depth':
        add(Image, 'depth_hint', scale.on_depth, IMAGE_DEPTH)
    if pipeline.odometry is not None:
        pipeline.odometry.listen(HintTopic(node, 'odometry', OTHERWISE))
    if mode == 'odometry' or pipeline.odometry is not None:
        add(Odometry, 'odom_hint', scale.on_odometry, 10)
