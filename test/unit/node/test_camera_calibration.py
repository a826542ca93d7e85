"""What the node makes of CameraInfo messages, good and bad, in time and late."""

import copy
import threading
import time

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo

from xsvggt_ros.node.inputs import camera_calibration
from xsvggt_ros.node.inputs.camera_calibration import CameraCalibration, SAME

K = [100.0, 0.0, 32.0, 0.0, 102.0, 24.0, 0.0, 0.0, 1.0]
FRAME = 'camera_optical'
IMAGE = (FRAME, 64, 48)


def make(use=True, rectify=True, published=True, image_topic='/cam/image_raw'):
    return CameraCalibration('/cam/camera_info', image_topic, use, rectify, lambda: published)


def info(d=(), k=K, size=(64, 48), frame_id=FRAME, model='plumb_bob'):
    message = CameraInfo(width=size[0], height=size[1], distortion_model=model, d=list(d))
    message.header.frame_id = frame_id
    message.k = np.array(k, float)
    return message


def zoomed(factor):
    return [value * (factor if index in (0, 4) else 1) for index, value in enumerate(K)]


def test_without_a_message_there_is_no_camera():
    calibration = make()
    assert calibration.camera(*IMAGE) is None
    assert calibration.restart_reason() is None
    assert calibration.focal is None and calibration.description == 'none'


def test_the_same_calibration_is_the_same_camera():
    calibration = make()
    calibration.on_message(info(d=[-0.2]))
    camera = calibration.camera(*IMAGE)
    assert camera.needs_rectification and calibration.focal == (100.0, 102.0)
    assert 'rectified' in calibration.description
    assert 'has come' in calibration.restart_reason()
    message = info(d=[-0.2])
    message.header.stamp.sec = 17
    calibration.on_message(message)
    assert calibration.camera(*IMAGE) is camera
    assert calibration.restart_reason() is None and calibration.fault is None


def test_all_of_the_message_counts():
    message = info(size=(1280, 960), k=zoomed(20))
    message.binning_x = message.binning_y = 2
    message.roi.x_offset, message.roi.y_offset = 128, 96
    message.roi.width, message.roi.height = 1024, 768
    message.p[0], message.p[5], message.p[10] = 1900.0, 1950.0, 1.0
    calibration = make()
    calibration.on_message(message)
    camera = calibration.camera(FRAME, 512, 384)
    assert calibration.focal == (950.0, 975.0)
    assert camera.camera_matrix[0, 2] == pytest.approx((32 - 128 + 0.5) / 2 - 0.5)
    # and images that a driver scaled once more
    assert calibration.camera(FRAME, 256, 192).rectified_matrix[0, 0] == 475.0
    assert 'scaled from 512x384 to 256x192' in calibration.description


def test_zero_k_is_no_calibration_and_no_fault():
    calibration = make()
    calibration.on_message(info(k=[0.0] * 9))
    assert calibration.camera(*IMAGE) is None
    assert 'not calibrated' in calibration.description and calibration.fault is None


@pytest.mark.parametrize('bad, words', [
    (info(frame_id='other_camera'), ("'other_camera'", "'camera_optical'")),
    (info(size=(64, 64)), ('64x64', '64x48')),
    (info(model='fov', d=[1.0]), ("'fov'", 'plumb_bob')),
    (info(size=(0, 0)), ('0x0',)),
    (info(k=[-1.0] * 9), ('K has no positive focal lengths',)),
])
def test_what_cannot_be_used_is_said_and_changes_nothing(bad, words):
    calibration = make()
    calibration.on_message(bad)
    assert calibration.camera(*IMAGE) is None
    assert all(word in calibration.fault for word in ('/cam/camera_info', *words))
    calibration.on_message(info())
    camera = calibration.camera(*IMAGE)
    assert camera is not None and calibration.fault is None
    calibration.restart_reason()
    calibration.on_message(bad)
    assert calibration.camera(*IMAGE) is camera
    assert calibration.fault and calibration.restart_reason() is None


def test_a_zoom_is_a_change_and_noise_is_none():
    calibration = make()
    calibration.on_message(info())
    calibration.camera(*IMAGE)
    calibration.restart_reason()
    for step in range(1, 4):  # 1.2 % longer each time: a drift that is noticed when it adds up
        calibration.on_message(info(k=zoomed(1 + 0.012 * step)))
        camera = calibration.camera(*IMAGE)
        assert camera.camera_matrix[0, 0] == pytest.approx(100 + 1.2 * step)
        reasons = calibration.restart_reason()
        assert (reasons is None) == (step < 3), step
    assert 'has changed' in reasons


def breathing(width):
    """Return focal lengths as those of an autofocus lens that stands still."""
    return 1200 * width / 1920 + np.random.default_rng(3).uniform(-0.05, 0.05, 50)


@pytest.mark.parametrize('width, height', [(1920, 1080), (640, 360)])
def test_a_lens_that_breathes_has_one_map(width, height):
    calibration, cameras = make(), set()
    for focal in breathing(width):
        k = [focal, 0, width / 2, 0, focal, height / 2, 0, 0, 1]
        calibration.on_message(info(d=[-0.28, 0.07], k=k, size=(width, height)))
        cameras.add(calibration.camera(FRAME, width, height))
        calibration.restart_reason()
    assert len(cameras) == 1 and calibration.fault is None


def test_small_steps_that_add_up_are_a_new_map():
    calibration, cameras = make(), []
    for step in range(101):  # 0.05 pixels at the border with each message
        focal = 1200 * (1 + step * 0.05 / 960)
        calibration.on_message(
            info(d=[-0.28], k=[focal, 0, 960, 0, focal, 540, 0, 0, 1], size=(1920, 1080)))
        camera = calibration.camera(FRAME, 1920, 1080)
        assert abs(camera.camera_matrix[0, 0] - focal) * 960 / 1200 < SAME
        cameras.append(camera)
    assert 10 < len(set(cameras)) < 40


def test_a_real_change_is_taken_at_once():
    calibration = make()
    calibration.on_message(info(d=[-0.2]))
    before = calibration.camera(*IMAGE)
    for message in (info(d=[-0.24]), info(d=[-0.2], k=zoomed(1.02)),
                    info(d=[-0.2], k=[*K[:2], 33.0, *K[3:]])):
        calibration.on_message(message)
        now = calibration.camera(*IMAGE)
        assert now is not before
        before = now


@pytest.mark.parametrize('k', [[1, 0, 32, 0, 1, 24, 0, 0, 1], [1, 0, 0, 0, 1, 0, 0, 0, 1]])
def test_a_placeholder_is_no_calibration_and_no_fault(k):
    calibration = make()
    calibration.on_message(info(k=k))
    assert calibration.camera(*IMAGE) is None and calibration.focal is None
    assert calibration.description.startswith('none: K is a placeholder')
    assert calibration.fault is None
    calibration.on_message(info())
    camera = calibration.camera(*IMAGE)
    assert camera is not None
    calibration.on_message(info(k=k))  # a driver that has lost its file
    assert calibration.camera(*IMAGE) is camera
    assert 'not used any more' in calibration.fault and 'placeholder' in calibration.fault


def test_p_of_an_identity_beside_a_real_k_is_a_fault():
    message = info()
    message.p = np.eye(3, 4).ravel()
    calibration = make()
    calibration.on_message(message)
    assert calibration.camera(*IMAGE) is None
    assert 'P has focal lengths of 1 and 1' in calibration.fault


@pytest.mark.parametrize('model', ['none', '', 'pinhole'])
def test_a_pinhole_by_any_name(model):
    calibration = make()
    calibration.on_message(info(model=model, d=[0.0] * 5))
    assert not calibration.camera(*IMAGE).needs_rectification
    assert calibration.description == 'pinhole' and calibration.fault is None
    calibration.on_message(info(model=model))
    assert not calibration.camera(*IMAGE).needs_rectification


def spoilt(**changes):
    message = info()
    for name, value in changes.items():
        if name in ('width', 'height', 'x_offset', 'y_offset'):
            setattr(message.roi, name, value)
        else:
            setattr(message, name, value)
    return message


@pytest.mark.parametrize('bad, word', [
    (info(k=[100, 100, 32, 100, 100, 24, 0, 0, 1]), 'K is no camera matrix'),
    (spoilt(p=np.array([9, 9, 32, 0, 9, 9, 24, 0, 0, 0, 1, 0.0])), 'P is no camera matrix'),
    (spoilt(binning_x=10 ** 6, binning_y=10 ** 6), 'binning'),
    (spoilt(width=64, height=48, x_offset=1), 'region of interest'),
    (spoilt(width=2 ** 32 - 1, height=2 ** 32 - 1), 'region of interest'),
    (info(k=[float('nan')] * 9), 'K has no positive focal'),
    (info(d=[float('nan')]), 'distortion coefficients'),
    (spoilt(r=np.full(9, np.nan)), 'R is not a rotation'),
    (spoilt(p=np.full(12, np.nan)), 'P has no positive focal'),
])
def test_no_image_is_lost_to_a_camera_that_is_none(bad, word):
    calibration = make()
    calibration.on_message(bad)
    for _ in range(3):  # and it is said for as long as it lasts
        assert calibration.camera(*IMAGE) is None
        assert word in calibration.fault and '/cam/camera_info' in calibration.fault
        assert calibration.description.startswith('none: ')
        assert calibration.restart_reason() is None
    calibration.on_message(info())
    assert calibration.camera(*IMAGE) is not None and calibration.fault is None


def test_of_two_cameras_on_one_topic_the_one_with_the_images_clock_counts():
    calibration = make()
    stamp, other = 1000 * 10 ** 9, 1010 * 10 ** 9
    mine, others = info(), info(k=zoomed(2))
    cameras = set()
    for index in range(10):
        for message, start in ((mine, stamp), (others, other)):
            message = copy.deepcopy(message)
            message.header.stamp.sec = (start + index * 10 ** 8) // 10 ** 9
            message.header.stamp.nanosec = (start + index * 10 ** 8) % 10 ** 9
            calibration.on_message(message)
        cameras.add(calibration.camera(*IMAGE, stamp + index * 10 ** 8))
        assert calibration.focal == (100.0, 102.0)
    assert len(cameras) == 1
    # With a clock that is not the images', the newest counts.
    assert calibration.camera(*IMAGE, 5) is not None and calibration.focal == (200.0, 204.0)


def test_rectify_off_takes_the_images_as_rectified():
    message = info(d=[-0.3])
    message.p[0], message.p[2], message.p[5], message.p[6], message.p[10] = 90, 30, 91, 22, 1
    calibration = make(rectify=False, image_topic='/cam/image_rect')
    calibration.on_message(message)
    camera = calibration.camera(*IMAGE)
    assert not camera.needs_rectification and calibration.focal == (90.0, 91.0)
    assert calibration.fault is None


def test_a_rectified_topic_with_the_raw_lens_is_a_trap():
    calibration = make(image_topic='/cam/image_rect_color')
    calibration.on_message(info(d=[-0.3]))
    assert calibration.camera(*IMAGE).needs_rectification
    assert 'rectify:=false' in calibration.fault
    calibration.on_message(info())
    calibration.camera(*IMAGE)
    assert calibration.fault is None


def test_use_camera_info_off():
    calibration = make(use=False)
    calibration.on_message(info())
    calibration.wait()
    assert calibration.camera(*IMAGE) is None
    assert 'use_camera_info' in calibration.description


def test_the_first_image_waits_for_a_calibration_that_is_published(monkeypatch):
    monkeypatch.setattr(camera_calibration, 'WAIT', 60.0)
    calibration = make()
    threading.Timer(0.05, calibration.on_message, [info()]).start()
    calibration.wait()
    assert calibration.camera(*IMAGE) is not None
    make(published=False).wait()  # nobody there: no waiting
    monkeypatch.setattr(camera_calibration, 'WAIT', 0.05)
    silent = make()
    silent.wait()
    monkeypatch.setattr(camera_calibration, 'WAIT', 60.0)
    start = time.monotonic()
    silent.wait()  # once only
    assert time.monotonic() - start < 30
