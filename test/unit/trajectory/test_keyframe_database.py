"""Places: what they look like, their coarse depth, and when their landmarks are settled."""

import numpy as np
import pytest
from scenes import CAMERA
from test_tracker import picture, shifted, tracking

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.keyframe import coarse_depth_at, coarse_points, KeyframeBuilder
from xsvggt_ros.trajectory.keyframe_database import KeyframeDatabase
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.matching import Matcher
from xsvggt_ros.trajectory.projection import project
from xsvggt_ros.trajectory.tracker import Tracks


def made(window=2, keyframes=4):
    """Return the snapshots of a camera that stands before a wall, and its map."""
    local_map = LocalMap(CAMERA, TrajectoryConfig(), True, 1.0)
    maker, matcher, snapshots = KeyframeBuilder(window), Matcher(1), []
    image = picture()
    _, corners = tracking(image)
    for keyframe in range(keyframes):
        pose = np.eye(4)
        pose[0, 3] = keyframe
        local_map.add_keyframe(keyframe, pose, Tracks.none())
        ids = local_map.add_landmarks(keyframe, corners, np.full(len(corners), 2.0),
                                      np.full(len(corners), 0.1))
        features = matcher.describe(image, corners, ids)
        snapshots.append(maker.snapshot(image, np.full((24, 32), 2.0, np.float32),
                                        np.diag([0.1, 0.1, 1.0]), features, local_map, False))
    return snapshots, local_map


def test_a_keyframe_is_settled_when_the_window_has_passed_with_landmarks_as_they_are_then():
    snapshots, local_map = made()
    assert [len(one.settled) for one in snapshots] == [0, 0, 1, 1]
    keyframe = snapshots[2].settled[0]
    assert keyframe.id == 0 == keyframe.features.keyframe
    assert np.allclose(keyframe.points[:, 2], 2.0)
    assert np.allclose(project(keyframe.points, CAMERA), keyframe.features.pixels, atol=1e-3)
    assert snapshots[3].ids.tolist() == [0, 1, 2, 3]
    assert np.array_equal(snapshots[3].poses[-1], local_map.pose(3))


def test_landmarks_that_are_gone_are_nowhere():
    snapshots, local_map = made(window=1, keyframes=1)
    keyframe = snapshots[0].keyframe
    empty = LocalMap(CAMERA, TrajectoryConfig(), True, 1.0)
    empty.add_keyframe(0, np.eye(4), Tracks.none())
    assert np.isnan(KeyframeBuilder(1)._with_landmarks(keyframe, empty).points).all()


def test_the_album_finds_the_place_that_looks_the_same_shifted_too():
    database = KeyframeDatabase()
    assert database.scores(np.zeros((15, 20), np.float32))[0].size == 0
    images = [picture(seed=seed) for seed in range(5)]
    keyframes = {seed: made_of(image, seed) for seed, image in enumerate(images)}
    for keyframe in keyframes.values():
        database.add(keyframe)
    for seed, image in enumerate(images):
        ids, scores = database.scores(made_of(shifted(image, 32, -16), 9).thumbnail)
        assert ids[np.argmax(scores)] == seed and scores.max() > 0.7
    database.remove(3)
    assert len(database) == 4 and 3 not in database and 2 in database
    assert 3 not in database.scores(keyframes[3].thumbnail)[0]


def made_of(image, keyframe):
    local_map = LocalMap(CAMERA, TrajectoryConfig(), True, 1.0)
    local_map.add_keyframe(keyframe, np.eye(4), Tracks.none())
    return KeyframeBuilder(1).snapshot(
        image, np.ones((24, 32), np.float32), np.diag([0.1, 0.1, 1.0]),
        Matcher(1).describe(image, np.empty((0, 2), np.float32)), local_map, False).keyframe


def test_coarse_depth_is_that_of_the_map_it_is_from():
    keyframe = made_of(picture(), 0)
    points = coarse_points(keyframe)
    pixels = project(points, CAMERA)
    assert len(points) == 300 and np.allclose(points[:, 2], 1.0)
    assert pixels.min() == pytest.approx(7.5, abs=0.5)   # the centre of the first cell
    assert np.allclose(coarse_depth_at(keyframe, pixels), 1.0)
    assert np.isnan(coarse_depth_at(keyframe, np.array([[-1.0, 5.0], [5.0, 240.0]]))).all()


def test_an_image_of_one_colour_looks_like_nothing():
    keyframe = made_of(np.full((240, 320), 90, np.uint8), 0)
    assert np.isfinite(keyframe.thumbnail).all() and np.abs(keyframe.thumbnail).max() < 1e-3
