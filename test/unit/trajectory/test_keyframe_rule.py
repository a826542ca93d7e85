"""A keyframe is needed when few tracks are left, or when they have moved, turning left aside."""

import numpy as np
import pytest
from scenes import CAMERA

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.keyframe_rule import KeyframeRule
from xsvggt_ros.trajectory.projection import motion, project, rays, to_camera
from xsvggt_ros.trajectory.tracker import Tracks

CONFIG = TrajectoryConfig()
WIDTH = 320
BEGIN = motion(np.array([0.3, -0.8, 0.2, 1.0, 2.0, 3.0]))
LIMIT = CONFIG.parallax * WIDTH / CAMERA[0, 0] * 3    # metres aside, of points 3 m away
FEWEST = round(CONFIG.corners * CONFIG.inlier_share)


def scene(count=200):
    """Return points of the world that the camera at BEGIN sees at a depth of 3."""
    pixels = np.random.default_rng(0).uniform((20, 20), (300, 220), (count, 2))
    return 3 * rays(pixels, CAMERA) @ BEGIN[:3, :3].T + BEGIN[:3, 3]


def tracks_at(pose, points):
    return Tracks(np.arange(len(points)),
                  project(to_camera(points, pose), CAMERA).astype(np.float32))


def rule_of(points):
    rule = KeyframeRule(CONFIG)
    rule.begin(tracks_at(BEGIN, points), BEGIN)
    return rule


def moved(*small):
    return BEGIN @ motion(np.array(small, float))


def needed(rule, tracks, pose=BEGIN, width=WIDTH):
    return rule.is_needed(tracks, pose, CAMERA, width)


@pytest.mark.parametrize('turn', [(0.25, 0, 0), (0, -0.3, 0), (0.1, 0.2, 0.4)])
def test_a_turn_is_no_reason_however_far_the_tracks_go(turn):
    points, pose = scene(), moved(*turn, 0, 0, 0)
    tracks = tracks_at(pose, points)
    way = np.linalg.norm(tracks.pixels - tracks_at(BEGIN, points).pixels, axis=1)
    assert np.median(way) > 2 * CONFIG.parallax * WIDTH
    assert not needed(rule_of(points), tracks, pose)


def test_parallax_is_a_reason_in_parts_of_the_width_whatever_the_turn():
    points = scene()
    rule = rule_of(points)
    near, far = (moved(0, 0.1, 0, share * LIMIT, 0, 0) for share in (0.9, 1.1))
    assert not needed(rule, tracks_at(near, points), near)
    assert needed(rule, tracks_at(far, points), far)
    assert not needed(rule, tracks_at(far, points), far, width=2 * WIDTH)
    rule.begin(tracks_at(far, points), far)   # from then on it is compared with that one
    assert not needed(rule, tracks_at(far, points), far)


def test_fewer_than_half_of_the_tracks_that_move_are_no_reason():
    points = scene()
    tracks = tracks_at(BEGIN, points)
    for count, expected in ((90, False), (110, True)):
        pixels = tracks.pixels.copy()
        pixels[:count] += 100
        assert needed(rule_of(points), Tracks(tracks.ids, pixels)) == expected


def test_tracks_are_compared_by_their_numbers():
    points = scene()
    tracks, order = tracks_at(BEGIN, points), np.random.default_rng(1).permutation(200)
    new = Tracks(np.arange(1000, 1050), np.zeros((50, 2), np.float32))
    assert not needed(rule_of(points), tracks.chosen(order[:160]).joined(new))


@pytest.mark.parametrize('begun, left', [
    (200, round(CONFIG.survivors * 200)),   # of those of the last keyframe
    (FEWEST + 5, FEWEST)])                  # of those that there may be
def test_too_few_tracks_are_a_reason(begun, left):
    points = scene(begun)
    tracks = tracks_at(BEGIN, points)
    assert not needed(rule_of(points), tracks.chosen(np.arange(left)))
    assert needed(rule_of(points), tracks.chosen(np.arange(left - 1)))


def test_what_cannot_be_compared_is_a_reason():
    points = scene()
    tracks = tracks_at(BEGIN, points)
    assert needed(KeyframeRule(CONFIG), tracks)    # with no keyframe
    assert needed(rule_of(points), Tracks.none())
    assert needed(rule_of(points), Tracks(tracks.ids + 1000, tracks.pixels))
