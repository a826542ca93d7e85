"""How full the caches of a stream are."""

from dataclasses import dataclass, replace

from torch import Tensor

from xsvggt_ros.kv_cache.health import CacheHealth


@dataclass(frozen=True)
class CacheStats:
    """How full the caches are, after the last frame's eviction."""

    frames: int  # since the stream began
    tokens_per_frame: int  # 0 before the first frame, when no size is known
    tokens_per_layer: tuple[int, ...]  # remembered, one entry per global layer
    # Tokens per global layer, never below two frames (once there has been one); None: no limit
    budget: int | None
    occupancy: float  # tokens / budget, 0..1; 0 where there is no limit
    evicted_this_frame: int  # tokens per global layer
    evicted_total: int  # tokens per global layer since the stream began
    camera_tokens: int  # per layer of the camera head's trunk
    camera_budget: int | None
    bytes_used: int  # keys and values remembered, both caches
    bytes_reserved: int  # allocated for both caches, scratch and bookkeeping included
    health: CacheHealth | None  # what is left of the past; None before the first frame
    # What `StreamEngine.limit_tokens` makes of the budget; the same where nothing is limited
    limit: int | None = None


@dataclass(frozen=True)
class PendingStats:
    """Statistics of the caches, a part of which is still on the device."""

    stats: CacheStats  # without health
    health: Tensor | None  # what `CacheHealth.of` reads; None before the first frame

    def after(self, frames: int) -> 'PendingStats':
        """Return the same for one of the frames that came together: so many had come with it."""
        return replace(self, stats=replace(self.stats, frames=frames))

    def complete(self, health: Tensor | None) -> CacheStats:
        """Return all of it; health: a copy on the host of the one here."""
        if health is None:
            return self.stats
        tokens = max(self.stats.tokens_per_layer)
        return replace(self.stats, health=CacheHealth.of(health, tokens))
