"""CameraInfo in the real node: what it does to images, clouds and cameras that come out."""

import threading

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_srvs.srv import Trigger
from stream_harness import FRAME_ID, make_image, NodeProcess, Robot

WIDTH, HEIGHT = 140, 112  # the network takes half of it
K = [150.0, 0.0, 68.0, 0.0, 152.0, 57.0, 0.0, 0.0, 1.0]
TOPICS = {'info': (CameraInfo, '/xsvggt/depth/camera_info'),
          'rgb_info': (CameraInfo, '/xsvggt/rgb/camera_info'),
          'depth': (Image, '/xsvggt/depth/image_rect'),
          'rgb': (Image, '/xsvggt/rgb/image_rect_color'),
          'confidence': (Image, '/xsvggt/confidence'),
          'cloud': (PointCloud2, '/xsvggt/points')}


@pytest.fixture(scope='module')
def robot():
    robot = Robot()
    for name, (kind, topic) in TOPICS.items():
        robot.record(name, kind, topic)
    yield robot
    robot.close()


@pytest.fixture(scope='module')
def start(tmp_path_factory, robot, checkpoint):
    folder = tmp_path_factory.mktemp('calibration')
    nodes = []

    def start_node(**parameters):
        for node in nodes:
            node.end()
        nodes.append(NodeProcess(
            folder / f'node{len(nodes)}.log', model__checkpoint=checkpoint, model__image_size=70,
            cache__max_tokens=100, cloud__confidence_percentile=0.0, **parameters))
        robot.wait_until_subscribed(nodes[-1])
        return nodes[-1]

    yield start_node
    for node in nodes:
        node.end()


@pytest.fixture(scope='module')
def node(start):
    """Start the node of all tests but the last ones; it goes on from one test to the next."""
    return start()


@pytest.fixture(scope='module')
def shots():
    return iter(range(10_000))


def info(k=K, d=(), size=(WIDTH, HEIGHT), p=None, frame_id=FRAME_ID):
    message = CameraInfo(width=size[0], height=size[1], distortion_model='plumb_bob', d=list(d))
    message.header.frame_id = frame_id
    message.k = np.array(k, float)
    message.p = np.zeros(12) if p is None else np.array(p, float)
    return message


def calibrate(robot, node, message):
    robot.send(node, robot.infos, message)  # it must be there before the next image


def see(robot, node, index, width=WIDTH, height=HEIGHT):
    """Let the node process an image; return its status and what else came of it."""
    message = make_image(index, width, height)
    status = robot.process(node, message)

    def found():
        outputs = {name: next((m for m in reversed(robot.received[name])
                               if m.header.stamp == message.header.stamp), None)
                   for name in TOPICS}
        return outputs if all(value is not None for value in outputs.values()) else None

    return status, robot.wait(found, 'outputs', node)


def plane(message):
    return np.frombuffer(message.data, np.float32).reshape(message.height, message.width)


def half(k):
    """Return the intrinsics [3, 3] of images of half the size, by pixel centres."""
    k = np.reshape(k, (3, 3)) * np.array(((0.5,), (0.5,), (1.0,)))
    return k - np.array(((0, 0, 0.25), (0, 0, 0.25), (0, 0, 0)))


def calibration_value(robot, node, words, *keys):
    """Return the values of the diagnostics once they say these words and have these keys."""
    def found():
        status = robot.diagnostic('Input')
        values = {v.key: v.value for v in status.values} if status else {}
        said = words in values.get('calibration', '') and values.keys() >= set(keys)
        return values if said else None

    return robot.wait(found, f'the diagnostics to say "{words}"', node)


@pytest.mark.both_networks
def test_a_k_of_zeros_is_no_calibration(robot, node, shots):
    calibrate(robot, node, info(k=[0.0] * 9))
    status, outputs = see(robot, node, next(shots))
    assert outputs['info'].k[2] == 35.0 and outputs['info'].k[5] == 28.0  # the network's
    values = calibration_value(robot, node, 'K is zero', 'predicted focal fx, fy (px)')
    assert 'calibrated focal fx, fy (px)' not in values
    assert status.reset_count == 0


@pytest.mark.both_networks
def test_a_late_calibration_begins_a_new_stream_once(robot, node, shots):
    calibrate(robot, node, info())
    status, outputs = see(robot, node, next(shots))
    assert status.reset_count == 1 and robot.received['cache'][-1].frame_index == 0
    assert 'has come' in node.output()
    status, outputs = see(robot, node, next(shots))
    assert status.reset_count == 1 and robot.received['cache'][-1].frame_index == 1
    values = calibration_value(robot, node, 'pinhole', 'calibrated focal fx, fy (px)')
    assert values['calibrated focal fx, fy (px)'] == '150.0, 152.0'


@pytest.mark.both_networks
def test_the_calibrated_camera_is_published_and_unprojects(robot, node, shots):
    _, outputs = see(robot, node, next(shots))
    for name in ('info', 'rgb_info'):
        camera = outputs[name]
        assert (camera.width, camera.height) == (70, 56)
        np.testing.assert_allclose(camera.k.reshape(3, 3), half(K), rtol=1e-6)
        np.testing.assert_allclose(camera.p.reshape(3, 4)[:, :3], half(K), rtol=1e-6)
        assert not any(camera.d)
    z = plane(outputs['depth'])
    rows, columns = np.mgrid[:56, :70]
    k = half(K)
    expected = np.dstack([(columns - k[0, 2]) / k[0, 0] * z, (rows - k[1, 2]) / k[1, 1] * z, z])
    cloud = np.frombuffer(outputs['cloud'].data, np.float32).reshape(56, 70, 5)
    np.testing.assert_allclose(cloud[:, :, :3], expected, rtol=1e-4, atol=1e-5)


def test_a_lens_and_borders_that_it_does_not_show(robot, node, shots):
    p = [75, 0, 68, 0, 0, 76, 57, 0, 0, 0, 1, 0]  # sees twice as far to all sides
    calibrate(robot, node, info(d=[-0.1, 0.01], p=p))
    status, outputs = see(robot, node, next(shots))
    assert status.reset_count == 2 and 'has changed' in node.output()
    np.testing.assert_allclose(outputs['info'].k.reshape(3, 3),
                               half(np.reshape(p, (3, 4))[:, :3]), rtol=1e-6)
    depth, confidence = plane(outputs['depth']), plane(outputs['confidence'])
    outside = np.isnan(depth)
    assert outside[0].all() and not outside[20:36, 25:45].any()
    assert (confidence[outside] == 0).all() and (confidence[~outside] >= 1).all()
    rgb = np.frombuffer(outputs['rgb'].data, np.uint8).reshape(56, 70, 3)
    assert not rgb[0].any() and rgb[28, 35].any()
    assert outputs['cloud'].width == status.points_published == (~outside).sum()
    assert status.confidence_mean == pytest.approx(confidence[~outside].mean(), rel=1e-4)
    calibration_value(robot, node, 'plumb_bob, images are rectified')


def test_what_cannot_be_used_is_said_and_the_stream_goes_on(robot, node, shots):
    before, _ = see(robot, node, next(shots))
    binned = info()
    binned.binning_x = binned.binning_y = 10 ** 6
    for bad, word in ((info(frame_id='left'), "'left'"), (info(size=(140, 140)), '140x140'),
                      (info(k=[150, 150, 68, 150, 150, 57, 0, 0, 1]), 'singular'),
                      (binned, 'binning')):
        calibrate(robot, node, bad)
        status, outputs = see(robot, node, next(shots))
        assert status.reset_count == before.reset_count
        assert status.frames_rejected == before.frames_rejected
        assert outputs['info'].k[0] == pytest.approx(37.5)
        robot.wait_for_diagnostic(node, 'Input', 'camera_info', word)


def test_images_of_another_size_have_the_scaled_calibration(robot, node, shots):
    binned = info(size=(280, 224), k=[2 * v for v in K[:8]] + [1.0])
    binned.binning_x = binned.binning_y = 2
    calibrate(robot, node, binned)
    assert robot.call(Trigger, '/xsvggt/reset', Trigger.Request()).success
    status, outputs = see(robot, node, next(shots))
    expected = outputs['info'].k.copy()
    assert expected[0] == pytest.approx(75.0)
    assert robot.call(Trigger, '/xsvggt/reset', Trigger.Request()).success
    status, outputs = see(robot, node, next(shots), 280, 224)
    np.testing.assert_allclose(outputs['info'].k, expected, rtol=1e-6)
    calibration_value(robot, node, 'scaled from 140x112 to 280x224')


def test_an_image_that_is_refused_does_not_cost_the_stream(robot, node, shots):
    before, _ = see(robot, node, next(shots), 280, 224)
    robot.images.publish(make_image(next(shots), 70, 56))
    robot.wait_for_diagnostic(node, 'Input', 'this stream began with 280x224')
    status, _ = see(robot, node, next(shots), 280, 224)
    assert status.reset_count == before.reset_count
    assert status.frames_rejected == before.frames_rejected + 1


def test_the_first_image_waits_for_the_calibration(robot, start, shots):
    node = start()
    threading.Timer(0.4, robot.infos.publish, [info(d=[-0.1])]).start()
    status, outputs = see(robot, node, next(shots))
    assert outputs['info'].k[0] == pytest.approx(75.0)
    assert status.reset_count == 0 and status.frames_processed == 1


def test_a_calibration_that_is_none_costs_no_image_and_is_said_while_it_lasts(
        robot, start, shots):
    node = start()
    calibrate(robot, node, info(k=[150, 150, 68, 150, 150, 57, 0, 0, 1]))
    for count in (1, 2):
        status, outputs = see(robot, node, next(shots))
        assert (status.frames_processed, status.frames_rejected) == (count, 0)
        assert outputs['info'].k[2] == 35.0  # the network's
    robot.wait_for_diagnostic(node, 'Input', 'camera_info', 'singular')
    calibration_value(robot, node, 'none: messages on')
    calibrate(robot, node, info(k=[1, 0, 70, 0, 1, 56, 0, 0, 1]))
    see(robot, node, next(shots))
    calibration_value(robot, node, 'none: K is a placeholder')
    calibrate(robot, node, info(k=[150.04, *K[1:]]))
    status, _ = see(robot, node, next(shots))
    assert status.reset_count == 1
    for focal in (150.0, 149.96, 150.08):  # a lens that never rests
        calibrate(robot, node, info(k=[focal, *K[1:]]))
        status, outputs = see(robot, node, next(shots))
        assert status.reset_count == 1 and outputs['info'].k[0] == pytest.approx(75.02)
    robot.wait(lambda: 'camera_info' not in robot.diagnostic('Input').message, 'no fault', node)


def test_a_calibration_that_is_not_wanted(robot, start, shots):
    node = start(use_camera_info=False)
    calibrate(robot, node, info(d=[-0.1]))
    _, outputs = see(robot, node, next(shots))
    assert outputs['info'].k[2] == 35.0
    calibration_value(robot, node, 'use_camera_info is false')
