"""Where keys and values lie: preallocated slots for every layer."""

import torch
from torch import Tensor

from xsvggt_ros.kv_cache.config import CacheLayout


class DenseStore:
    """Keys and values as floats, [layers, heads, slots, head_dim] each, written in place."""

    def __init__(
        self, layout: CacheLayout, slots: int, dtype: torch.dtype, device: torch.device,
    ) -> None:
        """Allocate all slots at once; nothing is allocated afterwards."""
        self._layout = layout
        shape = (layout.layers, layout.heads, slots, layout.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def slots(self) -> int:
        """Return the tokens a layer has room for."""
        return self.keys.shape[2]

    @property
    def bytes_per_token(self) -> int:
        """Return what one token takes in all layers together."""
        layout = self._layout
        return 2 * layout.layers * layout.heads * layout.head_dim * self.keys.element_size()

    @property
    def nbytes(self) -> int:
        """Return the bytes of all slots."""
        return self.keys.nbytes + self.values.nbytes

    def insert(
        self, layer: int, slots: Tensor, key: Tensor, value: Tensor, used: int,
    ) -> tuple[Tensor, Tensor]:
        """
        Write a step's tokens and return keys and values of the first ``used`` slots.

        key, value: [heads, tokens_per_step, head_dim]; slots: [tokens_per_step] int64.
        Returned: [heads, used, head_dim] each, in the type of ``key``, the new tokens exactly as
        given even where they are stored in fewer bits.
        """
        keys, values = self.keys[layer], self.values[layer]
        keys.index_copy_(1, slots, key.to(keys.dtype))
        values.index_copy_(1, slots, value.to(values.dtype))
        keys, values = keys[:, :used], values[:, :used]
        if keys.dtype == key.dtype:
            return keys, values
        keys = keys.to(key.dtype).index_copy_(1, slots, key)
        values = values.to(value.dtype).index_copy_(1, slots, value)
        return keys, values

    def grow(self, slots: int) -> None:
        """Make room for more slots, for policies that never evict."""
        self.keys = _extend(self.keys, slots, dim=2)
        self.values = _extend(self.values, slots, dim=2)


def _extend(tensor: Tensor, size: int, dim: int) -> Tensor:
    shape = list(tensor.shape)
    shape[dim] = size
    larger = tensor.new_zeros(shape)
    larger.narrow(dim, 0, tensor.shape[dim]).copy_(tensor)
    return larger
