"""
Triton kernels for keys and values that are packed by the scheme `token` (see `packing`).

`insert` and `decode` do what those of `packing.TokenLayer` do in PyTorch, `attend` what `decode`
does with an attention behind it. Importing this module needs Triton; `availability.why_not` tells
whether it will do. The kernels are checked against PyTorch in Triton's interpreter and compiled
for several GPUs, both on a CPU: none has run on a GPU yet.

A head's channels are handled as two halves, as they are packed: the first half lies in the low
bits of a byte, the second in the high ones, so that nothing is ever interleaved.
"""

import torch
from torch import Tensor
import triton
import triton.language as tl

from xsvggt_ros.kernels.availability import interpreted
from xsvggt_ros.kernels.packing import TokenLayer

LOG2_E = 1.4426950408889634
# A program of the interpreter costs much the same whatever its size.
TOKENS = 64 if interpreted() else 32  # of insert and decode, per program
# Tile of attend, queries and keys: the largest that spill no registers
# (test/unit/kernels/compile_kernels.py).
TILE, TILE_FP32 = (128, 32), (32, 16)


def insert(layer: TokenLayer, key: Tensor, value: Tensor, slots: Tensor, row: Tensor) -> None:
    """
    Quantise a frame's tokens and write them into their slots; see `TokenLayer.insert`.

    key, value: [heads, tokens, head_dim], with contiguous channels. slots: [tokens] int64; row:
    [1] int64.
    """
    heads, tokens, dim = key.shape
    _check(layer, key, value)
    layer.check(len(slots), key, value)
    where = layer.statistics, layer.statistics.stride(0), row
    _fit[(heads,)](key, *key.stride()[:2], value, *value.stride()[:2], *where, tokens,
                   DIM=dim, TOKENS=TOKENS, num_warps=4)
    grid = (triton.cdiv(tokens, TOKENS), heads)
    _insert[grid](
        key, *key.stride()[:2], value, *value.stride()[:2], *where, slots, layer.rows,
        *_stored(layer), tokens, HALF=dim // 2, BITS=layer.bits, TOKENS=TOKENS, num_warps=4)


def decode(layer: TokenLayer, out_keys: Tensor, out_values: Tensor) -> None:
    """
    Write the floats of the first slots to two tensors; see `TokenLayer.decode`.

    out_keys, out_values: [heads, used, head_dim], with contiguous channels. What is written for
    slots without a token means nothing.
    """
    heads, used, dim = out_keys.shape
    _check(layer, out_keys, out_values)
    grid = (triton.cdiv(used, TOKENS), heads)
    _decode[grid](
        layer.statistics, layer.statistics.stride(0), layer.rows, *_stored(layer),
        out_keys, *out_keys.stride()[:2], out_values, *out_values.stride()[:2], used,
        HALF=dim // 2, BITS=layer.bits, TOKENS=TOKENS, num_warps=4)


def attend(
    layer: TokenLayer, token_ids: Tensor, query: Tensor, key: Tensor, value: Tensor,
) -> Tensor:
    """
    Return attention over the packed tokens and, exactly as given, the current frame's own.

    token_ids: [used] int64; the slots of negative ones (the current frame's) are passed over.
    query, key, value: [heads, tokens, head_dim], with contiguous channels. Returns [heads, tokens,
    head_dim], scaled by head_dim ** -0.5.

    The packed tokens are decoded tile by tile in registers, again for every tile of queries; the
    products are taken in the type of the queries and summed in fp32.
    """
    heads, tokens, dim = query.shape
    _check(layer, query, key, value)
    out = torch.empty(heads, tokens, dim, dtype=query.dtype, device=query.device)
    queries, keys_at_once = TILE_FP32 if query.dtype == torch.float32 else TILE
    grid = (triton.cdiv(tokens, queries), heads)
    _attend[grid](
        query, *query.stride()[:2], key, *key.stride()[:2], value, *value.stride()[:2],
        out, *out.stride()[:2], token_ids,
        layer.statistics, layer.statistics.stride(0), layer.rows, *_stored(layer),
        LOG2_E * dim ** -0.5, tokens, key.shape[1], len(token_ids),
        HALF=dim // 2, BITS=layer.bits, QUERIES=queries, KEYS=keys_at_once,
        # The interpreter multiplies the bits of bf16 numbers as if they were integers.
        WIDE=interpreted() and query.dtype == torch.bfloat16, num_warps=8)
    return out


def _stored(layer: TokenLayer) -> tuple[Tensor | int, ...]:
    """Return payloads, scales, and how far the heads of either are apart."""
    return (layer.keys, layer.key_scale, layer.values, layer.value_scale, layer.keys.stride(0),
            layer.key_scale.stride(0))


def _check(layer: TokenLayer, *tensors: Tensor) -> None:
    """Raise ValueError where a kernel would read something else than was meant."""
    layer.check(tensors[0].shape[1])
    if any(len(tensor) != len(layer.keys) or tensor.shape[2] != layer.head_dim
           for tensor in tensors):
        raise ValueError(f'queries, keys and values must have {len(layer.keys)} heads of '
                         f'{layer.head_dim} channels')
    if any(tensor.stride(-1) != 1 for tensor in tensors):
        raise ValueError('the channels of a token must be contiguous')


# Parts of the kernels ----------------------------------------------------------------------------


@triton.jit
def _in_steps(x, scale):
    """Return x [tokens, HALF] in multiples of its tokens' fp16 scales [tokens]."""
    return tl.div_rn(x, tl.broadcast_to(scale.to(tl.float32)[:, None], x.shape))


@triton.jit
def _whole(x):
    """Return fp32 numbers below 2 ** 22 rounded half to even."""
    # Adding 1.5 * 2 ** 23 leaves no bits for a fraction.
    return x + 12582912.0 - 12582912.0


@triton.jit
def _quantised(steps, MIDDLE: tl.constexpr):
    """Return multiples of a scale [tokens, HALF] as integers about the middle, uint8."""
    levels = tl.minimum(tl.maximum(steps + MIDDLE, 0.0), 2 * MIDDLE)
    return _whole(levels).to(tl.uint8)


@triton.jit
def _length(low, high):
    """Return the root of the sum of squares [tokens] of two halves, exact sums in fp32."""
    return tl.sqrt_rn(tl.sum(low * low, 1) + tl.sum(high * high, 1))


@triton.jit
def _length_kept(low, high, q_low, q_high, step):
    """Return the scale [tokens], fp16, of 4-bit integers; see `packing._length_kept_`."""
    values = _length(_whole(low * 32.0), _whole(high * 32.0))
    integers = _length(q_low.to(tl.float32) - 7.5, q_high.to(tl.float32) - 7.5)
    scale = step.to(tl.float32) * tl.div_rn(values, integers) / 32.0
    return tl.maximum(scale, 6.103515625e-05).to(tl.float16)


@triton.jit
def _store_tokens(low, high, payload, scale, slots, mask,
                  HALF: tl.constexpr, BITS: tl.constexpr):
    """Quantise the halves of tokens [tokens, HALF], and write them at their slots of a head."""
    MIDDLE: tl.constexpr = (2 ** BITS - 1) / 2
    top = tl.maximum(tl.max(tl.abs(low), 1), tl.max(tl.abs(high), 1))
    step = tl.div_rn(top, tl.full(top.shape, MIDDLE, tl.float32))
    step = tl.maximum(step, 6.103515625e-05).to(tl.float16)  # the smallest normal fp16
    low, high = _in_steps(low, step), _in_steps(high, step)
    q_low, q_high = _quantised(low, MIDDLE), _quantised(high, MIDDLE)
    if BITS == 4:
        step = _length_kept(low, high, q_low, q_high, step)
    channel = tl.arange(0, HALF)[None, :]
    if BITS == 4:
        address = payload + slots[:, None] * HALF + channel
        tl.store(address, q_low | (q_high << 4), mask=mask[:, None])
    else:
        address = payload + slots[:, None] * (2 * HALF) + channel
        tl.store(address, q_low, mask=mask[:, None])
        tl.store(address + HALF, q_high, mask=mask[:, None])
    tl.store(scale + slots, step, mask=mask)


@triton.jit
def _load_tokens(payload, scale, statistics, rows, slots, mask,
                 HALF: tl.constexpr, BITS: tl.constexpr):
    """Return the two halves [tokens, HALF] of a head's tokens in fp32; statistics: of the kind."""
    MIDDLE: tl.constexpr = (2 ** BITS - 1) / 2
    channel = tl.arange(0, HALF)[None, :]
    if BITS == 4:
        both = tl.load(payload + slots[:, None] * HALF + channel, mask=mask[:, None], other=0)
        low, high = both & 15, both >> 4
    else:
        address = payload + slots[:, None] * (2 * HALF) + channel
        low = tl.load(address, mask=mask[:, None], other=0)
        high = tl.load(address + HALF, mask=mask[:, None], other=0)
    step = tl.load(scale + slots, mask=mask, other=0.0).to(tl.float32)[:, None]
    centre_low, centre_high = _load_halves(statistics, rows, 8 * HALF, mask, HALF)
    spread_low, spread_high = _load_halves(statistics + 2 * HALF, rows, 8 * HALF, mask, HALF)
    low = (low.to(tl.float32) - MIDDLE) * step * spread_low + centre_low
    high = (high.to(tl.float32) - MIDDLE) * step * spread_high + centre_high
    return low, high


@triton.jit
def _range(base, token_stride, tokens, DIM: tl.constexpr, TOKENS: tl.constexpr):
    """Return the least and the greatest [DIM] of each channel of a head's tokens, in fp32."""
    channel = tl.arange(0, DIM)[None, :]
    low = tl.full((DIM,), float('inf'), tl.float32)
    high = tl.full((DIM,), float('-inf'), tl.float32)
    for start in range(0, tokens, TOKENS):
        token = start + tl.arange(0, TOKENS)
        mask = (token < tokens)[:, None]
        address = base + token[:, None] * token_stride + channel
        x = tl.load(address, mask=mask, other=0.0).to(tl.float32)
        low = tl.minimum(low, tl.min(tl.where(mask, x, float('inf')), 0))
        high = tl.maximum(high, tl.max(tl.where(mask, x, float('-inf')), 0))
    return low, high


@triton.jit
def _store_statistics(target, low, high, DIM: tl.constexpr):
    """Write centre and spread of channels, see `packing.frame_statistics`."""
    channel = tl.arange(0, DIM)
    centre = ((low + high) * 0.5).to(tl.float16)
    rounded = centre.to(tl.float32)
    spread = tl.maximum(tl.maximum(high - rounded, rounded - low), 6.103515625e-05)
    tl.store(target + channel, centre)
    tl.store(target + DIM + channel, spread.to(tl.float16))


@triton.jit
def _load_halves(base, rows, stride, mask, HALF: tl.constexpr):
    """Return two halves [rows, HALF] of rows of 2 HALF channels, in fp32."""
    address = base + rows[:, None] * stride + tl.arange(0, HALF)[None, :]
    low = tl.load(address, mask=mask[:, None], other=0.0).to(tl.float32)
    high = tl.load(address + HALF, mask=mask[:, None], other=0.0).to(tl.float32)
    return low, high


@triton.jit
def _operand(x, kind: tl.constexpr, WIDE: tl.constexpr):
    """Return x rounded to the type of the products, or that in fp32."""
    rounded = x.to(kind)
    if WIDE:
        rounded = rounded.to(tl.float32)
    return rounded


# Kernels: grid (tiles of tokens, heads) ----------------------------------------------------------


@triton.jit(do_not_specialize=['tokens'])
def _fit(
    key, key_head, key_token, value, value_head, value_token, statistics, statistics_head, row_of,
    tokens, DIM: tl.constexpr, TOKENS: tl.constexpr,
):
    head = tl.program_id(0).to(tl.int64)
    target = statistics + head * statistics_head + tl.load(row_of) * (4 * DIM)
    low, high = _range(key + head * key_head, key_token, tokens, DIM, TOKENS)
    _store_statistics(target, low, high, DIM)
    low, high = _range(value + head * value_head, value_token, tokens, DIM, TOKENS)
    _store_statistics(target + 2 * DIM, low, high, DIM)


@triton.jit
def _store_normalised(source, token_stride, token, statistics, payload, scale, slots, mask,
                      HALF: tl.constexpr, BITS: tl.constexpr):
    """Quantise a head's tokens about the statistics of their frame, and write them."""
    low, high = _load_halves(source, token, token_stride, mask, HALF)
    channel = tl.arange(0, HALF)[None, :]
    centre_low = tl.load(statistics + channel).to(tl.float32)
    centre_high = tl.load(statistics + HALF + channel).to(tl.float32)
    spread_low = tl.load(statistics + 2 * HALF + channel).to(tl.float32)
    spread_high = tl.load(statistics + 3 * HALF + channel).to(tl.float32)
    low = tl.div_rn(low - centre_low, tl.broadcast_to(spread_low, low.shape))
    high = tl.div_rn(high - centre_high, tl.broadcast_to(spread_high, high.shape))
    _store_tokens(low, high, payload, scale, slots, mask, HALF, BITS)


@triton.jit(do_not_specialize=['tokens'])
def _insert(
    key, key_head, key_token, value, value_head, value_token, statistics, statistics_head, row_of,
    slot_of, rows, key_payload, key_scale, value_payload, value_scale, payload_head, side_head,
    tokens, HALF: tl.constexpr, BITS: tl.constexpr, TOKENS: tl.constexpr,
):
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    head = tl.program_id(1).to(tl.int64)
    mask = token < tokens
    row = tl.load(row_of)
    slots = tl.load(slot_of + token, mask=mask, other=0)
    # Every head writes the same here.
    tl.store(rows + slots, tl.zeros((TOKENS,), tl.int32) + row.to(tl.int32), mask=mask)
    of_row = statistics + head * statistics_head + row * (8 * HALF)
    _store_normalised(key + head * key_head, key_token, token, of_row,
                      key_payload + head * payload_head, key_scale + head * side_head, slots, mask,
                      HALF, BITS)
    _store_normalised(value + head * value_head, value_token, token, of_row + 4 * HALF,
                      value_payload + head * payload_head, value_scale + head * side_head, slots,
                      mask, HALF, BITS)


@triton.jit(do_not_specialize=['used'])
def _decode(
    statistics, statistics_head, row_of_slot, key_payload, key_scale, value_payload, value_scale,
    payload_head, side_head, keys, keys_head, keys_token, values, values_head, values_token, used,
    HALF: tl.constexpr, BITS: tl.constexpr, TOKENS: tl.constexpr,
):
    slots = (tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)
    head = tl.program_id(1).to(tl.int64)
    mask = slots < used
    rows = tl.load(row_of_slot + slots, mask=mask, other=0).to(tl.int64)
    channel = tl.arange(0, HALF)[None, :]
    own = statistics + head * statistics_head
    kind = keys.dtype.element_ty

    low, high = _load_tokens(key_payload + head * payload_head, key_scale + head * side_head, own,
                             rows, slots, mask, HALF, BITS)
    address = keys + head * keys_head + slots[:, None] * keys_token + channel
    tl.store(address, low.to(kind), mask=mask[:, None])
    tl.store(address + HALF, high.to(kind), mask=mask[:, None])

    low, high = _load_tokens(value_payload + head * payload_head, value_scale + head * side_head,
                             own + 4 * HALF, rows, slots, mask, HALF, BITS)
    address = values + head * values_head + slots[:, None] * values_token + channel
    tl.store(address, low.to(kind), mask=mask[:, None])
    tl.store(address + HALF, high.to(kind), mask=mask[:, None])


@triton.jit
def _weigh_tile(q_low, q_high, k_low, k_high, valid, top, total, factor,
                kind: tl.constexpr, WIDE: tl.constexpr):
    """Return a tile's weights, and how earlier ones shrink by it; see FlashAttention."""
    logits = tl.dot(q_low, tl.trans(k_low), input_precision='ieee')
    logits = tl.dot(q_high, tl.trans(k_high), logits, input_precision='ieee') * factor
    logits = tl.where(valid[None, :], logits, float('-inf'))
    new_top = tl.maximum(top, tl.max(logits, 1))
    weights = tl.exp2(logits - new_top[:, None])
    shrink = tl.exp2(top - new_top)
    total = total * shrink + tl.sum(weights, 1)
    return _operand(weights, kind, WIDE), shrink, new_top, total


@triton.jit
def _add_tile(weights, shrink, v_low, v_high, sum_low, sum_high):
    """Add a tile's values to an attention so far."""
    sum_low = tl.dot(weights, v_low, sum_low * shrink[:, None], input_precision='ieee')
    sum_high = tl.dot(weights, v_high, sum_high * shrink[:, None], input_precision='ieee')
    return sum_low, sum_high


@triton.jit(do_not_specialize=['tokens', 'own', 'used'])
def _attend(
    query, query_head, query_token, key, key_head, key_token, value, value_head, value_token,
    out, out_head, out_token, id_of, statistics, statistics_head, row_of_slot,
    key_payload, key_scale, value_payload, value_scale,
    payload_head, side_head, factor, tokens, own, used,
    HALF: tl.constexpr, BITS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    WIDE: tl.constexpr,
):
    row = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    head = tl.program_id(1).to(tl.int64)
    kind: tl.constexpr = query.dtype.element_ty
    q_low, q_high = _load_halves(query + head * query_head, row, query_token, row < tokens, HALF)
    q_low, q_high = _operand(q_low, kind, WIDE), _operand(q_high, kind, WIDE)
    top = tl.full((QUERIES,), float('-inf'), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    sum_low = tl.zeros((QUERIES, HALF), tl.float32)
    sum_high = tl.zeros((QUERIES, HALF), tl.float32)

    # The frame's own tokens come first: every tile of theirs has one at least, so that `top` is
    # finite when a tile of slots has none.
    for start in range(0, own, KEYS):
        token = start + tl.arange(0, KEYS)
        mask = token < own
        k_low, k_high = _load_halves(key + head * key_head, token, key_token, mask, HALF)
        weights, shrink, top, total = _weigh_tile(
            q_low, q_high, _operand(k_low, kind, WIDE), _operand(k_high, kind, WIDE), mask,
            top, total, factor, kind, WIDE)
        v_low, v_high = _load_halves(value + head * value_head, token, value_token, mask, HALF)
        sum_low, sum_high = _add_tile(weights, shrink, _operand(v_low, kind, WIDE),
                                      _operand(v_high, kind, WIDE), sum_low, sum_high)

    described = statistics + head * statistics_head
    for start in range(0, used, KEYS):
        slots = (start + tl.arange(0, KEYS)).to(tl.int64)
        ids = tl.load(id_of + slots, mask=slots < used, other=-1)
        mask = ids >= 0
        rows = tl.load(row_of_slot + slots, mask=mask, other=0).to(tl.int64)
        k_low, k_high = _load_tokens(
            key_payload + head * payload_head, key_scale + head * side_head, described, rows,
            slots, mask, HALF, BITS)
        weights, shrink, top, total = _weigh_tile(
            q_low, q_high, _operand(k_low, kind, WIDE), _operand(k_high, kind, WIDE), mask,
            top, total, factor, kind, WIDE)
        v_low, v_high = _load_tokens(
            value_payload + head * payload_head, value_scale + head * side_head,
            described + 4 * HALF, rows, slots, mask, HALF, BITS)
        sum_low, sum_high = _add_tile(weights, shrink, _operand(v_low, kind, WIDE),
                                      _operand(v_high, kind, WIDE), sum_low, sum_high)

    address = out + head * out_head + row[:, None] * out_token + tl.arange(0, HALF)[None, :]
    mask = (row < tokens)[:, None]
    tl.store(address, (sum_low / total[:, None]).to(kind), mask=mask)
    tl.store(address + HALF, (sum_high / total[:, None]).to(kind), mask=mask)
