"""Corners and their ways, on images that are hard to track in."""

import platform
import subprocess
import sys

import cv2
import numpy as np
import pytest

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.tracker import _spread, sample_depth, Tracker, Tracks


def picture(height=240, width=320, seed=0):
    noise = np.random.default_rng(seed).uniform(0, 255, (height // 4 + 1, width // 4 + 1))
    return cv2.resize(noise.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def shifted(image, x, y):
    return cv2.warpAffine(image, np.float64([[1, 0, x], [0, 1, y]]), image.shape[::-1],
                          borderMode=cv2.BORDER_REFLECT)


def tracking(image):
    tracker = Tracker(TrajectoryConfig())
    corners = tracker.corners(image, np.empty((0, 2)), 350)
    tracker.keep(image, Tracks(np.arange(len(corners)), corners))
    return tracker, corners


def test_a_shift_is_followed():
    image = picture()
    tracker, corners = tracking(image)
    assert len(corners) > 100
    found = tracker.track(shifted(image, 3.5, -2.25))
    assert len(found) > 0.8 * len(corners)
    moved = found.pixels - corners[found.ids]
    np.testing.assert_allclose(np.median(moved, axis=0), (3.5, -2.25), atol=0.1)


def test_a_guess_reaches_what_is_far_away():
    image = picture()
    tracker, corners = tracking(image)
    there = shifted(image, 90, 0)
    guess = corners + np.float32([88, 1])
    inside = corners[:, 0] < 200
    found = tracker.track(there, guess)
    assert np.isin(np.flatnonzero(inside), found.ids).mean() > 0.7
    moved = found.pixels - corners[found.ids]
    np.testing.assert_allclose(np.median(moved, axis=0), (90, 0), atol=0.1)


@pytest.mark.parametrize('width, side', [(100, 15), (320, 15), (400, 19), (640, 21), (1280, 21)])
def test_patches_are_whole_steps_wide_and_as_large_as_squares(width, side, monkeypatch):
    sizes = []
    flow = cv2.calcOpticalFlowPyrLK
    monkeypatch.setattr(cv2, 'calcOpticalFlowPyrLK', lambda *images, winSize, **options: (
        sizes.append(winSize), flow(*images, winSize=winSize, **options))[1])
    image = picture(3 * width // 4, width)
    tracker, _ = tracking(image)
    assert len(tracker.track(image))
    assert len(sizes) == 2 and sizes[0] == sizes[1]
    across, down = sizes[0]
    assert across % 8 == 0 and abs(across * down - side ** 2) <= across / 2


def test_what_comes_back_elsewhere_is_lost():
    tracker, corners = tracking(picture(seed=1))
    found = tracker.track(picture(seed=2))   # another place
    assert len(found) < 0.3 * len(corners)


def test_corners_keep_away_from_those_there_are():
    image = picture()
    tracker, corners = tracking(image)
    more = tracker.corners(image, corners[:50], 350)
    off = np.linalg.norm(more[:, None] - corners[None, :50], axis=-1).min(1)
    assert len(more) and off.min() > 4


@pytest.mark.parametrize('size', [(1, 1), (1, 320), (240, 1), (7, 7), (31, 40), (33, 33)])
def test_images_of_any_size_are_no_error(size):
    image = np.full(size, 100, np.uint8)
    image[::2] = 30
    tracker, corners = tracking(image)
    assert corners.shape[1:] == (2,) and len(tracker.track(image)) <= len(corners)


def test_corners_keep_discs_away_from_those_there_are(monkeypatch):
    masks = []
    monkeypatch.setattr(cv2, 'goodFeaturesToTrack', lambda *_, mask: masks.append(mask))
    taken = np.float32([[50.9, 60.2], [0, 0], [319, 239], [-2, 100], [400, 20]])
    Tracker(TrajectoryConfig()).corners(picture(), taken, 10)
    discs = np.full((240, 320), 255, np.uint8)
    for x, y in np.floor(taken).astype(int).tolist():
        cv2.circle(discs, (x, y), 6, 0, -1)
    assert np.array_equal(masks[0], discs)


def pages_of_corners(width, before=''):
    code = f"""
import resource
import cv2, numpy as np
from xsvggt_ros.trajectory import tracker
cv2.setNumThreads(1)
{before}
noise = np.random.default_rng(0).integers(0, 255, ({3 * width // 4}, {width}), np.uint8)
image, one = cv2.GaussianBlur(noise, (0, 0), 1.5), tracker.Tracker(tracker.TrajectoryConfig())
for _ in range(5):
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    one.corners(image, np.empty((0, 2)), 100)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin)
"""
    return int(subprocess.run([sys.executable, '-c', code], check=True, capture_output=True,
                              text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='how glibc keeps memory')
@pytest.mark.parametrize('width', [640, 1280])
def test_corners_take_no_new_memory_in_each_image(width):
    if not pages_of_corners(width, 'tracker._keep_memory = lambda pixels: None'):
        pytest.skip('this process keeps its memory anyway')
    assert pages_of_corners(width) < width * 3 * width // 4 / 4096   # one byte for each pixel


def test_a_blank_image_has_no_corners_and_loses_all_tracks():
    blank = np.zeros((240, 320), np.uint8)
    tracker, corners = tracking(blank)
    assert len(corners) == 0 and len(tracker.track(picture())) == 0
    tracker, _ = tracking(picture())
    assert len(tracker.track(blank)) == 0


def test_an_image_of_another_size_loses_all_tracks():
    tracker, _ = tracking(picture())
    assert len(tracker.track(picture(120, 160))) == 0


def test_depth_is_sampled_between_pixels_and_goes_on_at_the_border():
    rows, columns = np.mgrid[0:6, 0:8]
    depth = (10 * rows + columns).astype(np.float32)
    half = np.array([[0.5, 0, 1.0], [0, 0.5, -1.0], [0, 0, 1]])
    found = sample_depth(depth, np.array([[4.0, 6.0], [5.0, 7.0], [1000.0, -50.0]]), half)
    np.testing.assert_allclose(found, [3 + 20, 3.5 + 25, 7])


def test_unknown_depth_stays_unknown():
    depth = np.ones((4, 4), np.float32)
    depth[2, 2] = np.nan
    found = sample_depth(depth, np.array([[0.0, 0.0], [1.5, 1.5], [2.0, 2.0]]), np.eye(3))
    assert found[0] == 1 and np.isnan(found[1:]).all()
    assert sample_depth(depth, np.empty((0, 2)), np.eye(3)).shape == (0,)


def test_importing_the_package_leaves_the_threads_of_opencv_alone():
    code = ('import cv2; before = cv2.getNumThreads(); '
            'import xsvggt_ros.trajectory.odometry; assert cv2.getNumThreads() == before')
    subprocess.run([sys.executable, '-c', code], check=True)


def test_corners_are_spread_though_most_texture_is_in_one_place():
    image = picture()
    image[:, 110:] = 110 + (image[:, 110:].astype(int) - 110) // 8
    tracker = Tracker(TrajectoryConfig(corner_quality=1e-4))
    corners = tracker.corners(image, np.empty((0, 2)), 100)
    assert len(corners) == 100 and (corners[:, 0] > 110).sum() > 30
    assert (cv2.goodFeaturesToTrack(image, 100, 1e-4, 6.0)[:, 0, 0] > 110).sum() < 5


def test_cells_that_have_tracks_get_fewer_new_ones():
    candidates, taken = np.array([0, 0, 0, 0, 1, 1, 5]), np.array([0, 0, 5])
    assert _spread(candidates, taken, 3).tolist() == [4, 5, 6]
    assert _spread(candidates, taken, 5).tolist() == [0, 1, 4, 5, 6]
    assert _spread(candidates, taken, 99).tolist() == list(range(7))
