"""The odometry on rooms of the synthetic world, and on what cameras do to it."""

from dataclasses import replace
from functools import cache, partial

import cv2
import numpy as np
import pytest

from xsvggt_ros.geometry import metrics
from xsvggt_ros.trajectory.adjustment import solve, solve_beginning
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.fallback import Fallback
from xsvggt_ros.trajectory.frame import Frame
from xsvggt_ros.trajectory.history import History
from xsvggt_ros.trajectory.odometry import Odometry
from xsvggt_ros.trajectory.uncertainty import Drift
from xsvggt_ros.world.synthetic_world import SPLITS, SyntheticWorld

SIZE = (320, 240)
RATE = 5.0


@cache
def room(seed=1):
    """Return a world with its first frames; depth errs by a smooth tenth, as a network's does."""
    world = SyntheticWorld(SPLITS['test'][seed], *SIZE)
    return world, [world.frame(index / RATE) for index in range(24)]


def frame_of(seen, network=None, seed=0, **changes):
    rng = np.random.default_rng(seed)
    wave = cv2.resize(rng.normal(0, 0.1, (4, 5)), SIZE, interpolation=cv2.INTER_CUBIC)
    values = dict(
        grey=cv2.cvtColor(seen.image, cv2.COLOR_RGB2GRAY),
        depth=(seen.depth * np.exp(wave)).astype(np.float32),
        confidence=np.full(seen.depth.shape, 2.0, np.float32),
        world_from_camera=np.eye(4) if network is None else network, depth_from_image=np.eye(3))
    return Frame(**values | changes)


def start(focal_known=True, factor=1.0, **config):
    world, _ = room()
    camera = world.intrinsics.matrix().copy()
    camera[[0, 1], [0, 1]] *= factor
    return Odometry(camera, SIZE, focal_known, TrajectoryConfig(**config))


def follow(odometry, frames):
    history = History()
    estimates = []
    for frame in frames:
        estimates.append(odometry.step(frame))
        history.add(estimates[-1], odometry)
    history.finish(odometry)
    return estimates, history


def errors(poses, truth):
    poses, truth = np.array(poses), np.array(truth)
    return (metrics.position_errors(poses[:, :3, 3], truth[:, :3, 3])[1],
            metrics.rotation_error(poses[:, :3, :3], truth[:, :3, :3]))


def noisy(truth, seed=0, way=0.25, turn=0.08):
    """Return poses that jitter as a network's do."""
    from xsvggt_ros.trajectory.projection import motion
    rng = np.random.default_rng(seed)
    return [np.linalg.inv(truth[0]) @ pose @ motion(np.r_[rng.normal(0, turn, 3),
                                                          rng.normal(0, way, 3)])
            for pose in truth]


@pytest.mark.slow
def test_a_room_is_followed_far_better_than_the_network_does():
    _, seen = room()
    truth = [one.world_from_camera for one in seen]
    network = noisy(truth)
    frames = [frame_of(one, pose, index) for index, (one, pose) in enumerate(zip(seen, network))]
    estimates, history = follow(start(), frames)
    ratio, turn = errors(history.final(), truth)
    alone, _ = errors(network, truth)
    assert ratio < 0.06 < 0.2 * alone and turn < 1.0
    assert errors(history.live, truth)[0] < 0.08
    assert [one.source for one in estimates] == ['first'] + ['tracks'] * 23
    assert all(one.inliers > 50 and one.error < 2 for one in estimates[1:])
    # What is published in the odometry's frame is the same way in steps, and never jumps.
    assert errors([one.odom_from_camera for one in estimates], truth)[0] < 0.08


@pytest.mark.slow
def test_tracking_alone_works_and_the_window_makes_it_better():
    _, seen = room()
    truth = [one.world_from_camera for one in seen]
    frames = [frame_of(one, seed=index) for index, one in enumerate(seen)]
    tracked, _ = errors(follow(start(optimize=False), frames)[1].final(), truth)
    optimized, _ = errors(follow(start(), frames)[1].final(), truth)
    assert optimized < tracked < 0.3


def test_where_tracks_may_be_is_asked_only_when_they_are_lost(monkeypatch):
    asked = []
    network = Fallback.network
    monkeypatch.setattr(Fallback, 'network', lambda self, pose: (
        asked.append(len(sources)), network(self, pose))[1])
    odometry, sources = start(optimize=False), []
    seen = [frame_of(one) for one in room()[1][:6]]
    elsewhere = frame_of(SyntheticWorld(SPLITS['test'][3], *SIZE).frame(0.0))
    for frame in (*seen, elsewhere):
        sources.append(odometry.step(frame).source)
    assert sources[:6] == ['first', *['tracks'] * 5]
    assert asked and set(asked) == {6}


@pytest.mark.slow
def test_a_focal_length_that_is_guessed_wrong_comes_right():
    _, seen = room()
    odometry = start(focal_known=False, factor=1.08)
    true = room()[0].intrinsics.fx
    _, history = follow(odometry, [frame_of(one, seed=i) for i, one in enumerate(seen)])
    assert abs(np.log(odometry.camera[0, 0] / true)) < 0.5 * np.log(1.08)
    assert errors(history.final(), [one.world_from_camera for one in seen])[0] < 0.1


def test_after_darkness_the_place_is_recognised():
    _, seen = room()
    frames = [frame_of(one, seed=i) for i, one in enumerate(seen[:16])]
    black = [replace(frames[8], grey=np.zeros(SIZE[::-1], np.uint8), world_from_camera=pose)
             for pose in noisy([np.eye(4)] * 3, way=5.0)]
    estimates, history = follow(start(), frames[:8] + black + frames[8:])
    held = [one.source for one in estimates[8:11]]
    assert held == ['hold'] * 3
    np.testing.assert_allclose(estimates[10].world_from_camera, estimates[7].world_from_camera,
                               atol=1e-9)
    assert estimates[11].source == 'matches' and estimates[11].is_keyframe
    truth = [one.world_from_camera for one in seen[:8] + [seen[7]] * 3 + seen[8:16]]
    assert errors(history.final(), truth)[0] < 0.08
    assert estimates[9].covariance[3, 3] > 100 * estimates[7].covariance[3, 3]


@pytest.mark.slow
def test_a_jump_to_an_unknown_place_follows_the_network_where_that_is_good():
    _, seen = room()
    truth = [one.world_from_camera for one in seen]
    network = noisy(truth, way=0.002, turn=0.001)
    far = room(seed=3)[1][0]   # another room: nothing is recognised
    frames = [frame_of(one, pose, i) for i, (one, pose) in enumerate(zip(seen, network))]
    jump = network[9].copy()
    jump[:3, 3] += (1.0, 0.0, 0.0)
    estimates, _ = follow(start(), [*frames[:10], frame_of(far, jump, 99)])
    assert estimates[-1].source == 'network' and estimates[-1].is_keyframe
    moved = estimates[-1].world_from_camera[:3, 3] - estimates[9].world_from_camera[:3, 3]
    assert np.linalg.norm(moved) == pytest.approx(1.0, abs=0.3)


def test_a_camera_that_stands_still_stays_where_it_is():
    world, _ = room()
    rng = np.random.default_rng(0)
    one = world.frame(1.0)
    frames = []
    for index in range(40):
        image = np.clip(one.image + rng.normal(0, 2, one.image.shape), 0, 255).astype(np.uint8)
        frames.append(frame_of(replace(one, image=image), noisy([np.eye(4)], index)[0], index))
    odometry = start()
    estimates, history = follow(odometry, frames)
    ways = np.array([one.world_from_camera[:3, 3] for one in estimates])
    assert np.abs(ways).max() < 0.03
    assert odometry.keyframes <= 3


@pytest.mark.parametrize('level', [0, 128, 255])
def test_a_blank_image_gives_poses_all_the_same(level):
    _, seen = room()
    blank = np.full(SIZE[::-1], level, np.uint8)
    estimates, history = follow(start(), [frame_of(seen[0], seed=i, grey=blank)
                                          for i in range(5)])
    assert {one.source for one in estimates[1:]} == {'hold'}
    assert np.isfinite(history.final()).all()
    assert all((np.linalg.eigvalsh(one.covariance) > 0).all() for one in estimates)


@pytest.mark.parametrize('size', [(1, 1), (3, 200), (200, 3), (40, 40)])
def test_images_of_any_size_give_poses(size):
    width, height = size
    camera = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    odometry = Odometry(camera, size, False)
    rng = np.random.default_rng(0)
    for _ in range(4):
        found = odometry.step(Frame(
            rng.integers(0, 255, (height, width), np.uint8), np.ones((5, 6), np.float32),
            np.ones((5, 6), np.float32), np.eye(4), np.diag([5 / width, 4 / height, 1.0])))
        assert np.isfinite(found.world_from_camera).all()


@pytest.mark.parametrize('depth', [np.nan, 0.0, -1.0, np.inf])
def test_depth_that_is_none_makes_no_landmarks_and_no_error(depth):
    _, seen = room()
    nothing = np.full(SIZE[::-1], depth, np.float32)
    odometry = start()
    estimates, history = follow(odometry, [
        frame_of(one, seed=i, depth=nothing, confidence=np.zeros_like(nothing))
        for i, one in enumerate(seen[:4])])
    assert len(odometry.map) == 0 and np.isfinite(history.final()).all()


def test_holes_in_the_depth_are_left_out():
    _, seen = room()
    frames = []
    for index, one in enumerate(seen[:10]):
        frame = frame_of(one, seed=index)
        frame.depth[:, ::3] = np.nan
        frame.depth[::7] = 0
        frame.confidence[:, ::3] = 0
        frames.append(frame)
    _, history = follow(start(), frames)
    assert errors(history.final(), [one.world_from_camera for one in seen[:10]])[0] < 0.15


@pytest.mark.slow
def test_a_window_that_is_solved_late_moves_later_keyframes_along():
    _, seen = room()
    truth = [one.world_from_camera for one in seen]
    odometry, history, waiting = start(), History(), None
    for index, one in enumerate(seen):
        estimate = odometry.step(frame_of(one, seed=index), adjust_now=False)
        history.add(estimate, odometry)
        if waiting is not None and odometry.keyframes >= waiting[1] + 2:   # two keyframes late
            odometry.apply(waiting[0], waiting[0].solve())
            waiting = None
        if estimate.is_keyframe and waiting is None and index:
            problem = odometry.window_problem()
            waiting = None if problem is None else (problem, odometry.keyframes)
    history.finish(odometry)
    assert errors(history.final(), truth)[0] < 0.08


def test_a_pose_is_known_before_its_frame_becomes_a_keyframe(monkeypatch):
    _, seen = room()
    whole, halves, foreseen = start(), start(), []
    foresee = Drift.foresee
    monkeypatch.setattr(Drift, 'foresee', lambda *given, **named: (
        foreseen.append(given[0]), foresee(*given, **named))[1])
    keyframes = taken = 0
    for index, one in enumerate(seen[:8]):
        frame = frame_of(one, seed=index)
        expected = whole.step(frame, adjust_now=False)
        foreseen.clear()
        halves.begin(frame.grey)
        # What the pose adds, too, is found out there, with nothing changed.
        assert len(foreseen) == (index > 0) and halves.keyframes == keyframes
        estimate = halves.locate(frame)
        taken += len(foreseen) == (index > 0)   # another guess may be better
        assert index == 0 or halves.keyframes == keyframes
        halves.complete()
        halves.complete()   # there is nothing more to do
        keyframes += estimate.is_keyframe
        assert halves.keyframes == keyframes == whole.keyframes
        assert len(halves.map) == len(whole.map)
        for name in ('world_from_camera', 'odom_from_camera', 'covariance', 'step_covariance',
                     'keyframe', 'keyframe_from_camera', 'is_keyframe', 'motion'):
            assert np.array_equal(getattr(estimate, name), getattr(expected, name)), name
    assert keyframes > 2 and taken > 5


def close_by():
    """Return frames of a camera that is fast enough to need few keyframes."""
    world, _ = room()
    return [frame_of(world.frame(index / 25), seed=index) for index in range(16)]


def test_a_pose_that_the_image_alone_tells_is_known_before_the_network():
    whole, parts, early = start(), start(), 0
    for index, frame in enumerate(close_by()):
        expected = whole.step(frame, adjust_now=False)
        parts.begin(frame.grey)
        keyframes, landmarks = parts.keyframes, len(parts.map)
        ahead = parts.locate_early(frame.grey, frame.view)
        assert (parts.keyframes, len(parts.map)) == (keyframes, landmarks)
        estimate = parts.locate(frame)
        if ahead is not None:
            assert ahead is estimate and not estimate.is_keyframe
            early += 1
        parts.complete()
        for name in ('world_from_camera', 'odom_from_camera', 'covariance', 'step_covariance',
                     'keyframe', 'keyframe_from_camera', 'is_keyframe', 'motion', 'source'):
            assert np.array_equal(getattr(estimate, name), getattr(expected, name)), name
        assert index or ahead is None
    assert early > 8 and parts.keyframes == whole.keyframes > 1


def test_a_keyframe_that_fails_leaves_the_pose_where_it_was(monkeypatch):
    _, seen = room()
    frames = [frame_of(one, seed=index) for index, one in enumerate(seen[:9])]
    whole, broken, failed = start(), start(), []
    update = broken._dynamic.update

    def fail_once(*given):
        if broken.keyframes == 3 and not failed:
            failed.append(1)
            raise MemoryError
        update(*given)

    monkeypatch.setattr(broken._dynamic, 'update', fail_once)
    for frame in frames:
        expected = whole.locate(frame)
        whole.complete()
        estimate = broken.locate(frame)
        try:
            broken.complete()
        except MemoryError:
            pass
        assert np.abs(estimate.odom_from_camera - expected.odom_from_camera).max() < 0.05
    assert failed
    left = start()   # a frame that nobody completed is completed by the next one
    for frame in frames:
        last = left.locate(frame)
    assert np.abs(last.odom_from_camera - estimate.odom_from_camera).max() < 0.05


def test_a_frame_that_is_looked_at_twice_is_measured_once(monkeypatch):
    """Where another motion fits better than the one that was foreseen, the network decides."""
    odometry, frames = start(), close_by()[:3]
    for frame in frames[:2]:
        odometry.step(frame, adjust_now=False)
    odometry.begin(frames[2].grey)
    asked, track = [], odometry._tracker.track
    monkeypatch.setattr(odometry._tracker, 'track', lambda *given: asked.append(
        replace(track(*given), error=0.4)) or asked[-1])
    assert odometry.locate_early(frames[2].grey, None) is None
    estimate = odometry.locate(frames[2])
    assert estimate.error == 0.4 and len(asked) == 1


def test_a_frame_that_the_network_fails_at_is_left_behind():
    whole, broken, frames = start(), start(), close_by()
    poses, early = [], []
    for index, frame in enumerate(frames):
        expected = whole.step(frame, adjust_now=False)
        broken.begin(frame.grey)
        ahead = broken.locate_early(frame.grey, None)
        if ahead is not None and index % 3 == 0:
            early.append(index)   # no `locate`, no `complete`: the network said nothing
            poses.append(ahead)
        else:
            poses.append(broken.locate(frame))
            broken.complete()
        assert poses[-1].source == expected.source
        assert np.abs(poses[-1].odom_from_camera - expected.odom_from_camera).max() < 0.02
    assert len(early) > 2 and len(poses[-1].covariance) == 6
    other = frame_of(room()[0].frame(2.0))
    broken.begin(frames[-1].grey)
    broken.locate_early(frames[-1].grey, None)
    assert broken.locate(other).inliers   # another image than the one that was begun


@pytest.mark.slow
def test_memory_is_bounded_however_long_the_way():
    world, _ = room()
    odometry, sizes = start(), []
    seen = [world.frame(index / 2.0) for index in range(12)]
    order = [*range(12), *range(10, 0, -1)]
    frames = [frame_of(one, seed=i) for i, one in enumerate(seen)]
    for index in range(120):
        odometry.step(frames[order[index % len(order)]])
        sizes.append((len(odometry.map), odometry.map.observations, len(odometry.map.keyframes)))
    assert odometry.keyframes > 60
    early, late = np.max(sizes[30:75], axis=0), np.max(sizes[75:], axis=0)
    assert (late <= 1.25 * early).all()
    assert late[2] <= 60 and late[0] <= 20 * 350


def test_a_depth_that_is_expected_to_be_off_counts_by_its_error():
    _, views = room()
    shape = views[0].depth.shape
    halves = np.where(np.arange(shape[1]) < shape[1] // 2, 0.0675, 0.2023).astype(np.float32)
    odometry = start()
    odometry.step(frame_of(views[0], depth_error=lambda: np.broadcast_to(halves, shape).copy()))
    sigmas = odometry.map._prior_sigma
    known = np.unique(sigmas.round(2))
    assert known.min() == pytest.approx(0.1) and known.max() == pytest.approx(0.3)
    hopeless = start()
    hopeless.step(frame_of(views[0], depth_error=lambda: np.full(shape, np.inf, np.float32)))
    assert (hopeless.map._prior_sigma == 0.6).all()
    told_nothing = start()
    told_nothing.step(frame_of(views[0]))
    assert (told_nothing.map._prior_sigma == told_nothing.config.depth_sigma).all()


def test_errors_of_the_depth_are_asked_for_at_keyframes_only():
    _, views = room()
    asked, odometry = [], start()

    def error(index):
        asked.append(index)
        return np.full(views[0].depth.shape, 0.1, np.float32)

    found = [odometry.step(frame_of(view, depth_error=partial(error, index)))
             for index, view in enumerate(views[:20])]
    keyframes = [index for index, one in enumerate(found) if one.is_keyframe]
    assert asked == keyframes and 1 < len(keyframes) < 20


@pytest.mark.slow
def test_depths_turned_inside_out_do_not_mislead_for_long(monkeypatch):
    _, views = room()
    truth = [view.world_from_camera for view in views]

    def located():
        frames = []
        for view in views:
            depth = np.median(view.depth) ** 2 / view.depth
            frames.append(frame_of(view, depth=depth.astype(np.float32)))
        _, history = follow(start(), frames)
        return errors(history.final(), truth)

    position, turn = located()
    assert position < 0.15 and turn < 1.0
    monkeypatch.setattr('xsvggt_ros.trajectory.local_map.solve_beginning', solve)
    misled = located()
    assert misled[1] > 2 * turn


@pytest.mark.slow
def test_depths_that_are_about_right_are_not_begun_anew(monkeypatch):
    _, views = room()
    found = []

    def watched(problem):
        found.append(solve_beginning(problem))
        return found[-1]

    monkeypatch.setattr('xsvggt_ros.trajectory.local_map.solve_beginning', watched)
    follow(start(), [frame_of(view) for view in views])
    assert len(found) >= 3 and not any(one.is_anew for one in found)


@pytest.mark.parametrize('many', [False, True])
def test_a_window_that_contradicts_the_depths_is_not_believed_while_much_moves(many, monkeypatch):
    world, seen = room()
    odometry = start()
    problem = None
    for index, one in enumerate(seen[:8]):
        odometry.step(frame_of(one, seed=index), adjust_now=False)
        problem = odometry.window_problem() or problem
    assert problem is not None
    solved = problem.solve()
    # As if what moves had been triangulated: all depths half again as large as the network says.
    wrong = replace(solved, log_inverse_depth=problem.problem.prior - 0.4)
    monkeypatch.setattr(type(odometry._dynamic), 'many', property(lambda self: many))
    before = odometry.map.points(problem.landmarks)[0]
    odometry.apply(problem, wrong)
    assert np.array_equal(odometry.map.points(problem.landmarks)[0], before) is many
    odometry.apply(problem, solved)   # one that agrees with them is
    assert not np.array_equal(odometry.map.points(problem.landmarks)[0], before)
