"""The edges that are given to TF: never one whose child has another parent."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from xsvggt_ros.geometry.frame_names import nanoseconds
from xsvggt_ros.node import messages
from xsvggt_ros.node.frames import Pose
from xsvggt_ros.node.inputs.tf_listener import TfListener
from xsvggt_ros.node.outputs.publishers import Publishers
from xsvggt_ros.node.status.fault_log import FaultLog

OF_BODY = ('If the robot moves with the camera, set base_frame to the root of its own frames; if '
           'something else is its odometry, set invert_tf:=true or publish_tf:=false, or name its '
           'frame in robot_odom_frame')
OF_MAP = 'One node alone can publish it: stop the other one, or set publish_map_tf:=false here'


@dataclass(frozen=True)
class Edge:
    """An edge of TF at a header's stamp, with what to do if its child has another parent."""

    parent: str
    child: str
    parent_from_child: np.ndarray  # [4, 4]
    hint: str
    header: Header


class TfOutput:
    """Publishes the edges that are free."""

    def __init__(self, publishers: Publishers, faults: FaultLog, tf: TfListener) -> None:
        """Ask ``tf`` for the edges of others; tell ``faults`` what is left out."""
        self._publishers = publishers
        self._faults = faults
        self._tf = tf

    def publish(self, edges: Sequence[Edge]) -> None:
        """Publish edges together, without those that others publish."""
        free = [edge for edge in edges if self._is_free(edge)]
        if len(free) == len(edges):
            self._faults.clear('tf')
        if not free:
            return
        message = TFMessage()
        for edge in free:
            self._tf.expect(edge.parent, edge.child, nanoseconds(edge.header))
            message.transforms.append(messages.transform(
                edge.header, edge.parent, edge.child, Pose.from_matrix(edge.parent_from_child)))
        self._publishers.tf.publish(message)

    def _is_free(self, edge: Edge) -> bool:
        """Return whether TF can have this edge from us; say so if not."""
        parent, child = edge.parent, edge.child
        if not child or child == parent:
            self._faults.report(
                'tf', f"TF cannot have the frame '{child}' below '{parent}'; set a frame_id in "
                'the camera driver. This edge is not published')
            return False
        other = self._tf.other_parent(child)
        if other is None:
            return True
        whose = ('by another node as well' if other == parent
                 else f"in TF already, below '{other}'")
        self._faults.report(
            'tf', f"the edge '{parent}' -> '{child}' is not published: '{child}' is published "
            f'{whose}, and a frame can have one parent only. {edge.hint}', key=child)
        return False
