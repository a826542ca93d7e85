"""What the real node says of the hints that make its lengths metres, over DDS."""

from nav_msgs.msg import Odometry
import pytest
import rclpy
from sensor_msgs.msg import Image
from std_msgs.msg import String
from stream_harness import make_image, NodeProcess, qos, Robot


@pytest.fixture
def started(checkpoint, tmp_path):
    """Return a function that starts a robot and a node with a scale.mode."""
    robot, nodes = Robot(), []

    def start(mode):
        nodes.append(NodeProcess(
            tmp_path / 'log', namespace='/', model__checkpoint=checkpoint, map__enable=False,
            use_camera_info=False, scale__mode=mode, diagnostics__image_timeout=600.0))
        robot.wait_until_subscribed(nodes[0])
        return robot, nodes[0]

    yield start
    for node in nodes:
        node.end()
    robot.close()


@pytest.mark.parametrize(('mode', 'topic', 'kind'), [
    ('odometry', '/odom_hint', Odometry), ('depth', '/depth_hint', Image)])
def test_nobody_publishes_the_hint(started, mode, topic, kind):
    robot, node = started(mode)
    robot.process(node, make_image(0))
    status = robot.wait_for_diagnostic(
        node, 'Input', 'metric scale is not known yet', 'nobody publishes', topic, 'remap it')
    assert status.level == b'\x01'
    robot.wait(lambda: 'nobody publishes' in node.output(), 'a line in the log', node)
    line, = (line for line in node.output().splitlines() if 'nobody publishes' in line)
    assert 'WARN' in line and topic in line
    context = rclpy.Context()   # two types on one topic are two participants
    rclpy.init(context=context)
    other = rclpy.create_node('other', context=context)
    other.create_publisher(String, topic, 10)
    robot.wait_for_diagnostic(node, 'Input', topic, 'std_msgs/msg/String', 'which is not')
    other.destroy_node()
    rclpy.shutdown(context=context)
    publisher = robot.node.create_publisher(kind, topic, qos(10, reliable=True))
    robot.wait(lambda: publisher.get_subscription_count() > 0, 'the node to listen', node)

    def heard():
        publisher.publish(kind())
        status = robot.diagnostic('Input')
        return 'nobody publishes' not in status.message and 'which is not' not in status.message

    robot.wait(heard, 'the hint to be heard', node)


def test_an_odometry_that_is_lost_is_named_with_its_topic(started):
    robot, node = started('odometry')
    publisher = robot.node.create_publisher(Odometry, '/odom_hint', qos(10, reliable=True))
    robot.wait(lambda: publisher.get_subscription_count() > 0, 'the node to listen', node)
    robot.process(node, make_image(0))
    message = Odometry(child_frame_id='base_link')
    message.header.stamp.sec = 1700000000
    message.pose.pose.orientation.w = 0.0

    def named():
        publisher.publish(message)
        status = robot.diagnostic('Input')
        return status if 'quaternion is zero' in status.message else None

    status = robot.wait(named, 'what is wrong', node)
    assert '/odom_hint' in status.message and status.level == b'\x01'
    values = {value.key: value.value for value in status.values}
    assert 'refused (lost)' in values['scale hint']
    assert robot.set_parameter('scale.max_uncertainty', 0.05).successful
    assert not robot.set_parameter('scale.max_uncertainty', 2.0).successful
