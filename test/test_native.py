"""The kernels for small networks on a CPU give what PyTorch gives, whatever the processor."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import xsvggt_ros
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kernels import native
from xsvggt_ros.kernels.attention import attention
from xsvggt_ros.kv_cache.cache import build_cache
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout
from xsvggt_ros.kv_cache.retention import dot_products
from xsvggt_ros.model.checkpoint import load_model
from xsvggt_ros.model.fused import Linear
from xsvggt_ros.model.layers import Block, grid_rotary_table, self_attention
from xsvggt_ros.tools.frame_bench import pictures
from xsvggt_ros.tools.operator_count import OperatorCount

FILES = native.FILES.get(torch.backends.cpu.get_cpu_capability(), ('native.so',))
BUILT = [file for folder in xsvggt_ros.__path__ for name in FILES
         if (file := Path(folder) / 'kernels' / name).is_file()]

if not BUILT:
    pytest.skip('native.cpp was not built: make env, or colcon build', allow_module_level=True)


@pytest.fixture(params=BUILT, ids=lambda file: file.stem)
def library(request, monkeypatch):
    """Take each library that runs here in turn, on three threads."""
    loaded = native.load(request.param)
    monkeypatch.setattr(native, 'library', lambda: loaded)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield loaded
    torch.set_num_threads(threads)


@pytest.fixture
def plainly(monkeypatch):
    """Return a function that calls another one without the library."""
    def call(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(native, 'library', lambda: None)
            return function(*arguments)
    return call


def count_calls(function, *arguments):
    """Return the result, and how often each of the kernels was called."""
    with OperatorCount() as count:
        result = function(*arguments)
    return result, {name: calls for name, calls in count.names.items() if 'xsvggt' in name}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_weights(module):
    generator = torch.Generator().manual_seed(1)
    for weight in module.parameters():
        weight.requires_grad_(False)
        scale = weight[0].numel() ** -0.5 if weight.dim() > 1 else 1
        weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    return module


def make_block(*shape, **settings):
    """Return a block as an engine has it: its layer scales are in its weights."""
    block = random_weights(Block(*shape, **settings))
    block.fold()
    return block


@pytest.mark.parametrize('tokens', [1, 2, 48, 53, 64, 65, 197])
@pytest.mark.parametrize('dim, heads, norms', [(128, 2, True), (32, 1, True), (96, 3, False)])
@torch.inference_mode()
def test_a_block_is_the_same(library, plainly, tokens, dim, heads, norms):
    block = make_block(dim, heads, 4.0, qk_norm=norms)
    x, rope = random(tokens, dim), None
    if norms:
        table = grid_rotary_table(1, tokens, 0, dim // heads, 100.0)
        rope = tuple(part.float() for part in table)
    result, calls = count_calls(block, x, self_attention, rope)
    assert calls == {'xsvggt_before': 1, 'xsvggt_attend': 1, 'xsvggt_after': 1}
    expected = plainly(block, x, self_attention, rope)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    parts = zip(block.before(x, *block.attn.tables(rope)),
                plainly(block.before, x, *block.attn.tables(rope)))
    for part, other in parts:
        torch.testing.assert_close(part, other, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_other_weights_and_positions_are_noticed(library, plainly):
    block = make_block(64, 2, 4.0, qk_norm=True)
    x = random(12, 64)
    ropes = [tuple(part.float() for part in grid_rotary_table(*size, 0, 32, 100.0))
             for size in ((3, 4), (4, 3))]
    for change in range(4):
        if change == 1:
            block.attn.q_norm.weight *= 2
        if change == 2:
            block.load_state_dict({name: weight.clone() * 0.5 for name, weight
                                   in block.state_dict().items()}, assign=True)
            block.fold()
        for rope in ropes:
            torch.testing.assert_close(
                block(x, self_attention, rope), plainly(block, x, self_attention, rope),
                rtol=1e-4, atol=1e-4)
    result, calls = count_calls(block.bfloat16(), x.bfloat16())
    assert not calls and result.dtype == torch.bfloat16
    wide = make_block(768, 2, 4.0)
    assert 'xsvggt_after' not in count_calls(wide, random(5, 768))[1]


def test_nobody_who_trains_gets_a_kernel(library):
    block = Block(64, 2, 4.0)
    block.fold()
    result, calls = count_calls(block, random(5, 64))
    assert not calls
    result.sum().backward()
    assert block.mlp.fc1.weight.grad is not None


@pytest.mark.parametrize('tokens', [1, 3, 53, 130])
@pytest.mark.parametrize('keys', [1, 7, 128, 129, 500])
@pytest.mark.parametrize('heads, dim', [(2, 64), (3, 128), (1, 20)])
@torch.inference_mode()
def test_attention_is_the_same(library, tokens, keys, heads, dim):
    query = random(tokens, heads, dim).transpose(0, 1)
    key, value = random(2, heads, keys + 9, dim, seed=1)[:, :, :keys]
    result, calls = count_calls(attention, query, key, value)
    assert calls == {'xsvggt_attend': 1}
    expected = scaled_dot_product_attention(
        query[None].double(), key[None].double(), value[None].double())[0]
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_attention_to_one_key_of_many_does_not_overflow(library):
    query, key = random(2, 53, 64), random(2, 300, 64, seed=1)
    value = random(2, 300, 64, seed=2)
    key[:, 200] = 40 * query[:, 7]  # products of thousands
    key[:, 10] = -key[:, 200]
    for queries in (query, query[:, 7:8]):
        expected = scaled_dot_product_attention(queries[None], key[None], value[None])[0]
        torch.testing.assert_close(attention(queries, key, value), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('settings', [{}, {'gelu': True}, {'plus': random(1, 70, seed=3)}])
@pytest.mark.parametrize('width', [9, 64, 300])
@torch.inference_mode()
def test_a_row_is_the_same(library, plainly, width, settings):
    layer = random_weights(Linear(width, 70))
    x = random(1, width)
    result, calls = count_calls(lambda: layer(x, **settings))
    assert calls == {'xsvggt_row': 1}
    torch.testing.assert_close(result, plainly(lambda: layer(x, **settings)),
                               rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('heads', [1, 2])
@torch.inference_mode()
def test_scores_are_the_same(library, plainly, heads):
    keys = random(3, 2, 40, 64)[:, :, :37]
    vectors = random(3, heads, 64, seed=1)
    result, calls = count_calls(dot_products, vectors, keys)
    assert calls == {'xsvggt_products': 1}
    torch.testing.assert_close(result, plainly(dot_products, vectors, keys), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('quantization', ['int8', 'int4'])
@pytest.mark.parametrize('heads, dim, special', [(2, 64, 5), (1, 20, 0), (3, 32, 1)])
@torch.inference_mode()
def test_packed_tokens_are_the_same(library, plainly, heads, dim, special, quantization):
    layout = CacheLayout(layers=2, heads=heads, head_dim=dim, tokens_per_step=17,
                         special_tokens=special)

    def make():
        config = CacheConfig(policy='xstream', max_tokens=60, scheme='token')
        return build_cache(layout, config, 60, torch.float32, 'cpu', quantization)

    def run(cache):
        read = []
        for step in range(8):
            # as the network gives them: heads and tokens exchanged, the channels off zero
            query, key, value = (
                random(17, heads, dim, seed=9 * step + part).transpose(0, 1) + part
                for part in range(3))
            read += [cache.attend(layer, query, key, value) for layer in range(2)]
            cache.end_step()
        return read

    ours, theirs = make(), make()
    read, calls = count_calls(run, ours)
    assert calls['xsvggt_insert'] == 16 and calls['xsvggt_decode'] >= 16
    for one, other in zip(read, plainly(run, theirs)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for one, other in zip(ours.kept_token_ids(), theirs.kept_token_ids()):
        assert torch.equal(one, other)
    for block, expected in ((ours._store._keys, theirs._store._keys),
                            (ours._store._values, theirs._store._values)):
        for name in ('payload', 'scale', 'minimum'):
            assert torch.equal(getattr(block, name), getattr(expected, name)), name


@pytest.mark.parametrize('height, width', [(84, 112), (14, 14), (14, 28), (42, 14), (28, 980)])
@torch.inference_mode()
def test_dense_heads_are_the_same(library, plainly, height, width):
    model = load_model('small', 'auto').model
    layers = [random(1, height // 14 * (width // 14), 256, seed=seed) for seed in range(4)]
    for head in (model.depth_head, model.point_head):
        result, calls = count_calls(head, layers, height, width)
        assert calls == {'xsvggt_dense': 1}
        torch.testing.assert_close(result, plainly(head, layers, height, width),
                                   rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('quantization', ['none', 'int4'])
def test_a_stream_is_the_same(library, plainly, quantization):
    """Through full caches; two frames may exchange a token whose scores differ in the last bit."""
    model = load_model('small', 'auto').model.fold_scales()

    def run():
        engine = StreamEngine(model, CacheConfig(
            max_tokens=250, camera_max_tokens=20, quantization=quantization))
        results = []
        for image in pictures(84, 112, 12):
            results.append(engine.step(image))
            engine.finish_frame()
        return results, engine.kept_token_ids()

    results, kept = run()
    expected, expected_kept = plainly(run)
    assert all(map(torch.equal, kept, expected_kept))
    for result, other in zip(results, expected):
        torch.testing.assert_close(result.depth, other.depth, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(result.pose_encoding, other.pose_encoding, rtol=1e-3, atol=1e-3)


def test_a_library_that_does_not_fit_is_left_alone(tmp_path):
    assert native.load(tmp_path / 'missing.so') is None
    (tmp_path / 'broken.so').write_text('not a library')
    assert native.load(tmp_path / 'broken.so') is None
