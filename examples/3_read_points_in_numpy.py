"""
Read the node's clouds in numpy: x, y, z, rgb and confidence of a message, without a copy.

Start the node (`ros2 launch xsvggt_ros stream.launch.py`), and then, in a shell with ROS sourced:

    python3 examples/3_read_points_in_numpy.py --ros-args -r points:=/xsvggt/points
"""

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2

KINDS = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 8: 'f8'}  # PointField


def view(message: PointCloud2) -> np.ndarray:
    """
    Return a cloud's points as a structured array [height, width] in the message's own memory.

    rclpy keeps `data` as an array('B'), which numpy reads where it lies. Offsets and steps are the
    message's, so padding does no harm; `rgb`, by convention a float, is read as the bits that it
    is. Raises ValueError for a cloud that says more than it has.
    """
    order = '>' if message.is_bigendian else '<'
    formats = ['u4' if field.name == 'rgb' else KINDS[field.datatype] for field in message.fields]
    point = np.dtype({
        'names': [field.name for field in message.fields],
        'formats': [order + kind for kind in formats],
        'offsets': [field.offset for field in message.fields], 'itemsize': message.point_step})
    shape, steps = (message.height, message.width), (message.row_step, message.point_step)
    if message.height * message.width == 0:
        return np.empty(shape, point)
    try:
        return np.ndarray(shape, point, buffer=message.data, strides=steps)
    except (TypeError, ValueError) as error:
        raise ValueError(f'the cloud says that it has {shape[0]} x {shape[1]} points, but there '
                         f'are {len(message.data)} bytes') from error


def colours(rgb: np.ndarray) -> np.ndarray:
    """Return red, green and blue [..., 3] uint8 of bits 0x00RRGGBB; this is a copy."""
    return np.stack([rgb >> 16 & 255, rgb >> 8 & 255, rgb & 255], axis=-1).astype(np.uint8)


class PointReader(Node):
    """Says of each cloud how large, how far and how sure it is."""

    def __init__(self, **settings) -> None:
        """Subscribe to `points`; settings: of rclpy's Node."""
        super().__init__('point_reader', **settings)
        self.create_subscription(PointCloud2, 'points', self.on_points, 1)

    def on_points(self, message: PointCloud2) -> None:
        """Read a cloud, in the optical frame of its header: x right, y down, z forward."""
        points = view(message)
        known = points[np.isfinite(points['z'])]  # of an organised cloud: pixels without a point
        if not known.size:
            self.get_logger().info('a cloud without points')
            return
        red, green, blue = colours(known['rgb']).mean(axis=0)
        self.get_logger().info(
            f"{known.size} points in '{message.header.frame_id}': nearest z {known['z'].min():.2f}"
            f", mean confidence {known['confidence'].mean():.2f}, mean colour {red:.0f} "
            f'{green:.0f} {blue:.0f}')


def main(arguments: list[str] | None = None) -> None:
    """Read clouds until Ctrl-C."""
    rclpy.init(args=arguments)
    try:
        rclpy.spin(PointReader())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
