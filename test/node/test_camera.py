"""The camera tool on real middleware: what it publishes arrives, on time and complete."""

import json
import os
import re
import signal
import subprocess
import sys
import time

from fake_camera import CAMERA, UNPLUGGED
import numpy as np
from PIL import Image
import pytest

from xsvggt_ros.world.synthetic_world import DEMO_SEED, SyntheticWorld

pytest.importorskip('rclpy')

PATIENCE = 600  # seconds until a test gives up; only one that fails ever waits so long

# Receives for a process of its own, as a robot's nodes do, and prints what came as JSON.
SUBSCRIBER = """
import json
import sys
import threading
import rclpy
from nav_msgs.msg import Odometry
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

topic, reliability, expected = sys.argv[1], sys.argv[2], int(sys.argv[3])
rclpy.init()
node = rclpy.create_node('listener')
quality = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=120,
                     reliability=ReliabilityPolicy[reliability])
got = {'images': [], 'infos': [], 'truth': [], 'edges': []}

def stamp(header):
    return header.stamp.sec * 10 ** 9 + header.stamp.nanosec

def on_image(m):
    got['images'].append([stamp(m.header), m.header.frame_id, m.encoding, m.width, m.height,
                          m.step, len(m.data), int(m.data[0])])

def on_info(m):
    got['infos'].append([stamp(m.header), m.header.frame_id, m.width, m.height,
                         m.distortion_model, list(m.d), list(m.k), list(m.p)])

def on_truth(m):
    p = m.pose.pose.position
    got['truth'].append([stamp(m.header), m.header.frame_id, m.child_frame_id, p.x, p.y, p.z])

def on_tf(m):
    got['edges'] += [[stamp(e.header), e.header.frame_id, e.child_frame_id] for e in m.transforms]

node.create_subscription(Image, topic, on_image, quality)
node.create_subscription(CameraInfo, topic.rpartition('/')[0] + '/camera_info', on_info, quality)
node.create_subscription(Odometry, '/ground_truth/odometry', on_truth, 10)
node.create_subscription(TFMessage, '/tf', on_tf, 100)
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), over.set()), daemon=True).start()
while not over.is_set() or len(got['images']) < expected:  # of a reliable camera all come
    rclpy.spin_once(node, timeout_sec=0.1)
count = -1
while count != sum(map(len, got.values())):  # what had come already
    count = sum(map(len, got.values()))
    rclpy.spin_once(node, timeout_sec=2.0)
print(json.dumps(got))
"""


def start_camera(*arguments, env=None):
    return subprocess.Popen([sys.executable, '-m', 'xsvggt_ros.cli.camera', *arguments], env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def listen(*arguments, topic='/camera/image_raw', reliability='BEST_EFFORT', expected=0):
    """
    Run the camera until its end; return what a subscriber got and what the camera printed.

    expected: images that the subscriber waits for, which must be sure to come.
    """
    subscriber = subprocess.Popen(
        [sys.executable, '-c', SUBSCRIBER, topic, reliability, str(expected)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    camera = None
    try:
        camera = start_camera('--wait-for-subscriber', '--topic', topic, *arguments)
        words, errors = camera.communicate(timeout=PATIENCE)
        assert camera.returncode == 0, errors
        got, errors = subscriber.communicate('over\n', timeout=PATIENCE)
        assert subscriber.returncode == 0, errors
    finally:
        for process in (camera, subscriber):
            if process is not None and process.poll() is None:
                process.kill()
                process.communicate()
    return json.loads(got), words


def test_best_effort_vga_at_30_hz_arrives():
    got, words = listen('--size', '640x480', '--rate', '30', '--frames', '120')
    sent, rate = re.search(r'sent (\d+) images in \S+ s \(([0-9.]+) Hz\)', words).groups()
    assert sent == '120' and float(rate) < 31, words
    images = got['images']
    assert len(images) >= 60  # all of them on an idle machine; 8 to 20 without our profile
    assert {tuple(image[1:7]) for image in images} == {
        ('camera_optical_frame', 'rgb8', 640, 480, 1920, 921600)}
    if 'late in all' not in words:  # a machine too busy to make images in time moves the stamps
        # Stamps are exact steps of the rate, whenever each image was really sent.
        steps = np.diff([image[0] for image in images])
        assert (np.abs(steps / 33_333_333.3 - np.rint(steps / 33_333_333.3)) < 1e-6).all()


def test_world_comes_with_calibration_and_truth_under_other_names():
    got, _ = listen('--world', str(DEMO_SEED), '--frames', '8', '--rate', '20', '--size', '64x48',
                    '--reliability', 'reliable', '--topic', '/left/image', '--frame-id', 'eye',
                    topic='/left/image', reliability='RELIABLE', expected=8)
    stamps = [image[0] for image in got['images']]
    assert len(stamps) == 8 and np.diff(stamps).tolist() == [50_000_000] * 7
    # The same header on CameraInfo, whose camera is the world's.
    assert [info[:2] for info in got['infos']] == [[stamp, 'eye'] for stamp in stamps]
    focal = SyntheticWorld(DEMO_SEED, 64, 48).intrinsics.fx
    assert 35 < np.rad2deg(np.arctan(32 / focal)) < 40   # half of the field of view
    assert got['infos'][0][2:6] == [64, 48, 'plumb_bob', [0.0] * 5]
    np.testing.assert_allclose(got['infos'][0][6], [focal, 0, 32, 0, focal, 24, 0, 0, 1])
    np.testing.assert_allclose(got['infos'][0][7], [focal, 0, 32, 0, 0, focal, 24, 0, 0, 0, 1, 0])
    assert [truth[:3] for truth in got['truth']] == [
        [stamp, 'ground_truth_odom', 'ground_truth_camera'] for stamp in stamps]
    assert got['edges'] == [truth[:3] for truth in got['truth']]
    moved = np.linalg.norm(np.diff([truth[3:] for truth in got['truth']], axis=0), axis=1)
    np.testing.assert_allclose(moved, 0.6 / 20, rtol=0.2)


def test_a_relative_topic_and_its_calibration_are_in_the_namespace():
    got, _ = listen('--frames', '4', '--size', '64x48', '--reliability', 'reliable', '--topic',
                    'image', '--ros-args', '-r', '__ns:=/robot', topic='/robot/image',
                    reliability='RELIABLE', expected=4)
    assert len(got['images']) == len(got['infos']) == 4


def test_folder_keeps_its_stamps_and_grey(tmp_path):
    stamps = [1403715273262142976 + index * 50_000_128 for index in range(6)]
    for index, stamp in enumerate(stamps):
        Image.new('L', (32, 24), 10 * index).save(tmp_path / f'{stamp}.png')
    got, words = listen('--input', str(tmp_path), '--reliability', 'reliable',
                        reliability='RELIABLE', expected=6)
    assert [image[0] for image in got['images']] == stamps
    assert [image[2:] for image in got['images']] == [
        ['mono8', 32, 24, 32, 768, 10 * index] for index in range(6)]
    assert got['infos'] == [] and 'no CameraInfo' in words
    assert got['truth'] == [] and got['edges'] == []


def test_a_bag_is_played_with_its_stamps_and_calibration(tmp_path):
    pytest.importorskip('rosbags')
    pytest.importorskip('mcap')
    from recording_maker import (
        camera_matrix,
        image_items,
        make_frames,
        Messages,
        TOPIC,
        write_mcap,
    )
    images, stamps = make_frames(5)
    bag = write_mcap(tmp_path / 'a.mcap', image_items(Messages(), images, stamps))
    got, _ = listen('--input', str(bag), '--input-topic', TOPIC, '--reliability', 'reliable',
                    reliability='RELIABLE', expected=5)
    assert [image[0] for image in got['images']] == stamps
    assert [image[2:5] for image in got['images']] == [['rgb8', 112, 84]] * 5
    assert [image[7] for image in got['images']] == [int(image[0, 0, 0]) for image in images]
    np.testing.assert_allclose(got['infos'][0][6], camera_matrix().ravel())


def test_a_broken_image_is_named_and_the_others_go_out(tmp_path):
    for index in range(4):
        Image.new('L', (32, 24), index).save(tmp_path / f'{index}.png')
    (tmp_path / '2.png').write_bytes(b'broken')
    camera = start_camera('--input', str(tmp_path), '--rate', '50')
    words, errors = camera.communicate(timeout=PATIENCE)
    assert camera.returncode == 0
    assert 'sent 3 images' in words and '2.png' in errors and 'Traceback' not in errors


@pytest.mark.parametrize('arguments, words', [
    (['--input', 'no/such/folder'], 'no/such/folder: no such file or folder'),
    (['--calibration', 'x', '--input', 'EMPTY'], 'no images in it')])
def test_a_wrong_folder_ends_with_a_message(tmp_path, arguments, words):
    camera = start_camera(*[str(tmp_path) if word == 'EMPTY' else word for word in arguments])
    _, errors = camera.communicate(timeout=PATIENCE)
    assert camera.returncode == 1
    assert words in errors and 'Traceback' not in errors


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('waiting', [False, True])
def test_ctrl_c_ends_it_quietly(number, waiting):
    camera = start_camera('--size', '64x48', *(['--wait-for-subscriber'] if waiting else []))
    try:
        assert 'publishing' in camera.stdout.readline()
        time.sleep(0.5)
        os.kill(camera.pid, number)
        words, errors = camera.communicate(timeout=PATIENCE)
    finally:
        camera.kill()
    assert camera.returncode == 0
    assert 'Traceback' not in errors
    assert re.search(r'sent \d+ images', words)


def test_loop_is_said_to_have_no_effect_on_a_camera(tmp_path):
    pytest.importorskip('av')
    (tmp_path / 'sitecustomize.py').write_text(CAMERA)
    camera = start_camera('--input', 'camera:0', '--loop', '--frames', '2',
                          env={**os.environ, 'PYTHONPATH': str(tmp_path)})
    words, errors = camera.communicate(timeout=PATIENCE)
    assert camera.returncode == 0, words + errors
    assert errors.count('--loop has no effect') == 1 and 'sent 2 images' in words
    assert 'no effect' not in words
    assert '/camera/image_raw, 2 images' in words


@pytest.mark.parametrize('arguments, code', [(['--reconnect', '--frames', '6'], 0), ([], 1)])
def test_a_camera_that_was_unplugged_goes_on_when_it_is_back(tmp_path, arguments, code):
    pytest.importorskip('av')
    (tmp_path / 'sitecustomize.py').write_text(UNPLUGGED.replace('== 40', '== 4'))
    camera = start_camera('--input', 'camera:0', *arguments,
                          env={**os.environ, 'PYTHONPATH': str(tmp_path)})
    words, errors = camera.communicate(timeout=PATIENCE)
    assert camera.returncode == code and 'Traceback' not in errors, words + errors
    assert 'a camera of this machine tells no calibration' in words
    assert errors.count('the camera has stopped: No such device') == 1
    assert errors.count('the camera is back') == (code == 0)
    assert f'sent {4 if code else 6} images' in words


def test_reconnect_is_said_to_have_no_effect_on_a_recording():
    camera = start_camera('--reconnect', '--frames', '1', '--size', '64x48')
    words, errors = camera.communicate(timeout=PATIENCE)
    assert camera.returncode == 0 and errors.count('--reconnect has no effect') == 1, words


def test_a_video_that_begins_at_0_has_a_stamp_all_the_same():
    """A stamp of 0 is none in ROS: the node would say that images have no stamp."""
    from xsvggt_ros.demo import camera_publisher
    from xsvggt_ros.recordings.source_frame import SourceFrame
    frames = [SourceFrame(np.zeros((2, 2, 3), np.uint8), offset, offset) for offset in (0, 7)]
    for is_paced in (True, False):
        schedule = camera_publisher._Schedule(is_paced)
        assert [schedule.wait(frame, False, 1.0) for frame in frames] == [1, 7]
