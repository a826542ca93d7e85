"""Snapshots of keyframes that were tracked, guessed, or carried to, and what joins them."""

from types import SimpleNamespace

import numpy as np
import pytest
from scenes import CAMERA
from test_tracker import picture

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.frame import Frame
from xsvggt_ros.trajectory.frame_tracker import PoseMeasurement
from xsvggt_ros.trajectory.gaps import Gap
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.matching import Matcher
from xsvggt_ros.trajectory.projection import inverse, motion
from xsvggt_ros.trajectory.snapshots import Snapshots
from xsvggt_ros.trajectory.tracker import Tracks

STEP = motion(np.array([0.0, 0.1, 0.0, 0.2, 0.0, 0.1]))
JUMP = motion(np.array([0.0, 0.4, 0.0, 1.0, 0.0, 0.5]))    # what the network says of a gap
SCALE = 2.0
IMAGE = picture()


class Stream:
    """What an odometry does with snapshots and their map; its frames are keyframes or not."""

    def __init__(self, support=None, window=2):
        self.map = LocalMap(CAMERA, TrajectoryConfig(), True, 1.0)
        self.snapshots = Snapshots(window, self.map, support)
        self._network = np.eye(4)

    def step(self, source, step, is_keyframe=True, told=None):
        """Take a step; told: what the network says of it, None: the same."""
        located = source in ('tracks', 'matches')
        number = len(self.map.keyframes)
        pose = self.map.poses[-1] @ step if number else np.eye(4)
        if number:
            told = step.copy() if told is None else told.copy()
            told[:3, 3] /= SCALE
            self._network = self._network @ told
        frame = Frame(IMAGE, np.ones((24, 32), np.float32), np.ones((24, 32), np.float32),
                      self._network, np.diag([0.1, 0.1, 1.0]))
        measured = PoseMeasurement(pose, Tracks.none(), source, 0.1,
                                   np.eye(6) if located else None)
        if is_keyframe:
            self.map.add_keyframe(number, pose, Tracks.none())
            features = Matcher(1).describe(IMAGE, np.empty((0, 2), np.float32))
            self.snapshots.take(frame, SCALE, features, measured)
        self.snapshots.watch(frame, SCALE, pose, measured, is_keyframe)
        return self.snapshots.newest


def through(source, between=(), support=None):
    """Return a stream with a keyframe of `source` behind three, and its last two snapshots."""
    stream = Stream(support)
    for index in range(3):
        stream.step('tracks' if index else 'first', STEP)
    for one in between:
        stream.step(one, STEP, is_keyframe=False, told=JUMP)
    wrong = motion(np.array([0.0, 0.0, 0.0, 0.3, 0.0, 0.0]))
    return stream, [stream.step(source, wrong, told=JUMP), stream.step('tracks', STEP)]


def test_only_what_nothing_was_tracked_to_is_guessed_and_depth_is_in_the_streams_unit():
    stream = Stream()
    found = [stream.step(source, STEP) for source in ('first', 'tracks', 'hold', 'network',
                                                      'odometry', 'matches')]
    assert [one.keyframe.guessed for one in found] == [False, False, True, True, True, False]
    assert [one.keyframe.id for one in found] == list(range(6))
    np.testing.assert_allclose(found[1].keyframe.depth, SCALE)
    assert np.array_equal(found[1].image, IMAGE)
    assert [len(one.settled) for one in found] == [0, 0, 1, 1, 1, 1]
    assert [one.id for one in stream.snapshots.settled()] == [4, 5]


def test_a_gap_is_what_the_network_says_of_it_told_with_the_keyframe_behind():
    stream, (guess, behind) = through('network')
    assert guess.gap is None and behind.gap.keyframe == 3
    np.testing.assert_allclose(behind.gap.before_from_keyframe, JUMP, atol=1e-6)
    later = [stream.step('tracks', STEP) for _ in range(2)]
    assert all(one.gap.keyframe == 3 for one in later)   # more frames tell more of it
    stream.step('hold', STEP)   # behind it nothing more is known of the gap
    assert [stream.step('tracks', STEP).gap for _ in range(2)] == [None, None]


@pytest.mark.parametrize('source, between', [('tracks', ()), ('hold', ()), ('tracks', ['hold'])])
def test_without_a_guess_by_the_network_there_is_no_gap(source, between):
    _, found = through(source, between)
    assert [one.gap for one in found] == [None, None]


def test_a_frame_that_is_a_guess_and_no_keyframe_tells_nothing_of_a_gap():
    _, found = through('network', ['network', 'network', 'hold'])
    assert found[1].gap.keyframe == 3
    plain, joined = through('hold')
    plain.step('network', JUMP)
    assert plain.step('tracks', STEP).gap.keyframe == 5 and joined[1].gap is None


def test_a_gap_is_told_only_while_the_map_has_both_sides():
    stream, _ = through('network')
    stream.map.keyframes, stream.map.poses = stream.map.keyframes[3:], stream.map.poses[3:]
    stream.map.add_keyframe(5, stream.map.poses[-1] @ STEP, Tracks.none())
    measured = PoseMeasurement(stream.map.pose(5), Tracks.none(), 'tracks', 0.1, np.eye(6))
    frame = Frame(IMAGE, np.ones((24, 32)), np.ones((24, 32)), np.eye(4), np.eye(3))
    features = Matcher(1).describe(IMAGE, np.empty((0, 2), np.float32))
    stream.snapshots.take(frame, SCALE, features, measured)
    assert stream.snapshots.newest.keyframe.id == 5 and stream.snapshots.newest.gap is None


@pytest.mark.parametrize('is_told', [True, False])
def test_an_odometry_joins_what_it_carried_to_if_it_tells_how(is_told):
    def gap(keyframe, before, after):
        return Gap(keyframe, inverse(before) @ after, np.ones(7)) if is_told else None

    stream, (carried, behind) = through('odometry', support=SimpleNamespace(gap=gap))
    assert carried.keyframe.guessed is not is_told and behind.gap is None
    if is_told:
        assert carried.gap.keyframe == 3
        np.testing.assert_allclose(carried.gap.before_from_keyframe,
                                   inverse(stream.map.pose(2)) @ stream.map.pose(3), atol=1e-9)
    else:
        assert carried.gap is None
