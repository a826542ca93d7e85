"""Topics of a bag that this package wrote itself: what it estimated tells nothing of metres."""

from xsvggt_ros.geometry.frame_names import frame_name
from xsvggt_ros.recordings.inputs.bag import Bag
from xsvggt_ros.recordings.inputs.bag_images import base_topic

NODE, ODOM_FRAME = 'xsvggt', 'xsvggt_odom'   # as they are called unless somebody renames them
_IMAGE, _ODOMETRY = 'sensor_msgs/msg/Image', 'nav_msgs/msg/Odometry'
_STATUS = {'status': 'xsvggt_ros/msg/StreamStatus', 'cache_status': 'xsvggt_ros/msg/CacheStatus'}
# Where the node was renamed and its status was not recorded: what it alone has side by side.
_TOGETHER = {'confidence': _IMAGE, 'depth/image_rect': _IMAGE, 'odometry': _ODOMETRY}


def own_topics(bag: Bag) -> set[str]:
    """
    Return the topics of a bag that the node, `~/...`, or `--export mcap` wrote.

    They are known by the node's name, by messages that only this package has, by topics that only
    it has side by side, and odometry by its frame.
    """
    spaces = {name[:-len(end) - 1] for name in map(base_topic, bag.topics)
              for end in (*_STATUS, *_TOGETHER) if name.endswith(f'/{end}')}
    own = tuple(f'{space}/' for space in spaces if _is_of_node(bag, space))
    return {name for name, topic in bag.topics.items() if name.startswith(own)
            or topic.type == _ODOMETRY and topic.count and _frame(bag, name) == ODOM_FRAME}


def _is_of_node(bag: Bag, space: str) -> bool:
    """Return whether a namespace is that of our node."""
    def has(end: str, kind: str) -> bool:
        topic = bag.topics.get(f'{space}/{end}')
        return topic is not None and topic.type == kind

    return (space.rpartition('/')[2] == NODE
            or any(has(*status) for status in _STATUS.items())
            or all(has(*topic) for topic in _TOGETHER.items()))


def _frame(bag: Bag, name: str) -> str:
    """Return the frame of a topic's first message; '' if it cannot be read."""
    header = getattr(bag.first(name), 'header', None)
    return frame_name(str(getattr(header, 'frame_id', '')))
