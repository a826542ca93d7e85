"""What is left of a stream's past in a cache."""

from dataclasses import dataclass

import torch
from torch import Tensor


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


def health_numbers(token_ids: Tensor, tokens_per_step: int, steps: int, kept: Tensor) -> Tensor:
    """
    Return what `CacheHealth.of` reads, [4] on the device, which is not waited for.

    token_ids: [layers, slots], -1 where there is none; steps: that there have been; kept: the
    share of attention that is kept, [layers].
    """
    layers = len(token_ids)
    step_of = token_ids.div(tokens_per_step, rounding_mode='floor')  # -1 where there is none
    first = (step_of == 0).sum() / layers
    newest = (step_of == steps - 1).sum() / layers if steps > 1 else first * 0
    ordered = step_of.sort(dim=1).values
    new = (ordered[:, 1:] != ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    present = (new.sum() + (ordered[:, 0] >= 0).sum()) / layers
    return torch.stack([first, newest, present, kept.mean()])
