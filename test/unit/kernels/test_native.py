"""The kernels for small networks on a CPU give what PyTorch gives, whatever the processor."""

from native_calls import BUILT, count_calls, random, random_weights
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from xsvggt_ros.bench.frame_bench import pictures
from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kernels import native
from xsvggt_ros.kernels.attention import attention
from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout
from xsvggt_ros.kv_cache.retention import dot_products
from xsvggt_ros.model.checkpoint import load_model
from xsvggt_ros.model.fused import Linear
from xsvggt_ros.model.layers import Block, self_attention
from xsvggt_ros.model.positions import grid_rotary_table

if not BUILT:
    pytest.skip('native.cpp was not built: make env, or colcon build', allow_module_level=True)


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
    assert calls == {'xsvggt_block': 1}
    expected = plainly(block, x, self_attention, rope)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    result, calls = count_calls(block, x, lambda *parts: self_attention(*parts), rope)
    assert calls == {'xsvggt_norm_qkv': 1, 'xsvggt_attend': 1, 'xsvggt_proj_mlp': 1}
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    parts = zip(block.norm_qkv(x, *block.attn.tables(rope)),
                plainly(block.norm_qkv, x, *block.attn.tables(rope)))
    for part, other in parts:
        torch.testing.assert_close(part, other, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_other_weights_and_positions_are_noticed(library, plainly):
    block = make_block(64, 2, 4.0, qk_norm=True)
    x = random(12, 64)
    ropes = [tuple(part.float() for part in grid_rotary_table(*size, 0, 32, 100.0))
             for size in ((3, 4), (4, 3))]
    for change in ('none', 'in place', 'others'):
        if change == 'in place':
            block.attn.q_norm.weight *= 2
        if change == 'others':
            block.load_state_dict({name: weight.clone() * 0.5 for name, weight
                                   in block.state_dict().items()}, assign=True)
            block.fold()
        for rope in ropes:
            torch.testing.assert_close(
                block(x, self_attention, rope), plainly(block, x, self_attention, rope),
                rtol=1e-4, atol=1e-4)
    wide = make_block(768, 2, 4.0)
    assert 'xsvggt_proj_mlp' not in count_calls(wide, random(5, 768))[1]


@torch.inference_mode()
def test_each_norm_has_its_own_epsilon(library, plainly):
    """With inputs so small that it decides."""
    for norms in (True, False):
        block = make_block(64, 2, 4.0, qk_norm=norms, eps=1e-2)
        block.norm2.eps = 1e-4
        block.attn.qkv.weight *= 1e-2
        block.attn.qkv.bias *= 1e-2
        for tokens in (1, 12):
            x = 1e-2 * random(tokens, 64)
            rope = tuple(part.float() for part in grid_rotary_table(1, tokens, 0, 32, 100.0))
            rope = rope if norms else None
            result, calls = count_calls(block, x, self_attention, rope)
            assert calls == {'xsvggt_block': 1}
            torch.testing.assert_close(
                result, plainly(block, x, self_attention, rope), rtol=1e-4, atol=1e-4)


@pytest.mark.wrong_shapes
@torch.inference_mode()
def test_what_the_kernels_do_not_take_goes_to_torch(library, plainly):
    block, layer = make_block(64, 2, 4.0), random_weights(Linear(64, 70))
    x, row, residual = random(5, 64), random(1, 64), random(1, 70)
    for half in (block.attn.qkv, block.mlp.fc1):
        assert half.weight.dtype == torch.float32
        weight, half.weight.data = half.weight.data, half.weight.data.double()
        call = 'norm_qkv' if half is block.attn.qkv else 'proj_mlp'
        assert 'xsvggt_' + call not in count_calls(
            lambda: _refused(block, x))[1]
        half.weight.data = weight
    read = random(5, 2, 32, seed=1).transpose(0, 1)
    for other in (read, read.contiguous(), read.double()):
        torch.testing.assert_close(block.proj_mlp(x, other), plainly(block.proj_mlp, x, read),
                                   rtol=1e-4, atol=1e-4)
    for other in (residual.double(), random(70), random(70, 2)[:, :1].t()):
        assert torch.equal(layer(row, residual=other), plainly(lambda: layer(row, residual=other)))
    for bad in (lambda: block(random(5, 32)), lambda: layer(random(1, 32))):
        with pytest.raises(RuntimeError):
            bad()
    query, key = random(2, 4, 32), random(2, 9, 32, seed=1)
    for other in (key.double(), key[:, :5], key[:1]):
        assert not native.takes_attention(query, key, other)
    assert not native.takes_attention(query, key[:, :0], key[:, :0])
    assert not native.takes_attention(query[:1], key, key)


def _refused(*call):
    """Call a function which may fail: of what it asked for there is a count."""
    try:
        return call[0](*call[1:])
    except RuntimeError:
        return None


@torch.inference_mode()
def test_what_is_no_number_stays_none(library, plainly):
    store = build_cache(
        CacheLayout(layers=1, heads=1, head_dim=32, tokens_per_step=6, special_tokens=0),
        CacheConfig(policy='xstream', max_tokens=60, scheme='token'), 60, torch.float32, 'cpu',
        'int4')
    query, key, value = random(3, 1, 6, 32)
    store.attend(0, query, key, value)
    store.end_step()
    value = value.clone()
    value[0, 2, 5] = torch.nan
    store.attend(0, query, key, value)
    store.end_step()
    assert store.attend(0, query, key, value.nan_to_num())[..., 5].isnan().all()


@torch.inference_mode()
def test_equal_keys_have_equal_scores(library):
    keys = random(1, 1, 1, 64).expand(2, 2, 39, 64).contiguous()
    for row in dot_products(random(2, 2, 64), keys).flatten(0, 1):
        assert (row == row[0]).all()


@pytest.mark.slow
@torch.inference_mode()
def test_an_export_is_free_of_them(library, monkeypatch):
    model = load_model('small', 'auto').model
    layers = [random(1, 4, 256, seed=seed) for seed in range(4)]
    result = model.depth_head(layers, 28, 28)

    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = model.depth_head

        def forward(self, *tokens):
            return self.head(tokens, 28, 28)

    monkeypatch.setattr(native, 'library', lambda: pytest)  # has none of the functions
    with torch.no_grad():
        exported = torch.export.export(Head(), tuple(layers))
        torch.testing.assert_close(exported.module()(*layers), result, rtol=1e-4, atol=1e-4)


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


@pytest.mark.parametrize('settings', [{}, {'gelu': True}, {'residual': random(1, 70, seed=3)}])
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
    # Packed tokens are attended to as they are, until the policy scores them.
    assert calls['xsvggt_insert'] == 16
    assert calls['xsvggt_attend_packed'] == 6 and calls['xsvggt_decode'] >= 10
    for one, other in zip(read, plainly(run, theirs)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for one, other in zip(ours.kept_token_ids(), theirs.kept_token_ids()):
        assert torch.equal(one, other)
    stored, expected = ours.store, theirs.store
    assert torch.equal(stored._group, expected._group)
    for name, tensor in (expected._slotted | expected._tables).items():
        assert torch.equal((stored._slotted | stored._tables)[name], tensor), name


@pytest.mark.slow
@pytest.mark.parametrize('policy', ['frame_coverage', 'sliding_window', 'random'])
@pytest.mark.parametrize('quantization', ['int8', 'int4'])
@pytest.mark.parametrize('heads, dim, tokens', [
    (2, 64, 53), (1, 20, 3), (3, 32, 64), (1, 64, 130)])
@torch.inference_mode()
def test_attention_to_packed_tokens_is_the_same(
        library, plainly, heads, dim, tokens, quantization, policy):
    """Beyond full caches, whatever is left of the frames; what the eviction cost included."""
    layout = CacheLayout(layers=2, heads=heads, head_dim=dim, tokens_per_step=tokens,
                         special_tokens=1)

    def run(cache):
        read, kept = [], []
        for step in range(9):
            query, key, value = (
                random(tokens, heads, dim, seed=9 * step + part).transpose(0, 1) + part
                for part in range(3))
            read += [cache.attend(layer, query, key, value) for layer in range(2)]
            cache.end_step()
            kept.append(cache.health().attention_kept)
            seen = cache.attend_readonly(1, query, key - 1, value + 1)
            read += seen, cache.attend_readonly(1, query, key - 1, value + 1)
            assert torch.equal(read[-1], seen)
        return read, kept

    def make():
        config = CacheConfig(policy=policy, max_tokens=4 * tokens + 1, scheme='token')
        return build_cache(layout, config, 4 * tokens + 1, torch.float32, 'cpu', quantization)

    (read, kept), calls = count_calls(run, make())
    assert calls['xsvggt_attend_packed'] == 36 and 'xsvggt_decode' not in calls
    expected, expected_kept = plainly(run, make())
    for one, other in zip(read, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert kept == pytest.approx(expected_kept, abs=1e-5) and min(kept) < 0.9


@pytest.mark.parametrize('bad', [torch.nan, torch.inf])
@torch.inference_mode()
def test_packed_keys_that_are_no_numbers_are_seen(library, bad):
    layout = CacheLayout(layers=1, heads=1, head_dim=32, tokens_per_step=6, special_tokens=0)
    store = build_cache(layout, CacheConfig(policy='sliding_window', max_tokens=60), 60,
                        torch.float32, 'cpu', 'int4')
    query, key, value = random(3, 1, 6, 32)
    for frame in (key, key.index_fill(2, torch.tensor(3), bad), key):
        out, calls = count_calls(store.attend, 0, query, frame, value)
        store.end_step()
    assert calls['xsvggt_attend_packed'] == 1 and out.isnan().all()


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize('quantization, error', [('none', 1e-4), ('int4', 1e-3)])
def test_a_stream_is_the_same(library, plainly, quantization, error):
    """Through full caches; sums of another order may turn over an integer or a close choice."""
    model = load_model('small', 'auto').model.fold_scales()

    def run():
        engine = StreamEngine(model, EngineConfig(CacheConfig(
            policy='xstream', max_tokens=250, camera_max_tokens=20, quantization=quantization)))
        results = []
        for image in pictures(84, 112, 12):
            results.append(engine.step(image))
            engine.finish_frame()
        return results, engine.kept_token_ids()

    results, kept = run()
    expected, expected_kept = plainly(run)
    for ids, expected_ids in zip(kept, expected_kept):
        assert torch.isin(ids, expected_ids).float().mean() > 0.95
    for result, other in zip(results, expected):
        assert (result.depth / other.depth).log().abs().mean() < error
        assert (result.pose_encoding - other.pose_encoding).abs().max() < 10 * error


def test_a_library_that_does_not_fit_is_left_alone(tmp_path, monkeypatch):
    assert native.load(tmp_path / 'missing.so') is None
    (tmp_path / 'broken.so').write_text('not a library')
    assert native.load(tmp_path / 'broken.so') is None
    with monkeypatch.context() as patch:
        patch.setattr(native, 'VERSION', native.VERSION + 1)
        assert native.load(BUILT[0]) is None
    monkeypatch.setenv('XSVGGT_NATIVE', '0')
    assert native.library.__wrapped__() is None


@torch.inference_mode()
def test_a_dense_head_is_refused_weights_of_another(library):
    head = load_model('small', 'auto').model.depth_head
    layers = [random(1, 12, 256, seed=seed) for seed in range(4)]
    weights = head._native_weights(head.tables(42, 56))
    widths, last = (32, 32, 64, 64, 32, 16, 32), 2
    for wrong, words in (
            (weights[:-1], 'got 71'), ([weights[0][:-1], *weights[1:]], 'number 0'),
            ([*weights[:20], weights[21], *weights[21:]], 'number 20')):
        with pytest.raises(ValueError, match=words):
            native.dense(layers, (3, 4), 14, widths, last, wrong, 1e-5)
    with pytest.raises(ValueError, match='3 x 5 patches'):
        native.dense(layers, (3, 5), 14, widths, last, weights, 1e-5)
    assert native.dense(layers, (3, 4), 14, widths, last, weights, 1e-5).shape == (1, 2, 42, 56)
