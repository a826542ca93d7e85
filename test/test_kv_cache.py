"""The bounded cache against a cache that concatenates, gathers and forgets nothing by accident."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from xsvggt_ros.kv_cache.cache import KVCache
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout
from xsvggt_ros.kv_cache.retention import POLICIES, RetentionPolicy

LAYOUT = CacheLayout(layers=3, heads=2, head_dim=8, tokens_per_step=12, special_tokens=5)


def make_cache(policy='xstream', budget=40, layout=LAYOUT, dtype=torch.float32):
    rule = POLICIES[policy](layout.tokens_per_step, layout.special_tokens, 4)
    return KVCache(layout, rule, budget, dtype, 'cpu')


def make_step(generator, layout=LAYOUT):
    shape = (3, layout.layers, layout.heads, layout.tokens_per_step, layout.head_dim)
    return torch.randn(shape, generator=generator)


def run(cache, steps, seed=0):
    """Feed random steps; yield the step's q, k, v and the attention of every layer."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        q, k, v = make_step(generator, cache.layout)
        out = [cache.attend(i, q[i], k[i], v[i]) for i in range(cache.layout.layers)]
        cache.end_step()
        yield q, k, v, out


@pytest.mark.parametrize('policy', sorted(POLICIES))
def test_attention_equals_attention_over_the_kept_tokens(policy):
    cache = make_cache(policy)
    history_k = torch.empty(LAYOUT.layers, LAYOUT.heads, 0, LAYOUT.head_dim)
    history_v = history_k.clone()
    kept = [torch.empty(0, dtype=torch.int64)] * LAYOUT.layers
    for q, k, v, out in run(cache, 9):
        history_k = torch.cat([history_k, k], dim=2)
        history_v = torch.cat([history_v, v], dim=2)
        new = torch.arange(history_k.shape[2] - LAYOUT.tokens_per_step, history_k.shape[2])
        for i in range(LAYOUT.layers):
            ids = torch.cat([kept[i], new])
            expected = scaled_dot_product_attention(
                q[i], history_k[i][:, ids], history_v[i][:, ids])
            torch.testing.assert_close(out[i], expected, atol=1e-5, rtol=1e-5)
        kept = cache.kept_token_ids()


@pytest.mark.parametrize('policy', ['xstream', 'sliding_window'])
def test_budget_holds_and_first_and_newest_frame_stay(policy):
    cache = make_cache(policy, budget=40)
    reserved = cache.bytes_reserved
    for step, _ in enumerate(run(cache, 20)):
        assert cache.tokens == min(40, 12 * (step + 1))
        for ids in cache.kept_token_ids():
            assert len(ids) == cache.tokens == len(ids.unique())
            assert set(range(12)) <= set(ids.tolist())
            assert set(range(12 * step, 12 * (step + 1))) <= set(ids.tolist())
        assert cache.bytes_reserved == reserved
    assert cache.evicted_last == 12
    assert cache.evicted_total == 20 * 12 - 40


def test_memory_is_not_reallocated():
    cache = make_cache()
    before = cache._store.keys.data_ptr(), cache._store.values.data_ptr()
    for _ in run(cache, 10):
        pass
    assert (cache._store.keys.data_ptr(), cache._store.values.data_ptr()) == before


def test_budget_below_two_frames_keeps_exactly_two_frames():
    cache = make_cache(budget=5)
    assert cache.budget == 24
    for _ in run(cache, 5):
        pass
    for ids in cache.kept_token_ids():
        assert ids.tolist() == [*range(12), *range(48, 60)]


def test_sliding_window_keeps_the_newest():
    cache = make_cache('sliding_window', budget=40)
    for _ in run(cache, 6):
        pass
    for ids in cache.kept_token_ids():
        assert ids.tolist() == [*range(12), *range(72 - 28, 72)]


def test_full_grows_and_forgets_nothing():
    cache = make_cache('full', budget=24)
    for _ in run(cache, 30):
        pass
    assert cache.budget is None
    assert [ids.tolist() for ids in cache.kept_token_ids()] == [list(range(360))] * 3
    assert cache.bytes_used <= cache.bytes_reserved


def test_layers_choose_for_themselves():
    cache = make_cache()
    for _ in run(cache, 6):
        pass
    first, second, _ = (ids.tolist() for ids in cache.kept_token_ids())
    assert first != second


def test_ties_keep_the_older_token():
    cache = make_cache(budget=30)
    generator = torch.Generator().manual_seed(0)
    q, k, v = make_step(generator)
    for _ in range(6):  # identical frames: every score ties with its copies
        for i in range(LAYOUT.layers):
            cache.attend(i, q[i], k[i], v[i])
        cache.end_step()
    for ids in cache.kept_token_ids():
        middle = [i for i in ids.tolist() if 12 <= i < 60]
        best = {i % 12 for i in middle}
        assert len(middle) == 6
        assert all(12 + i in middle for i in best), 'a younger copy was kept before the oldest'


def test_a_step_that_fails_leaves_the_memory_as_it_was():
    good, broken = make_cache(), make_cache()
    broken_run = run(broken, 6)
    for step, (_, _, _, expected) in enumerate(run(good, 6)):
        if step == 4:  # a step that stops after two of three layers
            q, k, v = make_step(torch.Generator().manual_seed(99))
            for i in range(2):
                broken.attend(i, q[i], k[i], v[i])
        *_, out = next(broken_run)
        for a, b in zip(out, expected):
            torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_reset_forgets_everything_and_keeps_the_memory():
    cache = make_cache()
    first = [out for *_, out in run(cache, 6)]
    pointer = cache._store.keys.data_ptr()
    cache.reset()
    assert (cache.tokens, cache.steps, cache.evicted_total) == (0, 0, 0)
    assert [len(ids) for ids in cache.kept_token_ids()] == [0, 0, 0]
    again = [out for *_, out in run(cache, 6)]
    torch.testing.assert_close(again, first, atol=0, rtol=0)
    assert cache._store.keys.data_ptr() == pointer


def test_stored_in_half_precision_the_newest_frame_sees_itself_exactly():
    cache = make_cache(dtype=torch.bfloat16)
    q, k, v, out = next(run(cache, 1))
    expected = scaled_dot_product_attention(q[0], k[0], v[0])
    torch.testing.assert_close(out[0], expected, atol=1e-6, rtol=1e-5)
    assert make_cache().bytes_reserved > cache.bytes_reserved


def test_half_precision_history_is_close():
    exact, half = make_cache('sliding_window'), make_cache('sliding_window', dtype=torch.bfloat16)
    for (*_, expected), (*_, out) in zip(run(exact, 8), run(half, 8)):
        torch.testing.assert_close(out[0], expected[0], atol=2e-2, rtol=2e-2)


def test_a_new_policy_is_one_class():
    class Oldest(RetentionPolicy):
        def rank(self, scores, token_ids):
            return -token_ids

    cache = KVCache(LAYOUT, Oldest(12, 5, 4), 40, torch.float32, 'cpu')
    for _ in run(cache, 6):
        pass
    for ids in cache.kept_token_ids():
        assert ids.tolist() == [*range(28), *range(60, 72)]


@pytest.mark.parametrize('settings, word', [
    ({'policy': 'nonsense'}, 'xstream'),
    ({'max_tokens': 0}, 'max_tokens'),
    ({'camera_max_tokens': -1}, 'camera_max_tokens'),
    ({'pool_size': 0}, 'pool_size'),
    ({'quantization': 'int3'}, 'none'),
    ({'storage': 'fp8'}, 'bf16'),
])
def test_wrong_settings_are_named(settings, word):
    with pytest.raises(ValueError, match=word):
        CacheConfig(**settings)
