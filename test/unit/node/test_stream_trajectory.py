"""The node's trajectory: results that are changed together, velocities, covariances, streams."""

from dataclasses import replace
import threading

import cv2
from nav_msgs.msg import Odometry
import numpy as np
import pytest
import torch

from xsvggt_ros.engine.frame_result import FrameResult
from xsvggt_ros.geometry.se3 import transform_points, unproject_depth
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.node.outputs.motion import fill_motion
from xsvggt_ros.node.settings import DepthSettings, TrajectorySettings
from xsvggt_ros.node.stream_trajectory import StreamTrajectory
from xsvggt_ros.node.tracked_pose import TrackedPose
from xsvggt_ros.trajectory.camera_tracker import CameraTracker
from xsvggt_ros.trajectory.corrections import Corrections
from xsvggt_ros.trajectory.dynamic_objects import DynamicObjects
from xsvggt_ros.trajectory.landmark_map import landmark_map
from xsvggt_ros.trajectory.local_map import WindowProblem
from xsvggt_ros.trajectory.projection import motion
from xsvggt_ros.trajectory.tracker import Tracker
from xsvggt_ros.world.synthetic_world import SPLITS, SyntheticWorld

RESIZE = Resize.plan(240, 320, 112, 14)
RATE = 5.0


class Log:
    def __init__(self):
        self.warnings = []

    def warning(self, text):
        self.warnings.append(text)


@pytest.fixture(scope='module')
def seen():
    world = SyntheticWorld(SPLITS['test'][1], 320, 240)
    return world, [world.frame(index / RATE) for index in range(12)]


def result_of(frame, index, network=None):
    """Return what a network says that knows depth, and a pose if it is given one."""
    depth = torch.from_numpy(cv2.resize(frame.depth, (112, 84), interpolation=cv2.INTER_NEAREST))
    intrinsics = (RESIZE.model_from_source() @ torch.from_numpy(
        frame.intrinsics.matrix())).float()
    pose = torch.eye(4) if network is None else torch.linalg.inv(torch.from_numpy(network)).float()
    points = transform_points(torch.linalg.inv(pose), unproject_depth(depth, intrinsics))
    return FrameResult(index, torch.zeros(84, 112, 3, dtype=torch.uint8), torch.zeros(9), pose,
                       intrinsics, intrinsics, depth, torch.ones(84, 112), points,
                       torch.ones(84, 112), 0.0)


def trajectory(mode='optimized', correction='auto'):
    return StreamTrajectory(TrajectorySettings(mode), DepthSettings(correction), Log())


def follow(tracker, frames, start=0):
    found = []
    for index, one in enumerate(frames):
        result, tracked = tracker.track(one.image, None, result_of(one, index), RESIZE,
                                        start + round(index * 1e9 / RATE))
        found.append((tracker.complete(result), tracked))
        if tracker._window is not None:
            tracker._window.wait()   # how soon it is done must not matter here
    return found


@pytest.mark.parametrize('mode', ['tracked', 'optimized'])
def test_poses_follow_the_camera_and_points_follow_the_poses(seen, mode):
    world, frames = seen
    tracker = trajectory(mode, 'off')
    found = follow(tracker, frames)
    tracker.close()
    truth = [np.linalg.inv(frames[0].world_from_camera) @ one.world_from_camera for one in frames]
    for (result, tracked), true in zip(found, truth):
        pose = torch.linalg.inv(result.camera_from_world.double()).numpy()
        assert np.linalg.norm(pose[:3, 3] - true[:3, 3]) < 0.06
        local = transform_points(result.camera_from_world, result.points)
        expected = unproject_depth(result.depth, result.intrinsics)
        # The focal length is estimated; points are the network's own.
        assert (local - expected).abs().median() < 0.04
    assert [tracked.source for _, tracked in found] == ['first'] + ['tracks'] * 11
    # The velocity is that of the step, in the camera's axes.
    linear, angular = world.velocity(10.5 / RATE)
    tracked = found[-1][1]
    np.testing.assert_allclose(tracked.velocity[3:], linear, atol=0.08)
    np.testing.assert_allclose(tracked.velocity[:3], angular, atol=0.05)
    assert found[0][1].velocity is None


def test_a_pose_comes_before_the_depth_that_goes_with_it(seen):
    tracker = trajectory()
    follow(tracker, seen[1][:-1])
    given = result_of(seen[1][-1], 11)
    given = replace(given, depth=given.depth * 1.3)   # in another unit than the landmarks
    located, _ = tracker.track(seen[1][-1].image, None, given, RESIZE, round(11e9 / RATE))
    assert not torch.equal(located.camera_from_world, given.camera_from_world)
    assert torch.equal(located.depth, given.depth)
    complete = tracker.complete(located)
    tracker.close()
    assert torch.equal(complete.camera_from_world, located.camera_from_world)
    ratio = complete.depth.median() / result_of(seen[1][-1], 11).depth.median()
    assert ratio == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize('completed', [True, False])
def test_an_image_becomes_a_keyframe_when_its_pose_is_out(seen, monkeypatch, completed):
    looked, corners = [], Tracker.corners
    monkeypatch.setattr(Tracker, 'corners', lambda *given: (
        looked.append(len(looked)), corners(*given))[1])
    tracker, before, found = trajectory('tracked'), trajectory('tracked'), []
    expected = follow(before, seen[1])
    before.close()
    looked.clear()
    for index, one in enumerate(seen[1]):
        tracker.begin(one.image, None)
        count = len(looked)
        located, _ = tracker.track(one.image, None, result_of(one, index), RESIZE,
                                   round(index * 1e9 / RATE))
        assert index == 0 or len(looked) == count
        if completed:   # else the next image sees to it: this one was rejected
            tracker.complete(located)
        found.append(located)
    tracker.close()
    assert len(looked) > 2
    for one, (other, _) in zip(found, expected):
        assert torch.equal(one.camera_from_world, other.camera_from_world)


def test_a_new_stream_begins_at_its_own_origin_with_its_own_window(seen):
    _, frames = seen
    tracker = trajectory()
    follow(tracker, frames)
    tracker.forget()
    result, tracked = follow(tracker, frames[5:6], start=10 ** 12)[0]
    tracker.close()
    assert tracked.source == 'first'
    np.testing.assert_allclose(result.camera_from_world, np.eye(4), atol=1e-6)


def test_stamps_that_stand_or_leap_tell_no_velocity(seen):
    _, frames = seen
    tracker = trajectory('tracked')
    stamps = [0, 0, 10 ** 11, 10 ** 11 + 10 ** 8]
    found = [tracker.track(frames[0].image, None, result_of(frames[0], index), RESIZE, stamp)[1]
             for index, stamp in enumerate(stamps)]
    assert [one.velocity is None for one in found] == [True, True, True, False]
    assert np.abs(found[-1].velocity).max() < 0.05


def test_a_window_that_fails_is_a_warning_and_poses_go_on(seen, monkeypatch):
    def failing(problem):
        raise ValueError('not today')

    monkeypatch.setattr(WindowProblem, 'solve', failing)
    log = Log()
    tracker = StreamTrajectory(TrajectorySettings('optimized'), DepthSettings('auto'), log)
    found = follow(tracker, seen[1])
    tracker.close()
    assert 'not today' in log.warnings[0] and found[-1][1].source == 'tracks'


def test_what_is_begun_beside_the_network_gives_the_same_poses(seen, monkeypatch):
    threads = []
    begin = CameraTracker.begin
    monkeypatch.setattr(CameraTracker, 'begin', lambda *args: threads.append(
        threading.current_thread().name) or begin(*args))
    found = []
    for ahead in (False, True):
        tracker = trajectory('tracked')
        for index, one in enumerate(seen[1]):
            if ahead:
                tracker.begin(one.image, None)
            result, tracked = tracker.track(one.image, None, result_of(one, index), RESIZE,
                                            round(index * 1e9 / RATE))
            found.append((tracker.complete(result), tracked))
        tracker.close()
    for (plain, _), (begun, _) in zip(found[:12], found[12:]):
        assert torch.equal(plain.camera_from_world, begun.camera_from_world)
        assert torch.equal(plain.depth, begun.depth)
    # The first image has nothing to be followed from.
    assert threads == ['xsvggt_tracker_0'] * 11


@pytest.mark.parametrize('ahead', [False, True])
def test_an_image_that_cannot_be_kept_does_not_fail_the_next(seen, monkeypatch, ahead):
    """An error has come between its pose and what `complete` does."""
    log, failed = Log(), []
    tracker = StreamTrajectory(TrajectorySettings('tracked'), DepthSettings('auto'), log)
    expected = follow(trajectory('tracked'), seen[1])
    update = DynamicObjects.update

    def fail_once(*given):
        if not failed:
            failed.append(1)
            raise MemoryError('full')
        update(*given)

    for index, (one, (there, _)) in enumerate(zip(seen[1], expected)):
        if index == 4:
            monkeypatch.setattr(DynamicObjects, 'update', fail_once)
        if ahead:
            tracker.begin(one.image, None)
        result, tracked = tracker.track(one.image, None, result_of(one, index), RESIZE,
                                        round(index * 1e9 / RATE))
        assert bool(failed) == (index >= 4)
        if index != 3:
            result = tracker.complete(result)
        assert (result.camera_from_world - there.camera_from_world).abs().max() < 0.03
        assert tracked.source == ('tracks' if index else 'first')
    tracker.close()
    warning, = log.warnings
    assert 'MemoryError: full' in warning


@pytest.fixture(scope='module')
def close_by():
    world = SyntheticWorld(SPLITS['test'][1], 320, 240)
    return [world.frame(index / 25) for index in range(12)]


@pytest.mark.parametrize('mode', ['tracked', 'optimized'])
def test_a_pose_that_needs_no_network_is_told_beside_it(close_by, mode):
    tracker, told, threads = trajectory(mode), [], set()
    plain = follow(trajectory(mode), close_by)

    def early(camera_from_world, tracked):
        threads.add(threading.current_thread().name)
        told.append((camera_from_world, tracked))

    number = 0
    for index, (one, (expected, _)) in enumerate(zip(close_by, plain)):
        told.clear()
        stamp = round(index * 1e9 / RATE)
        tracker.begin(one.image, None, stamp, 'camera', early)
        result, tracked = tracker.track(one.image, None, result_of(one, index), RESIZE, stamp)
        if told:
            (pose, same), = told
            assert same is tracked and tracked.source == 'tracks'
            assert np.array_equal(pose, result.camera_from_world.double().numpy())
            number += 1
        result = tracker.complete(result)
        if tracker._window is not None:
            tracker._window.wait()
        assert torch.equal(result.camera_from_world, expected.camera_from_world)
        assert torch.equal(result.depth, expected.depth)
    assert number > 5 and threads == {'xsvggt_tracker_0'}
    # Told, and forgotten before the network had seen it.
    tracker.begin(close_by[-1].image, None, stamp, 'camera', early)
    tracker.forget()
    assert follow(tracker, close_by[:1])[0][1].source == 'first'
    tracker.close()


def test_what_is_done_beside_the_network_can_be_waited_for(close_by):
    tracker, told, go = trajectory('tracked'), [], threading.Event()
    follow(tracker, close_by[:3])
    tracker.settle()   # nothing was begun
    tracker.begin(close_by[3].image, None, 10 ** 9, 'camera',
                  lambda *given: (go.wait(60), told.append(given)))
    threading.Timer(0.05, go.set).start()
    tracker.settle()
    assert len(told) == 1
    result, tracked = tracker.track(close_by[3].image, None, result_of(close_by[3], 3), RESIZE,
                                    10 ** 9)
    assert tracked is told[0][1]
    tracker.close()


def test_what_fails_while_a_pose_is_told_fails_where_it_is_waited_for(close_by):
    def early(camera_from_world, tracked):
        raise RuntimeError('nobody listens')

    tracker, failed = trajectory('tracked'), 0
    for index, one in enumerate(close_by):
        tracker.begin(one.image, None, index, 'camera', early)
        try:
            tracker.complete(tracker.track(
                one.image, None, result_of(one, index), RESIZE, index)[0])
        except RuntimeError as error:
            assert 'nobody listens' in str(error)
            failed += 1
    found = follow(tracker, close_by[-1:], 10 ** 9)[0][1]
    assert failed > 5 and found.source == 'tracks' and found.inliers > 50
    tracker.close()


def test_an_image_that_cannot_be_followed_fails_where_it_is_waited_for(seen):
    frames = seen[1]
    tracker = trajectory('tracked')
    follow(tracker, frames[:1])
    tracker.begin(np.zeros((0, 0, 3), np.uint8), None)
    with pytest.raises(Exception, match='.'):
        tracker.track(np.zeros((0, 0, 3), np.uint8), None, result_of(frames[1], 1), RESIZE, 1)
    tracker.begin(np.zeros((0, 0, 3), np.uint8), None)
    tracker.begin(frames[1].image, None)      # the one before was given up
    found = tracker.track(frames[1].image, None, result_of(frames[1], 1), RESIZE, 2 * 10 ** 8)[1]
    assert found.source == 'tracks'
    tracker.begin(frames[2].image, None)
    tracker.forget()
    assert follow(tracker, frames[2:3])[0][1].source == 'first'
    tracker.close()


def test_a_loop_moves_the_map_and_the_unit_and_never_the_odometry(seen, monkeypatch):
    similarity = motion(np.array([0, 0.3, 0, 1.0, 0, 0]))
    similarity[:3, :3] *= 1.2
    similarities = np.stack([np.eye(4), np.eye(4), similarity])

    def closing(closer, snapshot, search):
        if snapshot.keyframe.id == 2:
            closer.corrections = Corrections(np.arange(3), similarities)

    monkeypatch.setattr('xsvggt_ros.trajectory.loop_closer.LoopCloser.add', closing)
    tracker, found = trajectory(correction='off'), []
    for index, one in enumerate(seen[1]):
        result, tracked = tracker.track(one.image, None, result_of(one, index), RESIZE,
                                        round(index * 1e9 / RATE))
        found.append((tracker.complete(result), tracked))
        if tracker._loops is not None:
            tracker._loops.wait()
    maps = [tracked.loops.map_frame for _, tracked in found]
    changed = [index for index in range(1, 12) if maps[index] is not maps[index - 1]]
    assert len(changed) == 1 and np.array_equal(maps[0].map_from_odom, np.eye(4))
    poses = np.array([torch.linalg.inv(result.camera_from_world.double()).numpy()
                      for result, _ in found])
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    assert steps.max() < 3 * np.median(steps)          # no jump
    frame, at = maps[-1], changed[0]
    moved = frame.map_from_odom @ poses[at]
    assert np.linalg.norm(moved[:3, 3] - poses[at][:3, 3]) > 0.5
    assert np.allclose(moved[:3, :3] @ moved[:3, :3].T, np.eye(3), atol=1e-6)
    # What is seen is as much larger as the steps are.
    ratio = found[-1][0].depth.median() / result_of(seen[1][-1], 11).depth.median()
    assert ratio == pytest.approx(1.2, abs=1e-3)
    tracker.forget()
    assert tracker._loops is None and tracker._map.corrections is not frame.corrections
    tracker.close()


def saved_and_later(metric=False):
    """Return a saved map of a room, and the frames of a stream that begins in it later."""
    world = SyntheticWorld(SPLITS['test'][1], 320, 240)
    frames = [world.frame(index / RATE) for index in range(22)]
    tracker = trajectory()
    found = []
    for index, one in enumerate(frames[:16]):
        found.append(followed_to_the_end(tracker, one, index))
    loops = found[-1][1].loops
    tracker.close()
    # The map has twice the unit of the stream, and a frame of its own.
    kept = loops.kept
    return frames, landmark_map(kept, MAP_FROM_WORLD, 2.0, metric)


MAP_FROM_WORLD = motion(np.array([0, 0, 0.7, 10.0, 0, -3.0]))


def followed_to_the_end(tracker, frame, index, metres=None):
    """Return what becomes of a frame when all threads are done with the one before."""
    result, tracked = tracker.track(frame.image, None, result_of(frame, index), RESIZE,
                                    round(index * 1e9 / RATE), metres)
    found = tracker.complete(result), tracked
    for thread in (tracker._window, tracker._loops):
        if thread is not None:
            thread.wait()
    return found


class Told(Log):
    def __init__(self):
        super().__init__()
        self.infos = []

    def info(self, text):
        self.infos.append(text)


@pytest.fixture(scope='module')
def saved():
    return saved_and_later()


def placed(frames, start=3, metres=None, landmarks=None):
    """Follow a stream that is looked for in a map; return the tracker and what it found."""
    log = Told()
    tracker = StreamTrajectory(TrajectorySettings('optimized'), DepthSettings('auto'), log,
                               landmarks)
    return tracker, [followed_to_the_end(tracker, one, index, metres)
                     for index, one in enumerate(frames[start:])], log


@pytest.mark.slow
@pytest.mark.parametrize('metres', [None, 2.0])
def test_a_stream_is_where_it_is_in_the_saved_map(saved, metres):
    frames, landmarks = saved
    start = 3
    tracker, found, log = placed(frames, start, metres, landmarks)
    factor = metres or 1.0
    truth = [np.linalg.inv(frames[0].world_from_camera) @ one.world_from_camera
             for one in frames[start:]]
    states = [tracked.scaled(factor).loops for _, tracked in found]
    assert states[0].map_frame.is_localized is False and states[0].localization.since_ns is None
    begins = next(index for index, one in enumerate(states) if one.map_frame.is_localized)
    assert states[-1].localization.since_ns == round(begins * 1e9 / RATE)
    assert states[-1].localization.confirmations >= 4 and len(log.infos) == 1
    poses = np.array([torch.linalg.inv(result.camera_from_world.double()).numpy()
                      for result, _ in found])
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    larger = 1.0 if metres else 2.0    # of the unit, once the stream is localised
    assert steps[begins + 1:].max() < 3 * larger * np.median(steps[:begins])   # no jump
    for index in range(begins, len(found)):
        pose = poses[index].copy()
        pose[:3, 3] *= factor
        there = states[index].map_frame.metric_map_from_odom @ pose
        true = truth[index].copy()
        true[:3, 3] *= 2.0             # as the map has it
        true = MAP_FROM_WORLD @ true
        # Patches from 13 to 24 pixels wide end at .15 to .23: which is best here is chance.
        assert np.linalg.norm(there[:3, 3] - true[:3, 3]) < 0.25
        assert np.allclose(there[:3, :3], true[:3, :3], atol=0.06)
    ratio = found[-1][0].depth.median() / result_of(frames[-1], 0).depth.median()
    assert ratio == pytest.approx(larger, rel=0.1)
    # Keyframes are in the saved map's frame, too, and the next stream begins anew.
    keyframes = states[-1].keyframes[:, :3, 3] * factor
    expected = np.array([(MAP_FROM_WORLD @ one)[:3, 3] for one in (
        np.block([[one[:3, :3], 2.0 * one[:3, 3:]], [np.zeros((1, 3)), np.ones((1, 1))]])
        for one in truth)])
    assert np.linalg.norm(keyframes[:, None] - expected, axis=2).min(1).max() < 0.25
    tracker.forget()
    again = followed_to_the_end(tracker, frames[start], 0)[1].loops
    assert again.map_frame.is_localized is False and again.localization.confirmations == 0
    tracker.close()


@pytest.mark.slow
def test_while_metres_are_not_known_nothing_is_placed(saved):
    frames, landmarks = saved
    tracker, found, _ = placed(frames[:14], 3, float('nan'), landmarks)
    tracker.close()
    assert found[-1][1].loops.map_frame.is_localized is False


def test_loops_that_fail_are_a_warning_and_poses_go_on(seen, monkeypatch):
    def failing(closer, snapshot, search):
        raise ValueError('not this one')

    monkeypatch.setattr('xsvggt_ros.trajectory.loop_closer.LoopCloser.add', failing)
    log = Log()
    tracker = StreamTrajectory(TrajectorySettings('optimized'), DepthSettings('auto'), log)
    found = follow(tracker, seen[1])
    tracker._loops.wait()
    tracker.close()
    assert 'not this one' in log.warnings[0] and found[-1][1].source == 'tracks'


def test_tracking_alone_looks_for_no_loops(seen):
    tracker = trajectory('tracked')
    assert all(tracked.loops is None for _, tracked in follow(tracker, seen[1][:4]))


def test_metres_scale_lengths_alone():
    covariance = np.eye(6)
    pose = TrackedPose('tracks', 100, 0.3, covariance, np.ones(6), covariance)
    metric = pose.scaled(2.0)
    np.testing.assert_allclose(metric.velocity, [1, 1, 1, 2, 2, 2])
    np.testing.assert_allclose(np.diag(metric.covariance), [1, 1, 1, 4, 4, 4])
    np.testing.assert_allclose(np.diag(metric.velocity_covariance), [1, 1, 1, 4, 4, 4])


def test_covariance_is_in_the_axes_of_odom_and_twist_in_those_of_the_body():
    # Optical axes on a body: its z is the body's x.
    body_from_optical = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    odom_from_body = motion(np.array([0, 0, np.pi / 2, 5.0, 6.0, 7.0]))   # body's x is odom's y
    covariance = np.diag([1e-4, 2e-4, 3e-4, 0.1, 0.2, 0.9])   # unsure ahead
    velocity = np.array([0.1, 0, 0, 0, 0, 2.0])               # ahead, nodding
    tracked = TrackedPose('tracks', 50, 0.2, covariance, velocity, covariance)
    message = Odometry()
    fill_motion(message, tracked, body_from_optical, odom_from_body)
    pose = np.reshape(message.pose.covariance, (6, 6))
    np.testing.assert_allclose(np.diag(pose), [0.1, 0.9, 0.2, 1e-4, 3e-4, 2e-4], atol=1e-12)
    assert (message.twist.twist.linear.x, message.twist.twist.angular.y) == (2.0, -0.1)
    twist = np.reshape(message.twist.covariance, (6, 6))
    np.testing.assert_allclose(np.diag(twist), [0.9, 0.1, 0.2, 3e-4, 1e-4, 2e-4], atol=1e-12)


def test_a_camera_beside_the_body_moves_when_that_turns():
    beside = np.eye(4)
    beside[1, 3] = 1.0    # a metre to the left of the body
    # The body turns about its z: the camera goes backwards.
    tracked = TrackedPose('tracks', 50, 0.2, np.eye(6), np.array([0, 0, 1.0, -1.0, 0, 0]),
                          np.eye(6))
    message = Odometry()
    fill_motion(message, tracked, beside, np.eye(4))
    np.testing.assert_allclose(
        [message.twist.twist.linear.x, message.twist.twist.angular.z], [0.0, 1.0], atol=1e-12)
