"""
The bounded KV cache: append and evict in place, layer by layer.

Every layer has the same number of slots, allocated once. A step's tokens go into the slots that
the last eviction left, and into fresh ones while there are any, so that the occupied slots are
always the first ones and attention needs neither mask, gather nor concatenation. The order of
slots means nothing: positions are in the keys, and attention does not see order.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from xsvggt_ros.kv_cache.config import CacheLayout
from xsvggt_ros.kv_cache.retention import RetentionPolicy
from xsvggt_ros.kv_cache.store import DenseStore

GROWTH_STEPS = 8  # first allocation of a cache without a limit, in steps; doubled when full


class KVCache:
    """
    Keys and values of a stack of attention layers, kept within a budget of tokens per layer.

    One step is: `attend` once for each layer, then `end_step`. A step that fails before `end_step`
    leaves everything remembered as it was.
    """

    def __init__(
        self, layout: CacheLayout, policy: RetentionPolicy, budget: int | None,
        dtype: torch.dtype, device: torch.device | str,
    ) -> None:
        """
        Allocate the cache; ``budget`` is in tokens per layer, None for no limit.

        The first and the newest step are never evicted, so the effective budget (attribute
        ``budget``) is at least twice ``tokens_per_step``.
        """
        self.layout = layout
        self.policy = policy
        step = layout.tokens_per_step
        limited = policy.bounded and budget is not None
        self.budget = max(budget, 2 * step) if limited else None
        slots = self.budget + step if limited else GROWTH_STEPS * step
        self._device = torch.device(device)
        self._store = DenseStore(layout, slots, dtype, self._device)
        self._token_ids = self._empty_ids(slots)
        self._scores = torch.zeros((layout.layers, slots), device=self._device)
        self._offsets = torch.arange(step, device=self._device)
        self.reset()

    # Public interface ----------------------------------------------------------------------------

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """
        Remember a step's keys and values; attend to them and to everything remembered.

        query, key, value: [heads, tokens_per_step, head_dim], keys after normalisation and
        rotary embedding. Returns [heads, tokens_per_step, head_dim], scaled by head_dim ** -0.5.
        """
        used = self.tokens + self.layout.tokens_per_step
        if used > self._store.slots:
            self._grow()
        slots = self._next_slots[layer]
        keys, values = self._store.insert(layer, slots, key, value, used)
        if self.budget is not None and used > self.budget:
            score = self.policy.score(query, keys)
            if score is not None:
                self._scores[layer, :used] = score
        return scaled_dot_product_attention(query[None], keys[None], values[None])[0]

    def end_step(self) -> None:
        """Commit the step and evict what is above the budget; no host synchronisation."""
        step = self.layout.tokens_per_step
        new_ids = (self._offsets + self.steps * step).expand(self.layout.layers, step)
        self._token_ids.scatter_(1, self._next_slots, new_ids)
        self.steps += 1
        self.tokens += step
        used = self.tokens
        self.evicted_last = 0 if self.budget is None else max(0, used - self.budget)
        self._next_slots = self._free_slots(used, self.evicted_last)
        self.evicted_total += self.evicted_last
        self.tokens -= self.evicted_last

    def reset(self) -> None:
        """Forget everything; the memory stays allocated."""
        self.steps = 0
        self.tokens = 0  # per layer
        self.evicted_last = 0  # per layer
        self.evicted_total = 0
        self._token_ids.fill_(-1)
        self._next_slots = self._free_slots(0, 0)

    def kept_token_ids(self) -> list[Tensor]:
        """
        Return the remembered tokens of each layer, int64 [tokens] ascending, on the CPU.

        A token's id is step * tokens_per_step + its index in the step.
        """
        return [ids[ids >= 0].sort().values for ids in self._token_ids.cpu()]

    @property
    def bytes_used(self) -> int:
        """Return the bytes of the keys and values of the tokens remembered, all layers."""
        return self.tokens * self._store.bytes_per_token

    @property
    def bytes_reserved(self) -> int:
        """Return the bytes allocated, bookkeeping included."""
        return (self._store.nbytes + self._token_ids.nbytes + self._scores.nbytes
                + self._next_slots.nbytes + self._offsets.nbytes)

    # Slots ---------------------------------------------------------------------------------------

    def _free_slots(self, used: int, count: int) -> Tensor:
        """Evict ``count`` of the first ``used`` slots; return where the next step goes."""
        layers, step = self.layout.layers, self.layout.tokens_per_step
        fresh = (self._offsets[:step - count] + used).expand(layers, step - count)
        if count == 0:
            return fresh.contiguous()
        losers = self.policy.losers(
            self._scores[:, :used], self._token_ids[:, :used], self.steps, count)
        self._token_ids.scatter_(1, losers, -1)
        return torch.cat([losers, fresh], dim=1)

    def _grow(self) -> None:
        slots = 2 * self._store.slots
        self._store.grow(slots)
        ids = self._empty_ids(slots)
        ids[:, :self._token_ids.shape[1]] = self._token_ids
        self._token_ids = ids
        self._scores = torch.zeros((self.layout.layers, slots), device=self._device)

    def _empty_ids(self, slots: int) -> Tensor:
        return torch.full(
            (self.layout.layers, slots), -1, dtype=torch.int64, device=self._device)
