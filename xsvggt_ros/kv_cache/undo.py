"""What a cache notes so that steps can be undone, bit for bit."""

from dataclasses import dataclass

from torch import Tensor

from xsvggt_ros.kv_cache.evicted_tokens import SavedTokens


@dataclass
class Change:
    """What a step has changed: its tokens went to slots that were free, others were freed."""

    written: Tensor  # slots [layers, tokens_per_step]
    evicted: Tensor | None = None  # slots [layers, n]
    token_ids: Tensor | None = None  # of the tokens that were in them
    content: list[Tensor] | None = None  # of these slots, saved before they are used again


@dataclass(frozen=True)
class Mark:
    """A state of a cache, and the steps since."""

    numbers: tuple[int, ...]
    next_slots: Tensor
    kept: Tensor
    token_ids: Tensor | None  # where each step makes new ones
    evicted_tokens: SavedTokens | None
    changes: list[Change]
