"""The real node with a LingBot-Map: its checkpoint is all that is named."""

import numpy as np
import pytest
from stream_harness import make_image, NodeProcess, Robot, write_tiny_checkpoint


@pytest.fixture
def robot():
    robot = Robot()
    yield robot
    robot.close()


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
    code, _ = node.stop()
    assert code == 0 and 'Traceback' not in node.output(), node.output()
