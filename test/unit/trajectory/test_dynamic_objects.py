"""What moves by itself is found, followed, kept out of the landmarks, and set free again."""

import cv2
import numpy as np
import pytest
from scenes import CAMERA, way

from xsvggt_ros.evaluation.hard_streams import HardSource, STREAMS
from xsvggt_ros.geometry import metrics
from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.dynamic_objects import DynamicObjects
from xsvggt_ros.trajectory.frame import Frame
from xsvggt_ros.trajectory.frame_tracker import PoseMeasurement
from xsvggt_ros.trajectory.history import History
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.odometry import Odometry
from xsvggt_ros.trajectory.projection import project, to_camera
from xsvggt_ros.trajectory.tracker import grey_of, Tracks
from xsvggt_ros.world.synthetic_world import SPLITS

SIZE = (320, 240)
DEPTH = 2.0


def texture(seed, size=SIZE):
    noise = np.random.default_rng(seed).uniform(0, 255, (size[1] // 6, size[0] // 6))
    return cv2.resize(noise.astype(np.uint8), size, interpolation=cv2.INTER_CUBIC)


def depths(pixels):
    return np.full(len(pixels), DEPTH)


def grid(left, right):
    x, y = np.meshgrid(np.arange(left, right, 16.0), np.arange(40, 200, 16.0))
    return np.stack([x.ravel(), y.ravel()], -1).astype(np.float32)


def objects(**config):
    return DynamicObjects(TrajectoryConfig(**config), 1.0)


def map_with(pixels):
    local_map = LocalMap(CAMERA, TrajectoryConfig(), True, 1.0)
    local_map.add_keyframe(0, np.eye(4), Tracks.none())
    ids = local_map.add_landmarks(0, pixels, depths(pixels), np.full(len(pixels), 0.15))
    return local_map, ids


def fix_of(ids, pixels, moved, shift, source='tracks', pose=None):
    """Return a fix in which the landmarks `moved` are seen `shift` away from where they were."""
    pixels = pixels.copy()
    pixels[moved] += np.asarray(shift, np.float32)
    tracks = Tracks(ids, pixels)
    return PoseMeasurement(np.eye(4) if pose is None else pose, tracks.chosen(~moved), source, 0.3,
                           np.eye(6), tracks.chosen(moved))


def test_what_disagrees_together_moves_and_its_landmarks_are_given_up():
    pixels = grid(30, 290)
    local_map, ids = map_with(pixels)
    moved = pixels[:, 0] > 200
    found = objects()
    found.update(texture(0), fix_of(ids, pixels, moved, (9, 0)), local_map, depths)
    assert len(found) == moved.sum() and found.many is bool(moved.sum() > 0.15 * 350)
    np.testing.assert_array_equal(local_map.known(ids), ~moved)


@pytest.mark.parametrize('how', ['each its own way', 'few', 'by matching'])
def test_outliers_that_are_no_thing_are_none(how):
    pixels = grid(30, 290)
    local_map, ids = map_with(pixels)
    moved = pixels[:, 0] > (270 if how == 'few' else 200)
    shift = (9, 0)
    if how == 'each its own way':
        shift = np.random.default_rng(0).uniform(-60, 60, (moved.sum(), 2))
    source = 'matches' if how == 'by matching' else 'tracks'
    found = objects()
    found.update(texture(0), fix_of(ids, pixels, moved, shift, source), local_map, depths)
    assert len(found) == 0 and local_map.known(ids).all()


def test_they_are_followed_while_they_move_and_free_when_they_stand_still():
    image = texture(1)
    found = objects(dynamic_frames=4)
    found.track(image, np.eye(4), CAMERA, depths)
    found.add(grid(100, 220), np.eye(4), CAMERA, depths)
    count = len(found)
    for step in range(1, 9):
        found.track(np.roll(image, 5 * step, axis=1), np.eye(4), CAMERA, depths)
    assert len(found) > 0.8 * count
    np.testing.assert_allclose(np.median(found.pixels[:, 0] % 16), (100 + 40) % 16, atol=0.5)
    for _ in range(4):
        assert len(found) > 0
        found.track(np.roll(image, 40, axis=1), np.eye(4), CAMERA, depths)
    assert len(found) == 0


def test_what_a_moving_camera_sees_at_a_wrong_depth_is_not_taken_for_moving():
    found = objects(dynamic_frames=3)
    pixels = grid(100, 220)
    found.track(texture(1), np.eye(4), CAMERA, depths)
    found.add(pixels, np.eye(4), CAMERA, depths)
    pose = way(3, np.random.default_rng(0), step=0.2)[2]
    true = np.c_[(pixels - CAMERA[:2, 2]) / CAMERA[[0, 1], [0, 1]], np.ones(len(pixels))] * 2.6
    seen = project(to_camera(true, pose), CAMERA)   # a third farther than was thought
    assert np.linalg.norm(seen - pixels, axis=1).min() > 8
    assert found._agree(seen, pose, CAMERA).all()
    assert not found._agree(seen + (0, 8), pose, CAMERA).any()


def test_corners_on_what_moves_are_no_landmarks_and_do_not_spread():
    found = objects()
    image = texture(2)
    found.track(image, np.eye(4), CAMERA, depths)
    found.add(grid(200, 300), np.eye(4), CAMERA, depths)
    corners = np.array([[248, 100], [60, 100], [190, 100]], np.float32)
    kept = found.static_corners(corners, grid(30, 180), np.eye(4), CAMERA, depths)
    assert kept.tolist() == [[60, 100]] or kept.tolist() == [[60, 100], [190, 100]]
    # Corners beside those that were only beside: nothing has seen them move.
    alone = objects()
    alone.track(image, np.eye(4), CAMERA, depths)
    alone.add(grid(200, 300), np.eye(4), CAMERA, depths, still=3)
    assert len(alone.static_corners(corners, np.empty((0, 2)), np.eye(4), CAMERA, depths)) == 3


def test_their_number_is_bounded_and_depth_that_is_none_makes_none():
    found = objects(corners=20)
    found.track(texture(3), np.eye(4), CAMERA, depths)
    for _ in range(5):
        found.add(grid(30, 290), np.eye(4), CAMERA, depths)
    assert len(found) == 40
    other = objects()
    other.add(grid(30, 290), np.eye(4), CAMERA, lambda pixels: np.full(len(pixels), np.nan))
    assert len(other) == 0
    found.track(np.zeros((40, 50), np.uint8), np.eye(4), CAMERA, depths)   # another size
    assert len(found) == 0


@pytest.mark.slow
def test_a_camera_is_followed_though_a_third_of_its_image_moves():
    source = HardSource(SPLITS['test'][3], STREAMS['a third of the image moves'])
    truth = [source.frame(index) for index in range(16)]
    odometry = Odometry(truth[0].intrinsics, truth[0].depth.shape[::-1], True)
    history = History(odometry.config)
    for index, one in enumerate(truth):
        depth = np.where(one.depth > 0, one.depth, 1.5).astype(np.float32)
        frame = Frame(grey_of(one.image), depth, np.ones_like(depth), np.eye(4), np.eye(3))
        history.add(odometry.step(frame), odometry)
        assert np.isfinite(odometry.depth_factors(frame)).all()
    history.finish(odometry)
    final, poses = history.final(), np.array([one.world_from_camera for one in truth])
    assert metrics.position_errors(final[:, :3, 3], poses[:, :3, 3])[1] < 0.2
    assert metrics.rotation_error(final[:, :3, :3], poses[:, :3, :3]) < 3.0
