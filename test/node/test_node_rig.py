"""The real node with several cameras, and with a depth sensor, over real DDS."""

import time

from geometry_msgs.msg import TransformStamped
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from stream_harness import make_image, NodeProcess, qos, Robot, WARN
from tf2_msgs.msg import TFMessage

from xsvggt_ros.node import messages

PIXELS = 70 * 56
FRAMES = ('left_optical_frame', 'right_optical_frame')
TOPICS = ('/left/image_raw', '/right/image_raw')


@pytest.fixture(scope='module')
def start(tmp_path_factory, checkpoint):
    """Start nodes that are stopped at the end, quietly and with code 0, each with a robot."""
    begun = []

    def start_node(**parameters):
        robot = Robot()
        settings = {'model__checkpoint': checkpoint, 'model__image_size': 70,
                    'cache__max_tokens': 100, 'cloud__confidence_percentile': 0.0} | parameters
        node = NodeProcess(tmp_path_factory.mktemp('log') / 'node.log', **settings)
        begun.append((robot, node))
        return robot, node

    yield start_node
    for robot, node in begun:
        robot.close()
        node.end()


class StereoRig:
    """Two cameras, each with a topic, and the node that sees them."""

    def __init__(self, robot, node):
        self.robot, self.node = robot, node
        self.cameras = [robot.node.create_publisher(Image, topic, qos(10, reliable=False))
                        for topic in TOPICS]
        self.static = robot.node.create_publisher(TFMessage, '/tf_static', QoSProfile(
            depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
        for camera in self.cameras:
            robot.wait(lambda: camera.get_subscription_count() > 0, 'a subscription', node)
        robot.meet(node)
        self.index = 0

    def send(self, camera, index, shift_ns=0, **options):
        image = make_image(index + 50 * camera, **options)
        image.header.frame_id = FRAMES[camera]
        image.header.stamp.sec = 1700000000 + index
        image.header.stamp.nanosec = 500_000_000 + shift_ns
        self.cameras[camera].publish(image)
        return image

    def process(self, order=(0, 1)):
        """Send a set of images; return them and the status of the node after it."""
        self.index += 1
        images = {camera: self.send(camera, self.index, 5_000_000 * camera) for camera in order}
        return images, self.status(images[0])

    def status(self, image):
        return self.robot.wait(lambda: next((
            status for status in reversed(self.robot.tracked())
            if status.header.stamp == image.header.stamp), None), 'a status', self.node)

    def cloud(self, image):
        return self.robot.wait(lambda: next((
            cloud for cloud in reversed(self.robot.received['points'])
            if cloud.header.stamp == image.header.stamp), None), 'a cloud', self.node)


@pytest.fixture(scope='module')
def rig(start):
    # No spaces: a command line would cut the list.
    return StereoRig(*start(
        image_topics='[' + ','.join(f"'{topic}'" for topic in TOPICS) + ']',
        scale__mode='fixed', input__camera_timeout=1.0, trajectory__mode='optimized'))


def test_poses_of_several_cameras_are_the_networks_and_it_is_said(rig):
    images, status = rig.process()
    assert (status.pose_source, status.keyframes, status.pose_inliers) == ('network', 0, 0)
    odometry = rig.robot.wait(lambda: next((
        one for one in rig.robot.received['odometry']
        if one.header.stamp == images[0].header.stamp), None), 'odometry', rig.node)
    assert odometry.pose.covariance[0] == 0.01     # position_covariance: nothing is estimated
    tracking = rig.robot.wait_for_diagnostic(rig.node, 'Tracking', 'images in this stream')
    values = {value.key: value.value for value in tracking.values}
    assert values['pose from'] == 'network: trajectory.mode is for one camera'
    assert 'loops closed' not in values
    assert 'trajectory.mode optimized is for one camera' in rig.node.output()


def points_of(cloud):
    return np.frombuffer(cloud.data, np.float32).reshape(-1, 5)


def colours_of(image):
    rgb = np.frombuffer(image.data, np.uint8).reshape(-1, 3).astype(np.uint32)
    return (rgb[:, 0] << 16) | (rgb[:, 1] << 8) | rgb[:, 2]


def adds_up(status):
    return status.frames_received == (
        status.frames_processed + status.frames_dropped + status.frames_rejected
        + status.frames_skipped)


@pytest.mark.both_networks
@pytest.mark.parametrize('order', [(0, 1), (1, 0)])
def test_both_cameras_enter_in_the_order_of_the_list(rig, order):
    images, status = rig.process(order)
    assert status.frames_processed == 2 * rig.index and adds_up(status)
    assert status.header == images[0].header
    cloud = rig.cloud(images[0])
    assert cloud.header == images[0].header and cloud.width == 2 * PIXELS
    colours = points_of(cloud)[:, 3].copy().view(np.uint32)
    np.testing.assert_array_equal(colours[:PIXELS], colours_of(images[0]))
    np.testing.assert_array_equal(colours[PIXELS:], colours_of(images[1]))
    tf = rig.robot.received['tf'][-1].transforms[0]
    assert tf.child_frame_id == FRAMES[0] and tf.header.stamp == images[0].header.stamp
    cache = rig.robot.wait(lambda: rig.robot.received['cache'], 'a cache status', rig.node)[-1]
    assert cache.frame_index == 2 * rig.index - 1


def test_known_places_of_the_cameras_bring_their_clouds_together(rig):
    images, _ = rig.process()
    assert np.abs(points_of(rig.cloud(images[0]))[PIXELS:, 0]).max() < 500
    edge = TransformStamped()
    edge.header.frame_id, edge.child_frame_id = FRAMES
    edge.transform.translation.x = 1000.0
    edge.transform.rotation.w = 1.0
    rig.robot.send(rig.node, rig.static, TFMessage(transforms=[edge]))
    images, status = rig.process()
    points = points_of(rig.cloud(images[0]))
    assert status.metric
    assert np.abs(points[:PIXELS, 0]).max() < 500 < points[PIXELS:, 0].min()


def test_an_image_without_a_partner_is_dropped_and_counted(rig):
    _, before = rig.process()
    rig.index += 1
    rig.send(1, rig.index, shift_ns=-200_000_000)
    rig.send(0, rig.index, shift_ns=200_000_000)
    _, after = rig.process()
    assert after.frames_processed == before.frames_processed + 2
    assert after.frames_dropped == before.frames_dropped + 2 and adds_up(after)


def test_a_rate_leaves_out_whole_sets(rig):
    def set_rate(rate):
        assert rig.robot.set_parameter('input.max_rate', rate).successful

    _, before = rig.process()
    set_rate(0.5)      # of sets that are a second apart
    for _ in range(3):
        rig.index += 1
        for camera in (0, 1):
            rig.send(camera, rig.index)
        _, after = rig.process()
    set_rate(0.0)
    assert after.frames_processed == before.frames_processed + 6
    assert after.frames_skipped == before.frames_skipped + 6 and adds_up(after)


def test_a_camera_of_another_size_is_named(rig):
    _, before = rig.process()
    rig.index += 1
    rig.send(0, rig.index)
    rig.send(1, rig.index, width=84)
    rig.robot.wait_for_diagnostic(rig.node, 'Input', TOPICS[1], '84x56', TOPICS[0], '70x56')
    _, after = rig.process()
    assert after.frames_rejected == before.frames_rejected + 2 and adds_up(after)


def test_a_silent_camera_is_named_and_the_stream_goes_on_without_it(rig):
    _, before = rig.process()

    def goes_on_alone():
        rig.index += 1
        rig.send(0, rig.index)
        time.sleep(0.05)  # so often the camera that is left sends
        return rig.robot.tracked()[-1].frames_processed > before.frames_processed + 2

    rig.robot.wait(goes_on_alone, 'images of one camera', rig.node)
    status = rig.robot.wait_for_diagnostic(rig.node, 'Input', TOPICS[1], 'no image', 'without it')
    assert status.level == WARN
    assert f'{TOPICS[1]} has sent no image' in rig.node.output()
    rig.process()   # the first image that fits brings the camera back
    images, status = rig.process()
    assert rig.cloud(images[0]).width == 2 * PIXELS and adds_up(status)
    rig.robot.wait(
        lambda: 'all cameras of the rig send images again' in rig.node.output(), 'a log line')


def test_the_scale_of_registered_depth_is_the_true_one(start):
    robot, node = start(scale__mode='depth')
    robot.record('depth', Image, '/xsvggt/depth/image_rect')
    hints = robot.node.create_publisher(Image, '/depth_hint', qos(10, reliable=False))
    robot.wait_until_subscribed(node)
    for index in range(5):
        assert not robot.process(node, make_image(index)).metric
    robot.wait_for_diagnostic(node, 'Input', 'metric scale is not known', 'no depth image')
    rng, scale = np.random.default_rng(0), 3.7
    for index in range(5, 15):
        image = make_image(index)
        status = robot.process(node, image)
        if status.metric:
            break
        depth = robot.wait(lambda: next((
            message for message in robot.received['depth']
            if message.header.stamp == image.header.stamp), None), 'depth', node)
        metres = scale * np.frombuffer(depth.data, np.float32).reshape(56, 70)
        metres = metres * (1 + rng.normal(0, 0.03, metres.shape))
        metres[rng.random(metres.shape) < 0.3] *= 1.5
        metres[rng.random(metres.shape) < 0.1] = np.nan
        robot.send(node, hints, messages.image(image.header, metres.astype(np.float32), '32FC1'))
    assert status.metric and abs(status.scale / scale - 1) < 0.01, node.output()
    status = robot.wait_for_diagnostic(node, 'Input', 'images/s')
