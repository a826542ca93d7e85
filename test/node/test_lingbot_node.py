"""The real node with a LingBot-Map: its checkpoint is all that is named."""

from node_fixtures import robot_fixture
import numpy as np
import pytest
from std_srvs.srv import Trigger
from stream_harness import make_image, NodeProcess, write_tiny_checkpoint

from xsvggt_ros.msg import StreamStatus

robot = robot_fixture('function')


@pytest.mark.parametrize('settings', [
    {}, {'cache__policy': 'lingbot', 'input__keyframe_stride': 2, 'cloud__source': 'points'}])
def test_poses_and_clouds_come_from_the_first_image_on(robot, tmp_path, settings):
    checkpoint = write_tiny_checkpoint(tmp_path, 'lingbot')
    node = NodeProcess(tmp_path / 'node.log', model__checkpoint=checkpoint, model__image_size=70,
                       cache__max_tokens=130, **settings)
    robot.wait_until_subscribed(node)
    for index in range(12):
        status = robot.process(node, make_image(index))
        assert 'LingBot-Map, no point head' in status.model
        assert 'one scale frame: poses from the first image on' in status.model
        assert status.frames_processed == index + 1
    received = robot.received
    robot.wait(lambda: all(len(received[name]) == 12 for name in (
        'odometry', 'points', 'cache')), 'all outputs', node)
    where = [message.pose.pose.position for message in received['odometry']]
    assert np.isfinite([[point.x, point.y, point.z] for point in where]).all()
    assert all(cloud.width * cloud.height > 0 for cloud in received['points'])
    caches = received['cache']
    assert caches[-1].tokens_evicted_total > 0
    assert all(cache.tokens_used <= cache.tokens_budget for cache in caches)
    node.end()


def test_eight_images_begin_together(robot, tmp_path):
    """As published: nothing is there for the first seven, and then eight poses at once."""
    checkpoint = write_tiny_checkpoint(tmp_path, 'lingbot')
    node = NodeProcess(tmp_path / 'node.log', model__checkpoint=checkpoint, model__image_size=70,
                       model__first_frames=8, cache__policy='lingbot', cache__max_tokens=300)
    robot.wait_until_subscribed(node)

    def collect(index, collected):
        """Send an image until it is one of those that wait; return the status that says so."""
        def counted():
            newest = list(robot.received['status'])[-1:]
            if newest and newest[0].frames_collected == collected:
                return newest[0]
            if robot.received['diagnostics'][reports:][3:]:   # it was lost on the way
                robot.images.publish(make_image(index))
            return None

        reports = len(robot.received['diagnostics'])
        robot.images.publish(make_image(index))
        return robot.wait(counted, f'image {index} to be collected', node)

    for index in range(2):
        status = collect(index, index + 1)
        assert status.frames_to_collect == 8 and status.frames_processed == 0
        assert status.state == StreamStatus.WARMING_UP
        assert '8 scale frames: poses begin with image 8' in status.model
    robot.wait_for_diagnostic(node, 'Inference', '2 of the 8 images collected')
    assert robot.call(Trigger, '/xsvggt/reset', Trigger.Request()).success
    for index in range(2, 9):
        assert collect(index, index - 1).frames_skipped == 2
    assert not robot.received['odometry']
    status = robot.process(node, make_image(9))
    assert (status.frames_processed, status.frames_to_collect) == (8, 0)
    odometry = robot.received['odometry']
    robot.wait(lambda: len(odometry) == 8, 'eight poses', node)
    assert [m.header.stamp.sec - 1700000000 for m in odometry] == list(range(2, 10))
    for index in range(10, 16):
        status = robot.process(node, make_image(index))
    assert status.frames_processed == 14 and len(odometry) == 14
    where = [message.pose.pose.position for message in odometry]
    assert np.isfinite([[point.x, point.y, point.z] for point in where]).all()
    assert len({(round(point.x, 9), round(point.y, 9)) for point in where}) > 10
    node.end()
