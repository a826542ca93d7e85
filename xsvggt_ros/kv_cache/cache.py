"""
The bounded KV cache: append and evict in place, layer by layer.

Every layer has the same number of slots, allocated once. A step's tokens go into the slots that
the last eviction left, and into fresh ones while there are any, so that the occupied slots are
always the first ones and attention needs neither mask, gather nor concatenation. The order of
slots means nothing: positions are in the keys, and attention does not see order.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from xsvggt_ros.kernels import availability
from xsvggt_ros.kernels.packing import BITS, group_sizes
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout
from xsvggt_ros.kv_cache.retention import POLICIES, pooled_attention, RetentionPolicy
from xsvggt_ros.kv_cache.store import DenseStore, extend, PackedStore, Step, TokenStore

MAX_WATCHED_LAYERS = 12
GROWTH_STEPS = 8  # first allocation of a cache without a limit, in steps; doubled when full


@dataclass(frozen=True)
class CacheHealth:
    """
    What is left of the past, after the last eviction; means over the layers.

    attention_kept is the share of the newest step's attention that went to tokens which stay: its
    pooled query's softmax over all tokens, mean over heads. 1 while nothing is evicted.
    """

    first_tokens: float  # of the first step
    newest_tokens: float  # of the newest step
    history_tokens: float  # of the steps between
    steps: float  # that still have a token
    attention_kept: float  # 0..1

    @classmethod
    def of(cls, numbers: Tensor, tokens: int) -> 'CacheHealth':
        """Return what `KVCache.health_numbers` say of a cache with so many tokens a layer."""
        first, newest, steps, kept = numbers.tolist()
        return cls(first_tokens=first, newest_tokens=newest,
                   history_tokens=tokens - first - newest, steps=steps, attention_kept=kept)


@dataclass
class _Change:
    """What a step has changed: its tokens went to slots that were free, others were freed."""

    written: Tensor  # slots [layers, tokens_per_step]
    evicted: Tensor | None = None  # slots [layers, n]
    token_ids: Tensor | None = None  # of the tokens that were in them
    content: list[Tensor] | None = None  # of these slots, saved before they are used again


@dataclass(frozen=True)
class _Mark:
    """A state of a cache, and the steps since."""

    numbers: tuple[int, ...]
    next_slots: Tensor
    kept: Tensor
    token_ids: Tensor | None  # where each step makes new ones
    changes: list[_Change]


class KVCache:
    """
    Keys and values of a stack of attention layers, kept within a budget of tokens per layer.

    One step is: `attend` once for each layer, in order, then `end_step`. A step that fails before
    `end_step` leaves everything remembered as it was. Steps that have ended can be undone as well,
    if they come after a `mark`: `rewind` brings back every bit of what was remembered there.
    """

    def __init__(
        self, layout: CacheLayout, policy: RetentionPolicy, budget: int | None,
        store: TokenStore, track_health: bool = True,
    ) -> None:
        """
        Take a store with room for the budget and one step more; `build_cache` makes one.

        budget: tokens per layer as `RetentionPolicy.fit_budget` gives it, None for no limit.
        track_health: measure what eviction costs, for `health`.
        """
        self.layout = layout
        self.policy = policy
        self.budget = budget
        self.limit = budget  # the tokens that are left after an eviction, see `limit_tokens`
        self._store = store
        device = store.device
        layers, step = layout.layers, layout.tokens_per_step
        self._token_ids = torch.full((layers, store.slots), -1, device=device)
        self._scores = torch.zeros(layers, store.slots, device=device)
        self._latest = self._scores
        self._attention = torch.zeros(layers, store.slots if track_health else 0, device=device)
        self._pooled = torch.zeros(layers, layout.heads, layout.head_dim, device=device)
        # Queries of a step of one token, which need no pooling and are scored together.
        single = step == 1 and isinstance(store, DenseStore)
        self._single_queries: list[Tensor | None] = [None] * layers if single else []
        self._kept = torch.ones(layers, device=device)
        # The least and the greatest of the newest step's keys, and of its values.
        # Few layers tell them while they attend; what many have stored is looked at together, as
        # an operator for each costs more than that, unless it would hide something.
        noted = (layers <= MAX_WATCHED_LAYERS or store.hides_nan) and not self._single_queries
        self._extremes = torch.zeros(layers if noted else 0, 2, 2, device=device)
        self._view_extremes(torch.float32)
        self._offsets = torch.arange(step, device=device)
        self._next_slots = torch.zeros(layers, step, dtype=torch.int64, device=device)
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
        if layer == 0:
            self._save_evicted()
        if self._extreme_slots:
            self._record_extremes(layer, key, value)
        if self.budget is not None:
            self.policy.remember(layer, key, self.steps)
        observe = None
        if self.limit is not None and used > self.limit:
            if self._single_queries:
                self._single_queries[layer] = query
            else:
                self.policy.pooled_query(query, out=self._pooled[layer])
            observe = partial(self._score, slice(layer, layer + 1))
        step = Step(self.steps, self._next_slots[layer], used, self._token_ids[layer, :used])
        return self._store.attend(layer, step, query, key, value, observe)

    def attend_readonly(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """
        Attend to a step's keys and values and to everything remembered, and remember nothing.

        query, key, value: as in `attend`; the tokens may be fewer, if `compact` has closed the
        gaps. The policy learns nothing of the step.
        """
        own = key.shape[1]
        used = self.tokens + own
        if used > self._store.slots:
            self._grow()
        slots = self._next_slots[layer]
        if own != self.layout.tokens_per_step:
            slots = self._offsets[:own] + self.tokens
        step = Step(self.steps, slots, used, self._token_ids[layer, :used], persistent=False)
        return self._store.attend(layer, step, query, key, value, None)

    def read_only(self) -> 'ReadOnlyCache':
        """Return what stands in for this cache in a step that is not to be remembered."""
        return ReadOnlyCache(self)

    def compact(self, gapless: bool) -> None:
        """
        Close the gaps that the last eviction left among the tokens, or open them again.

        gapless: for steps of fewer tokens, which are only looked at: they would not fill the gaps,
        and attend to what was evicted. Call it between steps. It moves as many tokens as a step
        has, at most, when there is something to do; every bit is back in its place afterwards.
        """
        self._save_evicted()
        if gapless and self._moved is None and self._gaps:
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
            self._record_step()
        if step == 1:
            self._token_ids.scatter_(1, self._next_slots, self.steps)
        else:
            new_ids = (self._offsets + self.steps * step).expand(self.layout.layers, step)
            self._token_ids.scatter_(1, self._next_slots, new_ids)
        if self.budget is not None:
            self.policy.commit(self.steps)
        self.steps += 1
        self.tokens += step
        used = self.tokens
        self.evicted_last = 0 if self.limit is None else max(0, used - self.limit)
        if self.evicted_last > step and more:
            self.evicted_last = step
        elif self.evicted_last > step:
            self._mark = None  # tokens will be moved all over the place
        if self.evicted_last:
            if self._single_queries:
                self._pooled = torch.stack([query[:, 0] for query in self._single_queries]).float()
            for layers, keys, values in self._store.floats(used):
                self._score(layers, slice(self.layout.heads), keys, values)
        self._gaps = self.evicted_last
        slots = self._free_slots(used, self.evicted_last)
        if self._single_queries:
            self._next_slots = slots
        else:  # in place: a captured step reads its slots from here
            self._next_slots.copy_(slots)
        self.evicted_total += self.evicted_last
        self.tokens -= self.evicted_last

    def mark(self) -> None:
        """Begin to note how the steps from here on are undone; to be called between steps."""
        self._mark = _Mark(
            (self.steps, self.tokens, self.evicted_last, self.evicted_total, self._gaps),
            self._next_slots if self._single_queries else self._next_slots.clone(),
            self._kept, self._token_ids if self._single_queries else None, [])
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
            if change.content is not None:
                self._store.restore(change.evicted, change.content)
            if change.token_ids is not None:
                self._token_ids.scatter_(1, change.evicted, change.token_ids)
            if mark.token_ids is None:
                self._token_ids.scatter_(1, change.written, -1)
        if mark.token_ids is not None:
            self._token_ids = _with_free_slots(mark.token_ids, self._store.slots)
        self.steps, self.tokens, self.evicted_last, self.evicted_total, self._gaps = mark.numbers
        if self._single_queries:
            self._next_slots = mark.next_slots
        else:
            self._next_slots.copy_(mark.next_slots)
        self._kept = mark.kept
        if self.budget is not None:
            self.policy.rewind()

    def written(self) -> list[Tensor]:
        """
        Return numbers [n] each, fp32, that tell whether what is to be stored can be stored.

        Of the step that has not ended, or of those since the `mark` where a step is one token. If
        all are finite and not above `max_magnitude` in size, so is everything that was stored.
        """
        slots = self._next_slots
        if self._single_queries:
            if self._mark is None or not self._mark.changes:
                return []
            slots = torch.cat([change.written for change in self._mark.changes], dim=1)
        numbers = self._store.side_data(slots)
        if self._extreme_slots:
            return [self._noted.flatten().float(), *numbers]
        return numbers or self._store.extremes(slots)

    @property
    def max_magnitude(self) -> float:
        """Return above which size keys and values cannot be stored as they come."""
        return self._store.max_magnitude

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
        self.steps = 0
        self.tokens = 0  # per layer
        self.evicted_last = 0  # per layer
        self.evicted_total = 0
        self._gaps = 0  # slots that the last eviction has left free, per layer
        self._moved: tuple[Tensor, Tensor] | None = None  # from where to where, by `compact`
        self._mark: _Mark | None = None
        self._token_ids.fill_(-1)
        self._kept.fill_(1)
        self._next_slots.copy_(self._free_slots(0, 0))
        if self.budget is not None:
            self.policy.begin(
                self.layout.layers, self.layout.heads * self.layout.head_dim, self.budget,
                self._token_ids.device)

    def kept_token_ids(self) -> list[Tensor]:
        """
        Return the remembered tokens of each layer, int64 [tokens] ascending, on the CPU.

        A token's id is step * tokens_per_step + its index in the step.
        """
        return [ids[ids >= 0].sort().values for ids in self._token_ids.cpu()]

    def health(self) -> CacheHealth:
        """Return what is left of the past; waits for the device."""
        return CacheHealth.of(self.health_numbers(), self.tokens)

    def health_numbers(self) -> Tensor:
        """Return what `CacheHealth.of` reads, [4] on the device, which is not waited for."""
        layers, step = self.layout.layers, self.layout.tokens_per_step
        steps = self._token_ids.div(step, rounding_mode='floor')  # -1 where there is none
        first = (steps == 0).sum() / layers
        newest = (steps == self.steps - 1).sum() / layers if self.steps > 1 else first * 0
        ordered = steps.sort(dim=1).values
        new = (ordered[:, 1:] != ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        present = (new.sum() + (ordered[:, 0] >= 0).sum()) / layers
        return torch.stack([first, newest, present, self._kept.mean()])

    @property
    def bytes_used(self) -> int:
        """Return the bytes of the tokens remembered, all layers, side data included."""
        return self._store.bytes_used(self.tokens, self._token_ids)

    @property
    def bytes_reserved(self) -> int:
        """Return the bytes allocated, scratch and bookkeeping included."""
        own = (self._token_ids, self._scores, self._attention, self._kept, self._offsets,
               self._pooled, self._next_slots, self._extremes)
        state = self.policy.nbytes if self.budget is not None else 0
        return self._store.nbytes + state + sum(tensor.nbytes for tensor in own)

    # Undoing -------------------------------------------------------------------------------------

    def _record_step(self) -> None:
        """Note where a step's tokens go, and keep the identities there were at the mark."""
        mark = self._mark
        if mark.token_ids is self._token_ids:
            self._token_ids = self._token_ids.clone()
        # The slots of the first step are those of the mark.
        if self._single_queries or not mark.changes:
            slots = self._next_slots if self._single_queries else mark.next_slots
        else:
            slots = self._next_slots.clone()
        mark.changes.append(_Change(slots))

    def _save_evicted(self) -> None:
        """Save what was evicted since the mark, before its slots are used again."""
        if self._mark is None:
            return
        for change in self._mark.changes:
            if change.evicted is not None and change.content is None:
                change.content = self._store.save(change.evicted)

    def _record_extremes(self, layer: int, key: Tensor, value: Tensor) -> None:
        if key.dtype is not self._noted.dtype:
            self._view_extremes(key.dtype)
        of_keys, of_values = self._extreme_slots[layer]
        torch.aminmax(key, out=of_keys)
        torch.aminmax(value.to(key.dtype), out=of_values)

    def _view_extremes(self, dtype: torch.dtype) -> None:
        """Have the extremes be of the type of what they are the extremes of."""
        self._noted = self._extremes.view(dtype)[:, :, :2]
        self._extreme_slots = [[part.unbind() for part in own] for own in self._noted]

    # Scores --------------------------------------------------------------------------------------

    def _score(self, layers: slice, heads: slice, keys: Tensor, values: Tensor) -> None:
        """
        Add up over the heads how some layers' tokens score, and what attention they get.

        keys, values: [layers, heads, used, head_dim].
        """
        used, pooled = keys.shape[2], self._pooled[layers]
        score = self.policy.score(pooled, heads, keys, values)
        self._latest = self._scores[:, :used]
        whole = heads.stop - (heads.start or 0) == self.layout.heads
        if score is not None and whole and len(score) == self.layout.layers:
            self._latest = score
        elif score is not None:
            _add_up(self._latest[layers], score, heads)
        if self._attention.numel():
            attention = pooled_attention(pooled[:, heads], keys).sum(dim=1)
            _add_up(self._attention[layers, :used], attention, heads)

    # Slots ---------------------------------------------------------------------------------------

    def _free_slots(self, used: int, count: int) -> Tensor:
        """Evict ``count`` of the first ``used`` slots; return where the next step goes."""
        layers, step = self.layout.layers, self.layout.tokens_per_step
        if count == 0:
            return (self._offsets + used).expand(layers, step).contiguous()
        ids = self._token_ids[:, :used]
        forced_evictions = None
        if self.policy.evicts == 'tokens':
            # Room for the next step, and for those that come before anything is evicted again.
            steps = 1 + -(-(self.budget - self.limit) // step)
            forced_evictions = self._store.forced_evictions(
                ids, lambda: self.policy.protected(ids, self.steps), steps)
        evicted = self.policy.evicted(
            self._latest, ids, self.steps, count, forced_evictions, self._next_slots)
        if self._mark is not None:
            change = self._mark.changes[-1]
            change.evicted = evicted
            if self._mark.token_ids is None:
                change.token_ids = self._token_ids.gather(1, evicted)
        self._token_ids.scatter_(1, evicted, -1)
        if self._attention.numel():
            lost = self._attention.gather(1, evicted).sum(dim=1)
            self._kept = torch.sub(1, lost, alpha=1 / self.layout.heads)
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
        ids = self._token_ids[:, kept:kept + gaps.shape[1]]
        sources = kept + (ids < 0).byte().argsort(dim=1, stable=True)  # the gaps come last
        moved = sources, gaps.sort(dim=1).values
        self._move(*moved)
        return moved

    def _move(self, sources: Tensor, targets: Tensor) -> None:
        """Move tokens to free slots, both [layers, n] int64."""
        self._store.copy(sources, targets)
        ids = self._token_ids.gather(1, sources)
        self._token_ids.scatter_(1, sources, -1)
        self._token_ids.scatter_(1, targets, ids)

    def _grow(self) -> None:
        slots = 2 * self._store.slots
        self._store.grow(slots)
        self._token_ids = _with_free_slots(self._token_ids, slots)
        self._scores = extend(self._scores, slots, dim=1)
        if self._attention.numel():
            self._attention = extend(self._attention, slots, dim=1)


class ReadOnlyCache:
    """Attends as a cache does, and remembers nothing."""

    def __init__(self, cache: KVCache) -> None:
        """Take the cache that is looked at."""
        self._cache = cache

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend as `KVCache.attend_readonly` does."""
        return self._cache.attend_readonly(layer, query, key, value)

    def end_step(self) -> None:
        """Do nothing: there is nothing to commit."""


def _with_free_slots(token_ids: Tensor, slots: int) -> Tensor:
    """Return identities [layers, slots] of so many slots, the new ones free."""
    grown = slots - token_ids.shape[1]
    return torch.nn.functional.pad(token_ids, (0, grown), value=-1) if grown else token_ids


def _add_up(total: Tensor, part: Tensor, heads: slice) -> None:
    """Begin a sum over the heads with the first ones, or add the next ones to it."""
    if heads.start:
        total += part
    else:
        total.copy_(part)


def build_cache(
    layout: CacheLayout, config: CacheConfig, budget: int | None, dtype: torch.dtype,
    device: torch.device | str, quantization: str, kernels: str = 'portable',
    track_health: bool = True,
) -> KVCache:
    """
    Allocate a cache for a budget of tokens per layer, None for no limit.

    dtype is what the network computes in. On the device 'meta' nothing is allocated, and
    ``bytes_reserved`` tells what would be. kernels: what works on packed tokens, one of
    `availability.CHOICES`. track_health: see `KVCache`.
    """
    step = layout.tokens_per_step
    kind = POLICIES[config.policy]
    if step == 1 and kind.instead_for_single_tokens is not None:
        kind = POLICIES[kind.instead_for_single_tokens]
    policy = kind(step, layout.special_tokens, config.pool_size, config.seed)
    limited = policy.bounded and budget is not None
    budget = policy.fit_budget(budget) if limited else None
    slots = budget + step if limited else GROWTH_STEPS * step
    device = torch.device(device)
    if quantization == 'none':
        store = DenseStore(layout, slots, config.storage_dtype(dtype), device)
    else:
        groups = None
        if config.scheme == 'kcvt':
            groups = most_groups(layout, policy, slots)
        store = PackedStore(
            layout, slots, BITS[quantization], groups, dtype, device,
            availability.load('packed', kernels, device, layout.head_dim))
    return KVCache(layout, policy, budget, store, track_health)


def most_groups(layout: CacheLayout, policy: RetentionPolicy, slots: int) -> int:
    """
    Return the rows of the table of key groups (scheme kcvt), per layer.

    Enough for whole steps in every slot, and one more where a window may cut a step in two. A
    policy that takes tokens here and there leaves groups with few tokens: twice the rows, and a
    step's eviction is larger than what the emptiest groups hold, of which the next step needs the
    rows.
    """
    step = layout.tokens_per_step
    groups = len(group_sizes(step, layout.special_tokens))
    if policy.evicts == 'steps':
        return slots // step * groups
    rows = (slots // step + 2) * groups
    return rows if policy.evicts == 'oldest' else 2 * rows
