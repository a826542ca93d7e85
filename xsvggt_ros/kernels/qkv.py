"""
A Triton kernel that cuts queries, keys and values out of one product, normalised, with RoPE.

In PyTorch this takes about 30 operations in each of the network's attention layers. Importing
this module needs Triton; `availability.why_not` tells whether it will do. The kernel is checked
against PyTorch in Triton's interpreter and compiled for several GPUs, both on a CPU: it has not
run on a GPU yet.
"""

import torch
from torch import Tensor
import triton
import triton.language as tl

from xsvggt_ros.kernels.availability import interpreted

TOKENS = 64 if interpreted() else 16  # per program

# Weight and bias [head_dim] of a layer norm, or cosines and signed sines [tokens, head_dim].
Pair = tuple[Tensor, Tensor]


def split_qkv(
    packed: Tensor, heads: int, query_norm: Pair | None = None, key_norm: Pair | None = None,
    eps: float = 1e-5, rotary: Pair | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Return queries, keys and values, [heads, tokens, head_dim] each and contiguous.

    packed: [tokens, 3 * heads * head_dim], contiguous: all queries, then keys, then values. With
    norms, of queries and keys both, each head is normalised over its channels, and then rotated
    by ``rotary``, if given; in fp32, rounded once to the type of ``packed``. In the tables of
    ``rotary`` channel i of a half pairs with channel i + head_dim / 4 of it.
    """
    tokens = packed.shape[0]
    dim = packed.shape[1] // (3 * heads)
    if not packed.is_contiguous() or (query_norm is None) != (key_norm is None):
        raise ValueError('the product must be contiguous, and both norms given or none')
    if rotary is not None and query_norm is None:
        raise ValueError('without norms there is no rotary embedding')
    if rotary is not None and rotary[0].shape != (tokens, dim):
        raise ValueError(f'rotary tables of {list(rotary[0].shape)} do not suit {tokens} tokens '
                         f'of {dim} channels')
    out = torch.empty(3, heads, tokens, dim, dtype=packed.dtype, device=packed.device)
    unused = (packed, packed)
    norms = (*(query_norm or unused), *(key_norm or unused))
    tables = rotary if rotary is not None else unused
    grid = (triton.cdiv(tokens, TOKENS), heads)
    _split[grid](packed, out, *norms, *tables, tokens, heads, eps, NORM=query_norm is not None,
                 ROTARY=rotary is not None, DIM=dim, TOKENS=TOKENS, num_warps=4)
    query, key, value = out.unbind(0)
    return query, key, value


@triton.jit
def _norm_and_rope(source, token, mask, weight, bias, cosines, sines, eps,
                   ROTARY: tl.constexpr, DIM: tl.constexpr, row):
    """Return a head's tokens [tokens, DIM], normalised, with RoPE, in fp32."""
    channel = tl.arange(0, DIM)
    x = tl.load(source + token[:, None] * row + channel[None, :], mask=mask[:, None], other=0.0)
    x = x.to(tl.float32)
    mean = tl.sum(x, 1)[:, None] / DIM
    variance = tl.sum((x - mean) * (x - mean), 1)[:, None] / DIM
    inverse = 1 / tl.sqrt(variance + eps)
    normed = (x - mean) * inverse * tl.load(weight + channel)[None, :] \
        + tl.load(bias + channel)[None, :]
    if not ROTARY:
        return normed
    # The partner's channels are read once more: they are in the first cache.
    partner = channel ^ (DIM // 4)
    y = tl.load(source + token[:, None] * row + partner[None, :], mask=mask[:, None], other=0.0)
    swapped = (y.to(tl.float32) - mean) * inverse * tl.load(weight + partner)[None, :] \
        + tl.load(bias + partner)[None, :]
    table = token[:, None] * DIM + channel[None, :]
    cosine = tl.load(cosines + table, mask=mask[:, None], other=0.0)
    sine = tl.load(sines + table, mask=mask[:, None], other=0.0)
    return normed * cosine + swapped * sine


@triton.jit(do_not_specialize=['tokens'])
def _split(
    packed, out, query_weight, query_bias, key_weight, key_bias, cosines, sines,
    tokens, heads, eps,
    NORM: tl.constexpr, ROTARY: tl.constexpr, DIM: tl.constexpr, TOKENS: tl.constexpr,
):
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    head = tl.program_id(1)
    mask = token < tokens
    channel = tl.arange(0, DIM)[None, :]
    row = 3 * heads * DIM
    source = packed + head * DIM
    target = out + (head * tokens + token)[:, None] * DIM + channel
    third = heads * DIM
    kind = out.dtype.element_ty
    if NORM:
        query = _norm_and_rope(source, token, mask, query_weight, query_bias, cosines, sines,
                               eps, ROTARY, DIM, row)
        key = _norm_and_rope(source + third, token, mask, key_weight, key_bias, cosines, sines,
                             eps, ROTARY, DIM, row)
    else:
        address = token[:, None] * row + channel
        query = tl.load(source + address, mask=mask[:, None], other=0.0)
        key = tl.load(source + third + address, mask=mask[:, None], other=0.0)
    value = tl.load(source + 2 * third + token[:, None] * row + channel, mask=mask[:, None],
                    other=0.0)
    tl.store(target, query.to(kind), mask=mask[:, None])
    tl.store(target + tokens * third, key.to(kind), mask=mask[:, None])
    tl.store(target + 2 * tokens * third, value, mask=mask[:, None])
