"""Frames as parts of keyframes that move, of keyframes that are gone, and of loops."""

from types import SimpleNamespace

import numpy as np

from xsvggt_ros.trajectory.corrections import Corrections
from xsvggt_ros.trajectory.history import History
from xsvggt_ros.trajectory.projection import motion

PART = motion(np.array([0.0, 0.2, 0.0, 0.1, 0.0, 0.3]))
TURNED = motion(np.array([0.0, 0.0, 0.5, 5.0, 1.0, 0.0]))


def at(x):
    return motion(np.array([0.0, 0.0, 0.0, x, 0.0, 0.0]))


def odometry(poses, **values):
    """Return what a history sees of an odometry; poses: of keyframes, by their numbers."""
    local_map = SimpleNamespace(keyframes=np.array(list(poses), np.int64),
                                poses=np.array(list(poses.values())).reshape(-1, 4, 4))
    return SimpleNamespace(**dict(map=local_map, closes_loops=False, keyframes=len(poses))
                           | values)


def estimate(keyframe, pose, part=None):
    return SimpleNamespace(source='tracks' if part is not None else 'network', keyframe=keyframe,
                           keyframe_from_camera=np.eye(4) if part is None else part,
                           world_from_camera=pose, is_keyframe=part is None)


def followed():
    history = History()
    history.add(estimate(0, at(0)), odometry({0: at(0)}))
    history.add(estimate(0, PART, PART), odometry({0: at(0)}))
    history.add(estimate(1, at(1)), odometry({0: at(0), 1: at(1)}))
    history.add(estimate(1, at(1) @ PART, PART), odometry({}))   # not asked: it is no keyframe
    return history


def test_frames_go_with_their_keyframes_and_live_poses_stay():
    history = followed()
    history.finish(odometry({0: TURNED, 1: TURNED @ at(2)}))
    np.testing.assert_allclose(history.final(), [TURNED, TURNED @ PART, TURNED @ at(2),
                                                 TURNED @ at(2) @ PART], atol=1e-12)
    np.testing.assert_allclose(history.live, [at(0), PART, at(1), at(1) @ PART], atol=1e-12)
    assert history.sources == ['network', 'tracks'] * 2


def test_keyframes_that_are_gone_stay_where_they_were_last():
    history = followed()
    history.add(estimate(2, at(2)), odometry({0: at(0.5), 2: at(2)}))
    history.finish(odometry({2: TURNED}))
    np.testing.assert_allclose(history.final(), [at(0.5), at(0.5) @ PART, at(1), at(1) @ PART,
                                                 TURNED], atol=1e-12)


def test_loops_move_and_scale_from_when_they_are_known():
    history = followed()
    larger = np.diag([2.0, 2.0, 2.0, 1.0])
    history.loops.corrections = Corrections(np.array([0, 1]), np.array([np.eye(4), larger]))
    history.add(estimate(1, at(1), np.eye(4)), odometry({}))
    np.testing.assert_allclose([pose[0, 3] for pose in history.live[2:]], [1, 1.1, 2], atol=1e-12)
    np.testing.assert_allclose(history.final()[:, 0, 3], [0, 0.1, 2, 2.2, 2], atol=1e-12)
    np.testing.assert_allclose(history.final()[3][:3, :3], PART[:3, :3], atol=1e-12)
    np.testing.assert_allclose(history.scales(), [1, 1, 2, 2, 2])


def recorded(history, heard):
    """Let a history tell what it gives its loops and its localizer."""
    history.loops = SimpleNamespace(
        corrections=Corrections.none(), add=lambda *values: heard.append(('loops', *values)),
        finish=lambda *values: heard.append(('end of loops', *values)))
    history.localizer = SimpleNamespace(
        add=lambda *values: heard.append(('localizer', *values)),
        finish=lambda *values: heard.append(('end of localizer', *values)))


def test_each_keyframe_goes_to_the_loops_and_then_to_the_localizer():
    heard, history = [], History()
    recorded(history, heard)
    one = odometry({0: at(0)}, closes_loops=True, snapshot='new', settled=lambda: 'the newest')
    history.add(estimate(0, at(0)), one)
    history.add(estimate(0, PART, PART), one)
    assert heard == [('loops', 'new'), ('localizer', 'new', history.loops)]
    history.finish(one)
    (name, numbers, poses, settled, iterations), last = heard[2:]
    assert name == 'end of loops' and numbers is one.map.keyframes and poses is one.map.poses
    assert settled == 'the newest' and iterations > 0
    assert last == ('end of localizer', history.loops)


def test_without_loops_or_frames_nothing_is_asked_for():
    heard, history = [], History()
    recorded(history, heard)
    history.finish(odometry({}, closes_loops=True))   # neither snapshot nor settled
    assert history.final().shape == (0, 4, 4)
    assert len(history.scales()) == 0 == len(history.live)
    history.add(estimate(0, at(0)), odometry({0: at(0)}))
    history.finish(odometry({0: at(3)}))
    assert heard == [] and history.final()[0, 0, 3] == 3
    assert History().localizer is None
