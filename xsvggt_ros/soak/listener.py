"""A process that subscribes to clouds, to be stopped or killed: `python -m ... TOPIC`."""

import sys

import rclpy
from sensor_msgs.msg import PointCloud2


def main() -> None:
    """Say "heard" when the first cloud has come, and go on listening."""
    rclpy.init()
    node = rclpy.create_node('soak_listener')
    heard: list[PointCloud2] = []
    node.create_subscription(PointCloud2, sys.argv[1], heard.append, 5)
    while not heard:
        rclpy.spin_once(node, timeout_sec=0.1)
    print('heard', flush=True)
    while True:
        rclpy.spin_once(node, timeout_sec=1.0)
        heard.clear()


if __name__ == '__main__':
    main()
