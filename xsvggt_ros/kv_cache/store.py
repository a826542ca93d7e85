"""Where keys and values lie: slots for every layer, allocated once, as floats or packed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from xsvggt_ros.kernels import native, native_packed
from xsvggt_ros.kernels.attention import attention
from xsvggt_ros.kernels.packing import (
    Centres,
    dequantise,
    group_index,
    group_sizes,
    PackedTensor,
    quantise,
    quantise_groups,
)
from xsvggt_ros.kv_cache.config import CacheLayout

# Told the heads, and their keys and values [1, heads, used, head_dim], that are being attended to.
Observer = Callable[[slice, Tensor, Tensor], None]
# Room for decoded keys and values; heads are decoded so many at a time. A CPU likes its cache, a
# GPU enough heads to be busy.
SCRATCH_BYTES = {'cpu': 2 << 20, 'cuda': 16 << 20}
EXTREMES_BYTES = 16 << 20  # keys and values of a step that are looked at together
# From so many tokens on a fused attention over packed tokens may be worth decoding them again for
# every tile of queries. Computed, not measured.
FUSED_FROM = 8192


@dataclass(frozen=True)
class Step:
    """Where a step's tokens go in one layer."""

    number: int  # since the stream began
    slots: Tensor  # [tokens] int64, of the step
    used: int  # slots 0..used are occupied, the step's own included
    token_ids: Tensor  # [used] int64, of the tokens remembered; the step's own are not in yet
    persistent: bool = True  # False: the slots are free again when the layer has attended


class TokenStore(Protocol):
    """Slots for the tokens of all layers."""

    slots: int  # tokens a layer has room for
    device: torch.device
    max_magnitude: float  # above it in size, keys and values cannot be stored as they come
    hides_nan: bool  # whether what is stored may be finite though a key or a value was not

    @property
    def nbytes(self) -> int:
        """Return the bytes allocated."""

    def bytes_used(self, tokens: int, token_ids: Tensor) -> int:
        """Return the bytes that belong to the tokens remembered, ``tokens`` in each layer."""

    def attend(
        self, layer: int, step: Step, query: Tensor, key: Tensor, value: Tensor,
        observe: Observer | None,
    ) -> Tensor:
        """
        Store a step's tokens in their slots and attend to all occupied ones.

        query, key, value: [heads, tokens_per_step, head_dim]. Returns the same shape. The step's
        tokens are attended to exactly as given, even where they are stored in fewer bits. They may
        be fewer in a step that is not persistent; its slots hold nothing afterwards.
        ``observe`` is told all keys and values, by a store that would have to decode them again.
        """

    def floats(self, used: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield layers and their keys and values, [layers, heads, used, head_dim], if floats."""

    def forced_evictions(
        self, token_ids: Tensor, protected: Callable[[], Tensor], steps: int,
    ) -> Tensor | None:
        """
        Return which slots the store cannot keep, [layers, tokens] bool, or None for no such.

        token_ids: [layers, tokens] int64 of the occupied slots, the newest step included;
        protected: returns which, bool, stay in any case; steps: how many must find room before the
        next eviction.
        """

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Copy the tokens in the slots ``sources`` [layers, n] to ``targets`` [layers, n]."""

    def save(self, slots: Tensor) -> list[Tensor]:
        """Return a copy of what is in slots [layers, n] int64, for `restore`."""

    def restore(self, slots: Tensor, content: list[Tensor]) -> None:
        """Bring back what `save` returned of these slots, bit for bit."""

    def side_data(self, slots: Tensor) -> list[Tensor]:
        """
        Return numbers [n] each, fp32, that are not all finite if a token in the slots is not.

        slots: [layers, n] int64. None where what is up to `max_magnitude` is stored as such.
        """

    def grow(self, slots: int) -> None:
        """Make room for more slots, for a cache without a limit."""


class DenseStore:
    """Keys and values as floats, [layers, heads, slots, head_dim] each."""

    def __init__(
        self, layout: CacheLayout, slots: int, dtype: torch.dtype, device: torch.device,
    ) -> None:
        """Allocate all slots at once; nothing is allocated afterwards."""
        self._layout = layout
        self.device = device
        shape = (2, layout.layers, layout.heads, slots, layout.head_dim)
        self._lay(torch.zeros(shape, dtype=dtype, device=device))
        self.max_magnitude = torch.finfo(dtype).max
        self.hides_nan = False

    def _lay(self, both: Tensor) -> None:
        self._both = both
        self.keys, self.values = both

    @property
    def slots(self) -> int:
        """Return the tokens a layer has room for."""
        return self.keys.shape[2]

    @property
    def nbytes(self) -> int:
        """Return the bytes allocated."""
        return self.keys.nbytes + self.values.nbytes

    def bytes_used(self, tokens: int, token_ids: Tensor) -> int:
        """Return the bytes of the tokens remembered."""
        return self.nbytes // self.slots * tokens

    def forced_evictions(
        self, token_ids: Tensor, protected: Callable[[], Tensor], steps: int,
    ) -> None:
        """Return None: there is room for whatever is kept."""

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Copy tokens to other slots; see `TokenStore.copy`."""
        for tensor in (self.keys, self.values):
            _copy(tensor, sources, targets)

    def attend(
        self, layer: int, step: Step, query: Tensor, key: Tensor, value: Tensor,
        observe: Observer | None,
    ) -> Tensor:
        """Store a step's tokens and attend; see `TokenStore.attend`."""
        slots, used = step.slots, step.used
        keys, values = self.keys[layer], self.values[layer]
        keys.index_copy_(1, slots, key.to(keys.dtype))
        values.index_copy_(1, slots, value.to(values.dtype))
        keys, values = keys[:, :used], values[:, :used]
        if keys.dtype != key.dtype:
            keys = keys.to(key.dtype).index_copy_(1, slots, key)
            values = values.to(value.dtype).index_copy_(1, slots, value)
        return attention(query, keys, values)

    def floats(self, used: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield all layers at once, or a few at a time if whoever wants fp32 must copy them."""
        layers = len(self.keys)
        at_once = layers
        if self.keys.dtype != torch.float32:
            layer = 2 * used * self._layout.heads * self._layout.head_dim * torch.float32.itemsize
            room = SCRATCH_BYTES.get(self.device.type, SCRATCH_BYTES['cpu'])
            at_once = min(max(1, room // layer), layers)
        for start in range(0, layers, at_once):
            part = slice(start, start + at_once)
            yield part, self.keys[part, :, :used], self.values[part, :, :used]

    def save(self, slots: Tensor) -> list[Tensor]:
        """Return a copy of what is in some slots; see `TokenStore.save`."""
        return [self._both.gather(3, self._index(slots))]

    def restore(self, slots: Tensor, content: list[Tensor]) -> None:
        """Bring back what `save` returned."""
        self._both.scatter_(3, self._index(slots), content[0])

    def side_data(self, slots: Tensor) -> list[Tensor]:
        """Return nothing: keys and values are stored as such."""
        return []

    def extremes(self, slots: Tensor) -> list[Tensor]:
        """Return the least and the greatest numbers in some slots [layers, n], [1] fp32 each."""
        layer = 2 * slots.shape[1] * self._layout.heads * self._layout.head_dim
        at_once = max(1, EXTREMES_BYTES // (layer * self._both.element_size()))
        index, found = self._index(slots), []
        for start in range(0, len(slots), at_once):
            part = slice(start, start + at_once)
            found += self._both[:, part].gather(3, index[:, part]).aminmax()
        return [extreme[None].float() for extreme in found]

    def _index(self, slots: Tensor) -> Tensor:
        two, layers, heads, _, dim = self._both.shape
        return slots[:, None, :, None].expand(two, layers, heads, slots.shape[1], dim)

    def grow(self, slots: int) -> None:
        """Make room for more slots."""
        self._lay(extend(self._both, slots, dim=3))


class PackedStore:
    """
    Keys and values in 8 or 4 bits, each token quantised once, when it is stored.

    Scheme `token`: a token's scale and minimum lie beside it, so that eviction is an overwrite.
    Scheme `kcvt`: key scales and minima lie in a table of groups; a group's row is free again when
    no token refers to it any more. Where policies leave many groups with few tokens, the table
    runs out of rows, and the tokens of the emptiest groups must leave first.
    """

    def __init__(
        self, layout: CacheLayout, slots: int, bits: int, groups: int | None,
        dtype: torch.dtype, device: torch.device, kernels: ModuleType | None = None,
    ) -> None:
        """
        Allocate all slots, and scratch for decoding in the compute type ``dtype``.

        groups: rows of the table of the scheme `kcvt`; None for the scheme `token`. kernels: the
        module `kernels.packed`, of use to the scheme `token` only; None: PyTorch.
        """
        self._layout = layout
        self._kernels = kernels if groups is None else None
        self._on_cpu = groups is None and device.type == 'cpu' and dtype == torch.float32
        self._bits = bits
        layers, heads, dim = layout.layers, layout.heads, layout.head_dim
        payload = dim * bits // 8

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(layers, *shape, dtype=dtype, device=device)

        half = torch.half
        side = (heads, slots, 1) if groups is None else (heads, groups, dim)
        self._keys = PackedTensor(zeros(heads, slots, payload, dtype=torch.uint8),
                           zeros(*side, dtype=half), zeros(*side, dtype=half))
        self._values = PackedTensor(zeros(heads, slots, payload, dtype=torch.uint8),
                             zeros(heads, slots, 1, dtype=half),
                             zeros(heads, slots, 1, dtype=half))
        self._centres = [] if groups is not None else [
            Centres.empty(heads, layout.special_tokens, dim, device) for _ in range(layers)]
        # Scheme kcvt: each slot's row of the table.
        self._group = None if groups is None else zeros(slots, dtype=torch.int64)
        self._sizes = group_sizes(layout.tokens_per_step, layout.special_tokens)
        self._members = group_index(self._sizes, device)
        self._firsts = [sum(self._sizes[:i]) for i in range(len(self._sizes))]
        self.max_magnitude = torch.finfo(torch.float32).max  # `side_data` tells what is too large
        self.hides_nan = self._kernels is not None  # least and greatest in Triton pass over NaN
        self._dtype = dtype
        self.device = device
        self._allocate_scratch(slots)

    @property
    def slots(self) -> int:
        """Return the tokens a layer has room for."""
        return self._keys.payload.shape[2]

    @property
    def nbytes(self) -> int:
        """Return the bytes allocated, scratch included."""
        group = 0 if self._group is None else self._group.nbytes
        centres = sum(centres.nbytes for centres in self._centres)
        return (self._keys.nbytes + self._values.nbytes + centres + group
                + self._members.nbytes + self._scratch.nbytes)

    def bytes_used(self, tokens: int, token_ids: Tensor) -> int:
        """Return the bytes of the tokens remembered and of all the side data they need."""
        slots = self.slots
        used = (self._keys.payload.nbytes + self._values.nbytes) // slots * tokens
        used += sum(centres.nbytes for centres in self._centres)
        if self._group is None:
            return used + (self._keys.scale.nbytes + self._keys.minimum.nbytes) // slots * tokens
        rows = self._keys.scale.shape[2]
        row_bytes = 2 * self._keys.scale.nbytes // rows // self._layout.layers
        live = self._rows_in_use(self._group, token_ids >= 0).count_nonzero().item()
        return used + live * row_bytes + self._group.nbytes // slots * tokens

    def forced_evictions(
        self, token_ids: Tensor, protected: Callable[[], Tensor], steps: int,
    ) -> Tensor | None:
        """
        Return the tokens of the emptiest groups, as many as the next steps need rows.

        They are fewer than the tokens of those steps: see `cache.most_groups`.
        """
        if self._group is None:
            return None
        counts = self._rows_in_use(self._group, token_ids >= 0)
        in_use = counts > 0
        rows = counts.shape[1]
        wanted = in_use.sum(dim=1, keepdim=True) + steps * len(self._sizes) - rows
        kept = self._rows_in_use(self._group, protected()) > 0
        emptiest = counts.masked_fill(~in_use | kept, self.slots + 1).argsort(dim=1, stable=True)
        leaves = torch.zeros_like(in_use).scatter_(
            1, emptiest, torch.arange(rows, device=counts.device) < wanted)
        return leaves.gather(1, self._group[:, :token_ids.shape[1]])

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Copy tokens to other slots; see `TokenStore.copy`."""
        group = [] if self._group is None else [self._group]
        for tensor in self._by_slot() + group:
            _copy(tensor, sources, targets)

    def save(self, slots: Tensor) -> list[Tensor]:
        """
        Return a copy of what is in some slots; see `TokenStore.save`.

        In the scheme kcvt with the rows of the table that they refer to: when no token does any
        more, they are used again.
        """
        parts = [_at(tensor, slots) for tensor in self._by_slot()]
        if self._group is not None:
            rows = self._group.gather(1, slots)
            parts += [rows, *(_at(tensor, rows) for tensor in (
                self._keys.scale, self._keys.minimum))]
        return parts

    def restore(self, slots: Tensor, content: list[Tensor]) -> None:
        """Bring back what `save` returned."""
        tensors = self._by_slot()
        for tensor, part in zip(tensors, content):
            tensor.scatter_(2, _index(tensor, slots), part)
        if self._group is not None:
            rows, *parts = content[len(tensors):]
            self._group.scatter_(1, slots, rows)
            for tensor, part in zip((self._keys.scale, self._keys.minimum), parts):
                tensor.scatter_(2, _index(tensor, rows), part)

    def side_data(self, slots: Tensor) -> list[Tensor]:
        """Return scales and minima; see `TokenStore.side_data`."""
        rows = slots
        if self._group is not None:  # a row for each group: that of its first token
            rows = self._group.gather(1, slots[:, self._firsts])
        side_data = [_at(self._keys.scale, rows), _at(self._keys.minimum, rows),
                 _at(self._values.scale, slots), _at(self._values.minimum, slots)]
        return [torch.cat([side.flatten() for side in side_data]).float()]

    def _by_slot(self) -> list[Tensor]:
        """Return what lies by slots, [layers, heads, slots, n] each."""
        tensors = [self._keys.payload,
                   self._values.payload, self._values.scale, self._values.minimum]
        if self._group is None:
            tensors += [self._keys.scale, self._keys.minimum]
        return tensors

    def attend(
        self, layer: int, step: Step, query: Tensor, key: Tensor, value: Tensor,
        observe: Observer | None,
    ) -> Tensor:
        """
        Store a step's tokens and attend; see `TokenStore.attend`.

        A few heads at a time are decoded to scratch and attended to, unless a fused kernel does
        it and nobody observes.
        """
        if not step.persistent:
            pass  # nobody will read it again
        elif self._group is None:
            self._insert_tokens(layer, step, key, value)
        else:
            self._insert_groups(layer, step, key, value)
        if self._kernels is not None and observe is None and step.used >= FUSED_FROM:
            return self._kernels.attend(
                *self._blocks(layer), self._centres[layer], step.token_ids,
                self._layout.tokens_per_step, self._bits, query, key, value)
        out = torch.empty_like(query)
        for heads, keys, values in self._decoded(layer, step.token_ids):
            keys.index_copy_(1, step.slots, key[heads].to(keys.dtype))
            values.index_copy_(1, step.slots, value[heads].to(values.dtype))
            if observe is not None:
                observe(heads, keys[None], values[None])
            out[heads] = attention(query[heads], keys, values)
        return out

    def floats(self, used: int) -> tuple[()]:
        """Return nothing: `attend` tells what it decodes."""
        return ()

    def grow(self, slots: int) -> None:
        """Make room for more slots and, in proportion, groups."""
        rows = None
        if self._group is not None:
            rows = -(-self._keys.scale.shape[2] * slots // self.slots)
            self._group = extend(self._group, slots, dim=1)
        side = slots if rows is None else rows
        self._keys = PackedTensor(extend(self._keys.payload, slots, 2),
                           extend(self._keys.scale, side, 2), extend(self._keys.minimum, side, 2))
        self._values = PackedTensor(*(extend(part, slots, 2) for part in (
            self._values.payload, self._values.scale, self._values.minimum)))
        self._allocate_scratch(slots)

    # Parts ---------------------------------------------------------------------------------------

    def _insert_tokens(self, layer: int, step: Step, key: Tensor, value: Tensor) -> None:
        centres = self._centres[layer]
        if step.number == 0:
            centres.fit_patches(key)
        if step.number <= 1:
            centres.fit_special(key, value, step.number)
        rows = centres.rows(key.shape[1], step.number)
        kernels = self._packing()
        if kernels is not None:
            kernels.insert(
                *self._blocks(layer), centres, key, value, rows, step.slots, self._bits)
            return
        packed = centres.encode(key, value, rows, self._bits)
        self._write(self._keys, layer, step.slots, packed.keys)
        self._write(self._values, layer, step.slots, packed.values)

    def _insert_groups(self, layer: int, step: Step, key: Tensor, value: Tensor) -> None:
        block = quantise_groups(key, self._bits, self._sizes)
        group, slots = self._group[layer], step.slots
        live = torch.ones(step.used, dtype=torch.bool, device=group.device)
        live.index_fill_(0, slots, False)
        in_use = self._rows_in_use(group[None], live[None])[0]
        rows = in_use.argsort(stable=True)[:len(self._sizes)]  # those in use come last
        self._keys.payload[layer].index_copy_(1, slots, block.payload)
        self._keys.scale[layer].index_copy_(1, rows, block.scale)
        self._keys.minimum[layer].index_copy_(1, rows, block.minimum)
        group.index_copy_(0, slots, rows[self._members])
        self._write(self._values, layer, slots, quantise(value, self._bits, -1))

    def _rows_in_use(self, group: Tensor, live: Tensor) -> Tensor:
        """Return [layers, rows] int32, how many live tokens refer to each row of the table."""
        rows = self._keys.scale.shape[2]
        counts = torch.zeros(group.shape[0], rows, dtype=torch.int32, device=group.device)
        return counts.scatter_add_(1, group[:, :live.shape[1]], live.int())

    @staticmethod
    def _write(target: PackedTensor, layer: int, slots: Tensor, block: PackedTensor) -> None:
        target.payload[layer].index_copy_(1, slots, block.payload)
        target.scale[layer].index_copy_(1, slots, block.scale)
        target.minimum[layer].index_copy_(1, slots, block.minimum)

    def _decoded(
        self, layer: int, token_ids: Tensor,
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield heads, and their decoded keys and values [heads, used, head_dim] in scratch."""
        used = len(token_ids)
        per_step = self._layout.tokens_per_step
        parts = self._scratch.shape[1]
        kernels = self._packing()
        for start in range(0, self._layout.heads, parts):
            heads = slice(start, min(start + parts, self._layout.heads))
            keys, values = self._scratch[:, :heads.stop - start, :used]
            if kernels is not None:
                kernels.decode(
                    *self._blocks(layer, heads), self._centres[layer].of_heads(heads), token_ids,
                    per_step, self._bits, keys, values)
                yield heads, keys, values
                continue
            dequantise(self._part(self._values, layer, heads, used), self._bits, values)
            dequantise(self._part(self._keys, layer, heads, used, self._group), self._bits, keys)
            if self._group is None:
                centres = self._centres[layer]
                rows = centres.rows_of(token_ids % per_step, token_ids >= per_step)
                centres.of_heads(heads).uncentre(keys, values, rows)
            yield heads, keys, values

    def _packing(self) -> ModuleType | None:
        """Return what inserts and decodes, or None for PyTorch."""
        if self._kernels is None and self._on_cpu and native.allowed():
            return native_packed
        return self._kernels

    def _blocks(self, layer: int, heads: slice = slice(None)) -> tuple[PackedTensor, PackedTensor]:
        """Return all keys and values of some heads of a layer."""
        keys, values = (
            PackedTensor(block.payload[layer, heads], block.scale[layer, heads],
                  block.minimum[layer, heads]) for block in (self._keys, self._values))
        return keys, values

    @staticmethod
    def _part(
        block: PackedTensor, layer: int, heads: slice, used: int, group: Tensor | None = None,
    ) -> PackedTensor:
        rows = slice(used) if group is None else group[layer, :used]
        return PackedTensor(block.payload[layer, heads, :used], block.scale[layer, heads][:, rows],
                     block.minimum[layer, heads][:, rows])

    def _allocate_scratch(self, slots: int) -> None:
        layout = self._layout
        head_bytes = 2 * slots * layout.head_dim * self._dtype.itemsize
        room = SCRATCH_BYTES.get(self.device.type, SCRATCH_BYTES['cpu'])
        heads = max(1, min(layout.heads, room // head_bytes))
        self._scratch = torch.zeros(
            2, heads, slots, layout.head_dim, dtype=self._dtype, device=self.device)


def _index(tensor: Tensor, slots: Tensor) -> Tensor:
    """Return slots [layers, n] as an index along the third dimension of [layers, heads, s, m]."""
    layers, heads, _, size = tensor.shape
    return slots[:, None, :, None].expand(layers, heads, slots.shape[1], size)


def _at(tensor: Tensor, slots: Tensor) -> Tensor:
    """Return the slots [layers, n] of [layers, heads, s, m]."""
    return tensor.gather(2, _index(tensor, slots))


def _copy(tensor: Tensor, sources: Tensor, targets: Tensor) -> None:
    """Copy slots of [layers, slots] or [layers, heads, slots, n], layer by layer."""
    for layer, source, target in zip(tensor, sources, targets):
        dim = min(layer.dim() - 1, 1)
        layer.index_copy_(dim, target, layer.index_select(dim, source))


def extend(tensor: Tensor, size: int, dim: int) -> Tensor:
    """Return a copy with ``size`` entries along a dimension, the new ones zero."""
    shape = list(tensor.shape)
    shape[dim] = size
    larger = tensor.new_zeros(shape)
    larger.narrow(dim, 0, tensor.shape[dim]).copy_(tensor)
    return larger
