"""
Keys and values in 8 or 4 bits: what one token or one group of tokens is turned into, and back.

A block of values x is stored as integers q with a scale and a minimum: x ~ q * scale + minimum,
q = round((x - minimum) / scale) within 0..2^bits - 1. The minimum is a float, no integer zero
point, so that a block need not contain zero. 4-bit integers lie two in a byte.

Two schemes share this. `token`: every token of a head is one block, keys first centred and scaled
per channel by the first frame's statistics, frozen. A frame's special tokens are unlike its
patches but much the same in every frame; keys and values of each are centred on its own earliest
ones. `kcvt`: the XStreamVGGT paper's, keys per channel over a group of at most 64 tokens of one
frame, values per token; the special tokens are a group of their own.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

SCHEMES = ('token', 'kcvt')
BITS = {'int8': 8, 'int4': 4}
GROUP = 64  # tokens, at most, that share a key channel's scale in the scheme kcvt
# A channel that hardly varied in the first frame may do so later: its scale is not trusted below
# this share of the head's mean one.
MIN_RELATIVE_SPREAD = 0.1


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


@dataclass(frozen=True)
class PackedKV:
    """Keys and values of some tokens, [heads, tokens, ...] each, as they are stored."""

    keys: PackedTensor
    values: PackedTensor

    @property
    def nbytes(self) -> int:
        """Return the bytes of everything."""
        return self.keys.nbytes + self.values.nbytes


def group_sizes(tokens: int, special_tokens: int) -> list[int]:
    """Return how many consecutive tokens of a frame share their keys' scales, group by group."""
    special = min(special_tokens, tokens)
    patches = tokens - special
    groups = -(-patches // GROUP)
    sizes = [patches // groups + (i < patches % groups) for i in range(groups)]
    return [special] * (special > 0) + sizes


def group_index(sizes: list[int], device: torch.device) -> Tensor:
    """Return each token's group, [tokens] int64."""
    groups = torch.arange(len(sizes), device=device)
    return groups.repeat_interleave(
        torch.tensor(sizes, device=device), output_size=sum(sizes))


def quantise(x: Tensor, bits: int, dim: int) -> PackedTensor:
    """Return x [..., n] quantised with one scale and minimum along ``dim``; n must be even."""
    return quantise_(x.to(torch.float32, copy=True), bits, dim)


def quantise_(x: Tensor, bits: int, dim: int) -> PackedTensor:
    """As `quantise`, for fp32 that is not needed any more: new memory costs a CPU most of it."""
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


class KVQuantizer:
    """Encode keys and values of one layer once, decode them as often as needed."""

    def __init__(self, bits: int, scheme: str = 'token', special_tokens: int = 0) -> None:
        """
        Choose 8 or 4 bits and a scheme, 'token' or 'kcvt'.

        special_tokens: how many tokens at the beginning of a frame are no patches.
        """
        if bits not in BITS.values():
            raise ValueError(f'bits must be 4 or 8, got {bits}')
        if scheme not in SCHEMES:
            raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}; got '{scheme}'")
        self.bits = bits
        self.scheme = scheme
        self._special_tokens = special_tokens
        self._centres: Centres | None = None

    def fit(self, keys: Tensor, values: Tensor) -> None:
        """Freeze the statistics of the first frame, [heads, tokens, head_dim] each."""
        if self.scheme == 'token':
            special = min(self._special_tokens, keys.shape[1])
            self._centres = Centres.empty(keys.shape[0], special, keys.shape[2], keys.device)
            self._centres.fit_patches(keys)
            self._centres.fit_special(keys, values, 0)

    def encode(self, keys: Tensor, values: Tensor) -> PackedKV:
        """Return the tokens of one frame, [heads, tokens, head_dim] each, packed."""
        if self.scheme == 'kcvt':
            sizes = group_sizes(keys.shape[1], self._special_tokens)
            return PackedKV(
                quantise_groups(keys, self.bits, sizes), quantise(values, self.bits, -1))
        centres = self._fitted()
        return centres.encode(keys, values, centres.rows(keys.shape[1], 0), self.bits)

    def decode(self, packed: PackedKV) -> tuple[Tensor, Tensor]:
        """Return keys and values, [heads, tokens, head_dim] fp32 each."""
        values = dequantise(packed.values, self.bits)
        if self.scheme == 'kcvt':
            sizes = group_sizes(values.shape[1], self._special_tokens)
            group = group_index(sizes, values.device)
            block = PackedTensor(packed.keys.payload, packed.keys.scale[:, group],
                          packed.keys.minimum[:, group])
            return dequantise(block, self.bits), values
        centres = self._fitted()
        keys = dequantise(packed.keys, self.bits)
        centres.uncentre(keys, values, centres.rows(keys.shape[1], 0))
        return keys, values

    def _fitted(self) -> 'Centres':
        if self._centres is None:
            raise RuntimeError('fit the quantiser to the first frame before it encodes or decodes')
        return self._centres


@dataclass(frozen=True)
class Centres:
    """
    What the scheme `token` takes off keys and values before they are quantised; fp16.

    Row 0 of the tables is for patches, then one row for each special token of the first frame,
    then one for each of the later frames, which begin as other learnt vectors.
    """

    keys: Tensor  # [heads, 1 + 2 * special_tokens, head_dim]
    values: Tensor  # the same
    spread: Tensor  # [heads, 1, head_dim], of the keys

    @classmethod
    def empty(
        cls, heads: int, special_tokens: int, head_dim: int, device: torch.device,
    ) -> 'Centres':
        """Allocate the tables."""
        table = torch.zeros(
            heads, 1 + 2 * special_tokens, head_dim, dtype=torch.half, device=device)
        return cls(table, table.clone(), table[:, :1].clone())

    @property
    def special_tokens(self) -> int:
        """Return the number of special tokens of a frame."""
        return self.keys.shape[1] // 2

    @property
    def nbytes(self) -> int:
        """Return the bytes of the tables."""
        return self.keys.nbytes + self.values.nbytes + self.spread.nbytes

    def of_heads(self, heads: slice) -> 'Centres':
        """Return the tables of some heads, as views."""
        return Centres(self.keys[heads], self.values[heads], self.spread[heads])

    def fit_patches(self, keys: Tensor) -> None:
        """Take mean and spread of the first frame's patch keys, [heads, tokens, head_dim]."""
        patches = keys[:, self.special_tokens:] if keys.shape[1] > self.special_tokens else keys
        centre, spread = key_statistics(patches)
        self.keys[:, :1].copy_(centre)
        self.spread.copy_(spread)

    def fit_special(self, keys: Tensor, values: Tensor, step: int) -> None:
        """Take the special tokens of the first (step 0) or second frame (step 1)."""
        count = self.special_tokens
        rows = slice(1 + count * step, 1 + count * (step + 1))
        self.keys[:, rows].copy_(keys[:, :count])
        self.values[:, rows].copy_(values[:, :count])

    def rows(self, tokens: int, step: int) -> Tensor:
        """Return the row of each token of a frame, [tokens] int64."""
        return self.rows_of(torch.arange(tokens, device=self.keys.device), step > 0)

    def rows_of(self, index: Tensor, later: Tensor | bool) -> Tensor:
        """Return the rows of tokens by their index in the frame, and whether it is a later one."""
        count = self.special_tokens
        return torch.where(index < count, 1 + index + later * count, 0)

    def encode(self, keys: Tensor, values: Tensor, rows: Tensor, bits: int) -> PackedKV:
        """Return tokens [heads, tokens, head_dim] centred, scaled and packed."""
        key_centres, value_centres = self._at(rows)
        keys = torch.sub(keys.float(), key_centres, out=key_centres).div_(self.spread)
        values = torch.sub(values.float(), value_centres, out=value_centres)
        return PackedKV(quantise_(keys, bits, -1), quantise_(values, bits, -1))

    def uncentre(self, keys: Tensor, values: Tensor, rows: Tensor) -> None:
        """Undo, in place, what `encode` did before it packed."""
        key_centres, value_centres = self._at(rows)
        keys.mul_(self.spread).add_(key_centres)
        values.add_(value_centres)

    def _at(self, rows: Tensor) -> list[Tensor]:
        """Return the rows of both tables, as floats: mixed types make a CPU many times slower."""
        return [table.float().index_select(1, rows) for table in (self.keys, self.values)]


def key_statistics(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and spread of each channel, [heads, 1, head_dim] fp32, over the tokens."""
    keys = keys.float()
    centre = keys.mean(dim=1, keepdim=True)
    spread = (keys - centre).square().mean(dim=1, keepdim=True).sqrt()
    floor = MIN_RELATIVE_SPREAD * spread.square().mean(dim=-1, keepdim=True).sqrt()
    spread = spread.maximum(floor)
    return centre, torch.where(spread > 0, spread, 1.0)


def quantise_groups(keys: Tensor, bits: int, sizes: list[int]) -> PackedTensor:
    """
    Return keys [heads, tokens, head_dim] quantised per channel in groups of consecutive tokens.

    scale and minimum are [heads, groups, head_dim].
    """
    parts = [quantise(part, bits, 1) for part in keys.split(sizes, dim=1)]
    return PackedTensor(torch.cat([part.payload for part in parts], dim=1),
                 torch.cat([part.scale for part in parts], dim=1),
                 torch.cat([part.minimum for part in parts], dim=1))
