"""The real node, a process of its own, over real DDS."""

from array import array
import io
import threading
import time

from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry, Path
import numpy as np
from PIL import Image as PilImage
import pytest
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParameters
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger
from stream_harness import (
    FRAME_ID,
    frame_tokens,
    make_image,
    NodeProcess,
    Robot,
    write_tiny_checkpoint,
)

from xsvggt_ros.msg import StreamStatus

OK, WARN, ERROR = b'\x00', b'\x01', b'\x02'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory, network):
    return write_tiny_checkpoint(tmp_path_factory.mktemp('weights'), network)


@pytest.fixture
def robot():
    robot = Robot()
    yield robot
    robot.close()


@pytest.fixture
def start(tmp_path, robot, checkpoint):
    """Start nodes that are stopped with Ctrl-C at the end of the test, quietly and with code 0."""
    nodes = []

    def start_node(wait=True, **parameters):
        settings = {'model__checkpoint': checkpoint, 'model__image_size': 70,
                    'cache__max_tokens': 100} | parameters
        node = NodeProcess(tmp_path / f'node{len(nodes)}.log', **settings)
        nodes.append(node)
        if wait:
            robot.wait_until_subscribed(node)
        return node

    yield start_node
    for node in nodes:
        if node.process.poll() is None:
            code, _ = node.stop()
            assert code == 0, node.output()
        assert 'Traceback' not in node.output(), node.output()


def stamps(messages):
    return [(m.header.stamp.sec, m.header.stamp.nanosec) for m in messages]


def text_parameter(name, value):
    return Parameter(name=name, value=ParameterValue(
        type=ParameterType.PARAMETER_STRING, string_value=value))


def float_parameter(name, value):
    return Parameter(name=name, value=ParameterValue(
        type=ParameterType.PARAMETER_DOUBLE, double_value=value))


@pytest.mark.both_networks
def test_every_output_carries_the_images_stamp_and_frame(robot, start):
    node = start()
    sent = [make_image(i) for i in range(6)]
    for message in sent:
        robot.process(node, message)
    expected = stamps(sent)
    received = robot.received
    robot.wait(lambda: len(robot.tracked()) == 6 and all(len(received[name]) == 6 for name in (
        'points', 'points_best_effort', 'odometry', 'tf', 'cache')), 'all outputs', node)
    assert stamps(received['points']) == stamps(received['points_best_effort']) == expected
    assert stamps(received['odometry']) == stamps(received['cache']) == expected
    edges = [message.transforms[0] for message in received['tf']]
    assert stamps(edges) == expected
    for edge, odometry in zip(edges, received['odometry']):
        assert (edge.header.frame_id, edge.child_frame_id) == ('xsvggt_odom', FRAME_ID)
        assert (odometry.header.frame_id, odometry.child_frame_id) == ('xsvggt_odom', FRAME_ID)
        a, b = odometry.pose.pose.position, edge.transform.translation
        assert (a.x, a.y, a.z) == (b.x, b.y, b.z)
        assert list(odometry.pose.covariance[::7]) == [0.01] * 6
    assert all(cloud.header.frame_id == FRAME_ID for cloud in received['points'])


@pytest.mark.both_networks
def test_the_cloud_is_what_its_fields_say(robot, start):
    node = start(cloud__confidence_percentile=0.0)
    image = make_image(3)
    robot.process(node, image)
    cloud = robot.wait(lambda: robot.received['points'], 'a cloud', node)[0]
    assert [field.name for field in cloud.fields] == ['x', 'y', 'z', 'rgb', 'confidence']
    assert [field.offset for field in cloud.fields] == [0, 4, 8, 12, 16]
    assert (cloud.height, cloud.width, cloud.point_step) == (1, 56 * 70, 20)
    values = np.frombuffer(cloud.data, np.float32).reshape(-1, 5)
    assert np.isfinite(values[:, :3]).all() and (values[:, 2] > 0).all()
    assert (values[:, 4] >= 1).all()
    colours = values[:, 3].copy().view(np.uint32)
    pixels = np.frombuffer(image.data, np.uint8).reshape(-1, 3).astype(np.uint32)
    np.testing.assert_array_equal(
        colours, (pixels[:, 0] << 16) | (pixels[:, 1] << 8) | pixels[:, 2])


@pytest.mark.both_networks
def test_three_hundred_frames_stay_within_bounds(robot, start, network):
    tokens = frame_tokens(network)
    budget = 100 // tokens * tokens  # in whole frames
    node = start()
    resident = {}
    for i in range(300):
        robot.process(node, make_image(i))
        if i + 1 in (50, 300):
            resident[i + 1] = node.resident_bytes()
    status = robot.tracked()[-1]
    assert status.frames_received == 300
    assert status.frames_processed + status.frames_dropped == 300
    caches = robot.received['cache']
    assert len(caches) == status.frames_processed
    assert all(cache.tokens_used <= cache.tokens_budget == budget for cache in caches)
    assert all(cache.bytes_used <= cache.bytes_budget for cache in caches)
    assert caches[-1].occupancy == pytest.approx(1.0)
    assert caches[-1].tokens_evicted == caches[-1].tokens_per_frame == tokens
    assert caches[-1].tokens_evicted_total == status.frames_processed * tokens - budget
    assert resident[300] <= 1.05 * resident[50], resident


def test_frames_that_come_too_fast_are_dropped_and_counted(robot, start):
    node = start(model__image_size=280)
    for i in range(60):
        robot.images.publish(make_image(i))
    last = robot.wait(
        lambda: next((s for s in robot.tracked()
                      if s.header.stamp.sec == 1700000059), None), 'the newest image', node)
    assert last.frames_dropped > 0
    assert last.frames_processed + last.frames_dropped == last.frames_received <= 60
    assert len(robot.tracked()) == last.frames_processed


def test_thirty_images_a_second_reach_the_node(robot, start):
    node = start()
    image = make_image(0, width=640, height=480)
    begin = time.monotonic()
    for i in range(120):
        image.header.stamp.sec = 1700000000 + i
        time.sleep(max(0.0, begin + i / 30 - time.monotonic()))
        robot.images.publish(image)
        # A machine that is too busy for 30 a second gets fewer; its middleware may lose two.
        robot.wait(lambda: any(s.frames_received > i - 4 for s in robot.tracked()[-1:])
                   or i < 4, f'image {i} to be received', node)
    robot.wait(lambda: any(s.header.stamp.sec == 1700000119 for s in robot.tracked()),
               'the last image', node)
    last = robot.tracked()[-1]
    assert last.frames_received >= 118
    assert last.frames_processed + last.frames_dropped == last.frames_received


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


def position(message):
    place = message.pose.pose.position
    return np.array([place.x, place.y, place.z])


@pytest.mark.both_networks
def test_a_fixed_scale_scales_everything(robot, start):
    robot.record('depth', Image, '/xsvggt/depth/image_rect')
    statuses = []
    for second, parameters in ((10, {}), (20, {'scale__mode': 'fixed', 'scale__value': 2.5})):
        node = start(**parameters, cloud__confidence_percentile=0.0)
        statuses += [robot.process(node, make_image(index, stamp=(second + index, 0)))
                     for index in range(3)]
        for name in ('points', 'odometry', 'tf', 'depth'):
            robot.wait(lambda: len(robot.received[name]) == len(statuses), name, node)
        node.stop()
    assert [status.metric for status in statuses] == [False] * 3 + [True] * 3
    assert statuses[-1].scale == 2.5 and statuses[0].scale == 1.0
    unit, metres = (slice(0, 3), slice(3, 6))
    for name, values in (
            ('odometry', position), ('depth', lambda m: np.frombuffer(m.data, np.float32)),
            ('points', lambda m: np.frombuffer(m.data, np.float32).reshape(-1, 5)[:, :3])):
        before, after = ([values(m) for m in robot.received[name][part]]
                         for part in (unit, metres))
        np.testing.assert_allclose(np.array(after), 2.5 * np.array(before), rtol=1e-5, atol=1e-7)


def test_the_scale_comes_from_another_odometry(robot, start):
    node = start(scale__mode='odometry')
    hints = robot.node.create_publisher(Odometry, '/odom_hint', 10)
    sent = [make_image(index) for index in range(8)]
    for image in sent:
        assert not robot.process(node, image).metric   # nothing to compare with
    way = np.array([position(m) for m in robot.received['odometry']])
    metres = 3.0 / np.sqrt(((way - way.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert robot.call(Trigger, '/xsvggt/reset', Trigger.Request()).success
    robot.wait(lambda: hints.get_subscription_count() > 0, 'odom_hint', node)
    another_world = way @ [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
    for index, place in enumerate(another_world):   # the same pictures once more
        image = make_image(index, stamp=(1700001000 + index, 0))
        hint = Odometry(header=image.header)
        point = hint.pose.pose.position
        point.x, point.y, point.z = (float(value) for value in metres * place + 5)
        robot.send(node, hints, hint)
        status = robot.process(node, image)
    assert status.metric and status.scale == pytest.approx(metres, rel=1e-3)
    robot.wait(lambda: len(robot.received['odometry']) == 16, 'all odometry', node)
    after = np.array([position(m) for m in robot.received['odometry']][8:])
    # The new stream goes on where the other one was, and its last steps are in metres.
    np.testing.assert_allclose(after[0], way[-1], atol=1e-4)
    step = np.linalg.norm(after[-1] - after[-2])
    assert step == pytest.approx(status.scale * np.linalg.norm(way[-1] - way[-2]), rel=1e-3)
    assert 'm per unit of the network' in node.output()


def test_compressed_images_are_read(robot, start):
    camera = robot.node.create_publisher(CompressedImage, '/cam/image_raw/compressed', 10)
    node = start(wait=False, image_transport='compressed')
    robot.wait(lambda: camera.get_subscription_count() > 0, 'the node to subscribe', node)
    robot.wait(lambda: robot.node.count_publishers('/xsvggt/points') > 0, 'publishers', node)
    robot.meet(node)
    raw = make_image(0)
    pixels = np.frombuffer(raw.data, np.uint8).reshape(raw.height, raw.width, 3)
    file = io.BytesIO()
    PilImage.fromarray(pixels).save(file, 'png')
    message = CompressedImage(header=raw.header, format='rgb8; png compressed rgb8')
    message.data = array('B', file.getvalue())
    camera.publish(message)
    status = robot.wait(robot.tracked, 'the image to be processed', node)[0]
    assert status.header.stamp == raw.header.stamp
    assert robot.wait_for_diagnostic(node, 'Input', 'images/s').level == OK
    values = {value.key: value.value for value in robot.diagnostic('Input').values}
    assert values['topic'] == '/cam/image_raw/compressed'
    message.data = array('B', file.getvalue()[:100])
    message.header = make_image(1).header
    camera.publish(message)
    robot.wait(lambda: 'image refused' in node.output(), 'the broken image to be refused', node)


def test_a_paused_node_ignores_images_and_keeps_the_stream(robot, start):
    node = start()
    robot.process(node, make_image(0))
    assert robot.call(SetBool, '/xsvggt/enable', SetBool.Request(data=False)).success
    robot.images.publish(make_image(1))
    robot.wait(lambda: robot.received['status'][-1].state == StreamStatus.PAUSED, 'PAUSED', node)
    assert robot.wait_for_diagnostic(node, 'Input', 'paused').level == OK
    assert robot.call(SetBool, '/xsvggt/enable', SetBool.Request(data=True)).success
    status = robot.process(node, make_image(2))
    assert (status.frames_received, status.frames_processed, status.reset_count) == (2, 2, 0)
    assert [cache.frame_index for cache in robot.received['cache']] == [0, 1]


def test_pose_and_path_follow_the_odometry(robot, start):
    robot.record('pose', PoseStamped, '/xsvggt/pose')
    robot.record('path', Path, '/xsvggt/path')
    node = start(path__max_poses=3)
    sent = [make_image(index) for index in range(5)]
    for image in sent:
        robot.process(node, image)
    robot.wait(lambda: len(robot.received['path']) == 5 == len(robot.received['pose']), 'all',
               node)
    assert stamps(robot.received['pose']) == stamps(sent)
    for pose, odometry in zip(robot.received['pose'], robot.received['odometry']):
        assert pose.pose == odometry.pose.pose and pose.header == odometry.header
    path = robot.received['path'][-1]
    assert stamps(path.poses) == stamps(sent[2:]) and path.header.frame_id == 'xsvggt_odom'
    assert [len(message.poses) for message in robot.received['path']] == [1, 2, 3, 3, 3]
    assert robot.call(Trigger, '/xsvggt/reset', Trigger.Request()).success
    robot.process(node, make_image(6))
    robot.wait(lambda: len(robot.received['path']) == 6, 'a path after the reset', node)
    assert len(robot.received['path'][-1].poses) == 1


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
    answer = robot.call(SetParameters, '/xsvggt/set_parameters', SetParameters.Request(
        parameters=[float_parameter('reset.on_gap', 10.0)]))
    assert answer.results[0].successful
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


@pytest.mark.both_networks
def test_after_a_reset_another_size_is_welcome(robot, start):
    node = start()
    for i in range(5):
        robot.process(node, make_image(i))
    assert robot.call(Trigger, '/xsvggt/reset', Trigger.Request()).success
    status = robot.process(node, make_image(5, width=140, height=112, encoding='mono8'))
    assert status.reset_count == 1
    assert robot.received['cache'][-1].frame_index == 0


def test_depth_colour_camera_and_odometry_share_every_stamp(robot, start):
    topics = {'depth': (Image, '/xsvggt/depth/image_rect'),
              'depth_info': (CameraInfo, '/xsvggt/depth/camera_info'),
              'rgb': (Image, '/xsvggt/rgb/image_rect_color'),
              'rgb_info': (CameraInfo, '/xsvggt/rgb/camera_info'),
              'confidence': (Image, '/xsvggt/confidence')}
    for name, (kind, topic) in topics.items():
        robot.record(name, kind, topic)
    node = start(cloud__confidence_percentile=0.0)
    sent = [make_image(index) for index in range(5)]
    for image in sent:
        robot.process(node, image)
    names = (*topics, 'points', 'odometry')
    robot.wait(lambda: all(len(robot.received[name]) == 5 for name in names), 'all of it', node)
    for name in names:   # what an exact-time synchroniser needs
        assert stamps(robot.received[name]) == stamps(sent), name
    depth, rgb, info, cloud = (robot.received[name][2] for name in (
        'depth', 'rgb', 'depth_info', 'points'))
    height, width = depth.height, depth.width
    assert (depth.encoding, rgb.encoding) == ('32FC1', 'rgb8') and depth.step == 4 * width
    assert (rgb.height, rgb.width, rgb.step) == (height, width, 3 * width)
    assert (info.height, info.width) == (height, width) and list(info.d) == [0.0] * 5
    assert info == robot.received['rgb_info'][2]
    assert {robot.received[name][2].header.frame_id for name in names[:-1]} == {
        sent[2].header.frame_id}
    # Depth and camera say what the cloud says.
    z = np.frombuffer(depth.data, np.float32).reshape(height, width)
    rows, columns = np.mgrid[:height, :width]
    points = np.frombuffer(cloud.data, np.float32).reshape(height, width, 5)
    x, y = (columns - info.k[2]) / info.k[0] * z, (rows - info.p[6]) / info.p[5] * z
    np.testing.assert_allclose(points[:, :, :3], np.dstack([x, y, z]), rtol=1e-4, atol=1e-5)
    confidence = np.frombuffer(robot.received['confidence'][2].data, np.float32)
    np.testing.assert_array_equal(points[:, :, 4].ravel(), confidence)
    assert rgb.data == sent[2].data   # the picture has the network's size already


def test_random_weights_are_said_everywhere(robot, start):
    node = start(model__checkpoint='random', model__image_size=56)
    status = robot.process(node, make_image(0, width=56))
    assert status.random_weights and 'random' in status.model.lower()
    diagnostic = robot.wait_for_diagnostic(node, 'Model', 'RANDOM WEIGHTS')
    assert diagnostic.level == WARN
    assert 'random weights' in node.output()


def test_the_default_checkpoint_says_what_it_knows(robot, start):
    node = start(model__checkpoint='small', model__image_size=0)
    status = robot.process(node, make_image(0, width=160, height=120))
    assert 'trained in synthetic rooms' in status.model and not status.random_weights
    assert 'synthetic rooms only and are modest in real ones' in node.output()
    assert 'network 112x84' in node.output()


@pytest.mark.parametrize('kind, words', [
    ('missing', ('nowhere.safetensors', 'Hugging Face', 'non-commercial')),
    ('truncated', ('truncated.safetensors',)),
    ('other', ('other.safetensors', 'missing', 'camera_head.trunk.0.attn.qkv.bias')),
    ('unset', ('model.checkpoint is empty', "'small'")),
])
def test_a_checkpoint_that_cannot_be_used_is_explained(robot, start, checkpoint, tmp_path,
                                                       kind, words):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = tmp_path / f'{kind}.safetensors'
    if kind == 'missing':
        path = tmp_path / 'nowhere.safetensors'
    elif kind == 'truncated':
        path.write_bytes(checkpoint.read_bytes()[:100_000])
    elif kind == 'other':
        weights = load_file(checkpoint)
        del weights['camera_head.trunk.0.attn.qkv.bias']
        with safe_open(checkpoint, 'pt') as file:
            save_file(weights, path, file.metadata())
    node = start(wait=False, model__checkpoint="''" if kind == 'unset' else path)
    status = robot.wait_for_diagnostic(node, 'Model', *words)
    assert status.level == ERROR
    assert node.process.poll() is None
    assert all(word in node.output() for word in words)


def test_a_node_that_could_not_start_can_be_mended(robot, start, checkpoint, tmp_path):
    node = start(wait=False, model__checkpoint=tmp_path / 'nowhere.pt')
    robot.wait_for_diagnostic(node, 'Model', 'nowhere.pt')
    answer = robot.call(SetParameters, '/xsvggt/set_parameters', SetParameters.Request(
        parameters=[text_parameter('model.checkpoint', str(checkpoint))]))
    assert answer.results[0].successful
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert robot.call(ChangeState, '/xsvggt/change_state', request).success
    robot.wait_until_subscribed(node)
    robot.process(node, make_image(0))


@pytest.mark.parametrize('parameters, words', [
    ({'cache__max_tokens': -5}, ('cache.max_tokens', '-5', '1 to')),
    ({'cache__policy': 'best'}, ('cache.policy', 'best', 'xstream')),
    ({'cache__max_tokens': 'many'}, ('cache.max_tokens', 'many', 'int')),
    ({'model__image_size': 100}, ('image_size', '14')),
    ({'model__device': 'tpu'}, ('model.device', 'tpu')),
])
def test_a_wrong_parameter_is_named_and_the_node_lives(robot, start, parameters, words):
    node = start(wait=False, **parameters)
    status = robot.wait_for_diagnostic(node, 'Model', *words)
    assert status.level == ERROR
    assert node.process.poll() is None


def test_a_parameter_that_does_not_exist_is_pointed_out(robot, start):
    node = start(cache__max_token=7, cloud__max_range=3)
    assert "did you mean 'cache.max_tokens'" in node.output()
    robot.process(node, make_image(0))


def test_a_budget_without_history_warns_with_the_numbers(robot, start, network):
    least = 2 * frame_tokens(network)
    node = start(cache__max_tokens=40)
    for i in range(4):
        robot.process(node, make_image(i))
    status = robot.wait_for_diagnostic(
        node, 'KV cache', '40', f'{least} tokens', 'cache.max_tokens')
    assert status.level == WARN
    assert robot.received['cache'][-1].tokens_budget == least


def test_a_full_cache_is_healthy(robot, start, network):
    tokens = frame_tokens(network)
    budget = 100 // tokens * tokens  # in whole frames
    node = start()
    for i in range(8):
        robot.process(node, make_image(i))
    status = robot.wait_for_diagnostic(
        node, 'KV cache', f'{budget} of {budget}', 'full and steady')
    assert status.level == OK


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


def test_parameters_at_run_time(robot, start):
    node = start()
    robot.process(node, make_image(0))
    described = robot.call(
        DescribeParameters, '/xsvggt/describe_parameters',
        DescribeParameters.Request(names=['cache.max_tokens', 'cloud.max_range'])).descriptors
    assert described[0].description and described[0].integer_range[0].from_value == 1
    assert described[1].floating_point_range[0].from_value == 0.0

    def change(parameter):
        request = SetParameters.Request(parameters=[parameter])
        return robot.call(SetParameters, '/xsvggt/set_parameters', request).results[0]

    refused = change(text_parameter('cache.policy', 'full'))
    assert not refused.successful and 'unconfigured' in refused.reason
    assert not change(float_parameter('cloud.confidence_percentile', 200.0)).successful
    assert change(float_parameter('cloud.confidence_percentile', 90.0)).successful
    robot.process(node, make_image(1))
    robot.wait(lambda: len(robot.received['points']) == 2, 'two clouds', node)
    before, after = (cloud.width for cloud in robot.received['points'])
    assert before == pytest.approx(0.8 * 56 * 70, rel=0.02)
    assert after == pytest.approx(0.1 * 56 * 70, rel=0.05)


@pytest.mark.both_networks
def test_lifecycle_down_and_up_again(robot, start):
    node = start()
    for i in range(6):
        robot.process(node, make_image(i))
    transitions = [Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP,
                   Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE]
    states = []
    for transition in transitions:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert robot.call(ChangeState, '/xsvggt/change_state', request).success
        state = robot.call(GetState, '/xsvggt/get_state', GetState.Request())
        states.append(state.current_state.label)
    assert states == ['inactive', 'unconfigured', 'inactive', 'active']
    robot.wait_until_subscribed(node)
    status = robot.process(node, make_image(7))
    assert status.frames_received == 1
    assert robot.received['cache'][-1].frame_index == 0


def test_ctrl_c_while_images_arrive_is_quiet(robot, start):
    node = start(model__image_size=140)
    stopping = threading.Event()

    def publish():
        for i in range(2000):
            if stopping.wait(0.01):
                return
            robot.images.publish(make_image(i))

    camera = threading.Thread(target=publish)
    camera.start()
    robot.wait(lambda: len(robot.tracked()) > 5, 'some frames', node)
    code, _ = node.stop()
    stopping.set()
    camera.join()
    assert code == 0
    assert 'ERROR' not in node.output() and 'Failed' not in node.output(), node.output()


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


def test_ctrl_c_while_loading_and_in_the_middle_of_a_frame(robot, start):
    loading = start(wait=False)
    robot.wait(lambda: loading.resident_bytes() > 40e6, 'imports to begin', loading)
    code, _ = loading.stop()
    assert code == 0, loading.output()
    busy = start(model__checkpoint='random', model__image_size=1400)
    robot.images.publish(make_image(0, width=1400, height=1400))
    robot.wait(lambda: 'stream begins' in busy.output()
               or busy.resident_bytes() > 600e6, 'work to begin', busy)
    code, _ = busy.stop()
    assert code == 0, busy.output()
