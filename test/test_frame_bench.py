"""`xsvggt bench`: what it writes, and what a frame may cost whatever the machine."""

import json

import pytest

from xsvggt_ros.tools.cli import main


def run(tmp_path, *arguments):
    file = tmp_path / 'bench.json'
    assert not main(['bench', '--device', 'cpu', '--threads', '1', '--json', str(file),
                     *arguments])
    return json.loads(file.read_text())


@pytest.mark.parametrize('quantization', ['none', 'int4'])
def test_the_file_says_what_is_promised(tmp_path, quantization):
    result = run(tmp_path, '--size', 'small', '--image', '56x42', '--frames', '14',
                 '--quantization', quantization, '--max-tokens', '60')
    assert set(result['latency_ms']) == {'mean', 'p50', 'p95', 'p99'}
    assert result['latency_ms']['p50'] <= result['latency_ms']['p99']
    assert result['latency_first_ms'] > 0 and result['latency_last_ms'] > 0
    assert {'first', 'last'} <= set(result['windows'])
    assert result['peak_bytes'] > 0 and 0 <= result['cache_share'] < 1
    assert result['stages_ms']['aggregator'] > 0 and result['stages_ms']['point_head'] == 0
    assert result['hardware']['torch'] and result['hardware']['device']
    # These do not depend on the machine: the steady state waits for nothing and keeps nothing.
    assert result['syncs_per_frame'] == 0
    assert result['allocator_growth_bytes'] == 0
    assert 0 < result['ops_per_frame'] < 1300


def test_the_point_head_runs_if_it_is_asked_for(tmp_path):
    result = run(tmp_path, '--size', 'small', '--image', '56x42', '--frames', '14', '--points')
    assert result['stages_ms']['point_head'] > 0
