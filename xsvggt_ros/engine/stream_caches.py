"""The two caches of a stream: how they are built, and what a budget buys."""

from dataclasses import dataclass

import torch

from xsvggt_ros.engine.cache_stats import CacheStats, PendingStats
from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.errors import BudgetError
from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.cache import KVCache
from xsvggt_ros.kv_cache.read_only import ReadOnlyCache
from xsvggt_ros.kv_cache.retention import POLICIES
from xsvggt_ros.model.network import StreamLayout

META = torch.device('meta')


@dataclass(frozen=True)
class StreamCaches:
    """What is remembered of a stream: by the global layers, and by the camera head's trunk."""

    tokens: KVCache
    camera: KVCache
    max_steps: int | None = None  # this and the others: see `StreamLayout`
    trained_steps: int | None = None
    camera_follows: bool = False

    @classmethod
    def build(
        cls, config: EngineConfig, layout: StreamLayout, budget: int | None,
        device: torch.device | None = None,
    ) -> 'StreamCaches':
        """
        Allocate both caches; budget: tokens per global layer, None for no limit.

        device: the engine's if not given; on 'meta' nothing is allocated.
        """
        cache, own = config.cache, torch.device(config.device)

        def attention_dtype(dtype: torch.dtype) -> torch.dtype:
            return torch.float32 if own.type == 'cpu' else dtype

        return cls(
            tokens=build_cache(
                layout.tokens, cache, budget, attention_dtype(config.dtype), device or own,
                cache.quantization, config.kernels),
            camera=build_cache(
                layout.camera, cache, _camera_budget(cache.camera_max_tokens, layout.max_steps),
                attention_dtype(config.head_dtype), device or own, 'none', track_health=False),
            max_steps=layout.max_steps, trained_steps=layout.trained_steps,
            camera_follows=layout.camera_follows)

    def prepare(self, remember: bool, smaller: bool) -> 'StreamCaches | ReadOnlyCaches':
        """
        Return what the next frame attends to; call it between frames.

        remember: whether later frames are to attend to it; smaller: whether it has fewer tokens.
        """
        self.tokens.compact(gapless=not remember and smaller)
        if remember:
            return self
        camera: KVCache | ReadOnlyCache = self.camera
        if self.camera_follows:
            self.camera.compact(gapless=False)  # which saves what the look will overwrite
            camera = ReadOnlyCache(self.camera)
        return ReadOnlyCaches(ReadOnlyCache(self.tokens), camera)

    def exhausted(self, frames: int) -> str | None:
        """Return why so many more frames cannot be remembered, or None."""
        most, had = self.max_steps, self.tokens.steps
        if most is None or had + frames <= most:
            return None
        return (f'the network numbers the images that it remembers, up to {most}, and this stream '
                f'has had {had}')

    def keyframe_stride(self, frames: int) -> int:
        """
        Return every how many of so many frames one should be remembered.

        All, but of a network that numbers them no more than streams had in its training.
        """
        return 1 if self.trained_steps is None else max(1, -(-frames // self.trained_steps))

    @property
    def bytes_reserved(self) -> int:
        """Return the bytes of both."""
        return self.tokens.bytes_reserved + self.camera.bytes_reserved

    @property
    def max_magnitude(self) -> float:
        """Return the largest magnitude that both can store."""
        return min(self.tokens.max_magnitude, self.camera.max_magnitude)

    def pending_stats(self, frames: int, remembered: bool) -> PendingStats:
        """Return statistics without waiting; remembered: whether the last frame was."""
        tokens, camera = self.tokens, self.camera
        return PendingStats(CacheStats(
            frames=frames,
            tokens_per_frame=tokens.layout.tokens_per_step,
            tokens_per_layer=(tokens.tokens,) * tokens.layout.layers,
            budget=tokens.budget,
            occupancy=tokens.tokens / tokens.budget if tokens.budget else 0.0,
            evicted_this_frame=tokens.evicted_last if remembered else 0,
            evicted_total=tokens.evicted_total,
            camera_tokens=camera.tokens,
            camera_budget=camera.budget,
            bytes_used=tokens.bytes_used + camera.bytes_used,
            bytes_reserved=self.bytes_reserved,
            health=None,
            limit=tokens.limit), tokens.health_numbers() if frames else None)


@dataclass(frozen=True)
class ReadOnlyCaches:
    """The same in a frame that is not to be remembered, but by the camera head of StreamVGGT."""

    tokens: ReadOnlyCache
    camera: KVCache | ReadOnlyCache


def _camera_budget(tokens: int | None, max_steps: int | None) -> int | None:
    """Return the budget of the camera head's trunk, which never has more steps than there are."""
    given = [number for number in (tokens, max_steps) if number is not None]
    return min(given) if given else None


def empty_stats(config: EngineConfig) -> PendingStats:
    """Return the statistics before there is a frame, whose size decides about the rest."""
    cache = config.cache
    budget = cache.max_tokens if POLICIES[cache.policy].bounded else None
    return PendingStats(
        CacheStats(0, 0, (), budget, 0.0, 0, 0, 0, cache.camera_max_tokens, 0, 0, None, budget),
        None)


def token_budget(config: EngineConfig, layout: StreamLayout) -> int | None:
    """Return the tokens per layer that the settings allow; raise BudgetError for too few bytes."""
    megabytes = config.cache.memory_budget_mb
    if megabytes is None:
        return config.cache.max_tokens
    budget = tokens_for_bytes(config, layout, int(megabytes * 1e6))
    if budget == 0:
        needed = StreamCaches.build(config, layout, 1, META).bytes_reserved
        raise BudgetError(
            f'memory_budget_mb {megabytes:g} does not hold the first and the newest frame of '
            f'{layout.tokens.tokens_per_step} tokens: set it to {needed / 1e6 + 0.5:.0f} or '
            'more, use a smaller image_size, or pack the cache in fewer bits')
    return budget


def tokens_for_bytes(config: EngineConfig, layout: StreamLayout, limit: int) -> int:
    """Return the largest budget in tokens per layer within a limit in bytes, or 0."""
    def fits(budget: int) -> bool:
        return StreamCaches.build(config, layout, budget, META).bytes_reserved <= limit

    low, high = 2 * layout.tokens.tokens_per_step, limit
    if not fits(low):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def budget_warning(config: EngineConfig, caches: StreamCaches, size: str) -> str | None:
    """Return what is wrong with the token budget for frames of this size ('WxH'), or None."""
    budget = caches.tokens.budget
    if budget is None:
        return None
    frame = caches.tokens.layout.tokens_per_step
    if config.cache.memory_budget_mb is None and config.cache.max_tokens is not None:
        budget = config.cache.max_tokens
    if budget > 2 * frame:
        return None
    return (f'cache.max_tokens {budget} leaves no room for history: at {size} a frame has '
            f'{frame} tokens, and the first and the newest frame, {2 * frame} tokens, are '
            f'always kept; set cache.max_tokens to {4 * frame} or more')


def budget_description(stats: CacheStats, size: str) -> str:
    """Return what the budget buys for frames of this size ('WxH'), in one line."""
    megabytes = f'{stats.bytes_reserved / 1e6:.0f} MB'
    if stats.budget is None:
        return f'{megabytes} for a start, no limit, {stats.tokens_per_frame} tokens a frame'
    history = stats.budget / stats.tokens_per_frame - 2
    return (f'{megabytes} = {stats.budget} tokens per layer = first + newest + {history:.1f} '
            f'frames of history at {size}')
