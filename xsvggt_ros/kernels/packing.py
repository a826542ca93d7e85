"""
Keys and values in 8 or 4 bits: what one token or one group of tokens is turned into, and back.

A block of values x is stored as integers q with a scale and a minimum: x ~ q * scale + minimum,
q = round((x - minimum) / scale) within 0..2^bits - 1. The minimum is a float, no integer zero
point, so that a block need not contain zero. 4-bit integers lie two in a byte.

Two schemes share this. `token`: every token of a head has one scale of its own, symmetric about
zero, once each channel of its frame is moved and stretched to between -1 and 1. Centre and spread
of the channels, the middle and half of the range of the frame's own tokens, are kept for as long
as any token of the frame is: nothing is described by what another frame was like. The integers are
those of a scale that just reaches the largest value; in 4 bits what is kept is then the scale by
which they are as long as the values were, a little less: errors are smaller, and what is
remembered is neither longer nor shorter than it was. `kcvt`: the XStreamVGGT paper's, keys per
channel over a group of at most 64 tokens of one frame, values per token; the special tokens are a
group of their own.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

SCHEMES = ('token', 'kcvt')
BITS = {'int8': 8, 'int4': 4}
GROUP = 64  # tokens, at most, that share a key channel's scale in the scheme kcvt
SMALLEST = torch.finfo(torch.half).tiny  # of scales and spreads: the smallest normal number
FINE = 32  # parts of a step, to which a token's length in 4 bits is known


@dataclass(frozen=True)
class PackedTensor:
    """Quantised values: payload uint8 [..., n * bits / 8], scale and minimum fp16, broadcast."""

    payload: Tensor
    scale: Tensor
    minimum: Tensor

    @property
    def nbytes(self) -> int:
        """Return the bytes of payload and side data."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))


def group_sizes(tokens: int, special_tokens: int) -> list[int]:
    """Return how many consecutive tokens of a frame share their keys' scales, group by group."""
    special = min(special_tokens, tokens)
    patches = tokens - special
    groups = -(-patches // GROUP)
    sizes = [patches // groups + (i < patches % groups) for i in range(groups)]
    return [special] * (special > 0) + sizes


def group_index(sizes: list[int], device: torch.device) -> Tensor:
    """Return each token's group, [tokens] int64."""
    # Made here, as the device may be 'meta': for that, torch would load its registrations.
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(device)


def quantise(x: Tensor, bits: int, dim: int) -> PackedTensor:
    """Return x [..., n] quantised with one scale and minimum along ``dim``; n must be even."""
    x = x.to(torch.float32, copy=True)
    levels = 2 ** bits - 1
    minimum = x.amin(dim, keepdim=True).half()
    scale = (x.amax(dim, keepdim=True) - minimum.float()) / levels
    scale = scale.clamp_min(torch.finfo(torch.half).tiny).half()
    q = x.sub_(minimum.float()).div_(scale.float()).round_().clamp_(0, levels).byte()
    return PackedTensor(pack(q) if bits == 4 else q, scale, minimum)


def dequantise(block: PackedTensor, bits: int, out: Tensor | None = None) -> Tensor:
    """Return the values [..., n] of a block, in fp32 or in ``out``."""
    if out is None:
        shape = list(block.payload.shape)
        shape[-1] *= 8 // bits
        out = torch.empty(shape, device=block.payload.device)
    unpack(block.payload, bits, out)
    return out.mul_(block.scale).add_(block.minimum)


def pack(q: Tensor) -> Tensor:
    """Return uint8 [..., n] of values below 16 as [..., n / 2]: the first half in the low bits."""
    low, high = q.chunk(2, dim=-1)
    return torch.add(low, high, alpha=16)


def unpack(payload: Tensor, bits: int, out: Tensor) -> None:
    """Write the integers of a payload to ``out`` [..., n], of any type."""
    if bits == 8:
        out.copy_(payload)
        return
    half = payload.shape[-1]
    out[..., :half].copy_(payload & 15)
    out[..., half:].copy_(payload >> 4)


@dataclass(frozen=True)
class TokenLayer:
    """
    One layer of keys and values of the scheme `token`, or some heads of it; all are views.

    Kernels elsewhere do what `insert` and `decode` do here in PyTorch.
    """

    keys: Tensor  # payload, uint8 [heads, slots, head_dim * bits / 8]
    values: Tensor
    key_scale: Tensor  # fp16 [heads, slots, 1]
    value_scale: Tensor
    # fp16 [heads, rows, 4, head_dim]: a frame's centres and spreads of keys, then of values
    statistics: Tensor
    rows: Tensor  # int32 [slots]: where the statistics of each slot's token are
    bits: int

    @property
    def head_dim(self) -> int:
        """Return the channels of a head."""
        return self.statistics.shape[-1]

    def of_heads(self, heads: slice) -> 'TokenLayer':
        """Return some heads."""
        return TokenLayer(self.keys[heads], self.values[heads], self.key_scale[heads],
                          self.value_scale[heads], self.statistics[heads], self.rows, self.bits)

    def check(self, tokens: int, *tensors: Tensor) -> None:
        """Raise ValueError unless tensors are [heads, tokens, head_dim]; kernels check nothing."""
        heads, dim = len(self.keys), self.head_dim
        if self.keys.shape[-1] * 8 != dim * self.bits:
            raise ValueError(f'a payload of {self.keys.shape[-1]} bytes does not hold {dim} '
                             f'channels in {self.bits} bits')
        if any(tensor.shape != (heads, tokens, dim) for tensor in tensors):
            raise ValueError(f'keys and values must be {[heads, tokens, dim]}, got '
                             f'{[list(tensor.shape) for tensor in tensors]}')

    def insert(self, key: Tensor, value: Tensor, slots: Tensor, row: Tensor) -> None:
        """
        Quantise the tokens of a frame, [heads, tokens, head_dim], and write them into their slots.

        slots: [tokens] int64; row: [1] int64, of the statistics, which no other token refers to.
        """
        both = torch.stack([key, value]).float()
        centre, spread = frame_statistics(both)  # [2, heads, 1, head_dim]
        both.sub_(centre.float()).div_(spread.float())
        statistics = torch.stack([centre, spread], dim=3).movedim(0, 2).flatten(2, 3)
        self.statistics.index_copy_(1, row, statistics)
        payload, scale = quantise_symmetric_(both, self.bits)
        for target, part in ((self.keys, payload[0]), (self.values, payload[1]),
                             (self.key_scale, scale[0]), (self.value_scale, scale[1])):
            target.index_copy_(1, slots, part)
        self.rows.index_copy_(0, slots, row.int().expand(len(slots)))

    def decode(self, out_keys: Tensor, out_values: Tensor) -> None:
        """Write the floats of the first slots to tensors [heads, used, head_dim]."""
        used = out_keys.shape[1]
        rows = self.rows[:used]
        for kind, (out, payload, scale) in enumerate((
                (out_keys, self.keys, self.key_scale),
                (out_values, self.values, self.value_scale))):
            unpack(payload[:, :used], self.bits, out)
            # As floats: mixed types make a CPU many times slower.
            centre, spread = (self.statistics[:, :, 2 * kind + part].float().index_select(1, rows)
                              for part in (0, 1))
            out.sub_(middle(self.bits)).mul_(scale[:, :used].float()).mul_(spread).add_(centre)


def middle(bits: int) -> float:
    """Return the integer, half a one, that stands for zero in the scheme `token`."""
    return (2 ** bits - 1) / 2


def frame_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return centre and spread of channels, fp16 [..., 1, head_dim], of tokens [..., n, head_dim].

    The middle of their range and half of it, which no order of summing changes.
    """
    low, high = x.amin(-2, keepdim=True), x.amax(-2, keepdim=True)
    centre = ((low + high) * 0.5).half()
    spread = torch.maximum(high - centre.float(), centre.float() - low)
    return centre, spread.clamp_min(SMALLEST).half()


def quantise_symmetric_(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return payload and scale, fp16 [..., 1], of fp32 [..., n] that is not needed any more."""
    half = middle(bits)
    scale = (x.abs().amax(-1, keepdim=True) / half).clamp_min(SMALLEST).half()
    x.div_(scale.float())
    q = (x + half).round_().clamp_(0, 2 * half)
    if bits == 8:
        return q.byte(), scale
    return pack(q.byte()), _length_kept_(x, q, scale)


def _length_kept_(x: Tensor, q: Tensor, scale: Tensor) -> Tensor:
    """
    Return the scale, fp16 [..., 1], by which 4-bit integers are as long as the values were.

    x: the values [..., n] in multiples of the scale that made the integers q of them. Both are
    overwritten. What is squared and summed is whole, at most 2 ** 24 for 256 channels: exact in
    fp32, and the same on every path, in whatever order.
    """
    values = torch.linalg.vector_norm(x.mul_(FINE).round_(), dim=-1, keepdim=True)
    integers = torch.linalg.vector_norm(q.sub_(7.5), dim=-1, keepdim=True)  # never zero
    return (scale.float() * (values / integers) / FINE).clamp_min(SMALLEST).half()


def quantise_groups(keys: Tensor, bits: int, sizes: list[int]) -> PackedTensor:
    """
    Return keys [heads, tokens, head_dim] quantised per channel in groups of consecutive tokens.

    scale and minimum are [heads, groups, head_dim].
    """
    parts = [quantise(part, bits, 1) for part in keys.split(sizes, dim=1)]
    return PackedTensor(torch.cat([part.payload for part in parts], dim=1),
                 torch.cat([part.scale for part in parts], dim=1),
                 torch.cat([part.minimum for part in parts], dim=1))
