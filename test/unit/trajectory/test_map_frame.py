"""The map beside the odometry frame: what moves when a loop is closed, and what does not."""

import numpy as np

from xsvggt_ros.geometry.similarity import apply_to_pose
from xsvggt_ros.trajectory.corrections import Corrections
from xsvggt_ros.trajectory.map_frame import MapFrame
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
    before = MapFrame(Corrections.none(), inverse(odom_from_world), metres)
    after = MapFrame(corrections, apply_to_pose(similarities[3], poses[3]) @ inverse(odom[3]),
                     metres)
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


def test_without_loops_nothing_moves():
    none = MapFrame.none()
    assert np.array_equal(none.moves(MapFrame.none(), np.arange(3)), np.tile(np.eye(4), (3, 1, 1)))
