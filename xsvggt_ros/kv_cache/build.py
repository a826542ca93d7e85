"""Builds a cache as its settings say."""

import torch

from xsvggt_ros.kernels import availability
from xsvggt_ros.kernels.packing import BITS, group_sizes
from xsvggt_ros.kv_cache.cache import KVCache
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout
from xsvggt_ros.kv_cache.dense_store import DenseStore
from xsvggt_ros.kv_cache.grouped_store import GroupedStore
from xsvggt_ros.kv_cache.policy import RetentionPolicy
from xsvggt_ros.kv_cache.retention import POLICIES
from xsvggt_ros.kv_cache.store import KVStore
from xsvggt_ros.kv_cache.token_store import TokenStore

GROWTH_STEPS = 8  # first allocation of a cache without a limit, in steps; doubled when full


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
    policy.expect(layout.first_steps)
    budget = policy.fit_budget(budget) if policy.bounded and budget is not None else None
    room = 2 if policy.lingers else 1  # steps beyond the budget
    slots = GROWTH_STEPS * step if budget is None else budget + room * step
    device = torch.device(device)
    module = None
    if quantization != 'none':
        module = availability.load('packed', kernels, device, layout.head_dim)
    store: KVStore
    if quantization == 'none':
        store = DenseStore(layout, slots, config.storage_dtype(dtype), device)
    elif config.scheme == 'kcvt':
        store = GroupedStore(
            layout, slots, BITS[quantization],
            max_rows(layout, policy, slots, len(group_sizes(step, layout.special_tokens))),
            dtype, device)
    else:
        store = TokenStore(
            layout, slots, BITS[quantization], max_rows(layout, policy, slots, 1), dtype, device,
            module)
    return KVCache(layout, policy, budget, store, track_health)


def max_rows(
    layout: CacheLayout, policy: RetentionPolicy, slots: int, rows_per_step: int,
) -> int:
    """
    Return the rows of the table of what describes several packed tokens, per layer.

    Enough for whole steps in every slot, and one more where a window may cut a step in two. A
    policy that takes tokens here and there leaves rows with few tokens: twice the rows, and a
    step's eviction is larger than what the emptiest rows hold, of which the next step needs some.
    """
    step = layout.tokens_per_step
    if policy.evicts == 'steps':
        return slots // step * rows_per_step + policy.partial_steps(slots)
    rows = (slots // step + 2) * rows_per_step
    return rows if policy.evicts == 'oldest' else 2 * rows
