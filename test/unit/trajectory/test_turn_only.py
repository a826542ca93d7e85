"""A camera that only turned is told from one that moved, and from something that passes by."""

import cv2
import numpy as np
import pytest
from scenes import CAMERA

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.frame_tracker import FrameTracker
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.projection import motion, project, rays, to_camera
from xsvggt_ros.trajectory.tracker import Tracks
from xsvggt_ros.trajectory.turn_only import find_turn

SHAPE = (240, 320)
NONE = np.empty((0, 2), np.float32)


def grid():
    x, y = np.meshgrid(np.arange(10.0, 310.0, 14.0), np.arange(10.0, 230.0, 14.0))
    return np.stack([x.ravel(), y.ravel()], -1)


def seen_after(pixels, small, depth):
    """Return pixels [n, 2] after the camera's small motion, of points at depths [n]."""
    return project(to_camera(rays(pixels, CAMERA) * depth[:, None], motion(np.asarray(small))),
                   CAMERA)


def turned(band=110, shift=14.0, small=(0.004, 0.012, -0.002, 0, 0, 0)):
    """Return pixels before and after a turn, and which are of a band that goes sideways."""
    before = grid()
    now = seen_after(before, small, np.full(len(before), 2.0))
    moves = (before[:, 0] > 100) & (before[:, 0] < 100 + band)
    now[moves] += (shift, 0)
    return before, now, moves


def test_a_turn_is_found_though_a_third_of_the_image_moves():
    before, now, moves = turned()
    found = find_turn(before, now, NONE, CAMERA, SHAPE, 1.0)
    assert found is not None
    np.testing.assert_array_equal(found.agrees, ~moves)
    np.testing.assert_allclose(found.last_from_camera,
                               motion(np.array([0.004, 0.012, -0.002, 0, 0, 0]))[:3, :3],
                               atol=1e-6)


def test_what_passes_by_a_camera_that_moves_is_no_turn():
    rng = np.random.default_rng(0)
    before = grid()
    now = seen_after(before, (0, 0.01, 0, 0.15, 0.02, 0.05), rng.uniform(1.0, 4.0, len(before)))
    passes = before[:, 0] > 180
    now[passes] = before[passes] + (11.0, 0)
    assert passes.mean() > 0.4
    assert find_turn(before, now, NONE, CAMERA, SHAPE, 1.0) is None


def test_what_is_known_to_move_counts_as_a_part_of_the_image():
    before, now, moves = turned(shift=0.0)
    left = before[:, 0] < 100
    assert find_turn(before[left], now[left], NONE, CAMERA, SHAPE, 1.0) is not None
    moving = before[~left].astype(np.float32)
    assert find_turn(before[left], now[left], moving, CAMERA, SHAPE, 1.0) is None


@pytest.mark.parametrize('count', [0, 1])
def test_too_few_tracks_say_nothing(count):
    pixels = grid()[:count]
    assert find_turn(pixels, pixels, NONE, CAMERA, SHAPE, 1.0) is None


def test_tracks_in_one_place_are_a_turn_of_finite_numbers():
    pixels = np.tile([[50.0, 60.0]], (30, 1))
    found = find_turn(pixels, pixels + 1, NONE, CAMERA, SHAPE, 1.0)
    assert found is None or np.isfinite(found.last_from_camera).all()


def textured(seed, size=(320, 240)):
    noise = np.random.default_rng(seed).uniform(0, 255, (size[1] // 6, size[0] // 6))
    return cv2.resize(noise.astype(np.uint8), size, interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize('in_order', [True, False])   # matches are in any order
def test_a_camera_that_stands_still_behind_something_large_stays_where_it_is(in_order):
    room, other = textured(0), textured(1)
    images = []
    for left in (90, 97):   # covers 44 % of the image
        image = room.copy()
        image[:, left:left + 140] = other[:, :140]
        images.append(image)
    tracker, local_map = FrameTracker(TrajectoryConfig(), 1.0), LocalMap(
        CAMERA, TrajectoryConfig(), True, 1.0)
    local_map.add_keyframe(0, np.eye(4), Tracks.none())
    corners = tracker.corners(images[0], Tracks.none(), NONE)
    # The network sees something flat, and is 15 % sure of it.
    ids = local_map.add_landmarks(0, corners, np.full(len(corners), 2.0),
                                  np.full(len(corners), 0.15))
    tracks = Tracks(ids, corners)
    if not in_order:
        tracks = tracks.chosen(np.random.default_rng(0).permutation(len(ids)))
    tracker.begin_keyframe(images[0], tracks, 0)
    measured = tracker.track(images[1], local_map, np.eye(4), (), NONE)
    assert measured is not None
    assert np.linalg.norm(measured.pose[:3, 3]) < 0.003
    covered = (measured.tracks.pixels[:, 0] > 110) & (measured.tracks.pixels[:, 0] < 225)
    assert covered.mean() < 0.05 and len(measured.outliers) > 0.3 * len(ids)
