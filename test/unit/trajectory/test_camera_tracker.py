"""Streams of cameras with a lens, calibrated cameras, and those nobody knows."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from test_odometry import errors, room

from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.trajectory.camera_tracker import CameraTracker, GreyView, NetworkFrame

SIZE = (320, 240)


def network_frame(seen, focal=1.0):
    """Return what a network that is right, but for the focal length, says at 112x84."""
    resize = Resize.plan(240, 320, 112, 14)
    matrix = resize.model_from_source().numpy()
    intrinsics = matrix @ seen.intrinsics.matrix()
    intrinsics[[0, 1], [0, 1]] *= focal
    depth = cv2.resize(seen.depth, (112, 84), interpolation=cv2.INTER_NEAREST)
    return NetworkFrame(depth, np.ones_like(depth), np.eye(4), intrinsics, matrix)


def lens():
    """Return a camera whose rectified images are the world's, seen through a lens."""
    k = room()[0].intrinsics.matrix().ravel()
    return CameraModel.calibrated(SIZE, k, (-0.25, 0.06))


def bent(image, camera):
    """Return a rectified image as the camera with the lens takes it."""
    grid = np.stack(np.meshgrid(np.arange(320.0), np.arange(240.0)), -1)
    matrix, coefficients = camera.camera_matrix, np.array(camera.coefficients)
    straight = cv2.undistortPoints(grid.reshape(-1, 1, 2), matrix, coefficients, None, None,
                                   matrix).reshape(240, 320, 2).astype(np.float32)
    return cv2.remap(image, straight, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['tracked', 'optimized'])
def test_a_lens_changes_nothing(mode):
    camera = lens()
    _, seen = room()
    tracker = CameraTracker(mode, history=True)
    for one in seen[:12]:
        tracker.track(bent(one.image, camera), camera, network_frame(one))
    ratio, turn = errors(tracker.history.final(), [one.world_from_camera for one in seen[:12]])
    assert ratio < 0.1 and turn < 0.5
    np.testing.assert_allclose(tracker.intrinsics(), network_frame(seen[0]).intrinsics)
    assert tracker.depth_factors().shape == (84, 112)


@pytest.mark.parametrize('times', [2, 5])
def test_a_large_picture_is_tracked_smaller(times, monkeypatch):
    monkeypatch.setattr('xsvggt_ros.trajectory.camera_tracker.MAX_WIDTH', 320)
    _, seen = room()
    tracker = CameraTracker('tracked', history=True)
    for one in seen[:8]:
        network = network_frame(one)
        smaller = np.array(((1 / times, 0, 0.5 / times - 0.5), (0, 1 / times, 0.5 / times - 0.5),
                            (0, 0, 1)))
        large = cv2.resize(one.image, (320 * times, 240 * times), interpolation=cv2.INTER_CUBIC)
        tracker.track(large, None, replace(
            network, model_from_source=network.model_from_source @ smaller))
    ratio, turn = errors(tracker.history.final(), [one.world_from_camera for one in seen[:8]])
    assert ratio < 0.15 and turn < 0.6
    np.testing.assert_allclose(tracker.intrinsics(), network_frame(seen[0]).intrinsics)
    assert GreyView().grey(large, None).shape == (240, 320)


@pytest.mark.slow
def test_without_a_calibration_the_focal_length_is_found_on_the_way():
    _, seen = room()
    tracker = CameraTracker('optimized', history=True)
    for one in seen:
        tracker.track(one.image, None, network_frame(one, focal=1.07))
    true = network_frame(seen[0]).intrinsics[0, 0]
    assert abs(np.log(tracker.intrinsics()[0, 0] / true)) < 0.5 * np.log(1.07)


def test_a_picture_without_a_lens_is_not_touched_and_one_with_it_is_straightened():
    _, seen = room()
    camera, view = lens(), GreyView()
    plain = view.grey(seen[0].image, None)
    assert plain.dtype == np.uint8 and plain.shape == (240, 320)
    assert view.grey(plain, camera.rectified()) is plain
    straight = view.grey(bent(seen[0].image, camera), camera)
    middle = np.s_[40:200, 50:270]
    off = np.abs(straight[middle].astype(float) - plain[middle])
    unbent = np.abs(cv2.cvtColor(bent(seen[0].image, camera), cv2.COLOR_RGB2GRAY)[
        middle].astype(float) - plain[middle])
    assert off.mean() < 0.4 * unbent.mean()


def same(one, other):
    return one.source == other.source and all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
        for name in ('world_from_camera', 'odom_from_camera', 'covariance', 'inliers', 'error',
                     'is_keyframe', 'scale'))


@pytest.mark.slow
@pytest.mark.parametrize('covered', [(), (5, 6)])
def test_a_picture_that_was_begun_gives_the_same(covered):
    _, seen = room()
    pictures = [np.zeros_like(one.image) if index in covered else one.image
                for index, one in enumerate(seen[:12])]
    plain, begun = CameraTracker('optimized'), CameraTracker('optimized')
    for picture, one in zip(pictures, seen):
        expected = plain.track(picture, None, network_frame(one))
        begun.begin(picture, None)
        assert same(begun.track(picture, None, network_frame(one)), expected)


def test_a_picture_that_was_begun_is_not_followed_twice(monkeypatch):
    _, seen = room()
    asked = []
    flow = cv2.calcOpticalFlowPyrLK
    monkeypatch.setattr(cv2, 'calcOpticalFlowPyrLK',
                        lambda *args, **options: asked.append(1) or flow(*args, **options))
    tracker = CameraTracker('tracked')
    tracker.track(seen[0].image, None, network_frame(seen[0]))
    tracker.begin(seen[1].image, None)
    there_and_back = len(asked)
    tracker.track(seen[1].image, None, network_frame(seen[1]))
    assert (there_and_back, len(asked)) == (2, 2)


def test_a_picture_that_was_begun_and_failed_is_let_go_of():
    _, seen = room()
    plain, begun = CameraTracker('optimized'), CameraTracker('optimized')
    for index, one in enumerate(seen[:8]):
        begun.begin(seen[index + 8].image, None)   # of which the network makes nothing
        expected = plain.track(one.image, None, network_frame(one))
        assert same(begun.track(one.image, None, network_frame(one)), expected)
