"""Metric scale from a noisy odometry, on the ways of the synthetic world."""

import numpy as np
import pytest

from xsvggt_ros.geometry import metrics
from xsvggt_ros.mapping.scale import MAX_UNCERTAINTY, METRES, MIN_OBSERVATIONS, WINDOW
from xsvggt_ros.mapping.trajectory_scale import TrajectoryScale
from xsvggt_ros.world.path import draw_path
from xsvggt_ros.world.scene import choose_room_size
from xsvggt_ros.world.synthetic_world import SPLITS

TRUE_SCALE = 2.7   # metres in the network's unit


def path_of(seed):
    """Return the path of a synthetic world, without its textures, which take a second."""
    rng = np.random.default_rng(seed)
    return draw_path(rng, choose_room_size(rng), speed=0.6)


@pytest.fixture(scope='module', params=range(4))
def way(request):
    """Return 60 true positions of a camera in a room, 4 a second, in metres."""
    path = path_of(SPLITS['test'][request.param])
    return np.array([path.world_from_camera(index / 4)[:3, 3] for index in range(60)])


def turned(points, angle=0.7):
    """Return points seen from another world."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]).T + (4, 5, 6)


def scale_of(positions, metric):
    estimator = TrajectoryScale()
    for position, odometry in zip(positions, metric):
        estimator.add(position, odometry)
    return estimator.scale()


@pytest.mark.slow
def test_without_noise_it_is_exact(way):
    found = scale_of(turned(way / TRUE_SCALE), way)
    assert found.metres == pytest.approx(TRUE_SCALE, rel=1e-9)
    assert found.uncertainty < 1e-6


@pytest.mark.slow
def test_outliers_cost_nothing_and_what_is_left_is_the_odometrys_own_drift(way):
    ratios, errors = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        steps = np.diff(way, axis=0, prepend=way[:1])
        steps = steps * (1 + rng.normal(0, 0.05, (60, 1)))     # 5 % of each step, adding up
        odometry = way[0] + np.cumsum(steps, axis=0)
        clean = metrics.align(turned(way / TRUE_SCALE), odometry).scale
        wrong = rng.choice(60, 6, replace=False)               # 10 % of the positions are anywhere
        odometry[wrong] += rng.normal(0, 2.0, (6, 3))
        found = scale_of(turned(way / TRUE_SCALE), odometry).metres
        ratios.append(found / clean)
        errors.append(np.log(found / TRUE_SCALE))
    np.testing.assert_allclose(ratios, 1, atol=0.01)
    assert np.sqrt(np.mean(np.square(errors))) < 0.02


@pytest.mark.parametrize('seed', range(3))
def test_noise_of_the_network_leaves_it_unbiased(way, seed):
    rng = np.random.default_rng(seed)
    spread = np.sqrt(((way - way.mean(axis=0)) ** 2).sum(axis=1).mean())
    logs = []
    for _ in range(20):
        noisy = (way + rng.normal(0, 0.15 * spread, way.shape)) / TRUE_SCALE
        logs.append(np.log(scale_of(noisy, way).metres / TRUE_SCALE))
    assert abs(np.mean(logs)) < 0.03


def test_it_says_how_sure_it_is(way):
    rng = np.random.default_rng(0)
    errors, claims = [], []
    for _ in range(40):
        found = scale_of((way + rng.normal(0, 0.05, way.shape)) / TRUE_SCALE, way)
        errors.append(np.log(found.metres / TRUE_SCALE))
        claims.append(found.uncertainty)
    assert 0.5 < np.std(errors) / np.mean(claims) < 2


def test_a_camera_that_stands_still_has_no_scale():
    rng = np.random.default_rng(0)
    assert TrajectoryScale().scale() is None
    still = rng.normal(0, 0.01, (50, 3))
    assert scale_of(still, rng.normal(0, 0.01, (50, 3))) is None
    way = np.linspace(0, 1, MIN_OBSERVATIONS - 1)[:, None] * [5.0, 0, 0]
    assert scale_of(way, way) is None


@pytest.mark.slow
def test_it_holds_still_until_it_must_change(way):
    rng = np.random.default_rng(1)
    estimator, seen = TrajectoryScale(), []
    for lap in range(3):
        for position, odometry in zip(turned(way / TRUE_SCALE), way):
            estimator.add(position + rng.normal(0, 0.002, 3), odometry)
            if estimator.scale() is not None:
                seen.append(estimator.scale().metres)
    assert len(set(seen)) < 12 and seen[-1] == pytest.approx(TRUE_SCALE, rel=0.02)
    for position, odometry in list(zip(way / 2, way)) * 2:   # the unit of the network has changed
        estimator.add(position, odometry)
    assert estimator.scale().metres == pytest.approx(2, rel=0.02)
    estimator.forget()
    assert estimator.scale() is None


def test_what_is_no_number_is_left_out(way):
    bad = way / TRUE_SCALE
    bad[7] = np.nan
    odometry = way.copy()
    odometry[9, 1] = np.inf
    assert scale_of(bad, odometry).metres == pytest.approx(TRUE_SCALE, rel=1e-6)


def long_way():
    """Return a camera's positions at 10 Hz, in metres, for twice the window."""
    path = path_of(SPLITS['test'][0])
    return np.array([path.world_from_camera(index / 10)[:3, 3]
                     for index in range(2 * WINDOW)])


def errors_of(positions, metric, pieces=None):
    """Return how far the scale is off, relative, after each pair from the first one known."""
    estimator, errors = TrajectoryScale(), []
    for index, (position, there) in enumerate(zip(positions, metric)):
        estimator.add(position, there, 0 if pieces is None else pieces[index])
        found = estimator.scale()
        if found is not None:
            errors.append(abs(np.log(found.metres / TRUE_SCALE)))
    return np.array(errors)


@pytest.mark.slow
@pytest.mark.parametrize('told', [True, False])
@pytest.mark.parametrize(('size', 'angle'), [(1.0, 0.0), (10.0, 0.0), (0.0, 2.5), (1000.0, 1.0)])
def test_an_odometry_that_goes_on_elsewhere_does_not_bend_the_scale(size, angle, told):
    """Lost and found again, or set to its origin: told by the sender, or only to be seen."""
    rng = np.random.default_rng(1)
    way = long_way()
    metric = way + rng.normal(0, 0.005, way.shape)
    metric[100:] = turned(metric[100:] + (size, 0, 0), angle)
    positions = (way + rng.normal(0, 0.02, way.shape)) / TRUE_SCALE
    pieces = (np.arange(len(way)) >= 100).astype(int) if told else None
    errors = errors_of(positions, metric, pieces)
    assert len(errors) > WINDOW and errors.max() < 0.08, errors.max()
    assert errors[-1] < 0.02


def test_a_network_that_jumps_does_not_bend_it_either():
    way = long_way()
    positions = way / TRUE_SCALE
    positions[90:] += (3.0, 0.0, 0.0)
    assert errors_of(positions, way).max() < 0.05


def test_an_odometry_that_jumps_at_every_third_image_gives_no_scale_and_says_why():
    estimator = TrajectoryScale()
    for index, position in enumerate(long_way()):
        estimator.add(position / TRUE_SCALE, position, piece=index // 3)
        assert estimator.scale() is None
    assert f'in {WINDOW // 3} pieces' in estimator.refusal


@pytest.mark.parametrize('seed', range(3))
def test_a_way_that_has_nothing_to_do_with_the_cameras_gives_no_scale(seed):
    rng = np.random.default_rng(seed)
    estimator = TrajectoryScale()
    for position, other in zip(long_way(), np.cumsum(rng.normal(0, 0.1, (WINDOW, 3)), axis=0)):
        estimator.add(rng.normal(0, 1, 3), other)
        assert estimator.scale() is None
    assert 'scale.max_uncertainty allows 10 %' in estimator.refusal


@pytest.mark.slow
def test_nothing_less_sure_than_the_bound_is_taken_and_what_is_known_stays(way):
    rng = np.random.default_rng(0)
    estimator = TrajectoryScale()
    for position in way:
        estimator.add((position + rng.normal(0, 0.1, 3)) / TRUE_SCALE, position)
        for bound in (0.02, MAX_UNCERTAINTY):
            found = estimator.scale(bound)
            assert found is None or found.uncertainty <= MAX_UNCERTAINTY
    assert found is not None and estimator.refusal == ''
    assert estimator.scale(1e-3) == found and 'allows 0.1 %' in estimator.refusal


def test_a_camera_that_stops_keeps_its_scale_and_that_is_no_fault(way):
    estimator = TrajectoryScale()
    for position in way:
        estimator.add(position / TRUE_SCALE, position)
    known = estimator.scale()
    for _ in range(WINDOW):
        estimator.add(way[-1] / TRUE_SCALE, way[-1])
    assert estimator.scale() == known and estimator.refusal == ''
    estimator.forget()
    for _ in range(WINDOW):
        estimator.add(way[-1] / TRUE_SCALE, way[-1])
    assert estimator.scale() is None and 'drive on' in estimator.refusal


def test_a_unit_that_no_camera_has_is_refused(way):
    assert scale_of(way / (10 * METRES[1]), way) is None
    assert scale_of(way * 1e9, way) is None
