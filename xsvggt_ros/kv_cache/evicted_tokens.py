"""What was evicted last, as long as nothing has taken its place."""

from dataclasses import dataclass

import torch
from torch import Tensor

from xsvggt_ros.kv_cache.store import KVStore


@dataclass(frozen=True)
class SavedTokens:
    """What lingered in slots [layers, n] when a cache was marked, by identity and content."""

    slots: Tensor
    token_ids: Tensor
    content: list[Tensor]


class EvictedTokens:
    """
    Tokens that have left a cache, for steps that are not to be remembered (`RetentionPolicy`).

    They lie in the slots of the next step that is, which attends without them.
    """

    def __init__(self, layers: int, slots: int, device: torch.device) -> None:
        """Make room for the identities of all tokens, which stays where it is."""
        self.token_ids = torch.full((layers, slots), -1, device=device)  # with what lingers
        self.count = 0  # tokens per layer that linger
        self._is_looked_at = False

    @property
    def nbytes(self) -> int:
        """Return the bytes allocated."""
        return self.token_ids.nbytes

    def begin(self, token_ids: Tensor, count: int) -> None:
        """Take all identities [layers, slots], of which ``count`` are about to leave."""
        self.token_ids.copy_(token_ids)
        self.count = count

    def look(self) -> int:
        """Return how many linger, to somebody who will attend to them."""
        self._is_looked_at = True
        return self.count

    def forget(self) -> None:
        """Forget what lingers."""
        self.count = 0

    def save(self, store: KVStore, next_slots: Tensor) -> SavedTokens | None:
        """Return what `restore` needs; nothing is copied in streams in which nobody looks."""
        if not (self.count and self._is_looked_at):
            return None
        slots = next_slots[:, :self.count].clone()
        return SavedTokens(slots, self.token_ids.gather(1, slots), store.save(slots))

    def restore(self, store: KVStore, token_ids: Tensor, saved: SavedTokens | None) -> None:
        """Bring back what lingered, beside the tokens that are remembered."""
        self.count = 0
        if saved is not None:
            store.restore(saved.slots, saved.content)
            self.begin(token_ids, saved.slots.shape[1])
            self.token_ids.scatter_(1, saved.slots, saved.token_ids)
