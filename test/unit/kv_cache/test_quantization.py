"""What is lost in 4 and 8 bits, and that nothing more is lost with time."""

import subprocess
import sys

import golden_data
import pytest
import torch

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kernels.packing import (
    dequantise,
    group_index,
    group_sizes,
    pack,
    quantise,
    quantise_symmetric_,
    SCHEMES,
    unpack,
)
from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.streamvggt import StreamVGGT

HEADS, TOKENS, DIM = 4, 200, 64


def gaussian(generator, tokens=TOKENS):
    return torch.randn(HEADS, tokens, DIM, generator=generator)


def offset(generator, tokens=TOKENS):
    """Return keys whose channels lie up to 6 sigma off zero."""
    return gaussian(generator, tokens) + torch.linspace(-6, 6, DIM)


def log_normal(generator, tokens=TOKENS):
    """Return keys whose channels have log-normal scales, sigma 0.8, the same in every frame."""
    scales = torch.randn(HEADS, 1, DIM, generator=torch.Generator().manual_seed(7))
    return gaussian(generator, tokens) * torch.exp(0.8 * scales)


def relative_rms(decoded, keys):
    centred = keys - keys.mean(dim=1, keepdim=True)
    return ((decoded - keys).square().mean() / centred.square().mean()).sqrt().item()


def drifting(generator, tokens=TOKENS):
    """Return keys whose channels have another place and width in every frame."""
    place, width = torch.randn(2, HEADS, 1, DIM, generator=generator)
    return gaussian(generator, tokens) * torch.exp(width) + 4 * place


def stored(scheme, bits, frames, tokens):
    """Return a cache that remembers frames of keys and values, and what it makes of them."""
    layout = CacheLayout(1, HEADS, DIM, tokens_per_step=tokens, special_tokens=5)
    cache = build_cache(layout, CacheConfig(policy='full', scheme=scheme), None, torch.float32,
                        'cpu', {4: 'int4', 8: 'int8'}[bits])
    for key, value in frames:
        cache.attend(0, key, key, value)
        cache.end_step()
    decoded = [(keys.clone(), values.clone())
               for _, keys, values in cache.store.decoded(0, cache.tokens)]
    return cache, [torch.cat(parts).split(tokens, dim=1) for parts in zip(*decoded)]


@pytest.mark.parametrize('make', [gaussian, offset, log_normal, drifting])
@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('bits, limit', [(4, 0.11), (8, 0.0065)])
def test_error_is_what_the_bits_allow_in_every_frame(make, scheme, bits, limit):
    generator = torch.Generator().manual_seed(0)
    frames = [(make(generator), gaussian(generator)) for _ in range(4)]
    _, (keys, values) = stored(scheme, bits, frames, TOKENS)
    for (key, value), decoded_key, decoded_value in zip(frames, keys, values):
        assert relative_rms(decoded_key, key) < limit
        assert relative_rms(decoded_value, value) < limit


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('tokens, limit', [(1041, 4.6), (782, 4.6), (53, 5.1)])
def test_bits_per_value_all_included(scheme, tokens, limit):
    if scheme == 'kcvt' and tokens == 53:
        pytest.skip('a group of five special tokens costs more')
    generator = torch.Generator().manual_seed(0)
    frames = [(gaussian(generator, tokens), gaussian(generator, tokens)) for _ in range(4)]
    cache, _ = stored(scheme, 4, frames, tokens)
    assert 8 * cache.bytes_used / (2 * HEADS * DIM * cache.tokens) <= limit
    ids = cache.token_ids.clone()
    assert cache.store.bytes_used(tokens, ids.masked_fill(ids >= tokens, -1)) == pytest.approx(
        cache.bytes_used / 4)


@pytest.mark.parametrize('bits', [4, 8])
@pytest.mark.parametrize('value', [0.0, -3.25, 1000.0, 1e-7])
def test_frames_without_a_difference_are_exact(value, bits):
    frame = torch.full((HEADS, 7, DIM), value)
    _, (keys, values) = stored('token', bits, [(frame, -frame)], 7)
    torch.testing.assert_close(keys[0], frame, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(values[0], -frame, rtol=1e-3, atol=1e-4)


def test_a_block_that_does_not_contain_zero_keeps_its_offset():
    x = torch.linspace(5, 6, 64)[None]
    error = (dequantise(quantise(x, 4, -1), 4) - x).abs()
    assert error.max() < 0.75 / 15


@pytest.mark.parametrize('value', [0.0, -3.25, 1000.0])
def test_constant_blocks_are_exact(value):
    x = torch.full((2, 64), value)
    torch.testing.assert_close(dequantise(quantise(x, 4, -1), 4), x, rtol=0, atol=1e-3)


def test_a_token_in_4_bits_is_as_long_as_it_was():
    x = gaussian(torch.Generator().manual_seed(0))
    payload, scale = quantise_symmetric_(x.clone(), 4)
    integers = torch.empty_like(x)
    unpack(payload, 4, integers)
    integers -= 7.5
    decoded = integers * scale.float()
    # fp16 rounds a scale by up to 2 ** -11; 64 values in 32 parts of a step add .0004.
    torch.testing.assert_close(decoded.norm(dim=-1), x.norm(dim=-1), rtol=2e-3, atol=0)

    # The integers are those of the scale that reaches the largest value, and nearer by this one.
    reaching = (x.abs().amax(-1, keepdim=True) / 7.5).half().float()
    assert torch.equal(integers, (x / reaching + 7.5).round().clamp(0, 15) - 7.5)
    assert relative_rms(decoded, x) < 0.99 * relative_rms(integers * reaching, x)


def test_a_scale_in_4_bits_does_not_depend_on_the_order_of_the_channels():
    x = torch.randn(500, 256, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(256, generator=torch.Generator().manual_seed(1))
    assert torch.equal(quantise_symmetric_(x.clone(), 4)[1],
                       quantise_symmetric_(x[:, order], 4)[1])


@pytest.mark.parametrize('value', [0.0, 1e-12, -1e-12])
def test_a_token_of_nothing_stays_next_to_nothing_in_4_bits(value):
    payload, scale = quantise_symmetric_(torch.full((3, 64), value), 4)
    assert (scale == torch.finfo(torch.half).tiny).all() and (payload == 136).all()


def test_packing_loses_nothing():
    q = torch.randint(0, 16, (3, 5, 64), dtype=torch.uint8)
    packed = pack(q)
    assert packed.shape == (3, 5, 32)
    out = torch.empty(3, 5, 64)
    unpack(packed, 4, out)
    assert torch.equal(out.byte(), q)


@pytest.mark.parametrize('tokens, special', [(1041, 5), (25, 5), (6, 5), (5, 5), (64, 0), (65, 0)])
def test_groups_cover_a_frame_and_hold_at_most_64(tokens, special):
    sizes = group_sizes(tokens, special)
    assert sum(sizes) == tokens and max(sizes) <= 64 and min(sizes) > 0
    assert not special or sizes[0] == special
    index = group_index(sizes, torch.device('cpu'))
    assert index.bincount().tolist() == sizes


# In the cache -----------------------------------------------------------------------------------

LAYOUT = CacheLayout(layers=2, heads=2, head_dim=64, tokens_per_step=40, special_tokens=5)


def make_cache(layout=LAYOUT, budget=150, dtype=torch.float32, **settings):
    config = CacheConfig(**{'quantization': 'int4', 'policy': 'xstream'} | settings)
    return build_cache(layout, config, budget, dtype, 'cpu', config.quantization)


def decoded_by_id(cache, layer=0):
    """Return {token id: (key, value)} as the cache would attend to them, bit for bit."""
    ids = cache.token_ids[layer]
    used = int((ids >= 0).nonzero().max()) + 1
    ids = ids[:used]
    tokens = {}
    for heads, keys, values in cache.store.decoded(layer, used):
        for slot in range(used):
            if ids[slot] >= 0:
                part = tokens.setdefault(ids[slot].item(), [])
                part += [keys[:, slot].clone(), values[:, slot].clone()]
    return {i: torch.cat([part.flatten() for part in parts]) for i, parts in tokens.items()}


@pytest.mark.slow
@pytest.mark.parametrize('policy', ['xstream', 'sliding_window', 'frame_coverage', 'random',
                                    'value_aware'])
@pytest.mark.parametrize('scheme', SCHEMES)
def test_every_token_is_quantised_once_and_never_again(scheme, policy):
    cache = make_cache(policy=policy, scheme=scheme)
    generator = torch.Generator().manual_seed(0)
    stored, lived = {}, 0
    for step in range(500 if policy == 'xstream' else 60):
        q, k, v = torch.randn(3, 2, 2, 40, 64, generator=generator)
        for i in range(2):
            cache.attend(i, q[i], k[i], v[i])
        cache.end_step()
        if step % 20 and step > 10:
            continue  # looking costs more than the steps
        now = decoded_by_id(cache)
        for i, value in now.items():
            if i in stored:
                assert torch.equal(value, stored[i]), f'token {i} changed by step {step}'
                lived += 1
        stored |= now
    assert lived > 200


@pytest.mark.slow
@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('policy', ['xstream', 'value_aware', 'random'])
def test_rows_never_run_out_of_rows(policy, scheme):
    """The error of what is remembered stays that of one quantisation, in every row."""
    layout = CacheLayout(layers=2, heads=1, head_dim=64, tokens_per_step=133, special_tokens=5)
    cache = make_cache(layout, budget=1500, policy=policy, scheme=scheme)
    generator = torch.Generator().manual_seed(0)
    original = {}
    for step in range(80):
        q, k, v = torch.randn(3, 2, 1, 133, 64, generator=generator)
        for i in range(2):
            cache.attend(i, q[i], k[i], v[i])
        cache.end_step()
        original |= {step * 133 + t: k[0, :, t].flatten() for t in range(133)}
        rows = cache.store._rows_in_use(cache.token_ids >= 0)
        free = (rows == 0).sum(dim=1)
        assert (free >= cache.store._rows_per_step).all(), step
    decoded = decoded_by_id(cache)
    assert len(decoded) == 1500
    error = torch.stack([decoded[i][:64] - original[i] for i in decoded])
    assert error.square().mean().sqrt() < 0.11


def test_the_newest_frame_sees_its_own_keys_unquantised():
    cache = make_cache()
    q, k, v = torch.randn(3, 2, 2, 40, 64, generator=torch.Generator().manual_seed(0))
    out = cache.attend(0, q[0], k[0], v[0])
    expected = torch.nn.functional.scaled_dot_product_attention(q[0], k[0], v[0])
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)


def test_heads_decoded_in_parts_give_the_same(monkeypatch):
    from xsvggt_ros.kv_cache import store

    whole = make_cache()
    monkeypatch.setitem(store.SCRATCH_BYTES, 'cpu', 1)
    parts = make_cache()
    assert parts.store.scratch.shape[1] == 1 < whole.store.scratch.shape[1]
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        q, k, v = torch.randn(3, 2, 2, 40, 64, generator=generator)
        for i in range(2):
            torch.testing.assert_close(
                parts.attend(i, q[i], k[i], v[i]), whole.attend(i, q[i], k[i], v[i]))
        parts.end_step()
        whole.end_step()
    for a, b in zip(parts.kept_token_ids(), whole.kept_token_ids()):
        assert torch.equal(a, b)


def test_a_packed_cache_without_a_limit_grows():
    cache = make_cache(policy='full', budget=None)
    generator = torch.Generator().manual_seed(0)
    for step in range(20):
        q, k, v = torch.randn(3, 2, 2, 40, 64, generator=generator)
        for i in range(2):
            cache.attend(i, q[i], k[i], v[i])
        cache.end_step()
        if step == 3:
            early = decoded_by_id(cache)
    late = decoded_by_id(cache)
    assert len(late) == 800
    assert all(torch.equal(late[i], early[i]) for i in early)


# A size at which the cache, not its bookkeeping, decides: 24 layers, 16 heads, two frames of
# 518x392 and five frames of history.
FULL = CacheLayout(layers=24, heads=16, head_dim=64, tokens_per_step=1041, special_tokens=5)
FULL_BUDGET = 7300


def reserved_at_full_size(policy='xstream', **settings):
    config = CacheConfig(policy=policy, **settings)
    return build_cache(FULL, config, FULL_BUDGET, torch.bfloat16, 'meta',
                       config.quantization).bytes_reserved


@pytest.mark.parametrize('policy, scheme, share', [
    ('xstream', 'token', 0.29), ('frame_coverage', 'token', 0.29),
    ('frame_coverage', 'kcvt', 0.293), ('xstream', 'kcvt', 0.32)])
def test_bytes_at_equal_tokens(policy, scheme, share):
    """Scratch and bookkeeping included."""
    packed = reserved_at_full_size(policy, quantization='int4', scheme=scheme)
    assert packed <= share * reserved_at_full_size(policy, storage='bf16')
    assert packed <= share / 2 * reserved_at_full_size(policy, storage='fp32')


MEASURE = """
import gc, sys, torch
from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * 4096
quantization, storage = sys.argv[1:]
config = CacheConfig(policy='frame_coverage', quantization=quantization, storage=storage)
def build(budget, **layout):
    layout = CacheLayout(head_dim=64, special_tokens=5, **layout)
    cache = build_cache(layout, config, budget, torch.bfloat16, 'cpu', quantization)
    for tensor in gc.get_objects():
        if type(tensor) is torch.Tensor:
            tensor.fill_(1)  # memory counts once it is written to
    gc.collect()
    return cache
build(100, layers=2, heads=2, tokens_per_step=25)  # what Python and torch need for themselves
before = resident()
cache = build(8328, layers=24, heads=16, tokens_per_step=1041)
print(resident() - before, cache.bytes_reserved)
"""


def resident_bytes(quantization, storage='auto'):
    done = subprocess.run([sys.executable, '-c', MEASURE, quantization, storage],
                          stdout=subprocess.PIPE, check=True, text=True)
    resident, reserved = map(int, done.stdout.split())
    assert resident == pytest.approx(reserved, rel=0.1, abs=4e6)
    return resident


@pytest.mark.slow
def test_process_memory_at_equal_tokens():
    packed, half, single = (
        resident_bytes('int4'), resident_bytes('none', 'bf16'), resident_bytes('none', 'fp32'))
    assert packed <= 0.29 * half
    assert packed <= 0.145 * single


# Against golden data ----------------------------------------------------------------------------

@pytest.mark.slow
def test_int4_disturbs_depth_less_than_the_published_quantisation():
    """Mean |d log depth| over the last two frames, against the same policy unquantised."""
    ratios = []
    for name, budget in (('tiny_h1', 60), ('small_h2', 80)):
        case = golden_data.load_case(name)
        model = StreamVGGT(ModelConfig.from_dict(case.config))
        model.load_state_dict(case.weights)
        logs = []
        for quantization in ('none', 'int4'):
            engine = StreamEngine(model, EngineConfig(CacheConfig(
                policy='xstream', max_tokens=budget, camera_max_tokens=budget,
                quantization=quantization)))
            depths = [engine.step(case.rgb(i)).depth.log() for i in range(len(case.frames))]
            logs.append(torch.stack(depths[-2:]))
        published = case.modes['pq'][
            'effect_meanabs_per_frame_logdepth_vs_same_budget_unquantised'][-2:]
        ratios.append((logs[1] - logs[0]).abs().mean().item() / (sum(published) / 2))
    assert max(ratios) <= 0.75, ratios
