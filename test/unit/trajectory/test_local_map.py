"""What the local map keeps, and what it lets go."""

import numpy as np
import pytest
from scenes import CAMERA

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.projection import motion, project, to_camera
from xsvggt_ros.trajectory.tracker import Tracks

CONFIG = TrajectoryConfig()


def pose_at(number):
    return motion(np.array([0, 0, 0, 0.05 * number, 0, 0.0]))


def add(local_map, number, rng, tracked, new=40):
    """Add a keyframe that sees the landmarks `tracked` where they are, and new ones."""
    seen = np.empty((0, 2))
    if len(tracked):
        seen = project(to_camera(local_map.points(tracked)[0], pose_at(number)), CAMERA)
    local_map.add_keyframe(number, pose_at(number), Tracks(tracked, seen.astype(np.float32)))
    pixels = rng.uniform(20, 220, (new, 2))
    ids = local_map.add_landmarks(number, pixels, rng.uniform(1, 4, new), np.full(new, 0.15))
    return np.concatenate([tracked, ids])


def walk(keyframes, focal_known=True, keep=60):
    rng = np.random.default_rng(0)
    local_map = LocalMap(CAMERA, CONFIG, focal_known, 1.0)
    tracked, sizes = np.empty(0, np.int64), []
    for number in range(keyframes):
        tracked = add(local_map, number, rng, tracked[-keep:])
        local_map.prune(tracked)
        sizes.append((len(local_map), local_map.observations, len(local_map.keyframes)))
    return local_map, tracked, sizes


@pytest.mark.slow
def test_a_long_way_takes_no_more_than_a_short_one():
    _, _, sizes = walk(1500)
    assert np.max(sizes, axis=0).tolist() == np.max(sizes[:60], axis=0).tolist()


def test_a_landmark_that_is_tracked_for_ever_keeps_its_anchor():
    rng = np.random.default_rng(1)
    local_map = LocalMap(CAMERA, CONFIG, True, 1.0)
    first = add(local_map, 0, rng, np.empty(0, np.int64), new=5)
    before = local_map.points(first)[0]
    for number in range(1, 200):
        add(local_map, number, rng, first, new=10)
        local_map.prune(first)
    assert 0 in local_map.keyframes and len(local_map.keyframes) <= 2 * CONFIG.window + 1
    np.testing.assert_allclose(local_map.points(first)[0], before)


def test_numbers_are_never_used_again_and_unknown_ones_are_unknown():
    local_map, tracked, _ = walk(60)
    assert local_map.known(tracked).all()
    assert not local_map.known(np.array([0, 1, 10 ** 9])).any()
    empty = LocalMap(CAMERA, CONFIG, True, 1.0)
    assert not empty.known(np.array([0])).any()


def test_an_exact_map_is_left_as_it_is():
    local_map, tracked, _ = walk(25)
    poses, points = local_map.poses.copy(), local_map.points(tracked)[0]
    asked = local_map.window_problem()
    assert len(asked.problem.free) == CONFIG.window
    local_map.apply(asked, asked.solve())
    np.testing.assert_allclose(local_map.poses, poses, atol=1e-5)
    np.testing.assert_allclose(local_map.points(tracked)[0], points, atol=1e-3)


def test_one_keyframe_is_nothing_to_adjust():
    assert walk(1)[0].window_problem() is None


def test_a_solution_for_what_is_gone_is_taken_over_as_far_as_it_is_left():
    rng = np.random.default_rng(2)
    local_map, tracked, _ = walk(25)
    asked = local_map.window_problem()
    solution = asked.solve()
    for number in range(25, 60):   # all of the window's keyframes are pruned meanwhile
        tracked = add(local_map, number, rng, tracked[-60:])
        local_map.prune(tracked)
    local_map.apply(asked, solution)
    assert np.isfinite(local_map.poses).all()
    np.testing.assert_allclose(local_map.pose(59), pose_at(59), atol=1e-4)


def test_a_landmark_that_disagrees_is_given_up():
    rng = np.random.default_rng(3)
    local_map, tracked, _ = walk(12)
    seen = project(to_camera(local_map.points(tracked)[0], pose_at(12)), CAMERA)
    seen[0] += 60
    local_map.add_keyframe(12, pose_at(12), Tracks(tracked, seen.astype(np.float32)))
    asked = local_map.window_problem()
    local_map.apply(asked, asked.solve())
    assert not local_map.known(tracked[:1]).any() and local_map.known(tracked[1:]).all()
    assert rng is not None


def test_a_known_focal_length_is_certain_and_another_one_gets_surer():
    assert walk(21)[0].window_problem().problem.focal is None
    local_map, _, _ = walk(21, focal_known=False)
    asked = local_map.window_problem()
    assert asked.problem.focal.sigma == CONFIG.focal_sigma
    local_map.apply(asked, asked.solve())
    assert local_map.window_problem().problem.focal.sigma < CONFIG.focal_sigma


def test_keyframes_that_only_turn_are_not_adjusted():
    local_map, tracked, _ = walk(12)
    assert local_map.window_problem() is not None
    place = local_map.pose(11)
    for number in range(12, 23):   # in place, to the left and the right
        pose = place @ motion(np.array([0, 0.01 * (number % 2), 0, 0, 0, 0.0]))
        pixels = project(to_camera(local_map.points(tracked)[0], pose), CAMERA)
        local_map.add_keyframe(number, pose, Tracks(tracked, pixels.astype(np.float32)))
    assert local_map.window_problem() is None
