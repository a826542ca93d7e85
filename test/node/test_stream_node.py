"""What the real node, a process of its own, publishes over real DDS."""

from array import array
import io
import time

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from node_fixtures import robot_fixture
import numpy as np
from PIL import Image as PilImage
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger
from stream_harness import FRAME_ID, frame_tokens, make_image, OK

robot = robot_fixture('function')


def stamps(messages):
    return [(m.header.stamp.sec, m.header.stamp.nanosec) for m in messages]


@pytest.mark.both_networks
def test_every_output_carries_the_images_stamp_and_frame(robot, start):
    node = start()
    sent = [make_image(i) for i in range(6)]
    for message in sent:
        robot.process(node, message)
    expected = stamps(sent)
    received = robot.received
    robot.wait(lambda: len(robot.tracked()) == 6 and all(len(received[name]) == 6 for name in (
        'points', 'odometry', 'tf', 'cache')), 'all outputs', node)
    assert stamps(received['points']) == expected
    # To one that asks for no more than best effort, a busy machine need not bring all of them.
    robot.wait(lambda: received['points_best_effort'], 'a cloud by best effort', node)
    came = stamps(received['points_best_effort'])
    assert came == [stamp for stamp in expected if stamp in came]
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
