"""A keyframe is found in a map with its scale, or it is said why it is not."""

from dataclasses import replace

import cv2
from loop_scene import Room, ROUND, round_way
import numpy as np
import pytest

from xsvggt_ros.geometry.similarity import scales
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.landmark_map import KeptKeyframes, landmark_map, LandmarkMap
from xsvggt_ros.trajectory.map_search import MapMatch, MapSearch
from xsvggt_ros.trajectory.matching import Matcher
from xsvggt_ros.trajectory.pose_graph import similarity_of
from xsvggt_ros.trajectory.projection import project, to_camera

CONFIG = TrajectoryConfig()
BLANK = np.empty((0, 0), np.uint8)
ROOM, WAY = Room(), round_way(ROUND)[::2]
TRUE = WAY[2] @ similarity_of(np.array([0.02, 0.05, 0, 0.15, -0.1, 0.1, 0]))
UNIT = 1.7       # of the stream, for one of the map's


def map_of(keyframes, poses):
    return landmark_map(KeptKeyframes(tuple(keyframes), np.array(poses)), np.eye(4), 1.0, False)


@pytest.fixture(scope='module')
def saved():
    return map_of([ROOM.keyframe(number, pose) for number, pose in enumerate(WAY)], WAY)


@pytest.fixture
def new():
    return ROOM.keyframe(70, TRUE, UNIT)


def test_pose_scale_and_what_is_seen_are_found(saved, new):
    found = MapSearch(saved, CONFIG).find(new, BLANK)
    assert isinstance(found, MapMatch) and found.keyframe == 70
    np.testing.assert_allclose(found.map_from_keyframe[:3, 3], TRUE[:3, 3], atol=2e-3)
    np.testing.assert_allclose(UNIT * found.map_from_keyframe[:3, :3], TRUE[:3, :3], atol=2e-3)
    assert scales(found.map_from_keyframe) == pytest.approx(1 / UNIT, rel=1e-3)
    assert found.inliers > 60 and found.share > 0.9 and found.second == 0
    seen = found.seen
    local = to_camera(seen.points, TRUE)
    assert found.depth == pytest.approx(np.median(local[:, 2]), rel=0.05)
    np.testing.assert_allclose(project(local, seen.camera), seen.pixels, atol=1e-3)
    np.testing.assert_allclose(seen.depths, UNIT * local[:, 2])
    assert len(seen.points) <= 120 and seen.pixel == 1.0


def test_where_it_is_looked_for_it_is_found_and_nowhere_else(saved, new):
    # More keyframes than are looked at near a pose, all of them at the other side of the room.
    far = WAY[8] @ similarity_of(np.array([0, 0, 0, 0, 0, 0.1, 0]))
    there = [ROOM.keyframe(100 + number, far) for number in range(8)]
    search = MapSearch(map_of([*saved.keyframes, *there], [*saved.poses, *[far] * 8]), CONFIG)
    assert isinstance(search.find(new, BLANK, TRUE), MapMatch)
    assert isinstance(search.find(new, BLANK), MapMatch)
    assert search.find(new, BLANK, far) == 'few matches'


@pytest.mark.parametrize('apart', [
    [0, 0, 0, 0, 20.0, 0, 0], [0, 0, 0, 10.0, 0, 0, 0], [0, 1.57, 0, 9.0, 0, 3.0, 0]])
@pytest.mark.parametrize('passed', [1, 3])
def test_a_place_that_is_there_twice_is_ambiguous(saved, passed, apart):
    # One of them was passed as often, or more often, than the other.
    other = similarity_of(np.array(apart))
    keyframes = [replace(keyframe, id=number) for number, keyframe in enumerate(
        (passed + 1) * saved.keyframes)]
    both = LandmarkMap(tuple(keyframes), np.concatenate(
        [*[saved.poses] * passed, other @ saved.poses]), False)
    search = MapSearch(both, CONFIG)
    for row in (1, 3):
        true = WAY[row] @ similarity_of(np.array([0.02, 0.05, 0, 0.15, -0.1, 0.1, 0]))
        found = search.find(ROOM.keyframe(70, true, UNIT), BLANK)
        assert isinstance(found, MapMatch) and found.second == found.inliers > 100
        off = [np.linalg.norm(found.map_from_keyframe[:3, 3] - pose[:3, 3])
               for pose in (true, other @ true)]
        assert min(off) < 2e-3


def scrambled(keyframe, begin):
    pixels = keyframe.features.pixels.copy()
    pixels[begin:] = np.random.default_rng(0).permutation(pixels[begin:])
    return replace(keyframe, features=replace(keyframe.features, pixels=pixels))


@pytest.mark.parametrize('change, reason', [
    (lambda new: replace(new, features=replace(
        new.features, descriptors=~new.features.descriptors)), 'few matches'),
    (lambda new: scrambled(new, 0), 'no pose'),
    (lambda new: scrambled(new, 100), 'few inliers'),
    (lambda new: replace(new, points=np.full_like(new.points, np.nan)), 'no scale'),
    (lambda new: replace(new, depth=2 * new.depth), 'depths disagree'),
    (lambda new: replace(new, depth=np.full_like(new.depth, np.nan)), 'depths disagree')])
def test_it_is_said_why_a_keyframe_is_not_known(saved, new, change, reason):
    search = MapSearch(saved, TrajectoryConfig(loop_inliers=100))
    assert isinstance(search.find(new, BLANK), MapMatch)
    assert search.find(change(new), BLANK) == reason


def test_in_an_empty_map_nothing_is_known(new):
    search = MapSearch(landmark_map(KeptKeyframes.none(), np.eye(4), 1.0, False), CONFIG)
    assert search.find(new, BLANK) == search.find(new, BLANK, np.eye(4)) == 'few matches'


def test_what_the_map_saw_from_farther_is_found_in_the_smaller_picture(new):
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 255, (240, 320), dtype=np.uint8), (0, 0), 2) * 2
    small = cv2.resize(image, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    described = Matcher(1).describe(small, 0.7 * (new.features.pixels + 0.5) - 0.5,
                                    np.arange(len(new.points)))
    rows = described.ids
    old = replace(ROOM.keyframe(0, TRUE), features=replace(
        new.features, pixels=new.features.pixels[rows], descriptors=described.descriptors,
        ids=rows), points=new.points[rows] / UNIT, variance=new.variance[rows])
    search = MapSearch(map_of([old], [TRUE]), CONFIG)
    assert search.find(new, BLANK) == 'few matches'
    found = search.find(new, image)
    assert isinstance(found, MapMatch) and found.inliers > 0.5 * len(rows)
    np.testing.assert_allclose(found.map_from_keyframe[:3, 3], TRUE[:3, 3], atol=2e-3)
