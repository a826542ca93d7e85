"""
Which tokens stay when a cache reaches its budget: one small class a policy.

A new policy is one subclass of `RetentionPolicy` and one line in `POLICIES`. Every policy keeps
the first step's tokens (they anchor the coordinate frame) and the newest step's; it ranks what
lies between.
"""

import torch
from torch import Tensor


class RetentionPolicy:
    """Rank the tokens of every layer; the lowest ranked leave."""

    bounded = True  # False: nothing is ever evicted

    def __init__(self, tokens_per_step: int, special_tokens: int, pool_size: int) -> None:
        """Remember the shape of a step; all layers share one policy object."""
        self.tokens_per_step = tokens_per_step
        self.special_tokens = special_tokens
        self.pool_size = pool_size

    def score(self, query: Tensor, keys: Tensor) -> Tensor | None:
        """
        Return the importance of every cached token of one layer, [tokens] in fp32, or None.

        query: [heads, tokens_per_step, head_dim] of the newest step.
        keys: [heads, tokens, head_dim], everything remembered, in slot order, newest included.
        Called while the layer attends, and only if this step will evict. None: `rank` needs none.
        """
        return None

    def rank(self, scores: Tensor | None, token_ids: Tensor) -> Tensor:
        """
        Return a sortable rank for every slot, [layers, tokens]; higher stays longer.

        scores: [layers, tokens], what `score` returned for each layer.
        token_ids: [layers, tokens] int64, step * tokens_per_step + index in the step.
        """
        raise NotImplementedError

    def losers(self, scores: Tensor | None, token_ids: Tensor, steps: int, count: int) -> Tensor:
        """
        Return the slots that leave, [layers, count] int64.

        steps is how many steps the stream has had, the newest included. Among equals the older
        token stays: identical frames tie exactly, and the choice must not depend on the device.
        """
        newest = (steps - 1) * self.tokens_per_step
        rank = self.rank(scores, token_ids)
        protected = (token_ids < self.tokens_per_step) | (token_ids >= newest)
        top = torch.inf if rank.is_floating_point() else torch.iinfo(rank.dtype).max
        rank = rank.masked_fill(protected, top)
        by_age = token_ids.argsort(dim=1)
        best_first = rank.gather(1, by_age).argsort(dim=1, descending=True, stable=True)
        return by_age.gather(1, best_first[:, token_ids.shape[1] - count:])


class Full(RetentionPolicy):
    """Keep everything: StreamVGGT as published; memory grows with every frame."""

    bounded = False


class SlidingWindow(RetentionPolicy):
    """Keep the first frame and the newest tokens, the last frame of the window in part."""

    def rank(self, scores: Tensor | None, token_ids: Tensor) -> Tensor:
        """Rank by age."""
        return token_ids


class XStream(RetentionPolicy):
    """
    Keep the tokens that the newest frame's queries point at (XStreamVGGT, arXiv 2601.01204).

    The paper scores a key by the mean, over pooled queries, of <query, key>, both averaged over
    heads; a special token's query counts as much as a pool of ``pool_size`` patches. All of it is
    linear, so one pooled query vector and one matrix-vector product give the same number.
    """

    def __init__(self, tokens_per_step: int, special_tokens: int, pool_size: int) -> None:
        """Prepare the weight of each query token in the pooled query."""
        super().__init__(tokens_per_step, special_tokens, pool_size)
        special = min(special_tokens, tokens_per_step)
        patches = tokens_per_step - special
        pools = [pool_size] * (patches // pool_size)
        if patches % pool_size:
            pools.append(patches % pool_size)
        weights = [1.0] * special + [1.0 / size for size in pools for _ in range(size)]
        self._query_weights = torch.tensor(weights) / (special + len(pools))

    def pooled_query(self, query: Tensor) -> Tensor:
        """Return the weighted mean of the queries over tokens and heads, [head_dim] in fp32."""
        if self._query_weights.device != query.device:
            self._query_weights = self._query_weights.to(query.device)
        return self._query_weights @ query.mean(dim=0, dtype=torch.float32)

    def score(self, query: Tensor, keys: Tensor) -> Tensor:
        """Return <pooled query, mean key over heads> of every token."""
        return keys.mean(dim=0, dtype=torch.float32) @ self.pooled_query(query)

    def rank(self, scores: Tensor | None, token_ids: Tensor) -> Tensor:
        """Rank by score."""
        return scores


POLICIES: dict[str, type[RetentionPolicy]] = {
    'full': Full,
    'sliding_window': SlidingWindow,
    'xstream': XStream,
}
