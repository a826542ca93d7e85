"""Images that are broken, that stop, or whose stamps jump, in the real node."""

from array import array

from node_fixtures import robot_fixture
import pytest
from std_srvs.srv import Trigger
from stream_harness import ERROR, make_image, WARN

from xsvggt_ros.msg import StreamStatus

robot = robot_fixture('function')


BROKEN = {
    'encoding': ({'encoding': 'yuv999'}, ('yuv999', 'rgb8')),
    'step': ({'step': 3}, ('step', '210')),
    'cut off': ({'data': array('B', [1] * 100)}, ('100 bytes', 'cut off')),
    'empty': ({'width': 0, 'height': 0, 'step': 0, 'data': array('B')}, ('empty',)),
}


def test_broken_images_are_named_and_the_stream_goes_on(robot, start):
    node = start()
    robot.process(node, make_image(0))
    for i, (changes, words) in enumerate(BROKEN.values(), start=1):
        message = make_image(i)
        for name, value in changes.items():
            setattr(message, name, value)
        robot.images.publish(message)
        status = robot.wait_for_diagnostic(node, 'Input', *words)
        assert status.level == ERROR
    robot.images.publish(make_image(8, width=84))
    robot.wait_for_diagnostic(node, 'Input', '84x56', '70x56', '~/reset')
    last = robot.process(node, make_image(9))
    assert last.frames_rejected == 5
    assert robot.received['cache'][-1].frame_index == 1, 'the stream began anew'
    robot.wait_for_diagnostic(node, 'Input', 'images/s')
    for _, words in BROKEN.values():
        assert all(word in node.output() for word in words)


def test_the_same_fault_does_not_flood_the_log(robot, start):
    node = start()
    robot.process(node, make_image(0))
    index = 0

    def many_are_rejected():
        nonlocal index  # images that come at once replace each other before they are looked at
        index += 1
        broken = make_image(index)
        broken.encoding = 'yuv999'
        robot.images.publish(broken)
        status = robot.diagnostic('Input')
        return int({v.key: v.value for v in status.values}['rejected']) > 20

    robot.wait(many_are_rejected, 'images to be rejected', node)
    assert 1 <= node.output().count('yuv999') <= 6  # at once, after 10, 20, 40 s and so on


def test_a_bag_that_loops_begins_a_new_stream_once(robot, start):
    node = start()
    for index in (5, 6, 7):
        assert robot.process(node, make_image(index)).reset_count == 0
    late = make_image(8, stamp=(1700000007, 100_000_000))   # 23 ms before the last one
    robot.images.publish(late)
    robot.wait(lambda: 'out of order' in node.output(), 'the late image to be refused', node)
    for index in (0, 1, 2):   # the bag again from its beginning
        status = robot.process(node, make_image(index))
        assert (status.reset_count, status.frames_rejected) == (1, 1)
    assert node.output().count('time went back by 7.0 s') == 1
    assert [cache.frame_index for cache in robot.received['cache']] == [0, 1, 2] * 2
    robot.process(node, make_image(60))   # a gap of a minute is none, unless it is told to be
    assert robot.set_parameter('reset.on_gap', 10.0).successful
    assert robot.process(node, make_image(75)).reset_count == 2
    assert 'a gap of 15.0 s' in node.output()


def test_images_without_a_stamp_are_complained_about(robot, start):
    node = start()
    for _ in range(2):
        robot.images.publish(make_image(0, stamp=(0, 0)))
        robot.pass_by(node)
    status = robot.wait_for_diagnostic(node, 'Input', 'no stamp')
    assert status.level == WARN and 'no stamp' in node.output()
    assert robot.process(node, make_image(1)).frames_rejected == 0


def test_images_without_a_frame_id_get_no_tf(robot, start):
    node = start()
    image = make_image(0)
    image.header.frame_id = ''
    robot.process(node, image)
    status = robot.wait_for_diagnostic(node, 'Tracking', 'frame_id')
    assert status.level == WARN
    assert len(robot.received['odometry']) == 1 and not robot.received['tf']
    robot.process(node, make_image(1))
    robot.wait(lambda: len(robot.received['tf']) == 1, 'TF again', node)


@pytest.mark.both_networks
def test_after_a_reset_another_size_is_welcome(robot, start):
    node = start()
    for i in range(5):
        robot.process(node, make_image(i))
    assert robot.call(Trigger, '/xsvggt/reset', Trigger.Request()).success
    status = robot.process(node, make_image(5, width=140, height=112, encoding='mono8'))
    assert status.reset_count == 1
    assert robot.received['cache'][-1].frame_index == 0


def test_without_a_camera_diagnostics_say_what_to_check(robot, start):
    node = start(diagnostics__image_timeout=0.5)
    status = robot.wait_for_diagnostic(node, 'Input', 'no image on /cam/image_raw')
    assert status.level == ERROR
    # The test's own publisher is there and silent.
    assert 'test_robot' in status.message and 'best_effort' in status.message
    lines = [line for line in node.output().splitlines() if 'no image on /cam/image_raw' in line]
    assert lines and all('[WARN]' in line for line in lines)


def test_images_that_stop_are_told_and_their_return_as_well(robot, start):
    node = start(diagnostics__image_timeout=0.5)
    robot.process(node, make_image(0))
    robot.wait_for_diagnostic(node, 'Input', 'no image', 'still published by test_robot')
    robot.wait(lambda: 'still published by test_robot' in node.output(), 'the log', node)
    robot.set_parameter('diagnostics.image_timeout', 60.0)
    robot.process(node, make_image(1))
    robot.wait(lambda: 'images arrive on /cam/image_raw' in node.output(), 'the log', node)


def test_the_status_tells_the_state(robot, start):
    node = start(diagnostics__image_timeout=1.0)

    def states():
        return [status.state for status in list(robot.received['status'])]

    robot.wait(lambda: StreamStatus.WAITING in states(), 'a status while there is no image', node)
    assert robot.process(node, make_image(0)).state == StreamStatus.TRACKING
    broken = make_image(1)
    broken.encoding = 'yuv999'
    robot.images.publish(broken)
    robot.wait(lambda: StreamStatus.DEGRADED in states(), 'a status after a broken image', node)
    robot.process(node, make_image(2))
    robot.wait(lambda: states()[-1] == StreamStatus.WAITING, 'a status when images stop', node)
