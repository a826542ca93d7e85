"""Two motions in one image are told apart, whatever the depths; noise is not a motion."""

import cv2
import numpy as np
import pytest
from scenes import CAMERA
from test_turn_only import grid, NONE, textured

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.frame_tracker import FrameTracker
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.projection import motion, project, rays, skew, to_camera
from xsvggt_ros.trajectory.tracker import Tracks
from xsvggt_ros.trajectory.two_motions import find_two_motions, sampson_errors, spanned_area

SHAPE = (240, 320)
CAMERA_MOTION = (0.01, 0.05, 0, 0.1, 0.03, 0.06)
THING_MOTION = (0, -0.02, 0.01, -0.12, 0.02, -0.03)


def after(pixels, small, seed=0):
    """Return pixels [n, 2] after a small motion, of points at depths from 1.5 to 4."""
    depth = np.random.default_rng(seed).uniform(1.5, 4.0, (len(pixels), 1))
    return project(to_camera(rays(pixels, CAMERA) * depth, motion(np.asarray(small))), CAMERA)


def passing(left=100, right=220, noise=0.0):
    """
    Return pixels before and after, of which those of a band move by themselves, and which do.

    What the band hides afterwards is left out.
    """
    before = grid()
    moves = (before[:, 0] > left) & (before[:, 0] < right)
    now = np.where(moves[:, None], after(before, THING_MOTION), after(before, CAMERA_MOTION))
    if moves.any():
        hidden = ~moves & (now[:, 0] > now[moves, 0].min()) & (now[:, 0] < now[moves, 0].max())
        before, now, moves = before[~hidden], now[~hidden], moves[~hidden]
    return before, now + np.random.default_rng(1).normal(0, noise, now.shape), moves


@pytest.mark.parametrize('scale', [1.0, 2.0])
@pytest.mark.parametrize('noise', [0.0, 0.1])
def test_a_thing_and_the_scene_are_told_apart(noise, scale):
    before, now, moves = passing(noise=noise)
    camera = np.diag([scale, scale, 1.0]) @ CAMERA
    scene, thing = find_two_motions(scale * before, scale * now, camera,
                                    (int(240 * scale), int(320 * scale)), scale)
    assert scene.sum() > thing.sum() and not (scene & thing).any()
    assert scene[~moves].mean() > 0.9 and scene[moves].mean() < 0.15
    assert thing[moves].mean() > 0.75 and thing[~moves].mean() < 0.05


def test_the_commoner_motion_comes_first():
    before, now, moves = passing(left=20)
    assert moves.mean() > 0.6
    thing, scene = find_two_motions(before, now, CAMERA, SHAPE, 1.0)
    assert thing[moves].mean() > 0.9 and scene[~moves].mean() > 0.75


@pytest.mark.parametrize('noise', [0.0, 0.5, 2.0])
def test_one_motion_is_not_two_however_noisy(noise):
    before, now, _ = passing(left=0, right=0, noise=noise)
    assert find_two_motions(before, now, CAMERA, SHAPE, 1.0) is None


def test_tracks_that_are_wrong_here_and_there_are_no_second_motion():
    before, now, _ = passing(left=0, right=0)
    wrong = np.random.default_rng(2).random(len(now)) < 0.3
    now[wrong] = after(before[wrong], THING_MOTION)
    assert find_two_motions(before, now, CAMERA, SHAPE, 1.0) is None


@pytest.mark.parametrize('count', [0, 1, 5, 11, 12])
def test_too_few_tracks_say_nothing(count):
    before, now, _ = passing()
    assert find_two_motions(before[:count], now[:count], CAMERA, SHAPE, 1.0) is None


def test_tracks_in_one_place_say_nothing():
    pixels = np.tile([[50.0, 60.0]], (40, 1))
    assert find_two_motions(pixels, pixels, CAMERA, SHAPE, 1.0) is None


def test_epipolar_errors_are_distances_to_the_lines():
    before, now, _ = passing(left=0, right=0)
    last_from_camera = motion(np.asarray(CAMERA_MOTION))
    essential = skew(last_from_camera[:3, 3]) @ last_from_camera[:3, :3]
    assert sampson_errors(essential, before, now, CAMERA).max() < 1e-9
    # Off the line by little, in the second image alone: half of it, in either image.
    inverted = np.linalg.inv(CAMERA)
    line = np.hstack([before, np.ones((len(before), 1))]) @ (inverted.T @ essential @ inverted)
    normal = line[:, :2] / np.linalg.norm(line[:, :2], axis=1, keepdims=True)
    off = sampson_errors(essential, before, now + 0.1 * normal, CAMERA)
    back = np.hstack([now, np.ones((len(now), 1))]) @ (inverted.T @ essential @ inverted).T
    ratio = np.linalg.norm(back[:, :2], axis=1) / np.linalg.norm(line[:, :2], axis=1)
    np.testing.assert_allclose(off, 0.1 / np.hypot(1, ratio), rtol=1e-2)


def test_a_band_spans_what_it_covers_and_what_is_around_it_all():
    pixels = grid()
    band = (pixels[:, 0] > 100) & (pixels[:, 0] < 220)
    assert spanned_area(pixels[band], SHAPE) == 98 * 210
    assert spanned_area(pixels[~band], SHAPE) > 0.8 * 320 * 240


def test_a_stray_track_spans_nothing():
    pixels = grid()
    left = pixels[pixels[:, 0] < 80]
    stray = np.vstack([left, [[310.0, 230.0]]])
    assert spanned_area(stray, SHAPE) == spanned_area(left, SHAPE) > 0
    assert spanned_area(stray[-1:], SHAPE) == spanned_area(stray[:0], SHAPE) == 0


def seen_from(pose, image, depth):
    """Return the image of a wall at a depth, as a camera that moved without a turn sees it."""
    corners = np.float32([[0, 0], [319, 0], [0, 239]])
    points = rays(corners.astype(float), CAMERA) * depth
    moved = project(to_camera(points, pose), CAMERA).astype(np.float32)
    return cv2.warpAffine(image, cv2.getAffineTransform(corners, moved), (320, 240))


def test_the_camera_is_located_by_what_spans_the_image_though_something_has_more_tracks():
    room, thing = textured(0), textured(1, (320, 300))
    room[150:] = 128   # nothing to track below
    true = motion(np.array([0, 0, 0, 0.1, 0, 0.1]))
    near, far = 1.5, 4.0   # walls at the left and at the right
    images = []
    for pose, top in ((np.eye(4), 0), (true, 10)):   # the thing goes up
        image = np.where(np.arange(320) < 160, seen_from(pose, room, near),
                         seen_from(pose, room, far))
        image[:, 100:230] = thing[top:top + 240, :130]
        images.append(image)
    config = TrajectoryConfig()
    tracker, local_map = FrameTracker(config, 1.0), LocalMap(CAMERA, config, True, 1.0)
    local_map.add_keyframe(0, np.eye(4), Tracks.none())
    corners = tracker.corners(images[0], Tracks.none(), NONE)
    depth = np.where(corners[:, 0] < 160, near, far)
    ids = local_map.add_landmarks(0, corners, depth, np.full(len(corners), 0.15))
    tracker.begin_keyframe(images[0], Tracks(ids, corners), 0)
    on_thing = (corners[:, 0] > 100) & (corners[:, 0] < 230)
    assert on_thing.mean() > 0.5
    measured = tracker.track(images[1], local_map, np.eye(4), (), NONE)
    np.testing.assert_allclose(measured.pose, true, atol=0.02)
    assert not on_thing[np.isin(ids, measured.tracks.ids)].any()
    assert on_thing[np.isin(ids, measured.outliers.ids)].mean() > 0.7   # others: at its edges
    # What is known to move is not asked for again.
    moving = np.tile(np.float32([[150, 100]]), (100, 1))
    again = tracker.track(images[1], local_map, np.eye(4), (), moving)
    assert on_thing[np.isin(ids, again.tracks.ids)].mean() > 0.3
