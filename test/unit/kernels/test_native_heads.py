"""Queries and keys of wide layers: C++ gives what PyTorch gives, to rounding."""

from native_calls import BUILT, count_calls, random, random_weights
import pytest
import torch

from xsvggt_ros.kernels import native_heads
from xsvggt_ros.model.layers import Attention
from xsvggt_ros.model.positions import grid_rotary_table

if not BUILT:
    pytest.skip('native.cpp was not built: make env, or colcon build', allow_module_level=True)
EPS = {torch.float32: 2e-6, torch.bfloat16: 2.0 ** -7}  # of the portable path's three roundings


def attention(heads=3, head=32, rows=4, columns=5, frame=True, dtype=torch.float32):
    """Return an attention with norms, its tables for a grid, and projections for them."""
    layer = random_weights(Attention(heads * head, heads, True, frame))
    layer.qkv.to(dtype)
    rope = tuple(part.float() for part in grid_rotary_table(rows, columns, 2, head, 100.0))
    tokens = rows * columns + 2
    packed = random(tokens, 3 * heads * head) * torch.logspace(-2, 2, tokens)[:, None]
    return layer, layer.tables(rope), packed.to(dtype)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('frame', [True, False])
@pytest.mark.parametrize('heads, head', [(3, 32), (1, 64), (2, 48), (16, 64)])
@torch.inference_mode()
def test_heads_are_the_same(library, plainly, heads, head, frame, dtype):
    layer, tables, packed = attention(heads, head, frame=frame, dtype=dtype)
    results, calls = count_calls(layer.split_heads, packed, *tables)
    assert calls == {'xsvggt_place_heads': 1}
    expected = plainly(layer.split_heads, packed, *tables)
    precision = torch.bfloat16 if frame and dtype == torch.bfloat16 else torch.float32
    for result, other in zip(results, expected):
        assert result.dtype == other.dtype == precision and result.shape == other.shape
        near = EPS[precision]
        torch.testing.assert_close(result, other, rtol=near, atol=near * 4)
    assert torch.equal(results[2], expected[2])  # values are left as they are


@torch.inference_mode()
def test_it_is_what_the_definition_says(library):
    """In fp64, from weights and angles that were not folded."""
    layer, tables, packed = attention()
    query, key, _ = layer.split_heads(packed, *tables)
    cosines, sines = grid_rotary_table(4, 5, 2, 32, 100.0)
    for result, norm, x in zip((query, key), (layer.q_norm, layer.k_norm),
                               packed.double().view(22, 3, 3, 32).unbind(1)):
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias
        first, second = x.unflatten(-1, (2, 2, 8)).unbind(-2)  # partners in each half
        partners = torch.stack([second, first], -2).flatten(-3)
        expected = x * cosines[:, None] + partners * sines[:, None]
        torch.testing.assert_close(result.double(), expected.transpose(0, 1), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_what_it_is_not_for(library):
    layer, tables, packed = attention()
    assert native_heads.takes(packed, 3, tables)
    assert not native_heads.takes(packed.half(), 3, tables)
    assert not native_heads.takes(packed[None], 3, tables)
    assert not native_heads.takes(packed[:-1], 3, tables)  # positions of other tokens
    assert not native_heads.takes(packed, 3, tables[:2])
    assert not native_heads.takes(packed[:, ::2].repeat(1, 2)[:, ::2], 3, tables)
    odd = attention(heads=4, head=24)
    assert not native_heads.takes(odd[2], 4, odd[1])
    with torch.inference_mode(False), torch.enable_grad():
        assert not native_heads.takes(packed, 3, tables)


@torch.inference_mode()
def test_numbers_that_are_none_stay_in_their_head(library):
    layer, tables, packed = attention()
    spoilt = packed.clone()
    spoilt[5, 40] = torch.nan  # the second head of the queries
    for name, result, other in zip('qkv', layer.split_heads(spoilt, *tables),
                                   layer.split_heads(packed, *tables)):
        differs = (result != other).any(-1).nonzero().tolist()
        assert differs == ([[1, 5]] if name == 'q' else [])
