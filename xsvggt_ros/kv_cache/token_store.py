"""Packed keys and values of the scheme `token`: a scale for each, statistics for each frame."""

from types import ModuleType

import torch
from torch import Tensor

from xsvggt_ros.kernels import native, native_packed
from xsvggt_ros.kernels.packing import TokenLayer
from xsvggt_ros.kv_cache.config import CacheLayout
from xsvggt_ros.kv_cache.packed_store import PackedStore
from xsvggt_ros.kv_cache.store import at_slots, Observer, Step

# From so many tokens on a fused attention over packed tokens may be worth decoding them again for
# every tile of queries. Computed, not measured.
FUSED_FROM = 8192


class TokenStore(PackedStore):
    """A token's scales lie beside it; a row of the table describes the channels of a frame."""

    def __init__(
        self, layout: CacheLayout, slots: int, bits: int, rows: int, dtype: torch.dtype,
        device: torch.device, kernels: ModuleType | None = None,
    ) -> None:
        """
        Allocate all slots, and rows for the statistics of frames; see `PackedStore`.

        kernels: the module `kernels.packed`; None: PyTorch, or C++ on a CPU.
        """
        super().__init__(layout, slots, bits, rows, 1, dtype, device)
        payload = layout.head_dim * bits // 8
        self._slotted = {
            'keys': self._zeros(slots, payload, dtype=torch.uint8),
            'values': self._zeros(slots, payload, dtype=torch.uint8),
            'key_scale': self._zeros(slots, 1), 'value_scale': self._zeros(slots, 1)}
        self._tables = {'statistics': self._zeros(rows, 4 * layout.head_dim)}
        self._kernels = kernels
        self._on_cpu = device.type == 'cpu' and dtype == torch.float32
        self.hides_nan = kernels is not None  # least and greatest in Triton pass over NaN

    def side_data(self, slots: Tensor) -> list[Tensor]:
        """Return scales and statistics; see `KVStore.side_data`."""
        # A row for each step, that of its first token.
        rows = self._group.gather(1, slots[:, ::self._layout.tokens_per_step]).long()
        parts = [at_slots(self._tables['statistics'], rows),
                 at_slots(self._slotted['key_scale'], slots),
                 at_slots(self._slotted['value_scale'], slots)]
        return [torch.cat([part.flatten() for part in parts]).float()]

    def attend(
        self, layer: int, step: Step, query: Tensor, key: Tensor, value: Tensor,
        observe: Observer | None,
    ) -> Tensor:
        """Store a step's tokens and attend, by a fused kernel if there is one for that."""
        watched = None if observe is None else observe.only_attention()
        if self._kernels is not None:
            fused = observe is None and step.used >= FUSED_FROM
        else:
            fused = (observe is None or watched is not None) and self._packing() is native_packed \
                and native_packed.takes_attention(query)
        if not fused:
            return super().attend(layer, step, query, key, value, observe)
        if step.persistent:
            self._insert(layer, step, key, value)
        stored = self.layer(layer)
        if self._kernels is not None:
            token_ids = step.token_ids[layer, :step.used]
            return self._kernels.attend(stored, token_ids, query, key, value)
        return native_packed.attend(stored, query, key, value, step.slots, step.used, watched)

    def layer(self, layer: int) -> TokenLayer:
        """Return all that is stored of a layer, as views."""
        keys, values, key_scale, value_scale = (
            tensor[layer] for tensor in self._slotted.values())
        statistics = self._tables['statistics'][layer].unflatten(-1, (4, -1))
        return TokenLayer(keys, values, key_scale, value_scale, statistics, self._group[layer],
                          self._bits)

    # Parts ---------------------------------------------------------------------------------------

    def _insert(self, layer: int, step: Step, key: Tensor, value: Tensor) -> None:
        stored, row, kernels = self.layer(layer), self._free_rows[layer], self._packing()
        if kernels is None:
            stored.insert(key, value, step.slots, row)
        else:
            kernels.insert(stored, key, value, step.slots, row)

    def _decode(self, layer: int, heads: slice, keys: Tensor, values: Tensor) -> None:
        stored, kernels = self.layer(layer).of_heads(heads), self._packing()
        if kernels is None:
            stored.decode(keys, values)
        else:
            kernels.decode(stored, keys, values)

    def _packing(self) -> ModuleType | None:
        """Return what inserts and decodes, or None for PyTorch."""
        if self._kernels is None and self._on_cpu and native.allowed():
            return native_packed
        return self._kernels
