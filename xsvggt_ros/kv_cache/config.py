"""What a stream may remember: the shape of a cache and the user's settings for it."""

from dataclasses import dataclass

import torch

from xsvggt_ros.kernels.packing import BITS, SCHEMES
from xsvggt_ros.kv_cache.retention import POLICIES

STORAGE_DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
QUANTIZATIONS = ('none', *BITS)


@dataclass(frozen=True)
class CacheLayout:
    """
    Shape of what one stack of attention layers remembers.

    ``tokens_per_step`` tokens are appended to every layer in each step (a frame's tokens for the
    global attention layers, one for the camera head's trunk). The first ``special_tokens`` of them
    are no image patches and are scored one by one. ``first_steps``: how many steps a stream begins
    with, which see each other, for policies that keep all of them.
    """

    layers: int
    heads: int
    head_dim: int
    tokens_per_step: int
    special_tokens: int
    first_steps: int = 1

    def __post_init__(self) -> None:
        """Reject shapes that no network has."""
        for name in ('layers', 'heads', 'head_dim', 'tokens_per_step', 'first_steps'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, got {getattr(self, name)}')


@dataclass(frozen=True)
class CacheConfig:
    """
    Settings of the bounded KV cache.

    policy: a name in ``retention.POLICIES``: which tokens stay when the budget is reached.
    max_tokens: budget per global attention layer, in tokens; None is no limit. Two frames (first
        and newest) are always kept, so the effective budget is never below twice the tokens of a
        frame. The policy 'full' keeps everything, whatever the budget says.
    pool_size: patch queries averaged into one when tokens are scored (the paper's G).
    camera_max_tokens: budget per layer of the camera head's trunk (4 tokens a frame); None is no
        limit.
    quantization: 'none' stores keys and values of the global layers as floats, 'int8' and 'int4'
        pack them. The camera head's are floats always.
    storage: float type of what is not packed: 'auto' (the precision the network computes in),
        'fp32', 'fp16' or 'bf16'.
    memory_budget_mb: megabytes (10^6 bytes) that both caches may take, all bookkeeping included;
        the tokens per layer follow from it, and max_tokens is not used. None: max_tokens counts.
    scheme: how values are packed, 'token' or 'kcvt' (see `quantization`).
    seed: of the policy 'random'.
    """

    policy: str = 'frame_coverage'
    max_tokens: int | None = 7300
    pool_size: int = 16
    camera_max_tokens: int | None = 2048
    quantization: str = 'none'
    storage: str = 'auto'
    memory_budget_mb: float | None = None
    scheme: str = 'token'
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every setting and name the wrong one."""
        _check_choice('policy', self.policy, tuple(POLICIES))
        _check_choice('quantization', self.quantization, QUANTIZATIONS)
        _check_choice('scheme', self.scheme, SCHEMES)
        _check_choice('storage', self.storage, ('auto', *STORAGE_DTYPES))
        for name in ('max_tokens', 'pool_size', 'camera_max_tokens'):
            value = getattr(self, name)
            optional = name != 'pool_size' and value is None
            if not optional and (type(value) is not int or value < 1):
                raise ValueError(f'{name} must be a whole number of at least 1, got {value}')
        if self.memory_budget_mb is not None and not self.memory_budget_mb > 0:
            raise ValueError(f'memory_budget_mb must be above 0, got {self.memory_budget_mb}')

    def storage_dtype(self, compute_dtype: torch.dtype) -> torch.dtype:
        """Return the type keys and values are stored in."""
        return STORAGE_DTYPES.get(self.storage, compute_dtype)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got '{value}'")
