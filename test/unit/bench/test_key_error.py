"""`xsvggt bench keys`: what is measured is what the cache has made of a network's own keys."""

import json

import pytest
import torch

from xsvggt_ros.bench.key_error import CacheProbe
from xsvggt_ros.cli.bench import main as bench
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout


def make_cache(quantization, **settings):
    layout = CacheLayout(2, 2, 32, tokens_per_step=9, special_tokens=1)
    return build_cache(layout, CacheConfig(**settings), 30, torch.float32, 'cpu', quantization)


@pytest.mark.parametrize('policy', ['xstream', 'frame_coverage'])
def test_errors_are_those_of_all_that_is_remembered(policy):
    cache = make_cache('int4', policy=policy)
    probe = CacheProbe(cache)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        query, key, value = torch.randn(3, 2, 2, 9, 32, generator=generator)
        for layer in range(2):
            cache.attend(layer, query[layer], key[layer], value[layer])
        cache.end_step()
        before = probe.errors()
        assert all(0.03 < error < 0.1 for error in (*before.keys, *before.values))
    # Somebody writes over a layer's keys: that layer's error tells.
    cache.store._slotted['key_scale'][1] *= 2
    after = probe.errors()
    assert after.keys[0] == before.keys[0] and after.keys[1] > 0.9
    assert after.values == before.values


def test_floats_have_no_error_to_measure():
    with pytest.raises(ToolError, match='floats'):
        CacheProbe(make_cache('none'))


def test_the_error_of_a_trained_network_stays_as_it_is(tmp_path, capsys):
    file = tmp_path / 'keys.json'
    assert bench(['keys', '--frames', '14', '--tokens', '300', '--every', '7',
                  '--json', str(file)]) == 0
    found = json.loads(file.read_text())
    assert found['frames'] == [1, 7, 10, 14] and found['scheme'] == 'token'
    for name in ('key_error', 'value_error'):
        means = [entry['mean'] for entry in found[name]]
        assert max(means) < 0.065
        assert max(entry['worst'] for entry in found[name]) < 0.1
        assert means[-1] < 1.1 * means[2]
    assert max(found['bits']) < 5.1
    assert 'worst layer' in capsys.readouterr().out
