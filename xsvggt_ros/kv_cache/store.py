"""What a cache asks of where keys and values lie: slots for every layer, allocated once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# Room for decoded keys and values; heads are decoded so many at a time. A CPU likes its cache, a
# GPU enough heads to be busy.
SCRATCH_BYTES = {'cpu': 2 << 20, 'cuda': 16 << 20}


@dataclass(frozen=True)
class Step:
    """Where a step's tokens go in one layer."""

    number: int  # since the stream began
    slots: Tensor  # [tokens] int64, of the step
    used: int  # slots 0..used are occupied, the step's own included
    # [layers, slots] int64, of the tokens remembered; the step's own are not in yet
    token_ids: Tensor
    persistent: bool = True  # False: the slots are free again when the layer has attended


class Observer(Protocol):
    """Whoever scores the tokens that are being attended to."""

    def __call__(self, heads: slice, keys: Tensor, values: Tensor) -> None:
        """Learn some heads' keys and values, [1, heads, used, head_dim]."""

    def only_attention(self) -> tuple[Tensor, Tensor] | None:
        """
        Return what a store may do instead of telling all of them; None: nothing is enough.

        A query of each head, [heads, head_dim], and where to write the sum over the heads of its
        softmax attention, [used] fp32.
        """


class KVStore(Protocol):
    """Slots for the tokens of all layers."""

    device: torch.device
    max_magnitude: float  # above it in size, keys and values cannot be stored as they come
    hides_nan: bool  # whether what is stored may be finite though a key or a value was not

    @property
    def slots(self) -> int:
        """Return the tokens a layer has room for."""

    @property
    def nbytes(self) -> int:
        """Return the bytes allocated."""

    def bytes_used(self, tokens: int, token_ids: Tensor) -> int:
        """Return the bytes that belong to the tokens remembered, ``tokens`` in each layer."""

    def begin_step(self, token_ids: Tensor) -> None:
        """
        Get ready for the tokens of a step, before the first layer stores its own.

        token_ids: [layers, slots] int64 of all slots, -1 in free ones.
        """

    def attend(
        self, layer: int, step: Step, query: Tensor, key: Tensor, value: Tensor,
        observe: Observer | None,
    ) -> Tensor:
        """
        Store a step's tokens in their slots and attend to all occupied ones.

        query, key, value: [heads, tokens_per_step, head_dim]. Returns the same shape. The step's
        tokens are attended to exactly as given, even where they are stored in fewer bits. They may
        be fewer in a step that is not persistent; its slots hold nothing afterwards.
        ``observe`` is told all keys and values, by a store that would have to decode them again,
        or has what it asks for in their place.
        """

    def floats(self, used: int) -> Iterable[tuple[slice, Tensor, Tensor]]:
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
        """Bring back what `save` returned of these slots [layers, n], bit for bit."""

    def side_data(self, slots: Tensor) -> list[Tensor]:
        """
        Return numbers [n] each, fp32, that are not all finite if a token in the slots is not.

        slots: [layers, n] int64. None where what is up to `max_magnitude` is stored as such.
        """

    def extremes(self, slots: Tensor) -> list[Tensor]:
        """Return least and greatest float in slots [layers, n], fp32 [1] each; none if packed."""

    def grow(self, slots: int) -> None:
        """Make room for more slots, for a cache without a limit."""


def slot_index(tensor: Tensor, slots: Tensor) -> Tensor:
    """Return slots [layers, n] as an index along the third dimension of [layers, heads, s, m]."""
    layers, heads, _, size = tensor.shape
    return slots[:, None, :, None].expand(layers, heads, slots.shape[1], size)


def at_slots(tensor: Tensor, slots: Tensor) -> Tensor:
    """Return the slots [layers, n] of [layers, heads, s, m]."""
    return tensor.gather(2, slot_index(tensor, slots))


def copy_slots(tensor: Tensor, sources: Tensor, targets: Tensor) -> None:
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
