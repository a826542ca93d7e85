"""What stores of packed keys and values share: a table of statistics, scratch, attention."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from xsvggt_ros.kernels.attention import attention
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

    A payload lies by slots, so that eviction is an overwrite; what describes several tokens lies
    in the rows of a table. A row is free again when no token refers to it any more. Where policies
    leave many rows with few tokens, the table runs out of rows, and the tokens of the emptiest
    ones must leave first.
    """

    hides_nan = False
    # `side_data` tells what is too large.
    max_magnitude = torch.finfo(torch.float32).max

    def __init__(
        self, layout: CacheLayout, slots: int, bits: int, rows: int, rows_per_step: int,
        dtype: torch.dtype, device: torch.device,
    ) -> None:
        """
        Allocate all slots and rows, and scratch for decoding in the compute type ``dtype``.

        rows_per_step: how many rows of the table a step takes.
        """
        self._layout = layout
        self._bits = bits
        self._rows_per_step = rows_per_step
        # By slots [layers, heads, slots, n], and by rows [layers, heads, rows, n], by names.
        self._slotted: dict[str, Tensor] = {}
        self._tables: dict[str, Tensor] = {}
        # Each slot's row of the tables.
        self._group = torch.zeros(layout.layers, slots, dtype=torch.int32, device=device)
        self._rows = rows
        self._dtype = dtype
        self.device = device
        self._allocate_scratch(slots)

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.half) -> Tensor:
        """Return [layers, heads, *shape]."""
        return torch.zeros(
            self._layout.layers, self._layout.heads, *shape, dtype=dtype, device=self.device)

    @property
    def slots(self) -> int:
        """Return the tokens a layer has room for."""
        return self._group.shape[1]

    @property
    def nbytes(self) -> int:
        """Return the bytes allocated, scratch included."""
        return (sum(tensor.nbytes for tensor in (*self._slotted.values(), *self._tables.values()))
                + self._group.nbytes + self.scratch.nbytes)

    def bytes_used(self, tokens: int, token_ids: Tensor) -> int:
        """Return the bytes of the tokens remembered and of all the side data they need."""
        by_slot = sum(tensor.nbytes for tensor in self._slotted.values()) + self._group.nbytes
        by_row = sum(tensor.nbytes for tensor in self._tables.values())
        live = int(self._rows_in_use(token_ids >= 0).count_nonzero().item())
        return by_slot // self.slots * tokens + by_row // self._rows // self._layout.layers * live

    def forced_evictions(
        self, token_ids: Tensor, protected: Callable[[], Tensor], steps: int,
    ) -> Tensor:
        """
        Return the tokens of the emptiest rows, as many as the next steps need rows.

        They are fewer than the tokens of those steps: see `build.max_rows`.
        """
        counts = self._rows_in_use(token_ids >= 0)
        in_use = counts > 0
        wanted = in_use.sum(dim=1, keepdim=True) + steps * self._rows_per_step - self._rows
        kept = self._rows_in_use(protected()) > 0
        emptiest = counts.masked_fill(~in_use | kept, self.slots + 1).argsort(dim=1, stable=True)
        evicted = torch.zeros_like(in_use).scatter_(
            1, emptiest, torch.arange(self._rows, device=counts.device) < wanted)
        return evicted.gather(1, self._group[:, :token_ids.shape[1]].long())

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Copy tokens to other slots; see `KVStore.copy`."""
        for tensor in (*self._slotted.values(), self._group):
            copy_slots(tensor, sources, targets)

    def save(self, slots: Tensor) -> list[Tensor]:
        """
        Return a copy of what is in some slots; see `KVStore.save`.

        With the rows of the table that they refer to: when no token does any more, they are used
        again.
        """
        rows = self._group.gather(1, slots).long()
        return [rows, *(at_slots(tensor, slots) for tensor in self._slotted.values()),
                *(at_slots(tensor, rows) for tensor in self._tables.values())]

    def restore(self, slots: Tensor, content: list[Tensor]) -> None:
        """Bring back what `save` returned."""
        rows, *parts = content
        self._group.scatter_(1, slots, rows.int())
        for tensor, part in zip(self._slotted.values(), parts):
            tensor.scatter_(2, slot_index(tensor, slots), part)
        for tensor, part in zip(self._tables.values(), parts[len(self._slotted):]):
            tensor.scatter_(2, slot_index(tensor, rows), part)

    @abstractmethod
    def side_data(self, slots: Tensor) -> list[Tensor]:
        """Return scales and statistics of steps; see `KVStore.side_data`."""

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
        for heads, keys, values in self.decoded(layer, step.used):
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
        """Make room for more slots and, in proportion, rows."""
        self._rows = -(-self._rows * slots // self.slots)
        self._group = extend(self._group, slots, dim=1)
        for tensors, size in ((self._slotted, slots), (self._tables, self._rows)):
            for name, tensor in tensors.items():
                tensors[name] = extend(tensor, size, dim=2)
        self._allocate_scratch(slots)

    # Parts ---------------------------------------------------------------------------------------

    def begin_step(self, token_ids: Tensor) -> None:
        """Choose the rows for a step's statistics; see `KVStore.begin_step`."""
        in_use = self._rows_in_use(token_ids >= 0)
        if self._rows_per_step == 1:
            self._free_rows = in_use.argmin(dim=1, keepdim=True)
        else:  # those in use come last
            self._free_rows = in_use.argsort(dim=1, stable=True)[:, :self._rows_per_step]

    @abstractmethod
    def _insert(self, layer: int, step: Step, key: Tensor, value: Tensor) -> None:
        """Quantise a step's tokens and write them into their slots."""

    @abstractmethod
    def _decode(self, layer: int, heads: slice, keys: Tensor, values: Tensor) -> None:
        """Write the floats of some heads' first slots to keys and values [heads, used, dim]."""

    def decoded(self, layer: int, used: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield heads, and their decoded keys and values [heads, used, head_dim] in scratch."""
        at_once = self.scratch.shape[1]
        for start in range(0, self._layout.heads, at_once):
            heads = slice(start, min(start + at_once, self._layout.heads))
            keys, values = self.scratch[:, :heads.stop - start, :used]
            self._decode(layer, heads, keys, values)
            yield heads, keys, values

    def _rows_in_use(self, live: Tensor) -> Tensor:
        """Return [layers, rows] int32, how many live tokens refer to each row of the table."""
        group = self._group[:, :live.shape[1]]
        counts = torch.zeros(len(group), self._rows, dtype=torch.int32, device=group.device)
        return counts.scatter_add_(1, group.long(), live.int())

    def _allocate_scratch(self, slots: int) -> None:
        layout = self._layout
        head_bytes = 2 * slots * layout.head_dim * self._dtype.itemsize
        room = SCRATCH_BYTES.get(self.device.type, SCRATCH_BYTES['cpu'])
        heads = max(1, min(layout.heads, room // head_bytes))
        self.scratch = torch.zeros(
            2, heads, slots, layout.head_dim, dtype=self._dtype, device=self.device)
