"""Targets: clouds, transforms and odometry from other nodes, and values of parameters."""

from array import array
import contextlib

from geometry_msgs.msg import TransformStamped
import numpy as np
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2, PointField

from fuzz.source import Source
from fuzz.target import Target
from xsvggt_ros.mapping.transform_tree import LookupError_, TransformTree
from xsvggt_ros.node import parameters
from xsvggt_ros.recordings import outputs

NAMES = ('x', 'y', 'z', 'rgb', 'confidence', 'intensity', '')
FRAMES = ('base_link', 'camera', '/camera', 'map', 'odom', '', '/')


def read_cloud(data: bytes) -> bool:
    """Read a cloud message."""
    source = Source(data)
    cloud = PointCloud2()
    cloud.width, cloud.height, cloud.point_step = (
        source.whole(0, 2 ** 32 - 1) if source.flag(8) else source.one_of(usual)
        for usual in ((0, 1, 2, 3), (0, 1, 2), (0, 4, 16, 20, 32)))
    row = cloud.width * cloud.point_step if not source.flag(8) else source.whole(0, 2 ** 32 - 1)
    cloud.row_step = min(row, 2 ** 32 - 1)
    cloud.is_bigendian = source.flag(4)
    for index in range(source.whole(0, 6)):
        field = PointField()
        field.name = source.one_of(NAMES) if source.flag(4) else NAMES[index]
        field.offset = source.whole(0, 2 ** 32 - 1) if source.flag(16) else 4 * index
        field.datatype = source.whole(0, 255) if source.flag(8) else PointField.FLOAT32
        field.count = source.whole(0, 2 ** 32 - 1) if source.flag(16) else 1
        cloud.fields.append(field)
    cloud.data = array('B', source.rest())
    with contextlib.suppress(ValueError):
        points = outputs.cloud_from_message(cloud)
        assert len(points) == cloud.width * cloud.height
        return True
    return False


def read_transforms(data: bytes) -> bool:
    """Send transforms, and ask for the ways between their frames."""
    source = Source(data)
    tree = TransformTree()
    for _ in range(1 + source.byte() % 8):
        edge = TransformStamped()
        edge.header.frame_id, edge.child_frame_id = source.one_of(FRAMES), source.one_of(FRAMES)
        edge.header.stamp.sec = source.one_of((0, 1, 2, 3, 2 ** 31 - 1))
        edge.header.stamp.nanosec = source.one_of((0, 500_000_000, 999_999_999, 2 ** 32 - 1))
        move, turn = edge.transform.translation, edge.transform.rotation
        move.x, move.y, move.z = (source.number((0.0, 1.0)) for _ in range(3))
        turn.x, turn.y, turn.z, turn.w = (source.number((0.0, 0.0, 1.0, 0.7)) for _ in range(4))
        tree.add(edge, static=source.flag(2))
    known = False
    for target in ('base_link', 'map'):
        for stamp in (None, 1_500_000_000):
            with contextlib.suppress(LookupError_), np.errstate(all='ignore'):
                matrix = tree.lookup(target, 'camera', stamp)
                assert matrix.shape == (4, 4) and np.isfinite(matrix).all(), matrix
                known = True
    return known


def value_like(default: parameters.Value, source: Source) -> parameters.Value:
    """Return a value of the same type."""
    if isinstance(default, bool):
        return source.flag(2)
    if isinstance(default, int):
        return source.whole(-2 ** 63, 2 ** 63 - 1)
    if isinstance(default, float):
        return source.number((0.0, 1.0, 100.0))
    if isinstance(default, list):
        return [source.words(10) for _ in range(source.byte() % 4)]
    return source.words(30)


def read_parameter(data: bytes) -> bool:
    """Change parameters to any value of their types, which rclpy has checked before."""
    source, accepted = Source(data), False
    table = parameters.TABLE
    for _ in range(1 + source.byte() % 3):
        known = source.one_of(table)
        change = Parameter(known.name, value=value_like(known.default, source))
        result = parameters.check_change([change], configured=source.flag(2))
        assert result.successful == (not result.reason)
        accepted = accepted or result.successful
    return accepted


TARGETS = (
    Target('cloud_message', read_cloud,
           lambda: [bytes([0, 2, 0, 1, 0, 3, 0, 0, 5] + [0] * 20 + [1] * 48), bytes(60)]),
    Target('transforms', read_transforms, lambda: [bytes(range(i, i + 120)) for i in range(8)]),
    Target('parameter_values', read_parameter,
           lambda: [bytes(range(i, i + 60)) for i in range(0, 196, 3)],   # of any parameter
           (b'small', b'cuda:0', b'/', b'../', b'a b', b'\xc3\xa9')),
)
