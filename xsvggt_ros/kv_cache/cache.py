"""
The bounded KV cache: append and evict in place, layer by layer.

Every layer has the same number of slots, allocated once. A step's tokens go into the slots that
the last eviction left, and into fresh ones while there are any, so that the occupied slots are
always the first ones and attention needs neither mask, gather nor concatenation. The order of
slots means nothing: positions are in the keys, and attention does not see order.
"""

import torch
from torch import Tensor

from xsvggt_ros.kv_cache.config import CacheLayout
from xsvggt_ros.kv_cache.dense_store import DenseStore
from xsvggt_ros.kv_cache.evicted_tokens import EvictedTokens
from xsvggt_ros.kv_cache.health import CacheHealth, health_numbers
from xsvggt_ros.kv_cache.policy import RetentionPolicy
from xsvggt_ros.kv_cache.scores import TokenScores
from xsvggt_ros.kv_cache.store import KVStore, Step
from xsvggt_ros.kv_cache.stored_range import StoredRange
from xsvggt_ros.kv_cache.undo import Change, Mark

MAX_WATCHED_LAYERS = 12  # of which each tells its own `StoredRange`


class KVCache:
    """
    Keys and values of a stack of attention layers, kept within a budget of tokens per layer.

    One step is: `attend` once for each layer, in order, then `end_step`. A step that fails before
    `end_step` leaves everything remembered as it was. Steps that have ended can be undone as well,
    if they come after a `mark`: `rewind` brings back every bit of what was remembered there.

    A long class, as these four (attend, end, undo, report) share the slots; what can be told apart
    is in the store, the policy, `scores`, `undo` and `health`.
    """

    def __init__(
        self, layout: CacheLayout, policy: RetentionPolicy, budget: int | None,
        store: KVStore, track_health: bool = True,
    ) -> None:
        """
        Take a store with room for the budget and a step more; `build_cache` makes one.

        budget: tokens per layer as `RetentionPolicy.fit_budget` gives it, None for no limit.
        track_health: measure what eviction costs, for `health`.
        """
        self.layout = layout
        self.policy = policy
        self.budget = budget
        self.limit = budget  # the tokens that are left after an eviction, see `limit_tokens`
        self.store = store
        device = store.device
        layers, step = layout.layers, layout.tokens_per_step
        self.token_ids = torch.full((layers, store.slots), -1, device=device)
        lingers = policy.lingers and budget is not None
        self._evicted_tokens = EvictedTokens(layers, store.slots, device) if lingers else None
        self._single = step == 1 and isinstance(store, DenseStore)
        self.scores = TokenScores(
            layout, policy, store.slots, device, self._single, track_health)
        self._range: StoredRange | None = None
        if (layers <= MAX_WATCHED_LAYERS or store.hides_nan) and not self._single:
            self._range = StoredRange(layers, device)
        self._offsets = torch.arange(step).to(device)  # made on 'meta', it loads torch's compiler
        self.steps = 0
        self.tokens = 0  # per layer
        self.evicted_last = 0  # per layer
        self.evicted_total = 0
        self._gaps = 0  # slots that the last eviction has left free, per layer
        self._moved: tuple[Tensor, Tensor] | None = None  # from where to where, by `compact`
        self._mark: Mark | None = None
        self._next_slots = torch.zeros(layers, step, dtype=torch.int64, device=device)
        self.reset()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """
        Remember a step's keys and values; attend to them and to everything remembered.

        query, key, value: [heads, tokens_per_step, head_dim], keys after normalisation and
        rotary embedding. Returns [heads, tokens_per_step, head_dim], scaled by head_dim ** -0.5.
        """
        self._check(self.layout.tokens_per_step, query, key, value)
        used = self.tokens + self.layout.tokens_per_step
        if used > self.store.slots:
            self._grow()
        if layer == 0:
            self._save_evicted()
            self.store.begin_step(self.token_ids)
        if self._range is not None:
            self._range.record(layer, key, value)
        if self.budget is not None:
            self.policy.remember(layer, key, self.steps)
        observe = None
        if self.limit is not None and self.policy.excess(used, self.limit):
            observe = self.scores.observer(layer, query, used)
        step = Step(self.steps, self._next_slots[layer], used, self.token_ids)
        return self.store.attend(layer, step, query, key, value, observe)

    def attend_readonly(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """
        Attend to a step's keys and values and to everything remembered, and remember nothing.

        query, key, value: as in `attend`; the tokens may be fewer, if `compact` has closed the
        gaps. The policy learns nothing of the step.
        """
        own, ids, evicted = key.shape[1], self.token_ids, 0
        self._check(min(own, self.layout.tokens_per_step), query, key, value)
        if self._evicted_tokens is not None and self._evicted_tokens.look():
            ids, evicted = self._evicted_tokens.token_ids, self._evicted_tokens.count
        used = self.tokens + evicted + own
        if used > self.store.slots:
            self._grow()
        slots = self._next_slots[layer]
        if evicted or own != self.layout.tokens_per_step:
            slots = self._offsets[:own] + self.tokens + evicted
        step = Step(self.steps, slots, used, ids, persistent=False)
        return self.store.attend(layer, step, query, key, value, None)

    def compact(self, gapless: bool) -> None:
        """
        Close the gaps that the last eviction left among the tokens, or open them again.

        gapless: for steps of fewer tokens, which are only looked at: they would not fill the gaps,
        and attend to what was evicted, unless they are to. Call it between steps. It moves as many
        tokens as a step has, at most, when there is something to do; every bit is back in its
        place afterwards.
        """
        self._save_evicted()
        lingers = self._evicted_tokens is not None and self._evicted_tokens.count
        if gapless and self._moved is None and self._gaps and not lingers:
            self._moved = self._fill(self._next_slots[:, :self._gaps], self.tokens)
        elif not gapless and self._moved is not None:
            self._move(*reversed(self._moved))
            self._moved = None

    def end_step(self, more: bool = False) -> None:
        """
        Commit the step and evict what is above the budget; no host synchronisation.

        more: whether steps follow that may have to be undone together with this one. It then
        evicts no more than it brings, and leaves the rest of a lowered limit to the last one.
        """
        step = self.layout.tokens_per_step
        if self._mark is not None:
            self._record_step(self._mark)
        if step == 1:
            self.token_ids.scatter_(1, self._next_slots, self.steps)
        else:
            new_ids = (self._offsets + self.steps * step).expand(self.layout.layers, step)
            self.token_ids.scatter_(1, self._next_slots, new_ids)
        if self.budget is not None:
            self.policy.commit(self.steps)
        self.steps += 1
        self.tokens += step
        used = self.tokens
        if self._evicted_tokens is not None:
            self._evicted_tokens.forget()
        self.evicted_last = 0 if self.limit is None else self.policy.excess(
            used, self.limit, step if more else None)
        if self.evicted_last > step:
            self._mark = None  # tokens will be moved all over the place
        if self.evicted_last:
            self.scores.pool_single_queries()
            for layers, keys, values in self.store.floats(used):
                self.scores.add(layers, slice(self.layout.heads), keys, values)
        self._gaps = self.evicted_last
        slots = self._free_slots(used, self.evicted_last)
        if self._single:
            self._next_slots = slots
        else:  # in place: a captured step reads its slots from here
            self._next_slots.copy_(slots)
        self.evicted_total += self.evicted_last
        self.tokens -= self.evicted_last

    def mark(self) -> None:
        """Begin to note how the steps from here on are undone; to be called between steps."""
        self._mark = Mark(
            (self.steps, self.tokens, self.evicted_last, self.evicted_total, self._gaps),
            self._next_slots if self._single else self._next_slots.clone(),
            self.scores.kept, self.token_ids if self._single else None,
            None if self._evicted_tokens is None
            else self._evicted_tokens.save(self.store, self._next_slots), [])
        if self.budget is not None:
            self.policy.mark()

    def keep(self) -> None:
        """Let go of what `rewind` would need: the steps since the `mark` are to stay."""
        self._mark = None
        if self.budget is not None:
            self.policy.keep()

    def rewind(self) -> None:
        """
        Undo the steps since the `mark`, one that has not ended or has failed half-way included.

        Raises RuntimeError if that cannot be done: without a mark, or after a step that lowered
        the limit by more than it brought.
        """
        mark, self._mark = self._mark, None
        if mark is None:
            raise RuntimeError('the cache cannot go back: what there was is not known any more')
        for change in reversed(mark.changes):
            if change.evicted is not None and change.content is not None:
                self.store.restore(change.evicted, change.content)
            if change.evicted is not None and change.token_ids is not None:
                self.token_ids.scatter_(1, change.evicted, change.token_ids)
            if mark.token_ids is None:
                self.token_ids.scatter_(1, change.written, -1)
        if mark.token_ids is not None:
            self.token_ids = _with_free_slots(mark.token_ids, self.store.slots)
        self.steps, self.tokens, self.evicted_last, self.evicted_total, self._gaps = mark.numbers
        if self._single:
            self._next_slots = mark.next_slots
        else:
            self._next_slots.copy_(mark.next_slots)
        self.scores.kept = mark.kept
        if self._evicted_tokens is not None:
            self._evicted_tokens.restore(self.store, self.token_ids, mark.evicted_tokens)
        if self.budget is not None:
            self.policy.rewind()

    def written(self) -> list[Tensor]:
        """
        Return numbers [n] each, fp32, that tell whether what is to be stored can be stored.

        Of the step that has not ended, or of those since the `mark` where a step is one token. If
        all are finite and not above `max_magnitude` in size, so is everything that was stored.
        """
        slots = self._next_slots
        if self._single:
            if self._mark is None or not self._mark.changes:
                return []
            slots = torch.cat([change.written for change in self._mark.changes], dim=1)
        numbers = self.store.side_data(slots)
        if self._range is not None:
            return [self._range.numbers(), *numbers]
        return numbers or self.store.extremes(slots)

    @property
    def max_magnitude(self) -> float:
        """Return above which size keys and values cannot be stored as they come."""
        return self.store.max_magnitude

    def limit_tokens(self, tokens: int | None) -> None:
        """
        Keep at most so many tokens per layer from now on; None: as many as the budget allows.

        Call it between steps. The end of the next step evicts what is above; under a limit that
        is raised again the cache grows. The policy rounds as it does a budget: two steps at
        least. The memory stays allocated. A cache without a budget takes no limit.
        """
        if self.budget is not None:
            self.limit = self.budget
            if tokens is not None:
                self.limit = min(self.budget, self.policy.fit_budget(tokens))

    def reset(self) -> None:
        """Forget everything; the memory stays allocated, and a limit holds."""
        self.steps = self.tokens = self.evicted_last = self.evicted_total = self._gaps = 0
        self._moved = self._mark = None
        if self._evicted_tokens is not None:
            self._evicted_tokens.forget()
        self.token_ids.fill_(-1)
        self.scores.kept.fill_(1)
        self._next_slots.copy_(self._offsets)
        if self.budget is not None:
            self.policy.begin(
                self.layout.layers, self.layout.heads * self.layout.head_dim, self.budget,
                self.token_ids.device)

    def kept_token_ids(self) -> list[Tensor]:
        """
        Return the remembered tokens of each layer, int64 [tokens] ascending, on the CPU.

        A token's id is step * tokens_per_step + its index in the step.
        """
        return [ids[ids >= 0].sort().values for ids in self.token_ids.cpu()]

    def visible_token_ids(self) -> list[Tensor]:
        """Return what a step that is not to be remembered would see, as `kept_token_ids` does."""
        if self._evicted_tokens is None or not self._evicted_tokens.count:
            return self.kept_token_ids()
        return [ids[ids >= 0].sort().values for ids in self._evicted_tokens.token_ids.cpu()]

    def health(self) -> CacheHealth:
        """Return what is left of the past; waits for the device."""
        return CacheHealth.of(self.health_numbers(), self.tokens)

    def health_numbers(self) -> Tensor:
        """Return what `CacheHealth.of` reads, [4] on the device, which is not waited for."""
        return health_numbers(
            self.token_ids, self.layout.tokens_per_step, self.steps, self.scores.kept)

    @property
    def bytes_used(self) -> int:
        """Return the bytes of the tokens remembered, all layers, side data included."""
        return self.store.bytes_used(self.tokens, self.token_ids)

    @property
    def bytes_reserved(self) -> int:
        """Return the bytes allocated, scratch and bookkeeping included."""
        own = (self.token_ids, self._offsets, self._next_slots)
        state = self.policy.nbytes if self.budget is not None else 0
        watch = sum(part.nbytes for part in (self._range, self._evicted_tokens)
                    if part is not None)
        return (self.store.nbytes + self.scores.nbytes + state + watch
                + sum(tensor.nbytes for tensor in own))

    def _check(self, tokens: int, *tensors: Tensor) -> None:
        """Raise ValueError unless tensors have so many tokens, heads and channels as the cache."""
        shape = (self.layout.heads, tokens, self.layout.head_dim)
        if any(tensor.shape != shape for tensor in tensors):
            raise ValueError(f'queries, keys and values must be [heads, tokens, channels] '
                             f'{list(shape)}, got {[list(tensor.shape) for tensor in tensors]}')

    def _record_step(self, mark: Mark) -> None:
        """Note where a step's tokens go, and keep the identities there were at the mark."""
        if mark.token_ids is self.token_ids:
            self.token_ids = self.token_ids.clone()
        # The slots of the first step are those of the mark.
        if self._single or not mark.changes:
            slots = self._next_slots if self._single else mark.next_slots
        else:
            slots = self._next_slots.clone()
        mark.changes.append(Change(slots))

    def _save_evicted(self) -> None:
        """Save what was evicted since the mark, before its slots are used again."""
        if self._mark is None:
            return
        for change in self._mark.changes:
            if change.evicted is not None and change.content is None:
                change.content = self.store.save(change.evicted)

    def _free_slots(self, used: int, count: int) -> Tensor:
        """Evict ``count`` of the first ``used`` slots; return where the next step goes."""
        layers, step = self.layout.layers, self.layout.tokens_per_step
        if count == 0:
            return (self._offsets + used).expand(layers, step).contiguous()
        ids = self.token_ids[:, :used]
        forced_evictions = None
        if self.policy.evicts == 'tokens' and self.budget is not None and self.limit is not None:
            # Room for the next step, and for those that come before anything is evicted again.
            steps = 1 + -(-(self.budget - self.limit) // step)
            forced_evictions = self.store.forced_evictions(
                ids, lambda: self.policy.protected(ids, self.steps), steps)
        evicted = self.policy.evicted(
            self.scores.latest, ids, self.steps, count, forced_evictions, self._next_slots)
        if self._mark is not None:
            change = self._mark.changes[-1]
            change.evicted = evicted
            if self._mark.token_ids is None:
                change.token_ids = self.token_ids.gather(1, evicted)
        if self._evicted_tokens is not None and count <= step:
            self._evicted_tokens.begin(self.token_ids, count)
        self.token_ids.scatter_(1, evicted, -1)
        self.scores.note_evicted(evicted)
        if count > step:  # a lowered limit leaves more holes than the next step fills
            self._fill(evicted, used - count)
            self._gaps = 0
            return self._free_slots(used - count, 0)
        if count == step:
            return evicted
        fresh = (self._offsets[:step - count] + used).expand(layers, step - count)
        return torch.cat([evicted, fresh], dim=1)

    def _fill(self, gaps: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        """
        Move the tokens behind the first ``kept`` slots into the ``gaps``, [layers, n] int64.

        Returns from where to where. Gaps that lie behind, too, stay where they are.
        """
        ids = self.token_ids[:, kept:kept + gaps.shape[1]]
        sources = kept + (ids < 0).byte().argsort(dim=1, stable=True)  # the gaps come last
        moved = sources, gaps.sort(dim=1).values
        self._move(*moved)
        return moved

    def _move(self, sources: Tensor, targets: Tensor) -> None:
        """Move tokens to free slots, both [layers, n] int64."""
        self.store.copy(sources, targets)
        ids = self.token_ids.gather(1, sources)
        self.token_ids.scatter_(1, sources, -1)
        self.token_ids.scatter_(1, targets, ids)

    def _grow(self) -> None:
        slots = 2 * self.store.slots
        self.store.grow(slots)
        self.token_ids = _with_free_slots(self.token_ids, slots)
        self.scores.grow(slots)


def _with_free_slots(token_ids: Tensor, slots: int) -> Tensor:
    """Return identities [layers, slots] of so many slots, the new ones free."""
    grown = slots - token_ids.shape[1]
    return torch.nn.functional.pad(token_ids, (0, grown), value=-1) if grown else token_ids
