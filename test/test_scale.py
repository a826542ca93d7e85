"""Metric scale from a noisy odometry, on the ways of the synthetic world."""

import numpy as np
import pytest

from xsvggt_ros.engine.scale import FEWEST, TrajectoryScale
from xsvggt_ros.tools import metrics
from xsvggt_ros.tools.synthetic_world import SPLITS, SyntheticWorld

TRUE_SCALE = 2.7   # metres in the network's unit


@pytest.fixture(scope='module', params=range(4))
def way(request):
    """Return 60 true positions of a camera in a room, 4 a second, in metres."""
    world = SyntheticWorld(SPLITS['test'][request.param], 16, 12)
    return np.array([world.path.world_from_camera(index / 4)[:3, 3] for index in range(60)])


def turned(points, angle=0.7):
    """Return points seen from another world."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]).T + (4, 5, 6)


def scale_of(positions, metric):
    estimator = TrajectoryScale()
    for position, odometry in zip(positions, metric):
        estimator.add(position, odometry)
    return estimator.scale()


def test_without_noise_it_is_exact(way):
    found = scale_of(turned(way / TRUE_SCALE), way)
    assert found.metres == pytest.approx(TRUE_SCALE, rel=1e-9)
    assert found.uncertainty < 1e-6


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
    way = np.linspace(0, 1, FEWEST - 1)[:, None] * [5.0, 0, 0]
    assert scale_of(way, way) is None


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
