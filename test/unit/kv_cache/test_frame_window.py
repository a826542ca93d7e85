"""The retention of LingBot-Map inside the cache: what is kept, seen, bounded and undone."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout
from xsvggt_ros.kv_cache.frame_window import FrameWindow, WINDOW
from xsvggt_ros.kv_cache.read_only import ReadOnlyCache

STEP, SPECIAL = 12, 3
LAYOUT = CacheLayout(layers=2, heads=2, head_dim=8, tokens_per_step=STEP, special_tokens=SPECIAL)
STORES = [('none', 'token'), ('int8', 'token'), ('int4', 'token'), ('int8', 'kcvt'),
          ('int4', 'kcvt')]
# Half a step is 1/510 or 1/30 of a block's range, which is up to 8 for keys and values.
CLOSE = {'none': 1e-5, 'int8': 0.05, 'int4': 0.4}


def make_cache(budget=65, quantization='none', scheme='token'):
    config = CacheConfig(policy='lingbot', quantization=quantization, scheme=scheme)
    return build_cache(LAYOUT, config, budget, torch.float32, 'cpu', quantization)


def make_step(generator):
    return torch.randn(3, LAYOUT.layers, LAYOUT.heads, STEP, LAYOUT.head_dim, generator=generator)


def attend(memory, step):
    return torch.stack([memory.attend(i, *step[:, i]) for i in range(LAYOUT.layers)])


def frames(numbers, tokens=range(STEP)):
    return [STEP * number + token for number in numbers for token in tokens]


def ids_of(cache):
    kept = cache.kept_token_ids()
    assert all(torch.equal(kept[0], ids) for ids in kept)
    assert len(kept[0]) == cache.tokens
    return kept[0].tolist()


def expected_ids(steps, whole, old):
    """Return what is left of a stream: the first frame, a window, and special tokens."""
    window = range(max(1, steps - whole + 1), steps)
    before = range(max(1, window.start - old), window.start)
    return frames([0]) + frames(before, range(SPECIAL)) + frames(window)


@pytest.mark.parametrize('quantization, scheme', STORES)
def test_first_frame_window_and_special_tokens_stay_within_the_budget(quantization, scheme):
    cache = make_cache(quantization=quantization, scheme=scheme)
    whole, old = cache.policy.frames_of(cache.budget)
    assert (whole, old) == (4, 4) and cache.budget == 4 * STEP + 4 * SPECIAL <= 65
    reserved = cache.bytes_reserved
    generator, history = torch.Generator().manual_seed(0), []
    kept = []
    for number in range(20):
        step = make_step(generator)
        history.append(step[1:])
        past = torch.cat(history, dim=3)
        ids = kept + frames([number])
        out = attend(cache, step)
        for i in range(LAYOUT.layers):
            torch.testing.assert_close(
                out[i], scaled_dot_product_attention(step[0, i], *past[:, i][:, :, ids]),
                atol=CLOSE[quantization], rtol=0.05)
        cache.end_step()
        kept = ids_of(cache)
        assert kept == expected_ids(number + 1, whole, old), number
        assert cache.tokens <= cache.budget and cache.bytes_used <= cache.bytes_reserved
    assert cache.bytes_reserved == reserved
    assert cache.tokens == cache.budget and cache.evicted_last == STEP  # steady, for graphs


def test_the_published_rule_is_what_a_large_budget_gives():
    policy = FrameWindow(1005, 6, 16, scale_frames=8)
    # One frame less between frames than the next one sees with itself.
    assert policy.frames_of(policy.fit_budget(10 ** 6)) == (8 + WINDOW - 1, 1024)
    assert policy.fit_budget(10 ** 6) == 71 * 1005 + 6 * 1024
    assert policy.fit_budget(71 * 1005 + 6 * 1024 - 1) == 70 * 1005 + 6 * 1024
    for budget in (1, 2500, 7300, 30000):  # what a budget was rounded to stays what it is
        assert policy.fit_budget(policy.fit_budget(budget)) == policy.fit_budget(budget)


def test_two_frames_are_kept_whatever_the_budget():
    cache = make_cache(budget=1)
    generator = torch.Generator().manual_seed(0)
    for number in range(6):
        attend(cache, make_step(generator))
        cache.end_step()
    assert set(frames([0, 5])) <= set(ids_of(cache))


LIMITS = {6: 24, 9: 60, 13: 36, 15: None, 19: 1}  # what is asked before a step


@pytest.mark.slow
@pytest.mark.parametrize('quantization, scheme', STORES)
@pytest.mark.parametrize('more', (False, True))
def test_a_limit_shortens_the_window_and_lets_it_grow_again(quantization, scheme, more):
    cache = make_cache(90, quantization, scheme)
    generator, history, kept = torch.Generator().manual_seed(0), [], []
    limit = cache.budget
    for number in range(26):
        if number in LIMITS:
            cache.limit_tokens(LIMITS[number])
            limit = min(cache.budget, cache.policy.fit_budget(LIMITS[number] or cache.budget))
        step = make_step(generator)
        history.append(step[1:])
        past = torch.cat(history, dim=3)
        ids = kept + frames([number])
        out = attend(cache, step)
        for i in range(LAYOUT.layers):
            torch.testing.assert_close(
                out[i], scaled_dot_product_attention(step[0, i], *past[:, i][:, :, ids]),
                atol=CLOSE[quantization], rtol=0.05)
        before = cache.tokens + STEP
        cache.end_step(more=more and number % 2 == 0)
        kept = ids_of(cache)
        if not more:
            assert cache.tokens <= limit
        elif number % 2 == 0:
            assert before - cache.tokens <= STEP
        assert set(frames([0, number])) <= set(kept)
    assert cache.tokens <= limit


@pytest.mark.slow
@pytest.mark.parametrize('quantization, scheme', STORES)
def test_what_lingers_is_seen_until_the_next_frame_and_after_an_undone_one(quantization, scheme):
    cache, plain = (make_cache(quantization=quantization, scheme=scheme) for _ in range(2))
    generator, others = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    whole, old = cache.policy.frames_of(cache.budget)
    for number in range(16):
        step, look = make_step(generator), make_step(others)
        cache.mark()
        attend(cache, make_step(others))
        if number % 2:
            cache.end_step()
        cache.rewind()
        if number:
            seen = attend(ReadOnlyCache(cache), look)
            assert torch.equal(seen, attend(ReadOnlyCache(plain), look)), number
        for one in (cache, plain):
            one.mark()
            attend(one, step)
            one.end_step()
            one.keep()
        assert ids_of(cache) == expected_ids(number + 1, whole, old)
        visible = cache.visible_token_ids()[0].tolist()
        leaving = number - whole + 1  # the frame whose patches the next one takes the place of
        if leaving > 0:
            assert set(frames([leaving], range(SPECIAL, STEP))) <= set(visible)
        assert visible == plain.visible_token_ids()[0].tolist()
    assert cache.evicted_total == plain.evicted_total > 0


def test_single_tokens_keep_the_first_and_the_newest():
    layout = CacheLayout(layers=2, heads=2, head_dim=8, tokens_per_step=1, special_tokens=1)
    cache = build_cache(layout, CacheConfig(policy='lingbot'), 6, torch.float32, 'cpu', 'none')
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        for layer in range(2):
            cache.attend(layer, *torch.randn(3, 2, 1, 8, generator=generator))
        cache.end_step()
    assert cache.kept_token_ids()[0].tolist() == [0, 5, 6, 7, 8, 9]
