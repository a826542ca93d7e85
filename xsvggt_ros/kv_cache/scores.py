"""What every token of a cache is worth, by its policy, and the attention it gets."""

import torch
from torch import Tensor

from xsvggt_ros.kv_cache.config import CacheLayout
from xsvggt_ros.kv_cache.policy import pooled_attention, RetentionPolicy
from xsvggt_ros.kv_cache.store import extend


class LayerObserver:
    """Scores the tokens of a layer while its store attends to them."""

    def __init__(self, scores: 'TokenScores', layer: int, used: int) -> None:
        """Take the scores of all layers, and how many tokens there are."""
        self._scores = scores
        self._layer = layer
        self._used = used

    def __call__(self, heads: slice, keys: Tensor, values: Tensor) -> None:
        """Score some heads' tokens; see `store.Observer`."""
        self._scores.add(slice(self._layer, self._layer + 1), heads, keys, values)

    def only_attention(self) -> tuple[Tensor, Tensor] | None:
        """Return query and place of the attention, unless the policy wants keys and values."""
        return self._scores.only_attention(self._layer, self._used)


class TokenScores:
    """Scores of the tokens in all slots, made anew in every step that evicts."""

    def __init__(
        self, layout: CacheLayout, policy: RetentionPolicy, slots: int, device: torch.device,
        single_queries: bool, track_health: bool,
    ) -> None:
        """
        Allocate scores for all slots.

        single_queries: a step has one token; its queries need no pooling and are scored together.
        track_health: measure what eviction costs.
        """
        self._layout = layout
        self._policy = policy
        self._policy_scores = type(policy).score is not RetentionPolicy.score
        layers = layout.layers
        self._scores = torch.zeros(layers, slots, device=device)
        self.latest = self._scores  # [layers, used]
        self._attention = torch.zeros(layers, slots if track_health else 0, device=device)
        self._pooled = torch.zeros(layers, layout.heads, layout.head_dim, device=device)
        self._pooled_layers = self._pooled[:, :, None].unbind()
        self.kept = torch.ones(layers, device=device)  # share of attention that was not evicted
        self._singles: list[Tensor] = [self._pooled] * layers if single_queries else []

    @property
    def nbytes(self) -> int:
        """Return the bytes allocated."""
        return sum(tensor.nbytes for tensor in (
            self._scores, self._attention, self._pooled, self.kept))

    def observer(self, layer: int, query: Tensor, used: int) -> LayerObserver | None:
        """
        Return what scores a layer's tokens for the newest step's queries; None if nobody does.

        query: [heads, tokens, head_dim]; used: how many tokens there are.
        """
        if layer == 0:
            self.latest = self._scores[:, :used]
        if not (self._policy_scores or self._attention.numel()):
            return None
        self.take_query(layer, query)
        return LayerObserver(self, layer, used)

    def only_attention(self, layer: int, used: int) -> tuple[Tensor, Tensor] | None:
        """Return a layer's pooled query and where its attention goes, if that is all."""
        if self._policy_scores:
            return None
        return self._pooled[layer], self._attention[layer, :used]

    def take_query(self, layer: int, query: Tensor) -> None:
        """Take the newest step's queries [heads, tokens, head_dim] of a layer."""
        if self._singles:
            self._singles[layer] = query
        else:
            self._policy.pooled_query(query, out=self._pooled_layers[layer])

    def pool_single_queries(self) -> None:
        """Take together the queries of steps of one token, if there are such."""
        if self._singles:
            self._pooled = torch.stack([query[:, 0] for query in self._singles]).float()

    def add(self, layers: slice, heads: slice, keys: Tensor, values: Tensor) -> None:
        """
        Add up over the heads how some layers' tokens score, and what attention they get.

        keys, values: [layers, heads, used, head_dim].
        """
        used, pooled = keys.shape[2], self._pooled[layers]
        score = self._policy.score(pooled, heads, keys, values)
        self.latest = self._scores[:, :used]
        whole = heads.stop - (heads.start or 0) == self._layout.heads
        if score is not None and whole and len(score) == self._layout.layers:
            self.latest = score
        elif score is not None:
            _add_up(self.latest[layers], score, heads)
        if self._attention.numel():
            attention = pooled_attention(pooled[:, heads], keys).sum(dim=1)
            _add_up(self._attention[layers, :used], attention, heads)

    def note_evicted(self, slots: Tensor) -> None:
        """Note what share of the attention is lost with some slots, [layers, n]."""
        if self._attention.numel():
            lost = self._attention.gather(1, slots).sum(dim=1)
            self.kept = torch.sub(1, lost, alpha=1 / self._layout.heads)

    def grow(self, slots: int) -> None:
        """Make room for more slots."""
        self._scores = extend(self._scores, slots, dim=1)
        if self._attention.numel():
            self._attention = extend(self._attention, slots, dim=1)


def _add_up(total: Tensor, part: Tensor, heads: slice) -> None:
    """Begin a sum over the heads with the first ones, or add the next ones to it."""
    if heads.start:
        total += part
    else:
        total.copy_(part)
