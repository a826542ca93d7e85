"""
The Triton kernels give what the portable path gives.

Without a GPU they run in Triton's interpreter (TRITON_INTERPRET, set in conftest.py), on one the
same tests run them compiled.
"""

import dataclasses
import os
from pathlib import Path
import subprocess
import sys

import pytest
import torch

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kernels.availability import interpreted, load, why_not
from xsvggt_ros.kernels.packing import TokenLayer
from xsvggt_ros.kv_cache import token_store
from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout
from xsvggt_ros.model.checkpoint import load_model
from xsvggt_ros.model.layers import Attention
from xsvggt_ros.model.positions import apply_rope, grid_rotary_table

pytest.importorskip('triton', reason='python3 -m pip install triton')
DEVICE = 'cpu' if interpreted() else 'cuda'
if reason := why_not(DEVICE, 64):
    pytest.skip(reason, allow_module_level=True)

from xsvggt_ros.kernels import packed as kernels  # noqa: E402, I100
from xsvggt_ros.kernels.gemv import product as gemv_product  # noqa: E402, I100
from xsvggt_ros.kernels.qkv import split_qkv  # noqa: E402

# 23 patches in one frame, fewer than a tile, and a history of four frames: no whole tiles.
HEADS, DIM, SPECIAL, TOKENS, FRAMES = 2, 64, 5, 28, 5


class Layer:
    """One layer of a packed cache, filled by PyTorch and, beside it, by the kernel."""

    def __init__(self, bits, dim=DIM, dtype=torch.float32, seed=0):
        self.bits, self.dim, self.dtype = bits, dim, dtype
        self.generator = torch.Generator().manual_seed(seed)
        self.slots = (FRAMES + 1) * TOKENS
        self.stored, self.by_kernel = self.empty(), self.empty()
        self.token_ids = torch.full((self.slots,), -1, device=DEVICE)
        order = torch.randperm(self.slots, generator=self.generator).to(DEVICE)
        self.slots_of = order.split(TOKENS)

    def empty(self):
        def zeros(*shape, dtype=torch.half):
            return torch.zeros(HEADS, *shape, dtype=dtype, device=DEVICE)

        payload = self.slots, self.dim * self.bits // 8
        return TokenLayer(
            zeros(*payload, dtype=torch.uint8), zeros(*payload, dtype=torch.uint8),
            zeros(self.slots, 1), zeros(self.slots, 1), zeros(FRAMES + 1, 4, self.dim),
            torch.zeros(self.slots, dtype=torch.int32, device=DEVICE), self.bits)

    def random(self):
        """Return [HEADS, TOKENS, dim] as the network gives it: not contiguous, off zero."""
        x = torch.randn(TOKENS, HEADS, self.dim, generator=self.generator)
        x = x * torch.linspace(0.2, 3, self.dim) + torch.linspace(-4, 4, self.dim)
        return x.to(DEVICE, self.dtype).transpose(0, 1)

    def insert(self, step):
        key, value, slots = self.random(), self.random(), self.slots_of[step]
        row = torch.tensor([FRAMES - step], device=DEVICE)
        self.stored.insert(key, value, slots, row)
        kernels.insert(self.by_kernel, key, value, slots, row)
        self.token_ids[slots] = step * TOKENS + torch.arange(TOKENS, device=DEVICE)

    def decoded(self, used):
        """Return keys and values [HEADS, used, dim] fp32 as PyTorch decodes them."""
        keys, values = torch.empty(2, HEADS, used, self.dim, device=DEVICE)
        self.stored.decode(keys, values)
        return keys, values


def filled(frames=FRAMES, **settings):
    layer = Layer(**settings)
    for step in range(frames):
        layer.insert(step)
    return layer


def same_bytes(layer):
    """Return whether both are equal; a GPU divides in another way than the kernel."""
    pairs = [(getattr(layer.by_kernel, name), getattr(layer.stored, name)) for name in (
        'statistics', 'rows', 'key_scale', 'value_scale', 'keys', 'values')]
    if interpreted():
        return all(torch.equal(*pair) for pair in pairs)
    for found, expected in pairs[:4]:
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-6)
    return all((found != expected).float().mean() < 1e-3 for found, expected in pairs[4:])


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('bits, dim', [(4, 64), (8, 64), (4, 32)])
def test_insert_writes_the_same_bytes(bits, dim, dtype):
    layer = filled(bits=bits, dim=dim, dtype=dtype)
    assert layer.stored.keys.any() and layer.stored.values.any()
    assert same_bytes(layer)


def test_insert_of_constant_and_of_tied_values():
    layer = Layer(bits=4)
    ramp = torch.arange(DIM, device=DEVICE) % 31 / 2  # many lie half-way between two levels
    layer.random = lambda: ramp.expand(HEADS, TOKENS, DIM).contiguous()
    layer.insert(0)
    layer.random = lambda: torch.full((HEADS, TOKENS, DIM), -3.25, device=DEVICE)
    layer.insert(1)
    assert same_bytes(layer)


def test_insert_leaves_other_slots_alone():
    layer = filled(frames=1, bits=4)
    before = layer.by_kernel.keys.clone()
    layer.insert(1)
    untouched = layer.slots_of[0]
    assert torch.equal(layer.by_kernel.keys[:, untouched], before[:, untouched])


@pytest.mark.parametrize('bits', [4, 8])
def test_decode_is_the_portable_one(bits):
    layer = filled(bits=bits)
    used = layer.slots - 3
    keys, values = layer.decoded(used)
    scratch = torch.zeros(2, HEADS, layer.slots, DIM, device=DEVICE)
    kernels.decode(layer.stored, scratch[0, :, :used], scratch[1, :, :used])
    live = layer.token_ids[:used] >= 0
    torch.testing.assert_close(scratch[0, :, :used][:, live], keys[:, live], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        scratch[1, :, :used][:, live], values[:, live], rtol=1e-6, atol=1e-6)
    assert not scratch[:, :, used:].any()


def test_decode_of_some_heads():
    layer = filled(bits=4)
    keys, values = layer.decoded(layer.slots)
    out = torch.zeros(2, 1, layer.slots, DIM, device=DEVICE)
    last = slice(HEADS - 1, HEADS)
    kernels.decode(layer.stored.of_heads(last), *out)
    live = layer.token_ids >= 0
    torch.testing.assert_close(out[0][:, live], keys[last][:, live], rtol=1e-6, atol=1e-6)


def reference_attention(layer, query, key, value):
    """Return the attention over the packed tokens and the frame's own, in fp64."""
    live = layer.token_ids >= 0
    keys, values = layer.decoded(layer.slots)
    keys = torch.cat([keys[:, live], key.float()], dim=1).double()
    values = torch.cat([values[:, live], value.float()], dim=1).double()
    weights = (query.double() @ keys.transpose(1, 2) * layer.dim ** -0.5).softmax(-1)
    return weights @ values


@pytest.mark.slow
@pytest.mark.parametrize('bits, dim', [(4, 64), (8, 64), (4, 32)])
def test_attention_over_packed_tokens(bits, dim):
    layer = filled(bits=bits, dim=dim)
    query, key, value = layer.random() / 8, layer.random(), layer.random()
    out = kernels.attend(layer.stored, layer.token_ids, query, key, value)
    expected = reference_attention(layer, query, key, value)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    # The test has teeth: the history counts, and so do the frame's own tokens.
    alone = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    assert (out - alone).abs().max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_attention_in_half_precision(dtype):
    # Half a unit of the last place of values, which are up to 8; sums are in fp32, on a GPU too.
    tolerance = 8 * torch.finfo(dtype).eps / 2
    layer = filled(bits=4, dtype=dtype)
    query, key, value = layer.random() / 8, layer.random(), layer.random()
    out = kernels.attend(layer.stored, layer.token_ids, query, key, value)
    assert out.dtype == dtype
    expected = reference_attention(layer, query, key, value)
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)


def test_attention_with_an_empty_history_is_self_attention():
    layer = Layer(bits=4)
    query, key, value = layer.random() / 8, layer.random(), layer.random()
    out = kernels.attend(layer.stored, layer.token_ids, query, key, value)
    alone = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(out, alone, rtol=1e-5, atol=1e-5)


def test_wrong_shapes_are_refused():
    layer = Layer(bits=4)
    key = layer.random()
    with pytest.raises(ValueError, match='does not hold'):
        kernels.attend(dataclasses.replace(layer.stored, bits=8), layer.token_ids, key, key, key)
    with pytest.raises(ValueError, match='contiguous'):
        kernels.attend(layer.stored, layer.token_ids,
                       key.transpose(1, 2).contiguous().transpose(1, 2), key, key)
    with pytest.raises(ValueError, match='heads'):
        kernels.attend(layer.stored, layer.token_ids, key[:1], key[:1], key[:1])


# fp32 is added in another order; fewer bits then round the result, half a unit to either side.
@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 2e-6), (torch.bfloat16, 1.6e-2)])
@pytest.mark.parametrize('rows, columns', [(1, 2), (7, 11)])
def test_split_is_the_attention_layers(rows, columns, dtype, tolerance):
    heads, generator = 2, torch.Generator().manual_seed(0)
    layer = Attention(heads * DIM, heads, qk_norm=True).to(DEVICE)
    with torch.no_grad():
        for norm in (layer.q_norm, layer.k_norm):
            norm.weight.copy_(torch.rand(DIM, generator=generator) + 0.5)
            norm.bias.copy_(torch.randn(DIM, generator=generator))
    rope = [table.float().to(DEVICE)
            for table in grid_rotary_table(rows, columns, SPECIAL, DIM, 100.0)]
    tokens = SPECIAL + rows * columns
    packed = (3 * torch.randn(tokens, 3 * heads * DIM, generator=generator) + 1).to(DEVICE, dtype)
    parts = packed.unflatten(-1, (3, heads, DIM)).movedim(-3, 0).transpose(-3, -2)
    expected = [apply_rope(layer.q_norm(parts[0].float()), rope).to(dtype),
                apply_rope(layer.k_norm(parts[1].float()), rope).to(dtype), parts[2]]
    out = split_qkv(
        packed, heads, (layer.q_norm.weight.detach(), layer.q_norm.bias.detach()),
        (layer.k_norm.weight.detach(), layer.k_norm.bias.detach()), layer.q_norm.eps, rope)
    for part, reference in zip(out, expected):
        assert part.is_contiguous() and part.dtype == dtype
        torch.testing.assert_close(part, reference.detach(), rtol=tolerance, atol=tolerance)
    assert torch.equal(out[2], parts[2])


def test_split_without_norms_only_moves():
    packed = torch.randn(9, 3 * HEADS * DIM, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    parts = packed.unflatten(-1, (3, HEADS, DIM)).movedim(-3, 0).transpose(-3, -2)
    for part, expected in zip(split_qkv(packed, HEADS), parts):
        assert torch.equal(part, expected)


# As above: a unit of the last place is 2 ** -10 in fp16 and 2 ** -7 in bf16; two are allowed.
@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 2e-6), (torch.float16, 2e-3),
                                              (torch.bfloat16, 1.6e-2)])
@pytest.mark.parametrize('after', ['nothing', 'bias', 'gelu', 'residual'])
@pytest.mark.parametrize('inputs, outputs', [(96, 40), (1100, 300)])  # no whole tiles
def test_a_token_through_int8_weights(inputs, outputs, after, dtype, tolerance):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator).to(DEVICE, dtype)

    weights = torch.randint(-127, 128, (outputs, inputs), generator=generator,
                            dtype=torch.int8).to(DEVICE)
    scales = (random(outputs, 1).abs() + 0.1).float() / 127 / inputs ** 0.5
    x, bias = random(1, inputs), None if after == 'nothing' else random(outputs)
    residual = random(1, outputs).float() if after == 'residual' else None
    out = gemv_product(x, weights, scales, bias, after == 'gelu', residual)
    expected = x.double() @ (weights.double() * scales.double()).T
    if bias is not None:
        expected = expected + bias.double()
    if after == 'gelu':
        expected = torch.nn.functional.gelu(expected)
    if residual is not None:
        expected = expected + residual.double()
    assert out.dtype == (torch.float32 if after == 'residual' else dtype)
    assert out.shape == (1, outputs)
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)


def test_int8_weights_take_one_token_only():
    weights = torch.ones(4, 8, dtype=torch.int8, device=DEVICE)
    scales = torch.ones(4, 1, device=DEVICE)
    with pytest.raises(ValueError, match='one token of 8'):
        gemv_product(torch.ones(2, 8, device=DEVICE), weights, scales)
    with pytest.raises(ValueError, match='contiguous'):
        gemv_product(torch.ones(1, 4, device=DEVICE), weights.T, scales)


LAYOUT = CacheLayout(layers=2, heads=HEADS, head_dim=DIM, tokens_per_step=TOKENS,
                     special_tokens=SPECIAL)


@pytest.mark.slow
@pytest.mark.parametrize('fused_from', [0, 10 ** 6])
@pytest.mark.parametrize('policy', ['full', 'xstream', 'sliding_window'])
def test_a_cache_of_kernels_is_the_portable_one(policy, fused_from, monkeypatch):
    monkeypatch.setattr(token_store, 'FUSED_FROM', fused_from)
    caches = [build_cache(LAYOUT, CacheConfig(policy=policy), 3 * TOKENS, torch.float32, DEVICE,
                          'int4', kernels) for kernels in ('portable', 'triton')]
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):  # 'full' grows once
        for layer in range(LAYOUT.layers):
            qkv = torch.randn(3, HEADS, TOKENS, DIM, generator=generator).to(DEVICE)
            expected, read = (cache.attend(layer, *qkv) for cache in caches)
            torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-5)
        for cache in caches:
            cache.end_step()
        for ids, others in zip(*(cache.kept_token_ids() for cache in caches)):
            assert torch.equal(ids, others)


@pytest.mark.slow
def test_the_fused_kernel_is_used_for_large_caches_only(monkeypatch):
    calls = []
    fused = kernels.attend
    monkeypatch.setattr(kernels, 'attend', lambda *args: calls.append(1) or fused(*args))
    monkeypatch.setattr(token_store, 'FUSED_FROM', 2 * TOKENS)
    cache = build_cache(LAYOUT, CacheConfig(policy='full'), None, torch.float32, DEVICE, 'int4',
                        'triton')
    counts = []
    for _ in range(3):
        for layer in range(LAYOUT.layers):
            x = torch.randn(HEADS, TOKENS, DIM).to(DEVICE)
            cache.attend(layer, x, x, x)
        cache.end_step()
        counts.append(len(calls))
    assert counts == [0, 2, 4]


@pytest.mark.slow
@pytest.mark.parametrize('weights', ['float', 'int8_camera'])
def test_a_stream_with_kernels_is_the_portable_one(weights):
    config = CacheConfig(policy='full', quantization='int4')
    engines = [StreamEngine(
        load_model('small', weights=weights).model,
        EngineConfig(config, DEVICE, image_size=56, kernels=way))
        for way in ('portable', 'triton')]
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        frame = torch.randint(0, 256, (42, 56, 3), generator=generator, dtype=torch.uint8)
        expected, result = (engine.step(frame) for engine in engines)
        torch.testing.assert_close(result.depth, expected.depth, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(
            result.pose_encoding, expected.pose_encoding, rtol=1e-3, atol=1e-3)


def test_what_is_loaded_is_what_was_chosen(monkeypatch):
    assert load('packed', 'portable', DEVICE, DIM) is None
    assert load('packed', 'triton', 'meta', DIM) is None
    assert load('packed', 'triton', DEVICE, DIM) is load('packed', 'auto', DEVICE, DIM) is kernels
    assert load('packed', 'auto', DEVICE, 48) is None
    with pytest.raises(ValueError, match='powers of two'):
        load('packed', 'triton', DEVICE, 48)
    with pytest.raises(ValueError, match='must be one of'):
        load('packed', 'cuda', DEVICE, DIM)


@pytest.mark.slow
@pytest.mark.parametrize('capability', [87, 90])  # Orin and H100
def test_kernels_compile_for(capability, tmp_path):
    program = Path(__file__).with_name('compile_kernels.py')
    environment = {**os.environ, 'TRITON_INTERPRET': '0', 'TRITON_CACHE_DIR': str(tmp_path)}
    subprocess.run([sys.executable, program, str(capability)], env=environment, check=True)


def test_a_head_that_is_no_power_of_two_is_refused():
    assert 'powers of two' in why_not(DEVICE, 48)


@pytest.mark.slow
def test_without_triton_the_portable_path_is_whole():
    program = ('import sys; sys.modules["triton"] = None\n'
               'import xsvggt_ros.kv_cache.store, xsvggt_ros.engine.stream_engine\n'
               'from xsvggt_ros.kernels.availability import why_not\n'
               'assert "triton" in why_not("cpu", 64), why_not("cpu", 64)\n')
    subprocess.run([sys.executable, '-c', program], check=True)
