"""What tokens are worth: scores by head, by the length of values, and in parts."""

import pytest
import torch

from xsvggt_ros.kv_cache.retention import POLICIES


def test_per_head_scores_do_not_mix_heads():
    """A key that opposite heads cancel out in the paper's score counts when heads keep apart."""
    direction = torch.eye(8)[0]
    query = torch.zeros(2, 6, 8)
    query[0], query[1] = direction, -direction
    wanted = 2  # this token's keys agree with their own head's queries
    keys = 0.01 * torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    keys[0, wanted], keys[1, wanted] = 9 * direction, -9 * direction
    per_head = POLICIES['xstream_per_head'](6, 5, 4)
    scores = per_head.score(per_head.pooled_query(query), slice(0, 2), keys, keys)
    assert scores.argmax() == wanted
    paper = POLICIES['xstream'](6, 5, 4)
    scores = paper.score(paper.pooled_query(query), slice(0, 2), keys, keys)
    assert scores[wanted].abs() < 1e-6


def test_value_aware_keeps_attended_tokens_with_long_values():
    policy = POLICIES['value_aware'](6, 5, 4)
    query = torch.ones(1, 6, 4)
    keys, values = torch.zeros(1, 8, 4), torch.ones(1, 8, 4)
    keys[0, 3] = 2.0
    values[0, 5] = 50.0
    values[0, 6] = 0.0
    scores = policy.score(policy.pooled_query(query), slice(0, 1), keys, values)
    assert scores.argsort(descending=True)[:2].tolist() in ([3, 5], [5, 3])
    assert scores[6] == 0


@pytest.mark.parametrize('policy', ['xstream', 'xstream_per_head', 'value_aware'])
def test_scores_of_head_parts_add_up(policy):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(4, 12, 8, generator=generator) for _ in range(3))
    rule = POLICIES[policy](12, 5, 4)
    pooled = rule.pooled_query(q)
    whole = rule.score(pooled, slice(0, 4), k, v)
    parts = sum(rule.score(pooled, slice(h, h + 1), k[h:h + 1], v[h:h + 1]) for h in range(4))
    torch.testing.assert_close(parts, whole)
