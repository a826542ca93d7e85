"""Packed keys and values of the scheme `token`: each with a scale and a minimum of its own."""

from types import ModuleType

import torch
from torch import Tensor

from xsvggt_ros.kernels import native, native_packed
from xsvggt_ros.kernels.packing import Centres, dequantise, PackedTensor
from xsvggt_ros.kv_cache.config import CacheLayout
from xsvggt_ros.kv_cache.packed_store import PackedStore
from xsvggt_ros.kv_cache.store import extend, Observer, Step

# From so many tokens on a fused attention over packed tokens may be worth decoding them again for
# every tile of queries. Computed, not measured.
FUSED_FROM = 8192


class TokenStore(PackedStore):
    """A token's scale and minimum lie beside it, for keys as for values."""

    def __init__(
        self, layout: CacheLayout, slots: int, bits: int, dtype: torch.dtype,
        device: torch.device, kernels: ModuleType | None = None,
    ) -> None:
        """
        Allocate all slots; see `PackedStore`.

        kernels: the module `kernels.packed`; None: PyTorch, or C++ on a CPU.
        """
        super().__init__(layout, slots, bits, (slots, 1), dtype, device)
        self._kernels = kernels
        self._on_cpu = device.type == 'cpu' and dtype == torch.float32
        self.hides_nan = kernels is not None  # least and greatest in Triton pass over NaN
        self._centres = [
            Centres.empty(layout.heads, layout.special_tokens, layout.head_dim, device)
            for _ in range(layout.layers)]

    @property
    def nbytes(self) -> int:
        """Return the bytes allocated, scratch included."""
        return super().nbytes + sum(centres.nbytes for centres in self._centres)

    def bytes_used(self, tokens: int, token_ids: Tensor) -> int:
        """Return the bytes of the tokens remembered and of all the side data they need."""
        by_slot = (self._keys.nbytes + self._values.nbytes) // self.slots
        return by_slot * tokens + sum(centres.nbytes for centres in self._centres)

    def attend(
        self, layer: int, step: Step, query: Tensor, key: Tensor, value: Tensor,
        observe: Observer | None,
    ) -> Tensor:
        """Store a step's tokens and attend, by a fused kernel if there is one for that."""
        if self._kernels is None or observe is not None or step.used < FUSED_FROM:
            return super().attend(layer, step, query, key, value, observe)
        if step.persistent:
            self._insert(layer, step, key, value)
        return self._kernels.attend(
            *self._blocks(layer), self._centres[layer], step.token_ids,
            self._layout.tokens_per_step, self._bits, query, key, value)

    def grow(self, slots: int) -> None:
        """Make room for more slots."""
        super().grow(slots)
        self._keys = PackedTensor(
            self._keys.payload, extend(self._keys.scale, slots, 2),
            extend(self._keys.minimum, slots, 2))

    # Parts ---------------------------------------------------------------------------------------

    def _by_slot(self) -> list[Tensor]:
        return [*super()._by_slot(), self._keys.scale, self._keys.minimum]

    def _key_rows(self, slots: Tensor) -> Tensor:
        return slots

    def _insert(self, layer: int, step: Step, key: Tensor, value: Tensor) -> None:
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

    def _decode(
        self, layer: int, heads: slice, token_ids: Tensor, keys: Tensor, values: Tensor,
    ) -> None:
        used, per_step = len(token_ids), self._layout.tokens_per_step
        centres, kernels = self._centres[layer].of_heads(heads), self._packing()
        if kernels is not None:
            kernels.decode(*self._blocks(layer, heads), centres, token_ids, per_step, self._bits,
                           keys, values)
            return
        dequantise(self._part(self._values, layer, heads, used), self._bits, values)
        dequantise(self._part(self._keys, layer, heads, used), self._bits, keys)
        rows = centres.rows_of(token_ids % per_step, token_ids >= per_step)
        centres.uncentre(keys, values, rows)

    def _packing(self) -> ModuleType | None:
        """Return what inserts and decodes, or None for PyTorch."""
        if self._kernels is None and self._on_cpu and native.allowed():
            return native_packed
        return self._kernels

    def _blocks(
        self, layer: int, heads: slice = slice(None),
    ) -> tuple[PackedTensor, PackedTensor]:
        """Return all keys and values of some heads of a layer."""
        keys, values = (
            PackedTensor(block.payload[layer, heads], block.scale[layer, heads],
                         block.minimum[layer, heads]) for block in (self._keys, self._values))
        return keys, values
