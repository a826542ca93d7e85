"""`xsvggt bench cache`: equal bytes, drift against the full cache, and what it costs."""

from itertools import count
import json
from types import SimpleNamespace

import numpy as np
from PIL import Image
import pytest
import torch

from xsvggt_ros.bench.bench_report import COLUMNS
from xsvggt_ros.bench.cache_bench import CacheBench, CacheSetting, Stream
from xsvggt_ros.bench.cache_timing import CacheTimer, Clock
from xsvggt_ros.cli.main import main
from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kernels.packing import SCHEMES
from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout, QUANTIZATIONS
from xsvggt_ros.kv_cache.retention import POLICIES
from xsvggt_ros.model.checkpoint import load_model, save_checkpoint
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.streamvggt import StreamVGGT

TOP_KEYS = ['command', 'version', 'torch', 'device', 'threads', 'model', 'image', 'frames',
            'byte_budget', 'rows']
ROW_KEYS = ['policy', 'quantization', 'scheme', 'tokens', 'bytes', 'bytes_used', 'depth_drift',
            'pose_drift', 'rotation_drift_deg', 'attention_kept', 'frames_kept', 'depth_abs_rel',
            'ate_ratio', 'ms_frame', 'ms_quantise', 'ms_attend', 'ms_score', 'ms_evict']
FRAME = 17  # tokens at 56x42: 12 patches and 5 more
WHOLE_FRAMES = {'frame_coverage'}  # policies that leave a part of a frame's bytes unused


def bench(*arguments, frames=8):
    """Run the command on a tiny image; return its exit code."""
    return main(['bench', 'cache', '--frames', str(frames), '--image-size', '56',
                 '--checkpoint', 'random', *arguments])


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    """Return what the JSON file of all policies and precisions holds."""
    file = tmp_path_factory.mktemp('bench') / 'new' / 'table.json'
    assert bench('--json', str(file)) == 0
    return json.loads(file.read_text())


def bounded(table):
    return [row for row in table['rows'] if POLICIES[row['policy']].bounded]


@pytest.mark.slow
def test_json_has_a_row_for_each_policy_and_precision(table):
    assert list(table) == TOP_KEYS
    assert (table['image'], table['frames']) == ('56x42', 8)
    assert '/' not in table['command'] and 'RANDOM' in table['model']
    assert [(row['policy'], row['quantization']) for row in table['rows']] == [
        (policy, quantization) for policy in POLICIES for quantization in QUANTIZATIONS]
    for row in table['rows']:
        assert list(row) == ROW_KEYS
        assert (row['scheme'] is None) == (row['quantization'] == 'none')
        assert row['depth_abs_rel'] is row['ate_ratio'] is None  # random weights
        assert 0 < row['attention_kept'] <= 1
        assert 0 < row['ms_quantise'] + row['ms_attend'] < row['ms_frame']


@pytest.mark.slow
def test_bounded_rows_have_equal_bytes(table):
    budget = table['byte_budget']
    for row in bounded(table):
        assert row['bytes_used'] <= row['bytes'] <= budget
        assert row['tokens'] >= 2 * FRAME
        if row['policy'] not in WHOLE_FRAMES:
            assert row['bytes'] >= 0.8 * budget
            if row['quantization'] == 'none' and row['policy'] == 'lingbot':
                assert row['tokens'] < 4 * FRAME  # it keeps room for the next frame's patches
            elif row['quantization'] == 'none':
                assert row['tokens'] == 4 * FRAME
                assert row['bytes'] == budget
        else:  # what describes the frames is paid for in tokens, and they are whole frames
            assert row['tokens'] % FRAME == 0


@pytest.mark.slow
def test_full_is_the_reference_and_forgetting_shows(table):
    reference, *rows = table['rows']
    assert (reference['policy'], reference['quantization']) == ('full', 'none')
    assert reference['tokens'] == 8 * FRAME
    assert reference['bytes'] > table['byte_budget']
    assert reference['frames_kept'] == 8 and reference['attention_kept'] == 1
    drifts = ('depth_drift', 'pose_drift', 'rotation_drift_deg')
    assert all(reference[drift] == 0 for drift in drifts)
    assert all(row[drift] > 0 for row in rows for drift in drifts)
    full = {row['quantization']: row for row in table['rows'] if row['policy'] == 'full'}
    assert 5 * full['int8']['depth_drift'] < full['int4']['depth_drift']
    window = next(row for row in bounded(table) if row['policy'] == 'sliding_window')
    assert window['frames_kept'] == 4
    assert window['attention_kept'] < 1


def test_int4_holds_three_times_the_tokens_of_bf16():
    # With 24 layers the scratch for decoding counts little; the small network has 8.
    class Sizes:
        patch_size = 14
        config = ModelConfig.full_size()
        cache_layout = StreamVGGT.cache_layout
        _check_size = StreamVGGT._check_size
        _token_layout = StreamVGGT._token_layout

        def set_dtype(self, dtype, heads):
            pass

        def join_first_frames(self, count):
            pass

        def to(self, device):
            return self

    class Bench(CacheBench):
        def _engine(self, config):
            return StreamEngine(self.loaded.model, EngineConfig(config, dtype=torch.bfloat16))

    stream = Stream('black', [np.zeros((392, 518, 3), np.uint8)] * 3)
    bench = Bench(SimpleNamespace(model=Sizes()), stream)
    assert bench.tokens == 4 * 1041 == bench.tokens_that_fit(CacheSetting('xstream', 'none', None))
    int4 = bench.tokens_that_fit(CacheSetting('xstream', 'int4', 'token'))
    assert 3 * bench.tokens <= int4 < 6 * bench.tokens


@pytest.mark.slow
def test_rows_are_the_same_again_but_for_the_times(table, tmp_path, capsys):
    file = tmp_path / 'table.json'
    assert bench('--policies', 'value_aware,random', '--precisions', 'int4,none', '--scheme',
                 'both', '--json', str(file), '--markdown') == 0
    rows = json.loads(file.read_text())['rows']
    names = [(row['policy'], row['quantization'], row['scheme']) for row in rows]
    assert names == [('full', 'none', None), *(
        (policy, *packing) for policy in ('value_aware', 'random')
        for packing in (*(('int4', scheme) for scheme in SCHEMES), ('none', None)))]
    before = {(row['policy'], row['quantization'], row['scheme']): row for row in table['rows']}
    again = [row for name, row in zip(names, rows) if name in before]
    assert len(again) == 5
    for name, row in zip([name for name in names if name in before], again):
        assert {k: v for k, v in row.items() if not k.startswith('ms_')} == {
            k: v for k, v in before[name].items() if not k.startswith('ms_')}
    output = capsys.readouterr()
    lines = [line for line in output.out.splitlines() if line.startswith('|')]
    assert len(lines) == 2 + len(rows)
    assert all(line.count('|') == len(COLUMNS) + 1 for line in lines)
    assert 'measuring' in output.err and 'measuring' not in output.out


@pytest.mark.slow
def test_weights_that_are_not_random_are_compared_with_the_truth(tmp_path, capsys):
    weights, file = tmp_path / 'small.safetensors', tmp_path / 'table.json'
    save_checkpoint(load_model('random').model, weights)
    assert bench('--policies', 'sliding_window', '--precisions', 'none', '--checkpoint',
                 str(weights), '--json', str(file), frames=5) == 0
    table = json.loads(file.read_text())
    assert str(tmp_path) not in file.read_text() and 'small.safetensors' in table['command']
    for row in table['rows']:
        assert 0 < row['depth_abs_rel'] < 10
        assert 0 < row['ate_ratio'] <= 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines if 'none' in line] == ['full', 'sliding_window']


def test_a_folder_of_images_can_be_the_stream(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (60, 80), np.uint8)).save(
            tmp_path / f'{number}.png')
    file = tmp_path / 'table.json'
    assert bench('--input', str(tmp_path), '--policies', 'xstream', '--precisions', 'int4',
                 '--json', str(file)) == 0
    table = json.loads(file.read_text())
    assert (table['frames'], table['image']) == (6, '56x42')
    assert len(table['rows']) == 2
    assert str(tmp_path) not in file.read_text()


@pytest.mark.parametrize('arguments, code, words', [
    (('--policies', 'xstream,xstraem'), 2, ('xstraem', 'sliding_window')),
    (('--precisions', 'int3'), 2, ('int3', 'int4')),
    (('--image-size', '50'), 1, ('multiple of 14', '56')),
    (('--frames', '1'), 1, ('2 or more',)),
    (('--checkpoint', 'nowhere.pth'), 1, ('nowhere.pth',)),
    (('--input', 'nowhere'), 1, ('nowhere', 'no such file or folder')),
    (('--json', '.'), 1, ('folder',)),
    (('--device', 'abacus'), 1, ('abacus', 'cuda')),
])
def test_errors_say_what_is_wrong(arguments, code, words, capsys):
    assert bench(*arguments) == code
    error = capsys.readouterr().err
    assert all(word in error for word in words)
    assert 'Traceback' not in error


@pytest.mark.parametrize('quantization, scheme', [
    ('none', 'kcvt'), ('int8', 'token'), ('int4', 'kcvt')])
@pytest.mark.parametrize('policy', ['full', 'value_aware', 'frame_coverage'])
def test_timer_changes_no_result(policy, quantization, scheme, monkeypatch):
    layout = CacheLayout(layers=2, heads=2, head_dim=8, tokens_per_step=12, special_tokens=5)
    config = CacheConfig(policy=policy, quantization=quantization, scheme=scheme, storage='bf16')
    plain, timed = (build_cache(layout, config, 40, torch.float32, 'cpu', quantization)
                    for _ in range(2))
    # A clock that moves on when it is looked at, and while the store attends: a real one may see
    # a repeated write take longer than all that it repeats.
    ticks = count()
    attend = timed.store.attend

    def attend_for_a_while(*arguments):
        for _ in range(5):
            next(ticks)
        return attend(*arguments)

    monkeypatch.setattr(timed.store, 'attend', attend_for_a_while)
    monkeypatch.setattr(Clock, 'now', lambda self: float(next(ticks)))
    timer = CacheTimer(timed, torch.device('cpu'))
    generator = torch.Generator().manual_seed(0)
    for _ in range(9):
        steps = torch.randn(layout.layers, 3, 2, 12, 8, generator=generator)

        def step(cache, steps=steps):
            out = [cache.attend(layer, *steps[layer]) for layer in range(layout.layers)]
            cache.end_step()
            return out

        measured, times = timer.measure(lambda: step(timed))
        for expected, out in zip(step(plain), measured):
            assert torch.equal(expected, out)
        assert times.quantise > 0 and times.evict > 0 and times.attend > 0
        assert (times.score > 0) == (policy != 'full')
        if quantization != 'none':  # whose writes are timed apart
            assert times.quantise + times.attend + times.score + times.evict < times.frame
    assert all(map(torch.equal, plain.kept_token_ids(), timed.kept_token_ids()))
