"""Listens to the transforms of others, and tells them from the node's own."""

from collections import deque, OrderedDict

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from xsvggt_ros.geometry.frame_names import frame_name, nanoseconds
from xsvggt_ros.mapping.transform_tree import MAX_PARENTS, MAX_TRANSFORMS, TransformTree


class TfListener:
    """Listens to /tf and /tf_static."""

    def __init__(self, node: Node) -> None:
        """Subscribe; the node's executor does the rest."""
        self._node = node
        self._tree = TransformTree(node.get_logger().warning)
        # The stamps of our own edges, by (parent, child): all others are somebody else's.
        self._own: OrderedDict[tuple[str, str], deque[int]] = OrderedDict()
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            node.create_subscription(TFMessage, '/tf', self._on_moving, 100),
            node.create_subscription(TFMessage, '/tf_static', self._on_static, latched)]

    def lookup(
        self, target_frame: str, source_frame: str, stamp_ns: int | None,
    ) -> np.ndarray:
        """Return target_from_source [4, 4] as `TransformTree.lookup` does."""
        return self._tree.lookup(target_frame, source_frame, stamp_ns)

    def expect(self, parent: str, child: str, stamp_ns: int) -> None:
        """Know an edge as our own before it is published with this stamp."""
        edge = parent, child
        self._own.setdefault(edge, deque(maxlen=MAX_TRANSFORMS)).append(stamp_ns)
        self._own.move_to_end(edge)
        if len(self._own) > MAX_PARENTS:  # a camera whose frame_id is never the same
            self._own.popitem(last=False)

    def other_parent(self, child: str) -> str | None:
        """Return the parent that another node gives a frame; None if nobody does."""
        return self._tree.claimed_parent(child)

    def refusals(self) -> list[str]:
        """Return which edges are refused, and why."""
        return self._tree.refusals()

    def destroy(self) -> None:
        """Listen no more."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_moving(self, message: TFMessage) -> None:
        for edge in message.transforms:
            parent, child = frame_name(edge.header.frame_id), frame_name(edge.child_frame_id)
            if not self._tree.add(edge, static=False):
                continue
            try:  # once: a second one with this stamp is of another node with the same images
                self._own.get((parent, child), deque()).remove(nanoseconds(edge.header))
            except ValueError:
                self._tree.claim(parent, child)

    def _on_static(self, message: TFMessage) -> None:
        for edge in message.transforms:
            self._tree.add(edge, static=True)
