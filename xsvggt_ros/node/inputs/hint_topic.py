"""The topic on which metres come: its full name, and what may be wrong if nothing comes on it."""

from dataclasses import dataclass
import time

from rclpy.node import Node

from xsvggt_ros.mapping.odometry_hint import OdometryHint

# By scale.mode: the topic, its type, and what is sent on it, in words.
HINTS = {'odometry': ('odom_hint', 'nav_msgs/msg/Odometry', 'odometry'),
         'depth': ('depth_hint', 'sensor_msgs/msg/Image', 'depth image')}
PATIENCE = 3.0  # seconds without a message after which that is worth telling


@dataclass(frozen=True)
class HintFault:
    """What is wrong with a hint; two with one key are the same, though numbers differ."""

    key: str
    text: str


class HintTopic:
    """What the node's graph says of a topic that is listened to."""

    def __init__(self, node: Node, mode: str,
                 otherwise: str = 'choose another scale.mode') -> None:
        """Look at the topic of a scale.mode, one of HINTS; otherwise: how to do without."""
        self.mode = mode
        self._otherwise = otherwise
        self._node = node
        self._relative, self._kind, self._what = HINTS[mode]
        self.name = node.resolve_topic_name(self._relative)

    def silence(self, seconds: float, has_come: bool) -> HintFault | None:
        """Return why nothing has come for so many seconds; None if that is not long."""
        if seconds < PATIENCE:
            return None
        publishers = [
            f'{info.node_name} ({info.topic_type})'
            + ('' if info.topic_type == self._kind else f', which is not {self._kind}')
            for info in self._node.get_publishers_info_by_topic(self.name)]
        whose = '; '.join(publishers)
        what = f'no {self._what} received on {self.name} for {seconds:.0f} s'
        if publishers:
            return HintFault(f'silent {whose}', f'{what}, though it is published by {whose}: '
                             'check that it runs, and its type')
        again = 'any more' if has_come else f'{self.name} ({self._kind})'
        return HintFault(
            f'unpublished {has_come}',
            (f'{what}: nobody publishes it {again}' if has_come else
             f'nobody publishes {again}') + f'; start its publisher, remap it '
            f'(-r {self._relative}:=/your/topic), or {self._otherwise}')


def odometry_fault(hint: OdometryHint, topic: HintTopic, since: float) -> HintFault | None:
    """Return what is wrong with odometry on a topic, listened to since a time; None: nothing."""
    heard = hint.heard
    silence = topic.silence(time.monotonic() - max(heard or 0.0, since),
                            heard is not None and heard >= since)
    if silence is not None:
        return silence
    refused = hint.fault()
    if refused is None:
        return None
    kind, reason = refused
    return HintFault(kind, f'odometry on {topic.name} is refused ({hint.refused[kind]} messages '
                     f'so far): {reason}')
