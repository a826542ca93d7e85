"""A frame before a wall: its pose by tracks, by guesses and by matching, exactly known."""

import numpy as np
import pytest
from scenes import CAMERA
from test_tracker import picture, shifted

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.frame_tracker import FrameTracker
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.tracker import Tracks

DEPTH = 2.0
NONE = np.empty((0, 2), np.float32)


def before_wall(seed=0, off=0, **config):
    """Return a tracker and its map with one keyframe; the first `off` landmarks are misplaced."""
    config = TrajectoryConfig(**config)
    tracker, local_map = FrameTracker(config, 1.0), LocalMap(CAMERA, config, True, 1.0)
    add_keyframe(tracker, local_map, picture(seed=seed), off)
    return tracker, local_map


def add_keyframe(tracker, local_map, image, off=0):
    number = len(local_map.keyframes)
    local_map.add_keyframe(number, np.eye(4), Tracks.none())
    corners = tracker.corners(image, Tracks.none(), NONE)
    places = corners.copy()
    places[:off, 1] += 25
    ids = local_map.add_landmarks(number, places, np.full(len(corners), DEPTH),
                                  np.full(len(corners), 0.01))
    tracker.begin_keyframe(image, Tracks(ids, corners), number)


def pose_of(x, y):
    """Return the pose from which the wall is seen moved by so many pixels."""
    pose = np.eye(4)
    pose[:2, 3] = -DEPTH * x / CAMERA[0, 0], -DEPTH * y / CAMERA[1, 1]
    return pose


def asked_of(poses, asked):
    for number, pose in enumerate(poses):
        asked.append(number)
        yield pose


@pytest.mark.parametrize('begun', ['not', 'with it', 'with another'])
def test_a_pose_is_that_of_the_image_whatever_was_begun(begun):
    tracker, local_map = before_wall()
    image = shifted(picture(), 6, -4)
    if begun != 'not':
        tracker.begin(image if begun == 'with it' else shifted(picture(), -5, 3), local_map,
                      np.eye(4))
    found = tracker.track(image, local_map, np.eye(4), (), NONE)
    assert found.source == 'tracks' and found.error < 0.1 and len(found.tracks) > 200
    np.testing.assert_allclose(found.pose, pose_of(6, -4), atol=2e-3)
    assert (np.linalg.eigvalsh(found.information) > 0).all()


def test_guesses_are_tried_in_their_order_until_one_is_right():
    tracker, local_map = before_wall()
    right, asked = pose_of(90, 0), []
    found = tracker.track(shifted(picture(), 90, 0), local_map, np.eye(4),
                          asked_of([pose_of(-90, 60), right, np.eye(4)], asked), NONE)
    assert found.source == 'tracks' and asked == [0, 1]
    np.testing.assert_allclose(found.pose, right, atol=5e-3)


def test_landmarks_in_a_wrong_place_are_outliers_and_those_given_up_are_none_at_all():
    tracker, local_map = before_wall(off=40)
    local_map.give_up(np.arange(20))
    found = tracker.track(shifted(picture(), 4, 2), local_map, np.eye(4), (), NONE)
    np.testing.assert_allclose(found.pose, pose_of(4, 2), atol=2e-3)
    assert found.tracks.ids.min() >= 40
    outliers = found.outliers.ids
    assert outliers.min() >= 20 and (outliers < 40).sum() > 15


def test_without_tracks_only_what_looks_like_a_keyframe_is_recognised():
    tracker, local_map = before_wall()
    blank = np.zeros((240, 320), np.uint8)
    tracker.keep(blank, Tracks.none())
    found = tracker.track(shifted(picture(), 30, 20), local_map, np.eye(4), (), NONE)
    assert found.source == 'matches'
    np.testing.assert_allclose(found.pose, pose_of(30, 20), atol=0.02)
    for image in (picture(seed=1), blank, np.zeros((3, 5), np.uint8)):
        assert tracker.track(image, local_map, np.eye(4), (), NONE) is None
    alone = FrameTracker(TrajectoryConfig(), 1.0)   # has seen nothing
    assert alone.track(picture(), local_map, np.eye(4), (), NONE) is None


def test_no_more_than_the_last_keyframes_are_remembered():
    tracker, local_map = before_wall(matching_keyframes=2)
    for image in (picture(seed=1), picture(seed=2), np.zeros((240, 320), np.uint8)):
        add_keyframe(tracker, local_map, image)   # the last has too few features to count
    found = [tracker.track(picture(seed=seed), local_map, np.eye(4), (), NONE)
             for seed in range(3)]
    assert [one is not None for one in found] == [False, True, True]


def test_corners_fill_the_tracks_up_away_from_them_and_from_others():
    tracker, _ = before_wall(corners=150)
    tracks, others = tracker.tracks.chosen(np.arange(100)), tracker.tracks.pixels[100:]
    corners = tracker.corners(picture(), tracks, others)
    taken = np.concatenate([tracks.pixels, others])
    assert len(corners) == 50
    assert np.linalg.norm(corners[:, None] - taken, axis=-1).min() > 4
    assert len(tracker.corners(picture(), tracker.tracks, NONE)) == 0
