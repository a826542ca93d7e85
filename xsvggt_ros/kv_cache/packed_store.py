"""What stores of packed keys and values share: values token by token, scratch, attention."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from xsvggt_ros.kernels.attention import attention
from xsvggt_ros.kernels.packing import PackedTensor
from xsvggt_ros.kv_cache.config import CacheLayout
from xsvggt_ros.kv_cache.store import (
    at_slots,
    copy_slots,
    extend,
    Observer,
    SCRATCH_BYTES,
    slot_index,
    Step,
)


class PackedStore(ABC):
    """
    Keys and values in 8 or 4 bits, each token quantised once, when it is stored.

    A token's payload, and a value's scale and minimum, lie by slots, so that eviction is an
    overwrite. What else there is of keys is a subclass's.
    """

    hides_nan = False
    # `side_data` tells what is too large.
    max_magnitude = torch.finfo(torch.float32).max

    def __init__(
        self, layout: CacheLayout, slots: int, bits: int, key_rows: tuple[int, int],
        dtype: torch.dtype, device: torch.device,
    ) -> None:
        """
        Allocate all slots, and scratch for decoding in the compute type ``dtype``.

        key_rows: the shape of a head's key scales and minima, [rows, 1 or channels].
        """
        self._layout = layout
        self._bits = bits
        layers, heads, dim = layout.layers, layout.heads, layout.head_dim
        payload = dim * bits // 8

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(layers, heads, *shape, dtype=dtype, device=device)

        half = torch.half
        self._keys = PackedTensor(zeros(slots, payload, dtype=torch.uint8),
                                  zeros(*key_rows, dtype=half), zeros(*key_rows, dtype=half))
        self._values = PackedTensor(zeros(slots, payload, dtype=torch.uint8),
                                    zeros(slots, 1, dtype=half), zeros(slots, 1, dtype=half))
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
        return self._keys.nbytes + self._values.nbytes + self._scratch.nbytes

    @abstractmethod
    def bytes_used(self, tokens: int, token_ids: Tensor) -> int:
        """Return the bytes of the tokens remembered and of all the side data they need."""

    def forced_evictions(
        self, token_ids: Tensor, protected: Callable[[], Tensor], steps: int,
    ) -> Tensor | None:
        """Return None: there is room for whatever is kept."""
        return None

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Copy tokens to other slots; see `KVStore.copy`."""
        for tensor in self._by_slot():
            copy_slots(tensor, sources, targets)

    def save(self, slots: Tensor) -> list[Tensor]:
        """Return a copy of what is in some slots; see `KVStore.save`."""
        return [at_slots(tensor, slots) for tensor in self._by_slot()]

    def restore(self, slots: Tensor, content: list[Tensor]) -> None:
        """Bring back what `save` returned."""
        for tensor, part in zip(self._by_slot(), content):
            tensor.scatter_(2, slot_index(tensor, slots), part)

    def side_data(self, slots: Tensor) -> list[Tensor]:
        """Return scales and minima; see `KVStore.side_data`."""
        rows = self._key_rows(slots)
        parts = [at_slots(self._keys.scale, rows), at_slots(self._keys.minimum, rows),
                 at_slots(self._values.scale, slots), at_slots(self._values.minimum, slots)]
        return [torch.cat([part.flatten() for part in parts]).float()]

    def extremes(self, slots: Tensor) -> list[Tensor]:
        """Return nothing: no floats are stored."""
        return []

    def attend(
        self, layer: int, step: Step, query: Tensor, key: Tensor, value: Tensor,
        observe: Observer | None,
    ) -> Tensor:
        """
        Store a step's tokens and attend; see `KVStore.attend`.

        A few heads at a time are decoded to scratch and attended to.
        """
        if step.persistent:  # otherwise nobody will look at it again
            self._insert(layer, step, key, value)
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
        """Make room for more slots."""
        self._keys = PackedTensor(
            extend(self._keys.payload, slots, 2), self._keys.scale, self._keys.minimum)
        self._values = PackedTensor(*(extend(part, slots, 2) for part in (
            self._values.payload, self._values.scale, self._values.minimum)))
        self._allocate_scratch(slots)

    # Parts ---------------------------------------------------------------------------------------

    def _by_slot(self) -> list[Tensor]:
        """Return what lies by slots, [layers, heads, slots, n] each."""
        return [self._keys.payload,
                self._values.payload, self._values.scale, self._values.minimum]

    @abstractmethod
    def _key_rows(self, slots: Tensor) -> Tensor:
        """Return the rows [layers, n] of key scales and minima that belong to a step's slots."""

    @abstractmethod
    def _insert(self, layer: int, step: Step, key: Tensor, value: Tensor) -> None:
        """Quantise a step's tokens and write them into their slots."""

    @abstractmethod
    def _decode(
        self, layer: int, heads: slice, token_ids: Tensor, keys: Tensor, values: Tensor,
    ) -> None:
        """Write the floats of some heads' first slots to keys and values [heads, used, dim]."""

    def _decoded(
        self, layer: int, token_ids: Tensor,
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield heads, and their decoded keys and values [heads, used, head_dim] in scratch."""
        used = len(token_ids)
        at_once = self._scratch.shape[1]
        for start in range(0, self._layout.heads, at_once):
            heads = slice(start, min(start + at_once, self._layout.heads))
            keys, values = self._scratch[:, :heads.stop - start, :used]
            self._decode(layer, heads, token_ids, keys, values)
            yield heads, keys, values

    @staticmethod
    def _write(target: PackedTensor, layer: int, slots: Tensor, block: PackedTensor) -> None:
        target.payload[layer].index_copy_(1, slots, block.payload)
        target.scale[layer].index_copy_(1, slots, block.scale)
        target.minimum[layer].index_copy_(1, slots, block.minimum)

    @staticmethod
    def _part(
        block: PackedTensor, layer: int, heads: slice, used: int, rows: Tensor | None = None,
    ) -> PackedTensor:
        """Return the first slots of some heads; rows [used]: of scales, if not the slots."""
        of = slice(used) if rows is None else rows
        return PackedTensor(
            block.payload[layer, heads, :used], block.scale[layer, heads][:, of],
            block.minimum[layer, heads][:, of])

    def _allocate_scratch(self, slots: int) -> None:
        layout = self._layout
        head_bytes = 2 * slots * layout.head_dim * self._dtype.itemsize
        room = SCRATCH_BYTES.get(self.device.type, SCRATCH_BYTES['cpu'])
        heads = max(1, min(layout.heads, room // head_bytes))
        self._scratch = torch.zeros(
            2, heads, slots, layout.head_dim, dtype=self._dtype, device=self.device)
