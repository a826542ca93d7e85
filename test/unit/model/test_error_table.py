"""What confidences mean: a table that is fitted, stored with the weights, and read again."""

import json

import numpy as np
import pytest
import torch

from xsvggt_ros.engine.factory import build_engine, EngineOptions
from xsvggt_ros.model.checkpoint import load_model, save_checkpoint
from xsvggt_ros.model.error_table import calibration, ErrorTable, fit_error_table, KEY
from xsvggt_ros.model.weight_files import CheckpointError


def seen(count=40000, seed=0):
    """Return confidences and errors whose median is 0.3 / confidence."""
    rng = np.random.default_rng(seed)
    confidence = np.exp(rng.uniform(0, 3, count))
    return confidence, 0.3 / confidence * np.abs(rng.laplace(size=count)) / np.log(2)


def errors_of(table, confidence):
    """Return what a table expects of confidences."""
    return table.relative_errors(torch.tensor(np.asarray(confidence))).numpy()


def test_a_fitted_table_tells_the_median_error():
    table = fit_error_table(*seen())
    confidence, error = seen(seed=1)
    for expected, true in calibration(errors_of(table, confidence), error):
        assert true == pytest.approx(expected, rel=0.1)
    assert errors_of(table, [[1e-3, 1e6]]).shape == (1, 2)
    low, high = errors_of(table, [1e6, 1.0])
    between = errors_of(table, np.sqrt(np.multiply(*np.array(table.confidences)[[3, 4]])))
    assert between == pytest.approx(np.sqrt(table.errors[3] * table.errors[4]), rel=1e-4)
    assert low == pytest.approx(table.errors[-1], rel=1e-5)
    assert high == pytest.approx(table.errors[0], rel=1e-5)


def test_the_least_confidence_is_where_the_error_begins_to_be_allowed():
    table = ErrorTable((1.0, 2.0, 4.0, 9.0), (0.4, 0.4, 0.2, 0.05))
    assert table.least_confidence(0.4) == table.least_confidence(3.0) == 0
    assert table.least_confidence(0.049) == np.inf
    for error in (0.39, 0.3, 0.2, 0.11, 0.05):
        least = table.least_confidence(error)
        allowed, refused = errors_of(table, [1.0001 * least, 0.9999 * least])
        assert allowed <= error * 1.00001 and refused > error * 0.99999


def test_a_confidence_that_misleads_gets_one_error():
    rng = np.random.default_rng(0)
    confidence = np.exp(rng.uniform(0, 3, 5000))
    table = fit_error_table(confidence, 0.01 * confidence)    # the surer, the worse
    assert len(table.errors) == 1
    same = fit_error_table(np.ones(100), rng.uniform(0.1, 0.2, 100))
    assert len(same.errors) == 1 and 0.1 < same.errors[0] < 0.2


@pytest.mark.parametrize('values', [
    [], [[1, 0.3], [1, 0.2]], [[1, 0.2], [2, 0.3]], [[1, 0]], [[1, -1]], [[1]], 'no', [[1, '2']],
    [[1, 1e31]], [[True, 1]], [[1, float('nan')]], {}, None])
def test_a_table_of_nonsense_is_refused(values):
    with pytest.raises(ValueError, match='it |confidences'):
        ErrorTable.from_json(values)


def test_it_comes_with_the_weights(tmp_path):
    loaded = load_model('random')
    assert loaded.depth_errors is None
    table = ErrorTable((1.0, 4.0), (0.25, 0.125))
    save_checkpoint(loaded.model, tmp_path / 'a.safetensors', {KEY: table.to_json()})
    assert load_model(str(tmp_path / 'a.safetensors')).depth_errors == table
    save_checkpoint(loaded.model, tmp_path / 'b.safetensors', {KEY: '[[1, 0]]'})
    with pytest.raises(CheckpointError, match='table of depth errors cannot be used: it needs'):
        load_model(str(tmp_path / 'b.safetensors'))
    save_checkpoint(loaded.model, tmp_path / 'c.safetensors', {KEY: '[['})
    with pytest.raises(CheckpointError, match='table of depth errors'):
        load_model(str(tmp_path / 'c.safetensors'))


def test_confidences_that_hardly_differ_stay_apart_when_they_are_stored():
    table = ErrorTable((1.0, 1.0000012, 1.002), (0.3, 0.2, 0.1))
    assert ErrorTable.from_json(json.loads(table.to_json())) == table


def test_what_an_engine_says_has_the_errors_of_its_checkpoint(tmp_path):
    path = tmp_path / 'knows.safetensors'
    table = ErrorTable((1.0, 2.0), (0.3, 0.1))
    save_checkpoint(load_model('random', size='small').model, path, {KEY: table.to_json()})
    image = np.zeros((84, 112, 3), np.uint8)
    results = [build_engine(load_model(name), EngineOptions(threads=1), 'cpu').step(image)
               for name in (str(path), 'random')]
    errors = results[0].depth_error()
    assert torch.equal(errors, table.relative_errors(results[0].depth_confidence))
    assert 0.1 <= results[0].typical_error() <= 0.3
    assert results[1].depth_error() is None
