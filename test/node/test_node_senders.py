"""Stamps that jump and several senders on one topic, in the real node."""

from contextlib import contextmanager
import threading

from diagnostic_msgs.msg import DiagnosticStatus
from node_fixtures import robot_fixture
import pytest
import rclpy
from sensor_msgs.msg import Image
from stream_harness import make_image, qos

FAR = 1000  # seconds: no machine is so slow that this could be right
ONE_CAMERA = 'come from more than one camera'


robot = robot_fixture('function')


@pytest.fixture
def node(start):
    return start()


def shot(index, seconds=0, frame_id=None):
    """Return an image of a camera at 20 Hz, its clock ahead by so many seconds."""
    whole, part = divmod(index, 20)
    image = make_image(index, stamp=(1700000000 + seconds + whole, part * 50_000_000))
    if frame_id is not None:
        image.header.frame_id = frame_id
    return image


@contextmanager
def sending(*senders):
    """Publish, until the block ends, what each of some functions makes of 0, 1, 2 ..."""
    end = threading.Event()

    def run():
        index = 0
        while not end.is_set():
            for publisher, make in senders:
                publisher.publish(make(index))
                end.wait(0.02)
            index += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@pytest.mark.parametrize('far', [FAR, -FAR])
def test_a_lone_stamp_far_away_is_refused_and_a_clock_that_stays_is_followed(robot, node, far):
    for index in range(8):
        robot.process(node, shot(index))
    robot.images.publish(shot(8, far))
    robot.wait(lambda: 'image refused: its stamp is' in node.output(), 'a refusal', node)
    status = robot.wait_for_diagnostic(node, 'Input', 'image refused', 'a clock that was set')
    assert status.level == DiagnosticStatus.WARN
    status = robot.process(node, shot(9))
    assert (status.reset_count, status.frames_rejected) == (0, 1)
    assert robot.received['cache'][-1].frame_index == 8
    for index in range(10, 12):  # at once: a stream that is silent for a second is given up
        robot.images.publish(shot(index, far))
    robot.wait(lambda: refused(robot) >= 3, 'the refusals to be counted', node)
    status = robot.process(node, shot(12, far))
    assert (status.reset_count, status.frames_rejected) == (1, 3)
    assert f'time went {"forward" if far > 0 else "back"} by' in node.output()
    status = robot.process(node, shot(13, far))
    assert status.reset_count == 1 and robot.received['cache'][-1].frame_index == 1


def refused(robot):
    values = {value.key: value.value for value in robot.diagnostic('Input').values}
    return int(values['rejected'])


def test_of_two_cameras_on_one_topic_one_is_followed_and_both_are_named_once(robot, node):
    other = rclpy.create_node('other_camera', context=robot.context)
    images = other.create_publisher(Image, '/cam/image_raw', qos(10, reliable=False))
    robot.wait(lambda: images.get_subscription_count() > 0, 'the other camera', node)
    with sending((robot.images, shot), (images, lambda index: shot(index, FAR))):
        status = robot.wait_for_diagnostic(
            node, 'Input', ONE_CAMERA, '/other_camera', '/test_robot',
            'alternate between two clocks')
        assert status.level == DiagnosticStatus.WARN
        processed = robot.received['status'][-1].frames_processed
        robot.wait(lambda: robot.received['status'][-1].frames_processed > processed + 20,
                   'the stream to go on', node)
        assert ONE_CAMERA in robot.diagnostic('Input').message
    last = robot.received['status'][-1]
    assert last.reset_count <= 1 and last.frames_rejected > 10
    assert node.output().count(ONE_CAMERA) == 1
    assert node.output().count('image refused') <= 6  # at once, after 10, 20, 40 s and so on
    other.destroy_node()


def test_a_frame_id_that_changes_with_every_image_is_said_once(robot, node):
    with sending((robot.images, lambda index: shot(index, frame_id=f'camera{index}'))):
        status = robot.wait_for_diagnostic(
            node, 'Input', ONE_CAMERA, 'frame_id keeps changing', '/test_robot')
        assert status.level == DiagnosticStatus.WARN
    assert node.output().count(ONE_CAMERA) == 1
    assert robot.received['status'][-1].reset_count == 0
