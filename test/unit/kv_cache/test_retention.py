"""The paper's policy against the reference's scores and kept sets."""

from golden_data import load_index, load_tensors
import pytest
import torch

from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout
from xsvggt_ros.kv_cache.retention import XStream

UNITS = load_tensors('units.safetensors')
CASES = list(enumerate(load_index()['units']['index']['prune']))


@pytest.mark.parametrize('i, case', CASES)
def test_scores_match_golden(i, case):
    if not case['pruned']:
        pytest.skip('this case prunes nothing, so it has no scores')
    q, k = UNITS[f'prune/{i}/q'][0], UNITS[f'prune/{i}/k'][0]
    new, total = case['n_new'], case['cache_tokens']
    policy = XStream(new, 5, case['pool'])
    scores = policy.score(policy.pooled_query(q), slice(None), k, k)[new:total - new]
    torch.testing.assert_close(scores, UNITS[f'prune/{i}/scores'], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('i, case', CASES)
def test_kept_sets_match_golden(i, case):
    """Bring a cache into the case's state, token by token where frames do not divide it."""
    q, k = UNITS[f'prune/{i}/q'][0], UNITS[f'prune/{i}/k'][0]
    new, total = case['n_new'], case['cache_tokens']
    policy = XStream(new, 5, case['pool'])
    count = total - case['kept']
    ids = torch.arange(total)
    # The case's middle need not be whole frames: number the tokens so that the newest frame is.
    steps = -(-total // new)
    ids[total - new:] = torch.arange((steps - 1) * new, steps * new)
    scores = policy.score(policy.pooled_query(q), slice(None), k, k)
    evicted = policy.evicted(scores[None], ids[None], steps, count)
    kept = sorted(set(range(total)) - set(evicted[0].tolist()))
    assert kept == UNITS[f'prune/{i}/keep'].tolist()


def test_the_cache_applies_the_policy_to_what_it_holds():
    """Whole frames through the cache: the golden case with 4 frames of 25 tokens, budget 80."""
    case = CASES[0][1]
    new, heads, dim = case['n_new'], case['heads'], case['head_dim']
    layout = CacheLayout(1, heads, dim, new, 5)
    cache = build_cache(
        layout, CacheConfig(policy='xstream', pool_size=case['pool']), case['budget'],
        torch.float32, 'cpu', 'none')
    q, k = UNITS['prune/0/q'][0], UNITS['prune/0/k'][0]
    for start in range(0, case['cache_tokens'], new):
        cache.attend(0, q, k[:, start:start + new], torch.zeros(heads, new, dim))
        cache.end_step()
    assert cache.kept_token_ids()[0].tolist() == UNITS['prune/0/keep'].tolist()
