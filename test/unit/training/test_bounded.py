"""Training with a cache that forgets: what is seen is what the policy keeps."""

import pytest
import torch

from training.bounded import BoundedHistory
from xsvggt_ros.kv_cache.retention import FrameCoverage
from xsvggt_ros.model.causal import predict_clips
from xsvggt_ros.model.streamvggt import StreamVGGT

pytestmark = pytest.mark.slow


def test_bounded_history_keeps_the_frames_that_the_policy_keeps():
    generator = torch.Generator().manual_seed(3)
    frames, tokens, heads, dim, limit = 14, 7, 2, 8, 5
    keys = torch.randn(1, heads, frames, 1, dim, generator=generator) + 0.1 * torch.randn(
        1, heads, frames, tokens, dim, generator=generator)
    seen = BoundedHistory(limit)(keys)[0]
    policy = FrameCoverage(tokens_per_step=tokens, special_tokens=1, pool_size=4)
    budget = policy.fit_budget(limit * tokens)
    policy.begin(1, heads * dim, budget, torch.device('cpu'))
    kept = torch.zeros(0, dtype=torch.int64)
    for step in range(frames):
        kept = torch.cat([kept, step * tokens + torch.arange(tokens)])
        assert seen[step].nonzero()[:, 0].tolist() == sorted({int(one) // tokens for one in kept})
        policy.remember(0, keys[0, :, step], step)
        policy.commit(step)
        excess = policy.excess(len(kept), budget)
        if excess:
            out = policy.evicted(torch.zeros(1, len(kept)), kept[None], step + 1, excess)[0]
            stays = torch.ones(len(kept), dtype=torch.bool)
            stays[out] = False
            kept = kept[stays]


def test_a_bound_that_is_never_reached_changes_nothing(config):
    model = StreamVGGT(config).eval()
    images = torch.rand(2, 5, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        free, wide, tight = (predict_clips(model, images, visible=visible)
                             for visible in (None, BoundedHistory(5), BoundedHistory(2)))
    assert torch.allclose(free.depth, wide.depth, atol=1e-6)
    assert torch.allclose(free.depth[:, :3], tight.depth[:, :3], atol=1e-6)
    assert not torch.equal(free.depth[:, 4], tight.depth[:, 4])
