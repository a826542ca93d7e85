"""Attention inside a frame in bf16: C++ in integers is as near to the truth as bf16 is."""

from native_calls import BUILT, count_calls, random
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from xsvggt_ros.kernels import native_heads
from xsvggt_ros.kernels.attention import attention
from xsvggt_ros.model.layers import Attention, self_attention

if not BUILT:
    pytest.skip('native.cpp was not built: make env, or colcon build', allow_module_level=True)
ROUNDING = 2.0 ** -9  # of bf16, at most, of what is returned


@pytest.fixture(autouse=True)
def takes_it(library):
    if not library.xsvggt_attends_packed(64):
        pytest.skip('this processor has no products of 16 bits')


def heads_of(packed):
    """Return queries, keys and values [heads, tokens, d] in bf16, as they lie in a projection."""
    return packed.bfloat16().permute(1, 2, 0, 3).unbind()


def error(result, query, key, value):
    """Return the error of an attention, relative to the fp64 one, RMS."""
    exact = scaled_dot_product_attention(query.double(), key.double(), value.double())
    return float((result - exact).norm() / exact.norm())


def times(part, factor, channel=slice(None), tokens=slice(None)):
    """Return what makes some numbers larger."""
    def change(packed):
        packed[tokens, part, :, channel] *= factor
    return change


@pytest.mark.parametrize('change', [
    times(0, 1), times(0, 9), times(1, 30, 7), times(1, 3e4, 7), times(2, 100, 3),
    times(2, 100, tokens=slice(3)), times(1, 8, tokens=-1), times(1, 0), times(2, 0, tokens=0),
    times(0, 0), times(1, 1e-30), times(2, 1e-30)], ids=range(12))
@pytest.mark.parametrize('tokens, heads, dim', [
    (197, 2, 64), (2, 1, 32), (5, 3, 64), (65, 1, 64), (129, 2, 32), (300, 1, 32)])
@torch.inference_mode()
def test_it_is_what_the_definition_says(tokens, heads, dim, change):
    packed = random(tokens, 3, heads, dim, seed=tokens)
    change(packed)
    query, key, value = heads_of(packed)
    query = query * (0.01 if key.abs().max() > 1e3 else 1)   # else one key is all there is
    result, calls = count_calls(attention, query, key, value)
    assert calls['xsvggt_attend_frame'] == 1 and result.dtype == torch.bfloat16
    assert error(result, query, key, value) < 1.2 * ROUNDING


@torch.inference_mode()
def test_it_is_the_same_on_any_number_of_threads():
    query, key, value = heads_of(random(140, 3, 5, 64))
    torch.set_num_threads(1)
    one = attention(query, key, value)
    torch.set_num_threads(3)
    assert torch.equal(attention(query, key, value), one)


@pytest.mark.parametrize('bad', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize('part', range(3))
@pytest.mark.parametrize('token', [0, 3, 128])
@torch.inference_mode()
def test_numbers_that_are_none_spoil_what_reads_them(token, part, bad):
    packed = random(129, 3, 2, 64)
    expected = attention(*heads_of(packed))
    packed[token, part, 1, 9] = bad
    result = attention(*heads_of(packed))
    if part:   # keys and values are read by all
        assert result[1].isnan().all() and torch.equal(result[0], expected[0])
    else:
        others = torch.arange(129) != token
        assert result[1, token].isnan().all()
        assert torch.equal(result[:, others], expected[:, others])


@torch.inference_mode()
def test_what_it_is_not_for(plainly):
    query, key, value = heads_of(random(70, 3, 2, 64))
    takes = native_heads.takes_attention
    assert takes(query, key, value)
    assert not takes(query.half(), key.half(), value.half())
    assert not takes(query[:, :1], key, value)   # few queries over many keys
    assert not takes(query[:, :1], key[:, :1], value[:, :1])
    assert not takes(*heads_of(random(70, 3, 2, 48)))
    assert not takes(*heads_of(random(70, 3, 2, 96)))   # sums leave too little to the queries
    assert not takes(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    assert plainly(takes, query, key, value) is False
    with torch.inference_mode(False), torch.enable_grad():
        assert not takes(query, key, value)


@pytest.mark.parametrize('tokens', [20, 1000])
@torch.inference_mode()
def test_inside_frames_it_is_for_any_number_of_tokens(plainly, tokens):
    layer = Attention(64, 2, False, True).bfloat16()
    packed = random(tokens, 3 * 64).bfloat16()
    query, _, _ = layer.split_heads(packed)
    assert query.dtype == torch.bfloat16
    query, _, _ = plainly(layer.split_heads, packed)
    assert query.dtype == (torch.bfloat16 if tokens < 768 else torch.float32)


@torch.inference_mode()
def test_a_batch_of_one_is_taken_too():
    query, key, value = heads_of(random(20, 3, 2, 64))
    result, calls = count_calls(self_attention, query[None], key[None], value[None])
    assert calls['xsvggt_attend_frame'] == 1
    assert torch.equal(result, attention(query, key, value)[None])
