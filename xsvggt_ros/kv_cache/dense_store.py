"""Keys and values as floats."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from xsvggt_ros.kernels.attention import attention, store_and_attend
from xsvggt_ros.kv_cache.config import CacheLayout
from xsvggt_ros.kv_cache.store import copy_slots, extend, Observer, SCRATCH_BYTES, Step

EXTREMES_BYTES = 16 << 20  # keys and values of a step that are looked at together


class DenseStore:
    """Keys and values as floats, [layers, heads, slots, head_dim] each."""

    def __init__(
        self, layout: CacheLayout, slots: int, dtype: torch.dtype, device: torch.device,
    ) -> None:
        """Allocate all slots at once; nothing is allocated afterwards."""
        self._layout = layout
        self.device = device
        shape = (2, layout.layers, layout.heads, slots, layout.head_dim)
        self._set(torch.zeros(shape, dtype=dtype, device=device))
        self.max_magnitude = torch.finfo(dtype).max
        self.hides_nan = False

    def _set(self, both: Tensor) -> None:
        self._both = both
        self.keys, self.values = both
        self._layers = list(zip(self.keys.unbind(), self.values.unbind()))

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
        """Copy tokens to other slots; see `KVStore.copy`."""
        for tensor in (self.keys, self.values):
            copy_slots(tensor, sources, targets)

    def begin_step(self, token_ids: Tensor) -> None:
        """Do nothing: tokens need their slots only."""

    def attend(
        self, layer: int, step: Step, query: Tensor, key: Tensor, value: Tensor,
        observe: Observer | None,
    ) -> Tensor:
        """Store a step's tokens and attend; see `KVStore.attend`."""
        slots, used = step.slots, step.used
        keys, values = self._layers[layer]
        if keys.dtype is key.dtype is value.dtype:
            return store_and_attend(query, key, value, slots, keys, values, used)
        keys.index_copy_(1, slots, key.to(keys.dtype))
        values.index_copy_(1, slots, value.to(values.dtype))
        # Its own tokens as they came.
        keys = keys[:, :used].to(key.dtype).index_copy_(1, slots, key)
        values = values[:, :used].to(value.dtype).index_copy_(1, slots, value)
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
        """Return a copy of what is in some slots; see `KVStore.save`."""
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
        index = self._index(slots)
        found: list[Tensor] = []
        for start in range(0, len(slots), at_once):
            part = slice(start, start + at_once)
            found += self._both[:, part].gather(3, index[:, part]).aminmax()
        return [extreme[None].float() for extreme in found]

    def _index(self, slots: Tensor) -> Tensor:
        two, layers, heads, _, dim = self._both.shape
        return slots[:, None, :, None].expand(two, layers, heads, slots.shape[1], dim)

    def grow(self, slots: int) -> None:
        """Make room for more slots."""
        self._set(extend(self._both, slots, dim=3))
