"""
Triton kernels for keys and values that are packed by the scheme `token` (see `quantization`).

`insert`, `decode` and `attend` do what `Centres.encode` and an index copy, `dequantise` and
`Centres.uncentre`, and these with an attention behind them do in PyTorch. Importing this module
needs Triton; `availability.why_not` tells whether it will do. The kernels are checked against
PyTorch in Triton's interpreter and compiled for several GPUs, both on a CPU: none has run on a
GPU yet.

A head's channels are handled as two halves, as they are packed: the first half lies in the low
bits of a byte, the second in the high ones, so that nothing is ever interleaved.
"""

import torch
from torch import Tensor
import triton
import triton.language as tl

from xsvggt_ros.kernels.availability import interpreted
from xsvggt_ros.kernels.packing import Centres, PackedTensor

LOG2_E = 1.4426950408889634
# A program of the interpreter costs much the same whatever its size.
TOKENS = 64 if interpreted() else 32  # of insert and decode, per program
# Tile of attend, queries and keys: the largest that spill no registers
# (test/unit/kernels/compile_kernels.py).
TILE, TILE_FP32 = (128, 32), (32, 16)


def insert(
    keys: PackedTensor, values: PackedTensor, centres: Centres, key: Tensor, value: Tensor,
    rows: Tensor, slots: Tensor, bits: int,
) -> None:
    """
    Quantise a step's tokens and write them into their slots.

    keys, values: one layer's, [heads, slots, ...] each. key, value: [heads, tokens, head_dim],
    with contiguous channels. rows: [tokens] int64, of the tables in ``centres``. slots: [tokens]
    int64.
    """
    heads, tokens, dim = key.shape
    _check(keys, bits, dim, key, value)
    grid = (triton.cdiv(tokens, TOKENS), heads)
    _insert[grid](
        key, *key.stride()[:2], value, *value.stride()[:2], rows, slots,
        centres.keys, centres.values, centres.keys.stride(0),
        centres.spread, centres.spread.stride(0),
        keys.payload, keys.scale, keys.minimum, values.payload, values.scale, values.minimum,
        keys.payload.stride(0), keys.scale.stride(0), tokens,
        HALF=dim // 2, BITS=bits, TOKENS=TOKENS, num_warps=4)


def decode(
    keys: PackedTensor, values: PackedTensor, centres: Centres, token_ids: Tensor, per_step: int,
    bits: int, out_keys: Tensor, out_values: Tensor,
) -> None:
    """
    Write the floats of some heads' first slots, as many as there are token ids, to two tensors.

    keys, values: [heads, slots, ...]; centres: of the same heads. token_ids: [used] int64, of the
    slots; what is written for the negative ones means nothing. per_step: tokens of a frame.
    out_keys, out_values: [heads, used, head_dim], with contiguous channels.
    """
    heads, used, dim = out_keys.shape
    _check(keys, bits, dim, out_keys, out_values)
    grid = (triton.cdiv(used, TOKENS), heads)
    _decode[grid](
        token_ids, per_step, centres.special_tokens,
        centres.keys, centres.values, centres.keys.stride(0),
        centres.spread, centres.spread.stride(0),
        keys.payload, keys.scale, keys.minimum, values.payload, values.scale, values.minimum,
        keys.payload.stride(0), keys.scale.stride(0),
        out_keys, *out_keys.stride()[:2], out_values, *out_values.stride()[:2], used,
        HALF=dim // 2, BITS=bits, TOKENS=TOKENS, num_warps=4)


def attend(
    keys: PackedTensor, values: PackedTensor, centres: Centres, token_ids: Tensor, per_step: int,
    bits: int, query: Tensor, key: Tensor, value: Tensor,
) -> Tensor:
    """
    Return attention over the packed tokens and, exactly as given, the current frame's own.

    keys, values: one layer's, [heads, slots, ...]. token_ids: [used] int64; the slots of negative
    ones (the current frame's) are passed over. query, key, value: [heads, tokens, head_dim], with
    contiguous channels. Returns [heads, tokens, head_dim], scaled by head_dim ** -0.5.

    The packed tokens are decoded tile by tile in registers, again for every tile of queries; the
    products are taken in the type of the queries and summed in fp32.
    """
    heads, tokens, dim = query.shape
    _check(keys, bits, dim, query, key, value)
    out = torch.empty(heads, tokens, dim, dtype=query.dtype, device=query.device)
    queries, keys_at_once = TILE_FP32 if query.dtype == torch.float32 else TILE
    grid = (triton.cdiv(tokens, queries), heads)
    _attend[grid](
        query, *query.stride()[:2], key, *key.stride()[:2], value, *value.stride()[:2],
        out, *out.stride()[:2], token_ids, per_step, centres.special_tokens,
        centres.keys, centres.values, centres.keys.stride(0),
        centres.spread, centres.spread.stride(0),
        keys.payload, keys.scale, keys.minimum, values.payload, values.scale, values.minimum,
        keys.payload.stride(0), keys.scale.stride(0),
        LOG2_E * dim ** -0.5, tokens, key.shape[1], len(token_ids),
        HALF=dim // 2, BITS=bits, QUERIES=queries, KEYS=keys_at_once,
        # The interpreter multiplies the bits of bf16 numbers as if they were integers.
        WIDE=interpreted() and query.dtype == torch.bfloat16, num_warps=8)
    return out


def _check(keys: PackedTensor, bits: int, dim: int, *tensors: Tensor) -> None:
    """Raise ValueError where a kernel would read something else than was meant."""
    if keys.payload.shape[-1] * 8 != dim * bits:
        raise ValueError(f'a payload of {keys.payload.shape[-1]} bytes does not hold {dim} '
                         f'channels in {bits} bits')
    if any(tensor.stride(-1) != 1 for tensor in tensors):
        raise ValueError('the channels of a token must be contiguous')


# Parts of the kernels ----------------------------------------------------------------------------


@triton.jit
def _quantised(x, minimum, scale, LEVELS: tl.constexpr):
    """Return x [tokens, HALF] as integers, uint8, rounded half to even."""
    levels = tl.div_rn(x - minimum.to(tl.float32)[:, None], scale.to(tl.float32)[:, None])
    levels = tl.minimum(tl.maximum(levels, 0.0), LEVELS * 1.0)
    # Adding 1.5 * 2 ** 23 leaves no bits for a fraction.
    return (levels + 12582912.0 - 12582912.0).to(tl.uint8)


@triton.jit
def _store_tokens(low, high, payload, scale, minimum, slots, mask,
                  HALF: tl.constexpr, BITS: tl.constexpr):
    """Quantise tokens [tokens, HALF] twice, and write them at their slots of a head."""
    LEVELS: tl.constexpr = 2 ** BITS - 1
    bottom = tl.minimum(tl.min(low, 1), tl.min(high, 1)).to(tl.float16)
    top = tl.maximum(tl.max(low, 1), tl.max(high, 1))
    step = tl.div_rn(top - bottom.to(tl.float32), tl.full(top.shape, LEVELS, tl.float32))
    step = tl.maximum(step, 6.103515625e-05).to(tl.float16)  # the smallest normal fp16
    q_low = _quantised(low, bottom, step, LEVELS)
    q_high = _quantised(high, bottom, step, LEVELS)
    channel = tl.arange(0, HALF)[None, :]
    if BITS == 4:
        address = payload + slots[:, None] * HALF + channel
        tl.store(address, q_low | (q_high << 4), mask=mask[:, None])
    else:
        address = payload + slots[:, None] * (2 * HALF) + channel
        tl.store(address, q_low, mask=mask[:, None])
        tl.store(address + HALF, q_high, mask=mask[:, None])
    tl.store(scale + slots, step, mask=mask)
    tl.store(minimum + slots, bottom, mask=mask)


@triton.jit
def _load_tokens(payload, scale, minimum, slots, mask, HALF: tl.constexpr, BITS: tl.constexpr):
    """Return the two halves [tokens, HALF] of a head's tokens in fp32, still centred."""
    channel = tl.arange(0, HALF)[None, :]
    if BITS == 4:
        both = tl.load(payload + slots[:, None] * HALF + channel, mask=mask[:, None], other=0)
        low, high = both & 15, both >> 4
    else:
        address = payload + slots[:, None] * (2 * HALF) + channel
        low = tl.load(address, mask=mask[:, None], other=0)
        high = tl.load(address + HALF, mask=mask[:, None], other=0)
    step = tl.load(scale + slots, mask=mask, other=0.0).to(tl.float32)[:, None]
    bottom = tl.load(minimum + slots, mask=mask, other=0.0).to(tl.float32)[:, None]
    return low.to(tl.float32) * step + bottom, high.to(tl.float32) * step + bottom


@triton.jit
def _load_halves(base, rows, stride, mask, HALF: tl.constexpr):
    """Return two halves [rows, HALF] of rows of 2 HALF channels, in fp32."""
    address = base + rows[:, None] * stride + tl.arange(0, HALF)[None, :]
    low = tl.load(address, mask=mask[:, None], other=0.0).to(tl.float32)
    high = tl.load(address + HALF, mask=mask[:, None], other=0.0).to(tl.float32)
    return low, high


@triton.jit
def _centre_rows(token_ids, per_step, special):
    """Return each token's row of the centres, see `Centres.rows_of`; 0 for negative ids."""
    index = token_ids % per_step
    later = (token_ids >= per_step).to(tl.int64)
    return tl.where((token_ids >= 0) & (index < special), 1 + index + later * special, 0)


@triton.jit
def _spread(spread, HALF: tl.constexpr):
    """Return the two halves [1, HALF] of a head's spread."""
    channel = tl.arange(0, HALF)[None, :]
    return (tl.load(spread + channel).to(tl.float32),
            tl.load(spread + HALF + channel).to(tl.float32))


@triton.jit
def _operand(x, kind: tl.constexpr, WIDE: tl.constexpr):
    """Return x rounded to the type of the products, or that in fp32."""
    rounded = x.to(kind)
    if WIDE:
        rounded = rounded.to(tl.float32)
    return rounded


# Kernels: grid (tiles of tokens, heads) ----------------------------------------------------------


@triton.jit(do_not_specialize=['tokens'])
def _insert(
    key, key_head, key_token, value, value_head, value_token, row_of, slot_of,
    key_centres, value_centres, centres_head, spread, spread_head,
    key_payload, key_scale, key_minimum, value_payload, value_scale, value_minimum,
    payload_head, side_head, tokens,
    HALF: tl.constexpr, BITS: tl.constexpr, TOKENS: tl.constexpr,
):
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    head = tl.program_id(1).to(tl.int64)
    mask = token < tokens
    rows = tl.load(row_of + token, mask=mask, other=0)
    slots = tl.load(slot_of + token, mask=mask, other=0)

    low, high = _load_halves(key + head * key_head, token, key_token, mask, HALF)
    centre_low, centre_high = _load_halves(
        key_centres + head * centres_head, rows, 2 * HALF, mask, HALF)
    spread_low, spread_high = _spread(spread + head * spread_head, HALF)
    low = tl.div_rn(low - centre_low, tl.broadcast_to(spread_low, low.shape))
    high = tl.div_rn(high - centre_high, tl.broadcast_to(spread_high, high.shape))
    _store_tokens(low, high, key_payload + head * payload_head, key_scale + head * side_head,
                  key_minimum + head * side_head, slots, mask, HALF, BITS)

    low, high = _load_halves(value + head * value_head, token, value_token, mask, HALF)
    centre_low, centre_high = _load_halves(
        value_centres + head * centres_head, rows, 2 * HALF, mask, HALF)
    _store_tokens(low - centre_low, high - centre_high, value_payload + head * payload_head,
                  value_scale + head * side_head, value_minimum + head * side_head,
                  slots, mask, HALF, BITS)


@triton.jit(do_not_specialize=['used'])
def _decode(
    id_of, per_step, special, key_centres, value_centres, centres_head, spread, spread_head,
    key_payload, key_scale, key_minimum, value_payload, value_scale, value_minimum,
    payload_head, side_head, keys, keys_head, keys_token, values, values_head, values_token, used,
    HALF: tl.constexpr, BITS: tl.constexpr, TOKENS: tl.constexpr,
):
    slots = (tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)
    head = tl.program_id(1).to(tl.int64)
    mask = slots < used
    rows = _centre_rows(tl.load(id_of + slots, mask=mask, other=-1), per_step, special)
    channel = tl.arange(0, HALF)[None, :]

    low, high = _load_tokens(key_payload + head * payload_head, key_scale + head * side_head,
                             key_minimum + head * side_head, slots, mask, HALF, BITS)
    centre_low, centre_high = _load_halves(
        key_centres + head * centres_head, rows, 2 * HALF, mask, HALF)
    spread_low, spread_high = _spread(spread + head * spread_head, HALF)
    address = keys + head * keys_head + slots[:, None] * keys_token + channel
    kind = keys.dtype.element_ty
    tl.store(address, (low * spread_low + centre_low).to(kind), mask=mask[:, None])
    tl.store(address + HALF, (high * spread_high + centre_high).to(kind), mask=mask[:, None])

    low, high = _load_tokens(value_payload + head * payload_head, value_scale + head * side_head,
                             value_minimum + head * side_head, slots, mask, HALF, BITS)
    centre_low, centre_high = _load_halves(
        value_centres + head * centres_head, rows, 2 * HALF, mask, HALF)
    address = values + head * values_head + slots[:, None] * values_token + channel
    tl.store(address, (low + centre_low).to(kind), mask=mask[:, None])
    tl.store(address + HALF, (high + centre_high).to(kind), mask=mask[:, None])


@triton.jit
def _attend_tile(q_low, q_high, k_low, k_high, v_low, v_high, valid,
                 top, total, sum_low, sum_high, factor,
                 kind: tl.constexpr, WIDE: tl.constexpr):
    """Add a tile of keys and values to an attention so far; see FlashAttention."""
    logits = tl.dot(q_low, tl.trans(k_low), input_precision='ieee')
    logits = tl.dot(q_high, tl.trans(k_high), logits, input_precision='ieee') * factor
    logits = tl.where(valid[None, :], logits, float('-inf'))
    new_top = tl.maximum(top, tl.max(logits, 1))
    weights = tl.exp2(logits - new_top[:, None])
    shrink = tl.exp2(top - new_top)
    total = total * shrink + tl.sum(weights, 1)
    weights = _operand(weights, kind, WIDE)
    sum_low = tl.dot(weights, v_low, sum_low * shrink[:, None], input_precision='ieee')
    sum_high = tl.dot(weights, v_high, sum_high * shrink[:, None], input_precision='ieee')
    return new_top, total, sum_low, sum_high


@triton.jit(do_not_specialize=['tokens', 'own', 'used'])
def _attend(
    query, query_head, query_token, key, key_head, key_token, value, value_head, value_token,
    out, out_head, out_token, id_of, per_step, special,
    key_centres, value_centres, centres_head, spread, spread_head,
    key_payload, key_scale, key_minimum, value_payload, value_scale, value_minimum,
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
        v_low, v_high = _load_halves(value + head * value_head, token, value_token, mask, HALF)
        top, total, sum_low, sum_high = _attend_tile(
            q_low, q_high, _operand(k_low, kind, WIDE), _operand(k_high, kind, WIDE),
            _operand(v_low, kind, WIDE), _operand(v_high, kind, WIDE), mask,
            top, total, sum_low, sum_high, factor, kind, WIDE)

    spread_low, spread_high = _spread(spread + head * spread_head, HALF)
    for start in range(0, used, KEYS):
        slots = (start + tl.arange(0, KEYS)).to(tl.int64)
        ids = tl.load(id_of + slots, mask=slots < used, other=-1)
        mask = ids >= 0
        rows = _centre_rows(ids, per_step, special)
        low, high = _load_tokens(key_payload + head * payload_head, key_scale + head * side_head,
                                 key_minimum + head * side_head, slots, mask, HALF, BITS)
        centre_low, centre_high = _load_halves(
            key_centres + head * centres_head, rows, 2 * HALF, mask, HALF)
        k_low = _operand(low * spread_low + centre_low, kind, WIDE)
        k_high = _operand(high * spread_high + centre_high, kind, WIDE)
        low, high = _load_tokens(
            value_payload + head * payload_head, value_scale + head * side_head,
            value_minimum + head * side_head, slots, mask, HALF, BITS)
        centre_low, centre_high = _load_halves(
            value_centres + head * centres_head, rows, 2 * HALF, mask, HALF)
        top, total, sum_low, sum_high = _attend_tile(
            q_low, q_high, k_low, k_high, _operand(low + centre_low, kind, WIDE),
            _operand(high + centre_high, kind, WIDE), mask,
            top, total, sum_low, sum_high, factor, kind, WIDE)

    address = out + head * out_head + row[:, None] * out_token + tl.arange(0, HALF)[None, :]
    mask = (row < tokens)[:, None]
    tl.store(address, (sum_low / total[:, None]).to(kind), mask=mask)
    tl.store(address + HALF, (sum_high / total[:, None]).to(kind), mask=mask)
