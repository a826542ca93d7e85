"""Metric scale from depth images and from the baseline of two cameras."""

import numpy as np
import pytest
import torch

from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.mapping.baseline_scale import BaselineScale
from xsvggt_ros.mapping.depth_scale import DEPTHS, DepthScale, MIN_PIXELS
from xsvggt_ros.mapping.scale import MAX_UNCERTAINTY, MIN_OBSERVATIONS
from xsvggt_ros.world.synthetic_world import SPLITS, SyntheticWorld

TRUE_SCALE = 2.7   # metres in the network's unit
RIG = np.array([0.2, 0.01, -0.02])   # the second camera in the first one's frame, metres


@pytest.fixture(scope='module')
def views():
    """Return true depth images of a room, 160x120, metres."""
    world = SyntheticWorld(SPLITS['test'][0], 160, 120, clean=True)
    return [world.frame(index).depth.astype(np.float64) for index in range(8)]


def network_depth(metric, resize):
    """Return what a network without errors predicts for the model image, in its unit."""
    source_from_model = np.linalg.inv(resize.model_from_source().numpy())
    x = source_from_model[0, 0] * np.arange(resize.width) + source_from_model[0, 2]
    y = source_from_model[1, 1] * np.arange(resize.height) + source_from_model[1, 2]
    rows = np.clip(np.rint(y), 0, metric.shape[0] - 1).astype(int)
    columns = np.clip(np.rint(x), 0, metric.shape[1] - 1).astype(int)
    return metric[rows[:, None], columns] / TRUE_SCALE


def add(estimator, predicted, hint, resize):
    depth = torch.from_numpy(predicted.astype(np.float32))
    return estimator.add(depth, torch.ones_like(depth), hint.astype(np.float32), resize)


def spoilt(metric, rng, wrong=0.3):
    """Return a sensor's image: 3 % noise, 20 % holes, and so many values up to twice too long."""
    hint = metric * (1 + rng.normal(0, 0.03, metric.shape))
    outliers = rng.random(metric.shape) < wrong
    hint[outliers] *= rng.uniform(1.1, 2.0, int(outliers.sum()))
    holes = rng.random(metric.shape)
    hint[holes < 0.1] = 0
    hint[(holes > 0.1) & (holes < 0.15)] = np.nan
    hint[holes > 0.95] = np.inf
    return hint


@pytest.mark.parametrize('size', [None, 84, 154])
def test_exact_depth_gives_the_exact_scale(views, size):
    views = [view[:112, :154] for view in views] if size is None else views
    resize = Resize.plan(*views[0].shape, size, 14)
    estimator = DepthScale()
    for view in views:
        assert estimator.scale() is None or len(views) > MIN_OBSERVATIONS
        assert add(estimator, network_depth(view, resize), view, resize) == (
            resize.height * resize.width)
    found = estimator.scale()
    assert found.metres == pytest.approx(TRUE_SCALE, rel=1e-5)
    assert found.uncertainty < 1e-4


@pytest.mark.parametrize('seed', range(5))
def test_noise_holes_and_a_third_of_outliers_cost_less_than_one_percent(views, seed):
    rng = np.random.default_rng(seed)
    resize = Resize.plan(*views[0].shape, 154, 14)
    estimator = DepthScale()
    for view in views:
        predicted = network_depth(view, resize)
        predicted *= 1 + rng.normal(0, 0.08, predicted.shape)   # the network's own error
        add(estimator, predicted, spoilt(view, rng), resize)
    assert estimator.scale().metres == pytest.approx(TRUE_SCALE, rel=0.01)


def test_an_error_of_whole_images_is_in_the_uncertainty(views):
    errors, claims = [], []
    resize = Resize.plan(*views[0].shape, 84, 14)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        estimator = DepthScale()
        for view in views + views:
            add(estimator, network_depth(view, resize) * np.exp(rng.normal(0, 0.05)), view, resize)
        errors.append(np.log(estimator.scale().metres / TRUE_SCALE))
        claims.append(estimator.scale().uncertainty)
    assert 0.5 < np.std(errors) / np.mean(claims) < 2


def test_the_depth_image_may_have_another_resolution_but_not_another_shape(views):
    resize = Resize.plan(*views[0].shape, 84, 14)
    estimator = DepthScale()
    for view in views:
        add(estimator, network_depth(view, resize), view[::2, ::2], resize)
    assert estimator.scale().metres == pytest.approx(TRUE_SCALE, rel=0.01)
    with pytest.raises(ValueError, match='registered'):
        add(estimator, network_depth(views[0], resize), views[0][:, :120], resize)


def test_upright_images_are_cut_where_the_network_cuts_them():
    # Depth grows down the image: cut at the wrong rows, the ratio would be another.
    metric = np.tile(np.exp(np.linspace(0, 2, 200))[:, None], (1, 100))
    resize = Resize.plan(200, 100, 70, 14)
    assert resize.crop_top > 0
    estimator = DepthScale()
    for _ in range(MIN_OBSERVATIONS):
        add(estimator, network_depth(metric, resize), metric, resize)
    assert estimator.scale().metres == pytest.approx(TRUE_SCALE, rel=1e-4)


def test_the_unsure_half_does_not_count(views):
    resize = Resize.plan(*views[0].shape, 84, 14)
    estimator = DepthScale()
    for view in views:
        predicted = network_depth(view, resize)
        confidence = torch.ones(predicted.shape)
        confidence[:, ::2] = 2
        predicted[:, 1::2] *= 3
        estimator.add(torch.from_numpy(predicted.astype(np.float32)), confidence, view, resize)
    assert estimator.scale().metres == pytest.approx(TRUE_SCALE, rel=1e-4)


def test_an_empty_depth_image_tells_nothing(views):
    resize = Resize.plan(*views[0].shape, 84, 14)
    estimator = DepthScale()
    empty = np.zeros_like(views[0])
    for _ in range(10):
        assert add(estimator, network_depth(views[0], resize), empty, resize) < MIN_PIXELS
    assert estimator.scale() is None


def test_depth_holds_still_and_follows_a_new_unit(views):
    rng = np.random.default_rng(0)
    resize = Resize.plan(*views[0].shape, 84, 14)
    estimator, seen = DepthScale(), []
    for unit in (1.0, 1.2):
        for view in 12 * views[:5]:
            predicted = network_depth(view, resize) / unit
            add(estimator, predicted * np.exp(rng.normal(0, 0.01)), view, resize)
            seen.append(estimator.scale())
    scales = {scale.metres for scale in seen if scale}
    assert len(scales) < 10
    assert seen[59].metres == pytest.approx(TRUE_SCALE, rel=0.01)
    assert seen[-1].metres == pytest.approx(1.2 * TRUE_SCALE, rel=0.01)
    estimator.forget()
    assert estimator.scale() is None


NOISES = {
    'uniform': lambda rng, shape: rng.uniform(0.1, 10, shape),
    'normal': lambda rng, shape: abs(rng.normal(2, 1, shape)),
    '16 bits': lambda rng, shape: 1e-3 * rng.integers(0, 65536, shape),
    'log-normal': lambda rng, shape: np.exp(rng.normal(0.5, 0.3, shape))}


@pytest.mark.parametrize('kind', NOISES)
def test_noise_is_never_taken_for_depth(views, kind):
    rng = np.random.default_rng(0)
    resize = Resize.plan(*views[0].shape, 84, 14)
    estimator = DepthScale()
    for view in 6 * views:
        predicted = network_depth(view, resize) * np.exp(rng.normal(0, 0.1))
        add(estimator, predicted, NOISES[kind](rng, view.shape), resize)
        assert estimator.scale() is None
    assert 'registered' in estimator.refusal or 'max_uncertainty' in estimator.refusal


def test_a_flat_wall_may_give_a_scale_but_not_with_depths_of_all_kinds(views):
    rng = np.random.default_rng(0)
    resize = Resize.plan(*views[0].shape, 84, 14)
    wall = np.full(views[0].shape, 2.0)
    for spread, known in ((0.05, True), (0.6, False)):
        estimator = DepthScale()
        for _ in range(20):
            hint = wall * np.exp(rng.normal(0, spread, wall.shape))
            add(estimator, network_depth(wall, resize), hint, resize)
        found = estimator.scale()
        assert (found is not None) == known
        assert found is None or found.uncertainty < MAX_UNCERTAINTY
    assert 'scale.max_uncertainty allows 10 %' in estimator.refusal


@pytest.mark.parametrize('absurd', [1e38, -1e38, -3.0, 0.0, np.nan, np.inf, 1e-30,
                                    2 * DEPTHS[1], 0.5 * DEPTHS[0]])
def test_depths_that_no_sensor_measures_are_none(views, absurd):
    resize = Resize.plan(*views[0].shape, 84, 14)
    estimator = DepthScale()
    for view in views:
        hint = view.copy()
        hint[:, ::2] = hint[1::3] = absurd
        assert 0 < add(estimator, network_depth(view, resize), hint, resize) < hint.size
        assert not add(estimator, network_depth(view, resize), np.full_like(view, absurd), resize)
    assert estimator.scale().metres == pytest.approx(TRUE_SCALE, rel=1e-4)


def baseline_of(predicted, known=RIG):
    estimator = BaselineScale()
    for position in predicted:
        estimator.add(np.atleast_2d(position), np.atleast_2d(known))
    return estimator


def test_an_exact_baseline_gives_the_exact_scale():
    estimator = baseline_of([RIG / TRUE_SCALE] * MIN_OBSERVATIONS)
    assert estimator.scale().metres == pytest.approx(TRUE_SCALE, rel=1e-9)
    assert estimator.refusal == ''
    two = np.stack([RIG, -RIG])   # three cameras
    estimator = baseline_of([two / TRUE_SCALE] * MIN_OBSERVATIONS, two)
    assert estimator.scale().metres == pytest.approx(TRUE_SCALE, rel=1e-9)


def test_a_noisy_baseline_is_unbiased_though_its_length_is_not():
    logs, lengths = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        predicted = (RIG + rng.normal(0, 0.1, (120, 3))) / TRUE_SCALE   # half the baseline
        wrong = rng.choice(120, 12, replace=False)
        predicted[wrong] += rng.normal(0, 2, (12, 3))
        logs.append(np.log(baseline_of(predicted).scale().metres / TRUE_SCALE))
        lengths.append(np.median(np.linalg.norm(predicted, axis=1)) * TRUE_SCALE)
    assert abs(np.mean(logs)) < 0.03 and np.std(logs) < 0.1
    assert np.mean(lengths) > 1.15 * np.linalg.norm(RIG)


def test_the_baseline_says_how_sure_it_is():
    errors, claims = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = baseline_of((RIG + rng.normal(0, 0.02, (60, 3))) / TRUE_SCALE).scale()
        errors.append(np.log(found.metres / TRUE_SCALE))
        claims.append(found.uncertainty)
    assert 0.5 < np.std(errors) / np.mean(claims) < 2


def test_a_baseline_that_is_not_seen_or_seen_elsewhere_is_refused():
    rng = np.random.default_rng(0)
    assert BaselineScale().scale() is None
    unsure = baseline_of(rng.normal(0, 0.25, (30, 3)))
    assert unsure.scale() is None and 'well enough' in unsure.refusal
    swapped = baseline_of([-RIG] * 10)
    assert swapped.scale() is None and swapped.refusal
    turned = baseline_of([(0.2, 0.2, 0)] * 10)
    assert turned.scale() is None and '42 degrees' in turned.refusal and 'TF' in turned.refusal
    bad = baseline_of([(np.nan, 0, 0)] * 10)
    assert bad.scale() is None and str(MIN_OBSERVATIONS) in bad.refusal
