"""What a keyframe keeps of its image, depth and landmarks, and that a snapshot stays as it is."""

import numpy as np
import pytest
from scenes import CAMERA
from test_tracker import picture

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.keyframe import coarse_depth_at, coarse_points, GRID, KeyframeBuilder
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.matching import Features
from xsvggt_ros.trajectory.projection import motion, project
from xsvggt_ros.trajectory.tracker import Tracks

POSE = motion(np.array([0.2, -0.5, 0.1, 3.0, -1.0, 2.0]))
PIXELS = np.float32([[40, 50], [160, 120], [250, 200], [90, 30]])
DEPTHS = np.array([1.0, 2.0, 3.0, 4.0])


def built(image=None, depth=None, depth_from_image=None, pose=POSE, camera=CAMERA):
    """Return a builder, its map and the snapshot of a keyframe with four landmarks."""
    image = picture() if image is None else image
    depth = np.ones((24, 32), np.float32) if depth is None else depth
    if depth_from_image is None:
        depth_from_image = np.diag([0.1, 0.1, 1.0])
    local_map, builder = LocalMap(camera, TrajectoryConfig(), True, 1.0), KeyframeBuilder(5)
    local_map.add_keyframe(3, pose, Tracks.none())
    ids = local_map.add_landmarks(3, PIXELS, DEPTHS, np.full(4, 0.1))
    features = Features(-1, PIXELS, np.zeros((4, 32), np.uint8), ids)
    return builder, local_map, builder.snapshot(image, depth, depth_from_image, features,
                                                local_map, True)


def test_landmarks_are_in_the_frame_of_a_keyframe_that_has_gone_far():
    _, local_map, snapshot = built()
    keyframe = snapshot.keyframe
    assert keyframe.id == 3 == keyframe.features.keyframe and keyframe.guessed
    assert keyframe.size == (320, 240) and snapshot.settled == ()
    np.testing.assert_allclose(keyframe.points[:, 2], DEPTHS)
    np.testing.assert_allclose(project(keyframe.points, CAMERA), PIXELS, atol=1e-4)
    np.testing.assert_allclose(keyframe.variance, 0.01)
    assert np.array_equal(snapshot.poses, POSE[None])


def test_settling_tells_what_has_become_of_landmarks_and_camera_and_a_snapshot_stays():
    builder, local_map, snapshot = built()
    before = snapshot.keyframe.points.copy()
    local_map.give_up(np.array([1]))
    local_map.add_keyframe(4, np.eye(4), Tracks.none())
    local_map.poses = np.stack([np.eye(4), POSE])
    local_map.camera = 2 * CAMERA
    settled, = builder.settle(local_map)
    assert np.isnan(settled.points[1]).all() and np.isnan(settled.variance[1])
    np.testing.assert_allclose(settled.points[[0, 2, 3]], before[[0, 2, 3]])
    assert np.array_equal(settled.camera, 2 * CAMERA)
    assert np.array_equal(snapshot.keyframe.points, before)
    assert np.array_equal(snapshot.keyframe.camera, CAMERA)
    assert snapshot.ids.tolist() == [3] and np.array_equal(snapshot.poses, POSE[None])
    assert len(builder.settle(local_map)) == 1   # it is asked again at the end


def test_a_thumbnail_is_of_mean_0_and_length_1_whatever_the_light():
    image = picture()
    bright = built(image)[2].keyframe.thumbnail
    dark = built(image // 2 + 100)[2].keyframe.thumbnail
    assert bright.shape == GRID[::-1] and bright.dtype == np.float32
    assert abs(bright.mean()) < 1e-6 and np.linalg.norm(bright) == pytest.approx(1, abs=1e-5)
    assert (bright * dark).sum() > 0.99   # grey levels are whole numbers
    assert abs((bright * built(picture(seed=1))[2].keyframe.thumbnail).sum()) < 0.5


def test_coarse_depth_is_where_the_depth_map_has_it():
    # A map of twice the image's size, moved by a margin, whose depth grows to the right.
    depth_from_image = np.array([[2.0, 0, 10.0], [0, 2.0, 20.0], [0, 0, 1]])
    columns = np.arange(660, dtype=np.float32)
    depth = np.broadcast_to(1 + (columns - 10) / 200, (520, 660)).copy()   # 1 + x / 100
    keyframe = built(depth=depth, depth_from_image=depth_from_image)[2].keyframe
    centres = 16 * np.arange(20) + 7.5
    np.testing.assert_allclose(keyframe.depth, np.tile(1 + centres / 100, (15, 1)), rtol=1e-5)
    pixels = np.array([[100.0, 10.0], [200.0, 230.0], [8.0, 8.0]])
    np.testing.assert_allclose(coarse_depth_at(keyframe, pixels), 1 + pixels[:, 0] / 100,
                               rtol=1e-5)
    points = coarse_points(keyframe)
    np.testing.assert_allclose(points[:, 2], 1 + project(points, CAMERA)[:, 0] / 100, rtol=1e-5)


@pytest.mark.parametrize('nothing', [np.nan, np.inf])
def test_depth_that_is_unknown_is_left_out(nothing):
    depth = np.full((24, 32), 2.0, np.float32)
    depth[:, 16:] = nothing
    keyframe = built(depth=depth)[2].keyframe
    points = coarse_points(keyframe)
    assert 0 < len(points) < 300 and np.isfinite(points).all()
    assert project(points, CAMERA)[:, 0].max() < 160
    found = coarse_depth_at(keyframe, np.array([[30.0, 100.0], [280.0, 100.0]]))
    assert found[0] == 2 and np.isnan(found[1])
    assert coarse_points(built(depth=np.full((24, 32), nothing))[2].keyframe).shape == (0, 3)
