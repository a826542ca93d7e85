"""The errors of an evaluation, on trajectories, depths and points whose errors are known."""

import numpy as np
import pytest

from xsvggt_ros.geometry import metrics


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def random_rotations(rng, count):
    """Return rotations [count, 3, 3]."""
    turns, _ = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    return turns * np.linalg.det(turns)[:, None, None]


def make_poses(rotations, positions):
    """Return poses [N, 4, 4]."""
    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = rotations, positions
    return poses


def about_z(degrees):
    """Return rotations [N, 3, 3] about z."""
    angle = np.deg2rad(np.asarray(degrees, float))
    turns = np.tile(np.eye(3), (len(angle), 1, 1))
    turns[:, 0, 0] = turns[:, 1, 1] = np.cos(angle)
    turns[:, 1, 0] = np.sin(angle)
    turns[:, 0, 1] = -turns[:, 1, 0]
    return turns


def test_alignment_finds_the_similarity(rng):
    points, turn = rng.normal(size=(40, 3)), random_rotations(rng, 1)[0]
    found = metrics.align(points, 3 * points @ turn.T + (1, 2, 5))
    assert found.scale == pytest.approx(3)
    np.testing.assert_allclose(found.rotation, turn, atol=1e-12)
    np.testing.assert_allclose(found.translation, (1, 2, 5), atol=1e-12)
    np.testing.assert_allclose(found.points(points), 3 * points @ turn.T + (1, 2, 5))


@pytest.mark.parametrize('height', [1e-3, 1e-9, 0.0])
def test_alignment_of_flat_paths_finds_the_similarity(rng, height):
    """A level floor leaves nothing open, though a mirrored world would fit the path as well."""
    for turn in random_rotations(rng, 20):
        points = rng.normal(size=(40, 3)) * (1, 1, height)
        found = metrics.align(points, 3 * points @ turn.T + (1, 2, 5))
        assert found.scale == pytest.approx(3)
        np.testing.assert_allclose(found.rotation, turn, atol=1e-6)


def test_position_errors(rng):
    points, turn = rng.normal(size=(40, 3)), random_rotations(rng, 1)[0]
    moved = 3 * points @ turn.T + 5
    assert metrics.position_errors(moved, points)[1] == pytest.approx(0, abs=1e-9)
    assert metrics.position_errors(points * (1, 1, -1), points)[1] > 0.1   # a mirror is no turn
    # What noise leaves: the part that no similarity explains.
    noisy = points + rng.normal(size=(40, 3)) * 0.1
    ate, ratio = metrics.position_errors(noisy, points)
    assert ratio == pytest.approx(0.1, rel=0.3)
    assert ate == pytest.approx(ratio * metrics.spread(points))
    assert metrics.spread(np.array([[1.0, 0, 0], [-1, 0, 0]])) == 1


def test_who_never_moves_has_ratio_one_and_nobody_can_fool_it_with_less(rng):
    points = rng.normal(size=(60, 3))
    assert metrics.position_errors(np.zeros((60, 3)), points)[1] == pytest.approx(1)
    for _ in range(20):   # noise is never better than half, and never worse than standing still
        assert 0.5 < metrics.position_errors(rng.normal(size=(60, 3)), points)[1] <= 1 + 1e-12
    assert np.isnan(metrics.position_errors(points, np.ones((60, 3)))[1])


def test_rotation_error_is_free_of_the_choice_of_world(rng):
    truth = random_rotations(rng, 30)
    turn = random_rotations(rng, 1)[0]
    assert metrics.rotation_error(turn @ truth, truth) == pytest.approx(0, abs=1e-6)
    # Half of the cameras 4 degrees to the left, half to the right.
    off = about_z(np.where(np.arange(30) % 2, 4.0, -4.0))
    assert metrics.rotation_error(turn @ truth @ off, truth) == pytest.approx(4, abs=0.5)
    # In place of a turn through 90 degrees, no motion: the mean leaves 22.5.
    turning = about_z(np.linspace(0, 90, 91))
    assert metrics.rotation_error(np.tile(np.eye(3), (91, 1, 1)), turning) == pytest.approx(
        22.5, abs=0.5)


def test_relative_errors_see_steps_only(rng):
    steps = np.cumsum(rng.normal(size=(50, 3)), axis=0)
    truth = make_poses(about_z(np.arange(50.0)), steps)
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = random_rotations(rng, 1)[0], (4, 5, 6)
    assert metrics.relative_errors(turn @ truth, truth) == pytest.approx((0, 0), abs=1e-6)
    drifting = make_poses(about_z(np.arange(50) * 1.5), steps)   # half a degree more each step
    assert metrics.relative_errors(drifting, truth)[1] == pytest.approx(0.5, abs=1e-6)


def test_angles_and_centres():
    poses = make_poses(about_z([0, 90]), np.array([[0, 0, 0], [1, 2, 3]]))
    np.testing.assert_allclose(metrics.camera_centres(poses), [[0, 0, 0], [-2, 1, -3]], atol=1e-12)
    np.testing.assert_allclose(
        metrics.angles(poses[:, :3, :3], poses[::-1, :3, :3]), [90, 90])
    tiny = about_z([1e-5])
    assert metrics.angles(np.eye(3), tiny)[0] == pytest.approx(1e-5, rel=1e-6)


def test_depth_errors_take_one_scale_out(rng):
    depth = rng.uniform(1, 9, (3, 4, 5))
    every = np.ones(depth.shape, bool)
    assert metrics.depth_errors(depth / 7, depth, every) == pytest.approx((0, 1, 7))
    one = np.ones((1, 1, 3))
    flat = metrics.depth_errors(one, np.array([[[1.0, 2, 4]]]), one > 0)
    assert flat == pytest.approx((0.5, 1 / 3, 2))
    wrong = depth.copy()
    wrong[:, 0, 0] = 1e6
    valid = every.copy()
    valid[:, 0, 0] = False
    assert metrics.depth_errors(wrong, depth, valid) == pytest.approx((0, 1, 1))
    # One scale for the stream: a frame that is twice too far counts.
    jump = depth.copy()
    jump[0] *= 2
    assert metrics.depth_errors(jump, depth, every)[0] > 0.25
    assert metrics.depth_drift(depth * 2, depth) == pytest.approx(np.log(2))


def test_cloud_errors_are_one_sided():
    line = np.stack([np.linspace(0, 1, 101), np.zeros(101), np.zeros(101)], axis=1)
    half = line[:51]
    assert metrics.cloud_errors(half, line)[0] == pytest.approx(0, abs=1e-3)
    assert metrics.cloud_errors(half, line)[1] == pytest.approx(0.125, abs=0.01)
    raised = line + (0, 0, 0.2)
    assert metrics.cloud_errors(raised, line) == pytest.approx((0.2, 0.2), abs=1e-3)
    many = np.random.default_rng(0).uniform(size=(700, 3))   # more than are compared at once
    brute = np.linalg.norm(many[:, None] - line[None], axis=2).min(axis=1).mean()
    assert metrics.cloud_errors(many, line)[0] == pytest.approx(brute, rel=1e-4)


def test_evo_says_the_same_of_trajectories(rng):
    pytest.importorskip('evo')
    from evo.core import metrics as evo
    from evo.core.trajectory import PosePath3D

    truth = make_poses(random_rotations(rng, 30), np.cumsum(rng.normal(size=(30, 3)), axis=0))
    noise = make_poses(about_z(rng.normal(0, 5, 30)), rng.normal(0, 0.1, (30, 3)))
    world = make_poses(random_rotations(rng, 1), np.array([[1.0, -2.0, 5.0]]))
    estimate = world @ truth @ noise
    estimate[:, :3, 3] *= 0.4
    reference = PosePath3D(poses_se3=list(truth))
    aligned = PosePath3D(poses_se3=list(estimate.copy()))
    aligned.align(reference, correct_scale=True)

    def rmse(metric):
        metric.process_data((reference, aligned))
        return metric.get_statistic(evo.StatisticsType.rmse)

    position = rmse(evo.APE(evo.PoseRelation.translation_part))
    step = rmse(evo.RPE(evo.PoseRelation.translation_part, 1, evo.Unit.frames))
    turn = rmse(evo.RPE(evo.PoseRelation.rotation_angle_deg, 1, evo.Unit.frames))
    assert metrics.position_errors(estimate[:, :3, 3], truth[:, :3, 3])[0] == pytest.approx(
        position, rel=1e-6)
    assert metrics.relative_errors(estimate, truth) == pytest.approx((step, turn), rel=1e-6)
