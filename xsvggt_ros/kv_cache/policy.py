"""What a retention policy is, and what policies share."""

import torch
from torch import Tensor

from xsvggt_ros.kernels import native


class RetentionPolicy:
    """Rank the tokens of every layer; the lowest ranked leave."""

    bounded = True  # False: nothing is ever evicted
    evicts = 'tokens'  # what is evicted: any 'tokens', the 'oldest' ones, or whole 'steps'
    protects_newest = True  # False: the newest step's tokens compete with the rest
    # Whether frames that are not to be remembered still see what was evicted last, until the next
    # one that is to be takes its place.
    lingers = False
    # Name of the policy to take instead where a step has one token only; None: this one.
    instead_for_single_tokens: str | None = None

    def __init__(
        self, tokens_per_step: int, special_tokens: int, pool_size: int, seed: int = 0,
    ) -> None:
        """Remember the shape of a step; all layers share one policy object."""
        self.tokens_per_step = tokens_per_step
        self.special_tokens = special_tokens
        self.pool_size = pool_size
        self.seed = seed
        self._pooling = pooling_weights(tokens_per_step, special_tokens, pool_size)[None, None]

    def expect(self, first_steps: int) -> None:
        """
        Learn how many steps a stream begins with, before anything else.

        Most policies keep the first of them only, and choose among the others.
        """

    def fit_budget(self, budget: int) -> int:
        """Return the budget this policy can hold: two steps at least, tokens per layer."""
        return max(budget, 2 * self.tokens_per_step)

    def begin(self, layers: int, channels: int, budget: int, device: torch.device) -> None:
        """
        Begin a stream: forget the state of the last one; most policies have none.

        layers, channels: of the cache, channels = heads * head_dim; budget: tokens per layer.
        """

    def excess(self, used: int, limit: int, most: int | None = None) -> int:
        """
        Return how many of ``used`` tokens per layer leave at the end of a step.

        used: the newest step's included; limit: as `fit_budget` gives it; most: leave the rest of
        a lowered limit to a later step, if this one should free no more tokens.
        """
        excess = max(0, used - limit)
        return excess if most is None else min(excess, most)

    def partial_steps(self, budget: int) -> int:
        """Return of how many steps at most a part is kept, by a policy that evicts 'steps'."""
        return 0

    @property
    def nbytes(self) -> int:
        """Return the bytes of the policy's state."""
        return 0

    def remember(self, layer: int, key: Tensor, step: int) -> None:
        """Note what is needed of a step's keys, [heads, tokens_per_step, head_dim]."""

    def commit(self, step: int) -> None:
        """Take what `remember` noted of a step for good, after all layers and before `evicted`."""

    def mark(self) -> None:
        """Begin to note what `rewind` needs to undo the steps from here on."""

    def keep(self) -> None:
        """Let go of what `rewind` would need."""

    def rewind(self) -> None:
        """Be as at the last `mark`."""

    def pooled_query(self, query: Tensor, out: Tensor | None = None) -> Tensor:
        """
        Return the weighted mean of queries [heads, tokens_per_step, head_dim], [heads, head_dim].

        fp32; written to ``out`` [heads, 1, head_dim] if given. A special token counts as much as a
        pool of patches.
        """
        if self._pooling.device != query.device:
            self._pooling = self._pooling.to(query.device)
        # Of one token it is the query itself, as `KVCache` knows.
        weights = self._pooling.expand(query.shape[0], -1, -1)
        return torch.bmm(weights, query.float(), out=out)[:, 0]

    def score(self, pooled: Tensor, heads: slice, keys: Tensor, values: Tensor) -> Tensor | None:
        """
        Return what some heads add to the score of every cached token, [..., tokens] fp32, or None.

        pooled: `pooled_query` of the newest step, [..., heads, head_dim], of all heads. keys,
        values: [..., heads, tokens, head_dim] of these heads, in slot order, newest included.
        Called if this step will evict; leading dimensions are layers. None: `rank` needs no
        scores.
        """
        return None

    def rank(self, scores: Tensor, token_ids: Tensor) -> Tensor:
        """
        Return a sortable rank for every slot, [layers, tokens]; higher stays longer.

        scores: [layers, tokens], what `score` returned for each layer, summed over heads.
        token_ids: [layers, tokens] int64, step * tokens_per_step + index in the step.
        """
        raise NotImplementedError

    def protected(self, token_ids: Tensor, steps: int) -> Tensor:
        """Return which slots hold tokens that always stay, as bool; steps as in `evicted`."""
        first, newest = self.tokens_per_step, (steps - 1) * self.tokens_per_step
        if not self.protects_newest or newest <= first:  # then there are no others
            return token_ids < (first if not self.protects_newest else newest + first)
        return token_ids.clamp(first, newest - 1) != token_ids

    @staticmethod
    def slots_of(leaves: Tensor, count: int) -> Tensor:
        """Return the ``count`` slots in each layer that leave, of bool [layers, tokens]."""
        return leaves.view(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]

    def evicted(
        self, scores: Tensor, token_ids: Tensor, steps: int, count: int,
        forced_evictions: Tensor | None = None, newest: Tensor | None = None,
    ) -> Tensor:
        """
        Return the slots that leave, [layers, count] int64, in no order.

        steps is how many steps the stream has had, the newest included; forced_evictions: [layers,
        tokens] bool, tokens that leave whatever their rank, if any; newest: [layers,
        tokens_per_step] int64, the newest step's slots, if they are known. Scores may be written
        to. Among equals the older token
        stays: identical frames tie exactly, and the choice must not depend on the device.
        """
        rank = self.rank(scores, token_ids)
        # The camera head's:
        if count == 1 and forced_evictions is None and rank.is_floating_point():
            if newest is None or newest.shape[1] > 1:
                rank = rank.masked_fill(self.protected(token_ids, steps), torch.inf)
            else:
                rank[:, :1].fill_(torch.inf)  # the first step's token, which never moves
                if self.protects_newest:
                    rank.scatter_(1, newest, torch.inf)
            others = rank != rank.amin(dim=1, keepdim=True)
            return token_ids.masked_fill(others, -1).argmax(dim=1, keepdim=True)
        if rank.is_floating_point():
            rank = _with_age(rank, steps * self.tokens_per_step - token_ids)
        limits = torch.iinfo(torch.int64)
        if forced_evictions is not None:
            rank = rank.masked_fill(forced_evictions, limits.min)
        rank = rank.masked_fill(self.protected(token_ids, steps), limits.max)
        return rank.topk(count, dim=1, largest=False, sorted=False).indices


def pooling_weights(tokens: int, special_tokens: int, pool_size: int) -> Tensor:
    """Return each query's weight in the paper's pooled query, [tokens] fp32, sum 1."""
    special = min(special_tokens, tokens)
    patches = tokens - special
    pools = [pool_size] * (patches // pool_size)
    if patches % pool_size:
        pools.append(patches % pool_size)
    weights = [1.0] * special + [1.0 / size for size in pools for _ in range(size)]
    return torch.tensor(weights) / (special + len(pools))


def pooled_attention(pooled: Tensor, keys: Tensor) -> Tensor:
    """Return softmax attention of queries [..., heads, d] over keys [..., heads, tokens, d]."""
    return dot_products(pooled * pooled.shape[-1] ** -0.5, keys).softmax(dim=-1)


def dot_products(vectors: Tensor, keys: Tensor) -> Tensor:
    """Return each head's vector [..., heads, d] times its keys [..., heads, tokens, d]."""
    if native.takes_products(vectors, keys):
        return native.products(vectors, keys)
    # The vector from the left: as a column from the right, MKL takes ten times as long.
    return (vectors[..., None, :] @ keys.float().transpose(-1, -2))[..., 0, :]


def _with_age(rank: Tensor, age: Tensor) -> Tensor:
    """Return integers that sort as ``rank``, a float, does and, where it is equal, as ``age``."""
    bits = (rank.float() + 0.0).view(torch.int32)  # + 0.0: minus zero is zero
    ordered = bits ^ ((bits >> 31) & 0x7fffffff)  # as integers, negative floats sort backwards
    return (ordered.long() << 32) + age.clamp_max(0xffffffff)
