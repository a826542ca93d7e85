"""The map beside the odometry frame: what moves when a loop is closed, and what does not."""

import numpy as np

from xsvggt_ros.geometry.similarity import apply_to_pose
from xsvggt_ros.trajectory.corrections import Corrections
from xsvggt_ros.trajectory.map_frame import MapFrame, Placements
from xsvggt_ros.trajectory.projection import inverse, motion


def closed(metres=1.0):
    """Return the maps before and after a loop, keyframes' poses, and the corrections."""
    poses = np.array([motion(np.array([0, 0.1 * k, 0, 0.5 * k, 0, 0])) for k in range(4)])
    odom_from_world = motion(np.array([0.01, 0, 0, 0.1, 0, 0]))   # drifted apart a little
    similarities = np.array([motion(np.array([0, 0.02 * k, 0, 0.05 * k, 0, 0]))
                             for k in range(4)])
    similarities[:, :3, :3] *= (1 + 0.1 * np.arange(4))[:, None, None]
    corrections = Corrections(np.arange(4), similarities)
    odom = odom_from_world @ poses
    placements = Placements()
    for number, pose in enumerate(odom):
        placements.add(number, pose, 1.0)
    before = MapFrame(Corrections.none(), inverse(odom_from_world), metres, placed=Corrections(
        np.zeros(1, int), inverse(odom_from_world)[None]))
    map_from_odom = apply_to_pose(similarities[3], poses[3]) @ inverse(odom[3])
    nodes = Corrections(np.arange(4), similarities @ poses)
    after = MapFrame(corrections, map_from_odom, metres,
                     placed=placements.in_map(nodes, map_from_odom))
    return before, after, odom, poses, similarities


def test_the_newest_camera_stays_in_odometry_and_older_ones_move_there():
    before, after, odom, poses, similarities = closed()
    moved = apply_to_pose(after.moves(before, np.arange(4)), odom)
    assert np.allclose(moved[3], odom[3])
    # In the map each is where its correction puts it.
    assert np.allclose(after.map_from_odom @ moved, apply_to_pose(similarities, poses))
    assert np.linalg.norm(moved[0, :3, 3] - odom[0, :3, 3]) > 0.05
    assert np.allclose(after.odom_from_map(apply_to_pose(similarities, poses)), moved)


def test_in_metres_lengths_are_multiplied_and_nothing_else():
    before, after, odom, *_ = closed()
    metric_before, metric_after = before.scaled(2.5), after.scaled(2.5)
    moves = after.moves(before, np.arange(4))
    metric = metric_after.moves(metric_before, np.arange(4))
    assert np.allclose(metric[:, :3, :3], moves[:, :3, :3])
    assert np.allclose(metric[:, :3, 3], 2.5 * moves[:, :3, 3])
    assert np.allclose(metric_after.metric_map_from_odom[:3, 3], 2.5 * after.map_from_odom[:3, 3])


def test_what_the_window_has_moved_goes_where_it_is_by_now():
    """The odometry has drifted since the keyframes were put into it, each by another amount."""
    before, _, _, poses, similarities = closed()
    drift = np.array([motion(np.array([0, 0.05 * k, 0.01, 0.1 * k, 0, 0])) for k in range(6)])
    odom = drift[:4] @ poses
    placements = Placements()
    for number, pose in enumerate(odom):
        placements.add(number, pose, 1.0 + 0.1 * number)   # clouds grew as the unit did
    nodes = Corrections(np.array([0, 1, 3]), (similarities @ poses)[[0, 1, 3]])   # 2 is thinned
    now = motion(np.array([0.1, 0, 0, 0.5, 0, 0]))
    one = MapFrame(before.corrections, now, placed=placements.in_map(nodes, now))
    start = MapFrame(Corrections.none(), np.eye(4))
    moves = one.moves(start, np.array([0, 1, 2, 3, 4, 5]))
    for number in (0, 1, 3):
        seen = odom[number] @ np.diag([*(1.0 + 0.1 * number,) * 3, 1.0]) @ (0.3, 0.2, 2.0, 1.0)
        there = now @ moves[number] @ seen
        assert np.allclose(there, nodes.similarities[min(number, 2)] @ (0.3, 0.2, 2.0, 1.0))
    assert np.allclose(moves[2], moves[1])     # what is gone goes with the one before
    # The fourth has not been taken up yet: it goes with the newest camera, which stays.
    assert np.allclose(moves[4], np.eye(4))
    later = motion(np.array([0.1, 0.02, 0, 0.6, 0, 0]))
    next_one = MapFrame(before.corrections, later, placed=placements.in_map(nodes, later))
    again = next_one.moves(one, np.array([0, 5, 6]))
    assert np.allclose(later @ again[0] @ moves[0] @ odom[0], now @ moves[0] @ odom[0])
    assert np.allclose(again[1:], np.eye(4))
    assert set(placements._put) == {0, 1, 3}


def test_what_a_keyframe_sees_before_and_after_a_loop_meets_in_the_map():
    pose, step = motion(np.array([0, 0.2, 0, 0.5, 0, 0])), motion(np.array([0, 0.1, 0, 0.2, 0, 0]))
    point = np.array([0.3, 0.2, 2.0, 1.0])    # in the keyframe's camera, in the trajectory's unit
    placements = Placements()
    placements.add(0, np.eye(4), 1.0)
    placements.add(1, pose, 1.0)
    first = placements.newest
    # A loop that makes the unit larger is closed when the camera has gone on by a step.
    placements.add(1, pose @ step, 1.5, step)
    seen = {first: pose @ point,
            placements.newest: pose @ step @ np.diag([1.5, 1.5, 1.5, 1]) @ inverse(step) @ point}
    assert len(seen) == 2
    node = motion(np.array([0.1, 0.2, 0, 0.6, 0, 0])) @ np.diag([1.4, 1.4, 1.4, 1])
    now = motion(np.array([0.1, 0, 0, 0.5, 0, 0]))
    placed = placements.in_map(Corrections(np.arange(2), np.stack([np.eye(4), node])), now)
    for number, at in seen.items():
        assert np.allclose(placed.at(number) @ at, node @ point)
    placements.add(1, pose @ step, 1.4, step)    # what comes now is where that map says
    assert np.allclose(placed.at(placements.newest), now)


def test_a_keyframe_that_is_put_ever_again_takes_bounded_memory():
    placements = Placements()
    for _ in range(100):
        placements.add(0, np.eye(4), 1.0, np.eye(4))
    placed = placements.in_map(Corrections.none(), np.eye(4)).keyframes
    assert placements.newest == 99 and placed[0] == 0 and placed[-2:].tolist() == [99, 100]
    assert len(placed) < 20


def test_without_loops_nothing_moves():
    none = MapFrame.none()
    assert np.array_equal(none.moves(MapFrame.none(), np.arange(3)), np.tile(np.eye(4), (3, 1, 1)))
