"""How often the real node takes images and sends clouds, and how it keeps a deadline."""

from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from stream_harness import frame_tokens, make_image, NodeProcess, Robot, write_tiny_checkpoint

from xsvggt_ros.msg import CacheStatus
from xsvggt_ros.node.loading import load_engine, StartError
from xsvggt_ros.node.messages import point_cloud
from xsvggt_ros.node.outputs.frame_outputs import without_gaps
from xsvggt_ros.node.settings import DEFAULTS

TOKENS = 200  # of the cache, rounded down to whole frames
WIDTH, HEIGHT = 70, 56


@pytest.fixture(scope='module')
def running(tmp_path_factory, robot, checkpoint):
    with NodeProcess(
            tmp_path_factory.mktemp('node_pace') / 'node.log', model__checkpoint=checkpoint,
            model__image_size=WIDTH, cache__max_tokens=TOKENS, use_camera_info='false',
            input__tracking_size=28) as node:
        robot.wait_until_subscribed(node)
        yield node
    assert 'input.tracking_size has no effect' in node.output()


@pytest.fixture
def node(running, robot):
    """Return the node at the beginning of a stream, with no rate and no deadline."""
    for name in ('input.max_rate', 'cloud.max_rate', 'deadline_ms'):
        change(robot, name, 0.0)
    assert robot.call(Trigger, '/xsvggt/reset', Trigger.Request()).success
    return running


def change(robot, name, value):
    result = robot.set_parameter(name, value)
    assert result.successful, result.reason


def image_at(seconds, index=0):
    """Return an image with a stamp, in seconds since some moment."""
    whole, part = divmod(round(seconds * 1e9), 10 ** 9)
    return make_image(index, stamp=(1700000000 + whole, part))


def adds_up(status):
    return status.frames_received == (
        status.frames_processed + status.frames_dropped + status.frames_rejected
        + status.frames_skipped)


def counts(status):
    return np.array([status.frames_received, status.frames_processed, status.frames_skipped])


def cloud_at(robot, node, image):
    """Return the cloud with an image's stamp."""
    return robot.wait(lambda: next(
        (c for c in list(robot.received['points']) if c.header.stamp == image.header.stamp),
        None), 'the cloud', node)


def rows_of(cloud):
    return np.frombuffer(cloud.data, np.float32).reshape(cloud.height, cloud.width, 5)


def test_half_of_the_images_are_taken_at_half_of_the_rate(robot, node):
    begin = robot.process(node, image_at(1000.0))
    change(robot, 'input.max_rate', 15.0)
    for i in range(1, 21):
        image = image_at(1000.0 + i / 30, i)
        if i % 2:
            robot.images.publish(image)
        else:
            end = robot.process(node, image)
    assert list(counts(end) - counts(begin)) == [20, 10, 10]
    assert adds_up(end)
    found = robot.wait(lambda: (
        (status := robot.diagnostic('Inference')) and
        {v.key: v.value for v in status.values}.get('skipped') == str(end.frames_skipped)
        and status), 'the skipped images in diagnostics', node)
    assert {f'{what} p{share} (ms)' for what in ('latency', 'odometry')
            for share in (50, 95, 99)} < {
        v.key for v in found.values}


def test_clouds_come_at_their_own_rate_and_the_map_gets_all(robot, node):
    change(robot, 'cloud.max_rate', 5.0)
    images = [image_at(2000.0 + i / 10, i) for i in range(9)]
    statuses = [robot.process(node, image) for image in images]
    for image in images[::2]:
        cloud_at(robot, node, image)
    stamps = {(c.header.stamp.sec, c.header.stamp.nanosec) for c in robot.received['points']}
    for image, status in zip(images[1::2], statuses[1::2]):
        assert (image.header.stamp.sec, image.header.stamp.nanosec) not in stamps
        assert status.points_published > 0      # those of the cloud before
    assert [a.points_published for a in statuses[1::2]] == [
        b.points_published for b in statuses[:-1:2]]
    assert all(later.frames_skipped == statuses[0].frames_skipped for later in statuses)


def test_a_deadline_that_is_too_short_shortens_the_history_and_is_said(robot, node, network):
    frame = frame_tokens(network)
    budget = TOKENS // frame * frame
    def limits():
        return [c.tokens_limit for c in list(robot.received['cache'])
                if c.header.stamp.sec >= 1700003000]

    for i in range(10):
        robot.process(node, image_at(3000.0 + i, i))
    robot.wait(lambda: len(limits()) == 10, 'the cache statuses', node)
    assert set(limits()) == {budget}
    change(robot, 'deadline_ms', 1.0)       # the network takes some
    for i in range(10, 170):
        last = robot.process(node, image_at(3000.0 + i, i))
    robot.wait(lambda: len(limits()) == 170, 'the cache statuses', node)
    assert limits() == sorted(limits(), reverse=True)
    assert len(set(limits())) > 2 and limits()[-1] == 2 * frame
    assert robot.received['cache'][-1].tokens_used <= 2 * frame
    assert last.frames_skipped == robot.tracked()[-170].frames_skipped and adds_up(last)
    said = robot.wait_for_diagnostic(
        node, 'Inference', 'deadline_ms 1 is missed', 'shortest history', 'model.image_size')
    assert said.level == DiagnosticStatus.WARN
    robot.wait_for_diagnostic(node, 'KV cache', f'{2 * frame} at most for deadline_ms')
    change(robot, 'deadline_ms', 0.0)
    for i in range(170, 180):
        robot.process(node, image_at(3000.0 + i, i))
    robot.wait(lambda: len(limits()) == 180, 'the cache statuses', node)
    assert limits()[-1] == budget and robot.received['cache'][-1].tokens_used == budget
    robot.wait(lambda: robot.diagnostic('Inference').level == DiagnosticStatus.OK,
               'the warning to go', node)


def test_parameters_change_under_load_and_no_image_is_unaccounted_for(robot, node):
    changes = [('deadline_ms', 1.0), ('input.max_rate', 40.0), ('cloud.max_rate', 3.0),
               ('deadline_ms', 12.0), ('input.max_rate', 0.0), ('deadline_ms', 0.0)]
    for i in range(240):
        robot.images.publish(image_at(4000.0 + 0.01 * i, i))
        if i % 4 == 3:
            robot.pass_by(node)  # no more than a few wait to be received
        if i % 40 == 39:
            change(robot, *changes[i // 40])
    last = robot.process(node, image_at(4002.4))
    assert adds_up(last) and last.frames_skipped > 0 and last.frames_rejected == 0


def test_an_organised_cloud_has_the_points_of_the_other_in_rows_and_columns(robot, node):
    images = [image_at(5000.0 + i) for i in range(2)]
    robot.process(node, images[0])
    plain = rows_of(cloud_at(robot, node, images[0]))
    robot.change_states('deactivate', 'cleanup')
    change(robot, 'cloud.organized', True)
    robot.change_states('configure', 'activate')
    robot.wait_until_subscribed(node)
    status = robot.process(node, images[1])
    message = cloud_at(robot, node, images[1])
    assert (message.height, message.width, message.is_dense) == (HEIGHT, WIDTH, False)
    assert message.row_step == 20 * WIDTH and len(message.data) == 20 * WIDTH * HEIGHT
    cloud = rows_of(message)
    finite = np.isfinite(cloud[..., :3]).all(axis=-1)
    assert 0 < finite.sum() == status.points_published < WIDTH * HEIGHT
    assert cloud[finite].tobytes() == plain[0].tobytes()
    saved = robot.call(Trigger, '/xsvggt/save_map', Trigger.Request())
    assert saved.success, saved.message      # the map has taken what is finite


def test_the_map_gets_only_what_is_finite_of_an_organised_cloud():
    packed = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    packed[1, 1:, :3] = np.nan
    message = point_cloud(Header(), packed)
    assert (message.height, message.width, message.is_dense) == (3, 4, False)
    there = without_gaps(packed)
    np.testing.assert_array_equal(there, packed[np.isfinite(packed[..., 0])])
    flat = point_cloud(Header(), there)
    assert (flat.height, flat.width, flat.is_dense) == (1, 9, True)
    assert without_gaps(there) is there


def test_a_tracking_size_that_cannot_be_is_named(tmp_path, network):
    settings = DEFAULTS.changed({
        'model.checkpoint': write_tiny_checkpoint(tmp_path, network)})
    for width, words in ((20, 'multiple of the patch size 14'), (2044, 'not be above image_size')):
        with pytest.raises(StartError, match=rf'^input\.tracking_size must .*{words}'):
            load_engine(settings.model, settings.cache, width)


@pytest.mark.both_networks
def test_every_second_image_is_remembered_by_a_warm_node_and_the_others_seen_small(
        tmp_path, network):
    robot = Robot()
    node = NodeProcess(
        tmp_path / 'node.log',
        model__checkpoint=write_tiny_checkpoint(tmp_path, network),
        cache__max_tokens=TOKENS, use_camera_info='false', input__keyframe_stride=2,
        input__tracking_size=28, model__warmup=True, namespace='/warm')
    try:
        robot.record('warm', CacheStatus, '/warm/xsvggt/cache_status')
        robot.record('warm_depth', Image, '/warm/xsvggt/depth/image_rect')
        robot.wait(lambda: any(
            info.node_namespace == '/warm' for info in
            robot.node.get_subscriptions_info_by_topic('/cam/image_raw')), 'the node', node)
        robot.wait(lambda: robot.node.count_publishers('/warm/xsvggt/points'), 'it to publish')
        robot.wait(lambda: robot.node.count_publishers('/warm/xsvggt/depth/image_rect'), 'depth')
        robot.meet(node, '/warm/xsvggt')
        for index in range(5):
            robot.images.publish(make_image(index))
            robot.wait(lambda: len(robot.received['warm']) == index + 1, 'a frame', node)
        statuses = list(robot.received['warm'])
        tokens = statuses[0].tokens_per_frame
        assert [status.tokens_used // tokens for status in statuses] == [1, 1, 2, 2, 3]
        assert [status.frame_index for status in statuses] == list(range(5))
        depths = robot.wait(lambda: len(robot.received['warm_depth']) == 5
                            and robot.received['warm_depth'], 'the depth images', node)
        assert len({(depth.height, depth.width) for depth in depths}) == 1
        assert 'no effect' not in node.output()
    finally:
        assert node.stop()[0] == 0
        robot.close()
