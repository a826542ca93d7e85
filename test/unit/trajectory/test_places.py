"""Places: what they look like, their coarse depth, and when their landmarks are settled."""

import numpy as np
import pytest
from scenes import CAMERA
from test_tracker import picture, shifted, tracking

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.matching import Matcher
from xsvggt_ros.trajectory.places import Album, coarse_points, joined_depth, PlaceMaker
from xsvggt_ros.trajectory.projection import project
from xsvggt_ros.trajectory.tracker import Tracks


def made(window=2, keyframes=4):
    """Return the snapshots of a camera that stands before a wall, and its map."""
    local_map = LocalMap(CAMERA, TrajectoryConfig(), True, 1.0)
    maker, matcher, snapshots = PlaceMaker(window), Matcher(1), []
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


def test_a_place_is_settled_when_the_window_has_passed_with_landmarks_as_they_are_then():
    snapshots, local_map = made()
    assert [len(one.settled) for one in snapshots] == [0, 0, 1, 1]
    place = snapshots[2].settled[0]
    assert place.keyframe == 0 == place.features.keyframe
    assert np.allclose(place.points[:, 2], 2.0)
    assert np.allclose(project(place.points, CAMERA), place.features.pixels, atol=1e-3)
    assert snapshots[3].keyframes.tolist() == [0, 1, 2, 3]
    assert np.array_equal(snapshots[3].poses[-1], local_map.pose(3))


def test_landmarks_that_are_gone_are_nowhere():
    snapshots, local_map = made(window=1, keyframes=1)
    place = snapshots[0].place
    empty = LocalMap(CAMERA, TrajectoryConfig(), True, 1.0)
    empty.add_keyframe(0, np.eye(4), Tracks.none())
    assert np.isnan(PlaceMaker(1)._located(place, empty).points).all()


def test_the_album_finds_the_place_that_looks_the_same_shifted_too():
    album = Album()
    assert album.alike(np.zeros((15, 20), np.float32))[0].size == 0
    images = [picture(seed=seed) for seed in range(5)]
    places = {seed: made_of(image, seed) for seed, image in enumerate(images)}
    for place in places.values():
        album.add(place)
    for seed, image in enumerate(images):
        keyframes, alike = album.alike(made_of(shifted(image, 32, -16), 9).thumbnail)
        assert keyframes[np.argmax(alike)] == seed and alike.max() > 0.7
    album.remove(3)
    assert len(album) == 4 and 3 not in album and 2 in album
    assert 3 not in album.alike(places[3].thumbnail)[0]


def made_of(image, keyframe):
    local_map = LocalMap(CAMERA, TrajectoryConfig(), True, 1.0)
    local_map.add_keyframe(keyframe, np.eye(4), Tracks.none())
    return PlaceMaker(1).snapshot(
        image, np.ones((24, 32), np.float32), np.diag([0.1, 0.1, 1.0]),
        Matcher(1).describe(image, np.empty((0, 2), np.float32)), local_map, False).place


def test_coarse_depth_is_that_of_the_map_it_is_from():
    place = made_of(picture(), 0)
    points = coarse_points(place)
    pixels = project(points, CAMERA)
    assert len(points) == 300 and np.allclose(points[:, 2], 1.0)
    assert pixels.min() == pytest.approx(7.5, abs=0.5)   # the centre of the first cell
    assert np.allclose(joined_depth(place, pixels), 1.0)
    assert np.isnan(joined_depth(place, np.array([[-1.0, 5.0], [5.0, 240.0]]))).all()


def test_an_image_of_one_colour_looks_like_nothing():
    place = made_of(np.full((240, 320), 90, np.uint8), 0)
    assert np.isfinite(place.thumbnail).all() and np.abs(place.thumbnail).max() < 1e-3
