"""Packed keys and values of the scheme `kcvt`, the XStreamVGGT paper's."""

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
from xsvggt_ros.kv_cache.store import at_slots, Step


class GroupedStore(PackedStore):
    """Key scales and minima, one a channel, lie in a table of groups; a value's beside it."""

    def __init__(
        self, layout: CacheLayout, slots: int, bits: int, rows: int, dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Allocate all slots, and a table of so many groups; see `PackedStore`."""
        self._sizes = group_sizes(layout.tokens_per_step, layout.special_tokens)
        super().__init__(layout, slots, bits, rows, len(self._sizes), dtype, device)
        payload, dim = layout.head_dim * bits // 8, layout.head_dim
        self._slotted = {
            'keys': self._zeros(slots, payload, dtype=torch.uint8),
            'values': self._zeros(slots, payload, dtype=torch.uint8),
            'value_scale': self._zeros(slots, 1), 'value_minimum': self._zeros(slots, 1)}
        self._tables = {'key_scale': self._zeros(rows, dim), 'key_minimum': self._zeros(rows, dim)}
        self._members = group_index(self._sizes, device)
        self._firsts = [sum(self._sizes[:i]) for i in range(len(self._sizes))]

    @property
    def nbytes(self) -> int:
        """Return the bytes allocated, scratch included."""
        return super().nbytes + self._members.nbytes

    def side_data(self, slots: Tensor) -> list[Tensor]:
        """Return scales and minima; see `KVStore.side_data`."""
        # A row for each group: that of its first token.
        rows = self._group.gather(1, slots[:, self._firsts]).long()
        parts = [*(at_slots(table, rows) for table in self._tables.values()),
                 at_slots(self._slotted['value_scale'], slots),
                 at_slots(self._slotted['value_minimum'], slots)]
        return [torch.cat([part.flatten() for part in parts]).float()]

    # Parts ---------------------------------------------------------------------------------------

    def _insert(self, layer: int, step: Step, key: Tensor, value: Tensor) -> None:
        keys = quantise_groups(key, self._bits, self._sizes)
        values = quantise(value, self._bits, -1)
        rows, slots = self._free_rows[layer], step.slots
        for tensors, name, index, part in (
                (self._slotted, 'keys', slots, keys.payload),
                (self._slotted, 'values', slots, values.payload),
                (self._slotted, 'value_scale', slots, values.scale),
                (self._slotted, 'value_minimum', slots, values.minimum),
                (self._tables, 'key_scale', rows, keys.scale),
                (self._tables, 'key_minimum', rows, keys.minimum)):
            tensors[name][layer].index_copy_(1, index, part)
        self._group[layer].index_copy_(0, slots, rows[self._members].int())

    def _decode(self, layer: int, heads: slice, keys: Tensor, values: Tensor) -> None:
        used = keys.shape[1]
        of_slots = {name: tensor[layer, heads, :used] for name, tensor in self._slotted.items()}
        rows = self._group[layer, :used]
        scale, minimum = (table[layer, heads][:, rows] for table in self._tables.values())
        dequantise(PackedTensor(of_slots['values'], of_slots['value_scale'],
                                of_slots['value_minimum']), self._bits, values)
        dequantise(PackedTensor(of_slots['keys'], scale, minimum), self._bits, keys)
