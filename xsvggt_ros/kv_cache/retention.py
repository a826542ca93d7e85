"""
Which tokens stay when a cache reaches its budget: one small class a policy.

A new policy is one subclass of `RetentionPolicy` and one line in `POLICIES`. Every policy keeps
the first step's tokens, which anchor the coordinate frame; most keep the newest step's too.
Scores are fp32, and ties keep the older token, so that a choice can be repeated.
"""

import torch
from torch import Tensor

from xsvggt_ros.kv_cache.frame_window import FrameWindow
from xsvggt_ros.kv_cache.policy import dot_products, pooled_attention, RetentionPolicy


class Full(RetentionPolicy):
    """Keep everything: StreamVGGT as published; memory grows with every frame."""

    bounded = False
    evicts = 'steps'


class SlidingWindow(RetentionPolicy):
    """Keep the first frame and the newest tokens, the last frame of the window in part."""

    evicts = 'oldest'

    def rank(self, scores: Tensor, token_ids: Tensor) -> Tensor:
        """Rank by age."""
        return token_ids


class Random(RetentionPolicy):
    """Keep a random choice, drawn anew each time from a seed: what any score has to beat."""

    _generator: 'torch.Generator | None' = None

    def begin(self, layers: int, channels: int, budget: int, device: torch.device) -> None:
        """Seed the generator, so that the same stream has the same history."""
        self._generator = None
        if device.type != 'meta':
            self._generator = torch.Generator(device).manual_seed(self.seed)

    def mark(self) -> None:
        """Note where the lots are."""
        if self._generator is not None:
            self._marked = self._generator.get_state()

    def rewind(self) -> None:
        """Draw the lots once more."""
        if self._generator is not None:
            self._generator.set_state(self._marked)

    def rank(self, scores: Tensor, token_ids: Tensor) -> Tensor:
        """Rank by lot."""
        return torch.rand(scores.shape, generator=self._generator, device=scores.device)


class XStream(RetentionPolicy):
    """
    Keep the tokens that the newest frame's queries point at (XStreamVGGT, arXiv 2601.01204).

    The paper scores a key by the mean, over pooled queries, of <query, key>, both averaged over
    heads; a special token's query counts as much as a pool of ``pool_size`` patches. All of it is
    linear, so one pooled query vector and one matrix-vector product give the same number.
    """

    def score(self, pooled: Tensor, heads: slice, keys: Tensor, values: Tensor) -> Tensor:
        """Return <pooled query, key>, both averaged over heads, as far as these heads go."""
        products = dot_products(pooled.mean(dim=-2, keepdim=True), keys)
        if products.shape[-2] == pooled.shape[-2]:
            return products.mean(dim=-2)
        return products.sum(dim=-2) / pooled.shape[-2]

    def rank(self, scores: Tensor, token_ids: Tensor) -> Tensor:
        """Rank by score."""
        return scores


class XStreamPerHead(XStream):
    """As `XStream`, but each head's keys meet their own head's queries."""

    def score(self, pooled: Tensor, heads: slice, keys: Tensor, values: Tensor) -> Tensor:
        """Return <pooled query, key>, summed over these heads."""
        return dot_products(pooled[..., heads, :], keys).sum(dim=-2)


class ValueAware(XStream):
    """
    Keep what changes the newest frame's output: attention times the length of the value.

    After OBCache's idea of scoring a token by what its removal does to the attention's output.
    The attention is the pooled query's, per head, over all cached tokens. The newest frame is not
    protected: its tokens compete with the history.
    """

    protects_newest = False

    def score(self, pooled: Tensor, heads: slice, keys: Tensor, values: Tensor) -> Tensor:
        """Return attention times value length, summed over these heads."""
        attention = pooled_attention(pooled[..., heads, :], keys)
        return (attention * values.float().norm(dim=-1)).sum(dim=-2)


class FrameCoverage(RetentionPolicy):
    """
    Keep whole frames that are unlike each other (after FrameVGGT, arXiv 2603.07690).

    A frame is described by the mean of its keys, per layer. When there is one frame too many, the
    one that leaves has the least distance (1 - cosine) to its two nearest others; the first and
    the newest frame always stay. The budget is rounded down to whole frames. A step of one token
    is no frame: there the paper's policy takes over.
    """

    evicts = 'steps'
    instead_for_single_tokens = 'xstream'

    def fit_budget(self, budget: int) -> int:
        """Return the budget in whole frames."""
        return super().fit_budget(budget) // self.tokens_per_step * self.tokens_per_step

    def begin(self, layers: int, channels: int, budget: int, device: torch.device) -> None:
        """Allocate a description for each frame there is room for, and one more."""
        entries = budget // self.tokens_per_step + 1
        self._described = torch.zeros(layers, entries, channels, device=device)
        self._frame = torch.full((layers, entries), -1, dtype=torch.int64, device=device)
        self._newest = torch.zeros(layers, 1, channels, device=device)
        self._ones = torch.ones(entries, entries, device=device)  # and no frame is near itself
        self._ones.fill_diagonal_(torch.inf)
        self._marked: Tensor | None = None  # `_frame`, as it was
        self._overwritten: list[tuple[Tensor, Tensor]] = []  # entries and what was in them

    @property
    def nbytes(self) -> int:
        """Return the bytes of the descriptions."""
        return (self._described.nbytes + self._frame.nbytes + self._newest.nbytes
                + self._ones.nbytes)

    def remember(self, layer: int, key: Tensor, step: int) -> None:
        """Describe a frame by its mean key."""
        newest = self._newest[layer].view(key.shape[0], key.shape[2])
        torch.mean(key, dim=1, dtype=torch.float32, out=newest)

    def commit(self, step: int) -> None:
        """Write the description into the first entry that is free."""
        entry = self._frame.argmin(dim=1, keepdim=True)  # -1 is a free one
        index = entry[:, :, None].expand_as(self._newest)
        # What the first step since the mark overwrites was free then.
        if self._marked is not None and self._marked is not self._frame:
            self._overwritten.append((index, self._described.gather(1, index)))
        self._described.scatter_(1, index, self._newest)
        self._frame = self._frame.scatter(1, entry, step)

    def mark(self) -> None:
        """Note which frames are described."""
        self._marked = self._frame
        self._overwritten = []

    def keep(self) -> None:
        """Let go of what was noted."""
        self._marked = None
        self._overwritten = []

    def rewind(self) -> None:
        """Describe the frames that were described at the mark."""
        if self._marked is not None:
            self._frame = self._marked
        for index, described in reversed(self._overwritten):
            self._described.scatter_(1, index, described)
        self._overwritten = []

    def evicted(
        self, scores: Tensor, token_ids: Tensor, steps: int, count: int,
        forced_evictions: Tensor | None = None, newest: Tensor | None = None,
    ) -> Tensor:
        """Return all slots of the frames, in each layer, that the others make up for best."""
        unit = torch.nn.functional.normalize(self._described, dim=2)
        distance = self._ones - unit @ unit.transpose(1, 2)
        frame_of = token_ids // self.tokens_per_step
        leaves: Tensor | None = None
        for _ in range(count // self.tokens_per_step):
            others = distance.masked_fill((self._frame < 0)[:, None], torch.inf)
            near = others.topk(min(2, distance.shape[1] - 1), dim=2, largest=False).values
            stays = self._frame.clamp(1, steps - 2) != self._frame  # the first, newest, free ones
            entry = near.mean(dim=2).masked_fill(stays, torch.inf).argmin(dim=1, keepdim=True)
            leaving = frame_of == self._frame.gather(1, entry)
            leaves = leaving if leaves is None else leaves | leaving
            self._frame.scatter_(1, entry, -1)
        if leaves is None:
            raise ValueError(f'{count} tokens are no whole step')
        return self.slots_of(leaves, count)


POLICIES: dict[str, type[RetentionPolicy]] = {
    'full': Full,
    'sliding_window': SlidingWindow,
    'random': Random,
    'xstream': XStream,
    'xstream_per_head': XStreamPerHead,
    'frame_coverage': FrameCoverage,
    'value_aware': ValueAware,
    FrameWindow.name: FrameWindow,
}
