"""What `xsvggt bench` counts and writes, and the limits that the network keeps to; no times."""

import json

import numpy as np
import pytest
from tiny_stream import make_model
import torch

from xsvggt_ros.bench.frame_bench import (
    count_operators,
    fill_caches,
    Keyframes,
    memory_in_use,
    pictures,
    Windows,
)
from xsvggt_ros.bench.operator_count import OperatorCount
from xsvggt_ros.cli.main import main
from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kernels import native, onednn
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.kv_cache.retention import POLICIES
from xsvggt_ros.model.checkpoint import load_model
from xsvggt_ros.model.config import CameraHeadConfig, DPTHeadConfig, ModelConfig, PatchEmbedConfig
from xsvggt_ros.model.streamvggt import StreamVGGT
from xsvggt_ros.model.weight_quantization import quantise_weights

# As deep as the public network, hence as many operators, but narrow.
DEEP = ModelConfig(
    img_size=56, embed_dim=64, depth=24, num_heads=2,
    patch_embed=PatchEmbedConfig('dinov2', num_heads=2), camera_head=CameraHeadConfig(num_heads=2),
    dpt_head=DPTHeadConfig(features=16, out_channels=(8, 8, 16, 16),
                           intermediate_layer_idx=(4, 11, 17, 23)))
IMAGE = pictures(56, 56, 1)[0]


@pytest.fixture(scope='module')
def deep():
    return StreamVGGT(DEEP).fold_scales()


def steady_engine(model, dtype=torch.float32, **settings):
    """Return an engine whose caches are full."""
    cache = {'max_tokens': 100, 'camera_max_tokens': 16} | settings
    engine = StreamEngine(model, EngineConfig(CacheConfig(**cache), dtype=dtype, head_dtype=dtype))
    engine.want_points(False)
    fill_caches(engine, IMAGE)
    engine.step(IMAGE)
    engine.finish_frame()
    return engine


@pytest.mark.slow
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16))
@pytest.mark.parametrize('policy', sorted(set(POLICIES) - {'full'}))
def test_a_frame_of_the_full_depth_takes_few_operators(policy, dtype, monkeypatch):
    if not onednn.works(dtype):
        pytest.skip(f'oneDNN has no {dtype} on this processor')
    for module, limit in ((onednn, 'MIN_WEIGHTS'), (native, 'MAX_WEIGHTS'),
                          (native, 'MAX_PRODUCTS')):
        monkeypatch.setattr(module, limit, 0)  # narrow layers as if they were wide
    # Enough tokens that attention takes the way it takes at full size.
    budget = onednn.MIN_KEYS + 42
    engine = steady_engine(StreamVGGT(DEEP).fold_scales(), dtype, policy=policy, max_tokens=budget)
    assert engine.cache_stats().tokens_per_layer[0] >= onednn.MIN_KEYS
    count = count_operators(engine, IMAGE)
    assert 600 < count.operators < 1300, count.names
    assert count.waits == 0


@pytest.mark.slow
@pytest.mark.parametrize('quantization', ('none', 'int4'))
@pytest.mark.parametrize('policy', sorted(set(POLICIES) - {'full'}))
def test_a_steady_frame_waits_for_nothing_and_keeps_nothing(deep, policy, quantization):
    engine = steady_engine(deep, policy=policy, quantization=quantization)
    counts = [count_operators(engine, IMAGE) for _ in range(2)]
    assert [count.waits for count in counts] == [0, 0]
    assert counts[0].operators == counts[1].operators
    before = memory_in_use(torch.device('cpu'))['tensors']
    for _ in range(2):
        engine.step(IMAGE)
    engine.finish_frame()
    assert memory_in_use(torch.device('cpu'))['tensors'] == before


@pytest.mark.slow
@pytest.mark.parametrize('heads', [torch.float32, torch.bfloat16])
def test_weights_in_8_bits_wait_for_nothing_either(heads):
    model = StreamVGGT(DEEP).fold_scales()
    quantise_weights(model, 'int8')
    engine = StreamEngine(model, EngineConfig(CacheConfig(max_tokens=100), head_dtype=heads))
    engine.step(IMAGE)
    assert count_operators(engine, IMAGE).waits == 0


@pytest.mark.slow
def test_operators_are_counted_down_to_the_last():
    with torch.inference_mode(), OperatorCount() as count:
        x = torch.ones(3, 4)
        torch.nn.functional.linear(x, x, torch.ones(3)).view(-1).transpose(0, 0)
    assert count.names['addmm'] == 1 and not {'linear', 'view', 'transpose'} & set(count.names)
    assert count.waits == 0
    with OperatorCount() as count:
        torch.ones(3).sum().item()
        torch.ones(3).nonzero()
    assert count.waits == 2


@pytest.mark.parametrize('frames, steady, first, last', [
    (10_000, (100, 10_000), (100, 200), (9_900, 10_000)),
    (300, (100, 300), (100, 200), (200, 300)), (30, (10, 30), (10, 20), (20, 30)),
    (3, (1, 3), (1, 2), (2, 3))])
def test_windows_are_the_beginning_and_the_end(frames, steady, first, last):
    windows = Windows.of(frames)
    assert (windows.steady, windows.first, windows.last) == (steady, first, last)


def still(settings):
    """Be another implementation, for `--compare`."""
    class Still:
        def step(self, frame):
            assert frame.dtype == np.uint8 and frame.shape == (56, 56, 3)

    assert settings['width'] == settings['height'] == 56
    return Still()


@pytest.mark.slow
def test_the_command_writes_all_it_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / 'bench.json'
    assert main(['bench', '--size', 'small', '--image', '56x56', '--frames', '9', '--device',
                 'cpu', '--compare', f'{__name__}:still', '--weights', 'int8', '--json',
                 str(file)]) == 0
    shown = capsys.readouterr().out
    written = json.loads(file.read_text())
    assert set(written['latency_ms']) == {'mean', 'p50', 'p95', 'p99'}
    for name in ('latency_first_ms', 'latency_last_ms', 'ops_per_frame', 'peak_bytes',
                 'cpu_seconds'):
        assert written[name] > 0
    assert written['windows'] == {'steady': [3, 9], 'first': [3, 6], 'last': [6, 9]}
    assert written['weights'] == 'int8' and 5e6 < written['weight_bytes'] < 8e6
    assert written['syncs_per_frame'] == 0
    assert written['allocator_growth_bytes'] == 0
    assert 0 < written['cache_share'] < 1
    stages = written['stages_ms']
    assert stages['point_head'] == 0
    assert {'preprocess', 'patch_embed', 'aggregator', 'camera_head', 'depth_head', 'point_head',
            'cache_insert', 'cache_score_evict'} <= set(stages)
    parts = sum(ms for name, ms in stages.items() if name != 'frame')
    assert parts == pytest.approx(stages['frame'], abs=0.02)
    assert written['hardware']['torch'] == torch.__version__
    assert written['compare']['ratio'] < 1
    assert written['compare']['cpu_seconds'] < written['cpu_seconds']
    assert 'operators and 0 waits a frame' in shown and 'until the result is there' in shown


@pytest.mark.slow
def test_the_point_head_runs_if_it_is_asked_for(tmp_path):
    file = tmp_path / 'bench.json'
    assert main(['bench', '--size', 'small', '--image', '56x42', '--frames', '9', '--device',
                 'cpu', '--quantization', 'int4', '--points', '--json', str(file)]) == 0
    written = json.loads(file.read_text())
    assert written['stages_ms']['point_head'] > 0
    assert written['quantization'] == 'int4' and written['points'] is True


@pytest.mark.slow
def test_frames_between_keyframes_are_measured_for_themselves(tmp_path, capsys):
    file = tmp_path / 'bench.json'
    assert main(['bench', '--image', '56x56', '--frames', '9', '--device', 'cpu',
                 '--keyframe-stride', '3', '--tracking-size', '28', '--json', str(file)]) == 0
    written = json.loads(file.read_text())
    assert (written['keyframe_stride'], written['tracking_size']) == (3, 28)
    p50s = [written[name]['p50'] for name in ('keyframes_ms', 'between_ms')]
    assert 'one in 3: p50' in capsys.readouterr().out and min(p50s) > 0
    assert written['latency_ms']['mean'] == pytest.approx(   # of six frames two are keyframes
        (2 * written['keyframes_ms']['mean'] + 4 * written['between_ms']['mean']) / 6, abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize('arguments, word', [
    (('--tracking-size', '56'), '--keyframe-stride 2 or more'),
    (('--tracking-size', '57', '--keyframe-stride', '2'), 'multiple of 14, 112 at most; got 57'),
    (('--tracking-size', '126', '--keyframe-stride', '2'), '112 at most; got 126'),
    (('--keyframe-stride', '5', '--frames', '6'), 'only 4 frames are measured'),
    (('--image', '57x56'), 'multiples of 14'), (('--frames', '2'), '3 at least'),
    (('--compare', 'nowhere:at_all'), 'MODULE:FACTORY'), (('--policy', 'best'), 'policy'),
    (('--device', 'cpu', '--graphs', 'on'), 'need a GPU'),
    (('--device', 'cpu', '--kernels', 'triton'), 'Triton does not run on the device cpu'),
    (('--device', 'cpu', '--weights', 'fp8'), '--weights fp8 needs a GPU')])
def test_what_cannot_be_measured_is_named(arguments, word, capsys, monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    assert main(['bench', *arguments]) == 1
    assert word in capsys.readouterr().err


@pytest.mark.parametrize('tokens, keys', [(53, 600), (800, 900), (1, 600), (53, 53)])
def test_attention_by_onednn_is_attention(tokens, keys):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 16, generator=generator) for n in (tokens, keys, keys))
    expected = torch.nn.functional.scaled_dot_product_attention(
        q.double(), k.double(), v.double()).float()
    settings = getattr(torch.backends.mkldnn, 'matmul', None)
    before = getattr(settings, 'fp32_precision', None)
    with torch.inference_mode():
        torch.testing.assert_close(onednn.attention(q, k, v), expected, atol=2e-6, rtol=2e-6)
    assert getattr(settings, 'fp32_precision', None) == before


def test_folded_scales_compute_the_same_and_loading_unfolds_them():
    generator = torch.Generator().manual_seed(1)
    model = StreamVGGT(ModelConfig.small())
    for name, weight in model.named_parameters():
        if name.endswith('gamma'):
            weight.data.copy_(0.3 + torch.rand(weight.shape, generator=generator))
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    frame = pictures(56, 56, 1)[0]

    def depths():
        engine = StreamEngine(model)
        return [engine.step(frame).depth for _ in range(3)]

    before = depths()
    model.fold_scales()
    assert all((weight == 1).all() for name, weight in model.named_parameters()
               if name.endswith('gamma'))
    torch.testing.assert_close(depths(), before, rtol=1e-4, atol=1e-5)
    model.load_state_dict(weights)
    torch.testing.assert_close(depths(), before, rtol=0, atol=0)


def test_fewer_camera_iterations_change_poses_and_nothing_else():
    model = StreamVGGT(ModelConfig.small()).fold_scales()
    every = StreamEngine(model, EngineConfig(image_size=56)).step(IMAGE)
    model.camera_head.iterations = 1
    engine = StreamEngine(model, EngineConfig(image_size=56))
    one = engine.step(IMAGE)
    assert torch.equal(every.depth, one.depth)
    assert one.pose_encoding.shape == every.pose_encoding.shape == (9,)
    assert engine.cache_stats().camera_tokens == 1


@pytest.mark.parametrize('filled', [False, True])
def test_the_first_frames_are_measured_together_where_the_network_can(filled):
    engine = StreamEngine(make_model('lingbot'), EngineConfig(
        CacheConfig(policy='lingbot', max_tokens=100, camera_max_tokens=6), first_frames=3))
    if filled:
        fill_caches(engine, IMAGE)
        assert engine.frames == 3
    run = Keyframes(engine, 2)
    found = [run.step(IMAGE) for _ in range(5)]
    assert [result is None for result in found] == [not filled, not filled, *[False] * 3]
    assert engine.frames == (8 if filled else 5)


@pytest.mark.parametrize('quantization', ('none', 'int4'))
def test_full_caches_are_those_of_a_long_stream(quantization):
    model = StreamVGGT(ModelConfig.small()).fold_scales()
    engine = StreamEngine(model, EngineConfig(CacheConfig(
        max_tokens=100, camera_max_tokens=40, quantization=quantization)))
    fill_caches(engine, IMAGE)
    before = engine.cache_stats()
    assert before.occupancy > 0.8 and before.camera_tokens == 40
    engine.step(IMAGE)
    after = engine.cache_stats()
    assert after.evicted_this_frame == after.tokens_per_frame
    assert (after.tokens_per_layer, after.camera_tokens) == (before.tokens_per_layer, 40)


def test_bf16_on_a_cpu_stays_near_fp32():
    loaded = load_model('small')
    frames = pictures(56, 56, 4)
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        engine = StreamEngine(
            loaded.model.fold_scales(), EngineConfig(dtype=dtype, head_dtype=dtype))
        results.append([engine.step(frame) for frame in frames])
    # What rounds numbers by half a unit, at most, of the last place may round what comes of all of
    # them by a few units, whichever way the processor adds.
    few = 4 * torch.finfo(torch.bfloat16).eps / 2
    for exact, rounded in zip(*results):
        assert ((rounded.depth - exact.depth).abs() / exact.depth).mean() < few
        off = rounded.pose_encoding - exact.pose_encoding
        assert off.square().mean().sqrt() < few
        assert not torch.equal(rounded.depth, exact.depth)
