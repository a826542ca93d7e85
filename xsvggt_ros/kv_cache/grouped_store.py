"""Packed keys and values of the scheme `kcvt`, the XStreamVGGT paper's."""

from collections.abc import Callable

import torch
from torch import Tensor

from xsvggt_ros.kernels.packing import (
    dequantise,
    group_index,
    group_sizes,
    PackedTensor,
    quantise,
    quantise_groups,
)
from xsvggt_ros.kv_cache.config import CacheLayout
from xsvggt_ros.kv_cache.packed_store import PackedStore
from xsvggt_ros.kv_cache.store import at_slots, copy_slots, extend, slot_index, Step


class GroupedStore(PackedStore):
    """
    Key scales and minima, one a channel, lie in a table of groups of tokens.

    A group's row is free again when no token refers to it any more. Where policies leave many
    groups with few tokens, the table runs out of rows, and the tokens of the emptiest groups must
    leave first.
    """

    def __init__(
        self, layout: CacheLayout, slots: int, bits: int, groups: int, dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Allocate all slots, and a table of so many groups; see `PackedStore`."""
        super().__init__(layout, slots, bits, (groups, layout.head_dim), dtype, device)
        # Each slot's row of the table.
        self._group = torch.zeros(layout.layers, slots, dtype=torch.int64, device=device)
        self._sizes = group_sizes(layout.tokens_per_step, layout.special_tokens)
        self._members = group_index(self._sizes, device)
        self._firsts = [sum(self._sizes[:i]) for i in range(len(self._sizes))]

    @property
    def nbytes(self) -> int:
        """Return the bytes allocated, scratch included."""
        return super().nbytes + self._group.nbytes + self._members.nbytes

    def bytes_used(self, tokens: int, token_ids: Tensor) -> int:
        """Return the bytes of the tokens remembered and of all the side data they need."""
        slots, rows = self.slots, self._keys.scale.shape[2]
        by_slot = (self._keys.payload.nbytes + self._values.nbytes) // slots
        row_bytes = 2 * self._keys.scale.nbytes // rows // self._layout.layers
        live = int(self._rows_in_use(self._group, token_ids >= 0).count_nonzero().item())
        return by_slot * tokens + live * row_bytes + self._group.nbytes // slots * tokens

    def forced_evictions(
        self, token_ids: Tensor, protected: Callable[[], Tensor], steps: int,
    ) -> Tensor:
        """
        Return the tokens of the emptiest groups, as many as the next steps need rows.

        They are fewer than the tokens of those steps: see `build.max_groups`.
        """
        counts = self._rows_in_use(self._group, token_ids >= 0)
        in_use = counts > 0
        rows = counts.shape[1]
        wanted = in_use.sum(dim=1, keepdim=True) + steps * len(self._sizes) - rows
        kept = self._rows_in_use(self._group, protected()) > 0
        emptiest = counts.masked_fill(~in_use | kept, self.slots + 1).argsort(dim=1, stable=True)
        evicted = torch.zeros_like(in_use).scatter_(
            1, emptiest, torch.arange(rows, device=counts.device) < wanted)
        return evicted.gather(1, self._group[:, :token_ids.shape[1]])

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Copy tokens to other slots; see `KVStore.copy`."""
        super().copy(sources, targets)
        copy_slots(self._group, sources, targets)

    def save(self, slots: Tensor) -> list[Tensor]:
        """
        Return a copy of what is in some slots; see `KVStore.save`.

        With the rows of the table that they refer to: when no token does any more, they are used
        again.
        """
        rows = self._group.gather(1, slots)
        return [*super().save(slots), rows, at_slots(self._keys.scale, rows),
                at_slots(self._keys.minimum, rows)]

    def restore(self, slots: Tensor, content: list[Tensor]) -> None:
        """Bring back what `save` returned."""
        *by_slot, rows, scale, minimum = content
        super().restore(slots, by_slot)
        self._group.scatter_(1, slots, rows)
        for tensor, part in ((self._keys.scale, scale), (self._keys.minimum, minimum)):
            tensor.scatter_(2, slot_index(tensor, rows), part)

    def grow(self, slots: int) -> None:
        """Make room for more slots and, in proportion, groups."""
        rows = -(-self._keys.scale.shape[2] * slots // self.slots)
        super().grow(slots)
        self._group = extend(self._group, slots, dim=1)
        self._keys = PackedTensor(
            self._keys.payload, extend(self._keys.scale, rows, 2),
            extend(self._keys.minimum, rows, 2))

    # Parts ---------------------------------------------------------------------------------------

    def _key_rows(self, slots: Tensor) -> Tensor:
        # A row for each group: that of its first token.
        return self._group.gather(1, slots[:, self._firsts])

    def _insert(self, layer: int, step: Step, key: Tensor, value: Tensor) -> None:
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

    def _decode(
        self, layer: int, heads: slice, token_ids: Tensor, keys: Tensor, values: Tensor,
    ) -> None:
        used = len(token_ids)
        dequantise(self._part(self._values, layer, heads, used), self._bits, values)
        rows = self._group[layer, :used]
        dequantise(self._part(self._keys, layer, heads, used, rows), self._bits, keys)

    def _rows_in_use(self, group: Tensor, live: Tensor) -> Tensor:
        """Return [layers, rows] int32, how many live tokens refer to each row of the table."""
        rows = self._keys.scale.shape[2]
        counts = torch.zeros(group.shape[0], rows, dtype=torch.int32, device=group.device)
        return counts.scatter_add_(1, group[:, :live.shape[1]], live.int())
