"""The bounded cache against a cache that concatenates, gathers and forgets nothing by accident."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from xsvggt_ros.kernels.packing import SCHEMES
from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout
from xsvggt_ros.kv_cache.policy import RetentionPolicy
from xsvggt_ros.kv_cache.retention import POLICIES

LAYOUT = CacheLayout(layers=3, heads=2, head_dim=8, tokens_per_step=12, special_tokens=5)


def make_cache(policy='xstream', budget=40, layout=LAYOUT, **settings):
    """Return a small cache for a network that computes in fp32."""
    config = CacheConfig(policy=policy, **{'pool_size': 4} | settings)
    return build_cache(layout, config, budget, torch.float32, 'cpu', config.quantization)


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


def consume(cache, steps, seed=0):
    """Feed random steps."""
    for _ in run(cache, steps, seed):
        pass


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


@pytest.mark.slow
@pytest.mark.parametrize('quantization', ['none', 'int8', 'int4'])
@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('policy', sorted(set(POLICIES) - {'full', 'lingbot'}))
def test_budget_holds_and_first_and_newest_frame_stay(policy, scheme, quantization):
    cache = make_cache(policy, budget=40, scheme=scheme, quantization=quantization)
    budget = {'frame_coverage': 36}.get(policy, 40)
    assert cache.budget == budget
    reserved = cache.bytes_reserved
    for step, _ in enumerate(run(cache, 20)):
        assert cache.tokens == min(budget, 12 * (step + 1))
        for ids in cache.kept_token_ids():
            assert len(ids) == cache.tokens == len(ids.unique())
            assert set(range(12)) <= set(ids.tolist())
            if cache.policy.protects_newest:
                assert set(range(12 * step, 12 * (step + 1))) <= set(ids.tolist())
        assert cache.bytes_used <= cache.bytes_reserved == reserved
    assert cache.evicted_last == 12
    assert cache.evicted_total == 20 * 12 - budget


def test_memory_is_not_reallocated():
    cache = make_cache()
    before = cache.store.keys.data_ptr(), cache.store.values.data_ptr()
    consume(cache, 10)
    assert (cache.store.keys.data_ptr(), cache.store.values.data_ptr()) == before


def test_budget_below_two_frames_keeps_exactly_two_frames():
    cache = make_cache(budget=5)
    assert cache.budget == 24
    consume(cache, 5)
    for ids in cache.kept_token_ids():
        assert ids.tolist() == [*range(12), *range(48, 60)]


LIMITS = {5: 24, 8: 60, 12: 30, 14: None, 18: 1}  # what is asked before a step; the budget is 76


@pytest.mark.slow
@pytest.mark.parametrize('quantization, scheme', [('none', 'token'), ('int8', 'token'),
                                                  ('int8', 'kcvt')])
@pytest.mark.parametrize('policy', sorted(set(POLICIES) - {'full', 'lingbot'}))
def test_a_limit_shrinks_the_history_and_lets_it_grow_again(policy, quantization, scheme):
    cache = make_cache(policy, budget=76, quantization=quantization, scheme=scheme)
    reserved, step = cache.bytes_reserved, LAYOUT.tokens_per_step
    budget, limit = cache.budget, cache.budget
    history = torch.empty(2, LAYOUT.layers, LAYOUT.heads, 0, LAYOUT.head_dim)
    kept = [torch.empty(0, dtype=torch.int64)] * LAYOUT.layers
    generator = torch.Generator().manual_seed(0)
    # In int8 half a step is 1/510 of a block's range, which is up to 8 for keys and values.
    close = {'none': 1e-5, 'int8': 0.05}[quantization]
    for number in range(22):
        if number in LIMITS:
            cache.limit_tokens(LIMITS[number])
            limit = min(budget, cache.policy.fit_budget(LIMITS[number] or budget))
        before = cache.tokens
        q, k, v = make_step(generator)
        history = torch.cat([history, torch.stack([k, v])], dim=3)
        new = torch.arange(number * step, (number + 1) * step)
        for i in range(LAYOUT.layers):
            ids = torch.cat([kept[i], new])
            expected = scaled_dot_product_attention(q[i], *history[:, i][:, :, ids])
            torch.testing.assert_close(
                cache.attend(i, q[i], k[i], v[i]), expected, atol=close, rtol=close)
        cache.end_step()
        kept = cache.kept_token_ids()
        assert cache.tokens == min(before + step, limit) == len(kept[0])
        newest = new if cache.policy.protects_newest else new[:0]
        for ids in kept:
            assert {*range(step), *newest.tolist()} <= set(ids.tolist())
    assert cache.bytes_reserved == reserved
    assert limit == 2 * step


def test_a_limit_above_the_budget_is_the_budget_and_no_budget_takes_none():
    cache = make_cache(budget=40)
    cache.limit_tokens(1000)
    assert cache.limit == 40
    unlimited = make_cache('full')
    unlimited.limit_tokens(24)
    consume(unlimited, 4)
    assert unlimited.limit is None and unlimited.tokens == 48


def test_sliding_window_keeps_the_newest():
    cache = make_cache('sliding_window', budget=40)
    consume(cache, 6)
    for ids in cache.kept_token_ids():
        assert ids.tolist() == [*range(12), *range(72 - 28, 72)]


def test_full_grows_and_forgets_nothing():
    cache = make_cache('full', budget=24)
    consume(cache, 30)
    assert cache.budget is None
    assert [ids.tolist() for ids in cache.kept_token_ids()] == [list(range(360))] * 3
    assert cache.bytes_used <= cache.bytes_reserved


def test_layers_choose_for_themselves():
    cache = make_cache()
    consume(cache, 6)
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
    pointer = cache.store.keys.data_ptr()
    cache.reset()
    assert (cache.tokens, cache.steps, cache.evicted_total) == (0, 0, 0)
    assert [len(ids) for ids in cache.kept_token_ids()] == [0, 0, 0]
    again = [out for *_, out in run(cache, 6)]
    torch.testing.assert_close(again, first, atol=0, rtol=0)
    assert cache.store.keys.data_ptr() == pointer


def test_stored_in_half_precision_the_newest_frame_sees_itself_exactly():
    cache = make_cache(storage='bf16')
    q, k, v, out = next(run(cache, 1))
    expected = scaled_dot_product_attention(q[0], k[0], v[0])
    torch.testing.assert_close(out[0], expected, atol=1e-6, rtol=1e-5)
    assert make_cache().bytes_reserved > cache.bytes_reserved


def test_half_precision_history_is_close():
    exact, half = make_cache('sliding_window'), make_cache('sliding_window', storage='bf16')
    # Half a unit of bf16 is 2 ** -8 of a number, and values are up to 4; the sums are fp32.
    for (*_, expected), (*_, out) in zip(run(exact, 8), run(half, 8)):
        torch.testing.assert_close(out[0], expected[0], atol=2e-2, rtol=2e-2)


def test_a_new_policy_is_one_class_and_one_line(monkeypatch):
    class Oldest(RetentionPolicy):
        def rank(self, scores, token_ids):
            return -token_ids

    monkeypatch.setitem(POLICIES, 'oldest', Oldest)
    cache = make_cache('oldest')
    consume(cache, 6)
    for ids in cache.kept_token_ids():
        assert ids.tolist() == [*range(28), *range(60, 72)]


def test_random_can_be_repeated_by_its_seed():
    def kept(seed):
        cache = make_cache('random', seed=seed)
        consume(cache, 8)
        first = [ids.tolist() for ids in cache.kept_token_ids()]
        cache.reset()
        consume(cache, 8)
        assert first == [ids.tolist() for ids in cache.kept_token_ids()]
        return first

    assert kept(1) == kept(1) != kept(2)


def test_frame_coverage_drops_the_frame_the_others_make_up_for():
    """Frames 1 and 3 nearly repeat frame 2's and frame 4's keys; whole frames leave."""
    cache = make_cache('frame_coverage', budget=48)
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, LAYOUT.layers, LAYOUT.heads, 1, LAYOUT.head_dim, generator=generator)
    looks = [0, 1, 1, 2, 3, 3, 4]  # which base each frame looks like
    kept = []
    for look in looks:
        q, k, v = make_step(generator)
        k = base[look] + 0.05 * k
        for i in range(LAYOUT.layers):
            cache.attend(i, q[i], k[i], v[i])
        cache.end_step()
        kept.append([sorted({t // 12 for t in ids.tolist()}) for ids in cache.kept_token_ids()])
    for frames in kept[-1]:
        assert len(frames) == 4 and 0 in frames and 6 in frames
    for frames in kept[4]:  # five frames seen, room for four: one of the twins 1 and 2 has left
        assert len({1, 2} & set(frames)) == 1 and {0, 3, 4} <= set(frames)
    for before, frames in zip(kept[4], kept[5]):  # then one of the twins 4 and 5; 5 is the newest
        assert frames == sorted({*before, 5} - {4})


@pytest.mark.parametrize('policy', sorted(set(POLICIES) - {'full'}))
def test_reserved_bytes_are_all_tensors_there_are(policy):
    """The ceiling is worth something only if nothing is left out."""
    def tensors(thing, seen):
        if isinstance(thing, torch.Tensor):
            seen.setdefault(thing.untyped_storage().data_ptr(), thing.nbytes)
        elif isinstance(thing, (list, tuple)):
            for part in thing:
                tensors(part, seen)
        elif isinstance(thing, dict) or hasattr(thing, '__dict__'):
            for part in (thing if isinstance(thing, dict) else vars(thing)).values():
                tensors(part, seen)
        return seen

    for quantization in ('none', 'int4'):
        cache = make_cache(policy, quantization=quantization)
        consume(cache, 8)
        found = sum(tensors(cache, {}).values())
        assert cache.bytes_reserved >= 0.97 * found
        assert cache.bytes_reserved <= found + 4096


def test_single_tokens_are_no_frames():
    layout = CacheLayout(layers=2, heads=2, head_dim=8, tokens_per_step=1, special_tokens=1)
    cache = make_cache('frame_coverage', budget=10, layout=layout)
    consume(cache, 30)
    assert type(cache.policy) is POLICIES['xstream']
    assert cache.tokens == 10


class OperatorNames(TorchDispatchMode):
    """Note the name of every operator that runs."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize('quantization', ['none', 'int4'])
@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('policy', sorted(POLICIES))
def test_a_step_reads_nothing_back_to_the_host(policy, scheme, quantization):
    """What reads a value stalls a GPU; and each step runs the very same operators."""
    cache = make_cache(policy, scheme=scheme, quantization=quantization)
    consume(cache, 7)
    steps = []
    for seed in (1, 2):
        with OperatorNames() as operators:
            consume(cache, 1, seed)
        steps.append(operators.names)
    assert 'index_copy_' in steps[0]
    waiting = {'_local_scalar_dense', 'nonzero', 'is_nonzero', 'equal', 'masked_select',
               '_unique2', 'item'}
    assert not waiting & set(steps[0])
    assert policy == 'full' or steps[0] == steps[1]


def test_health_counts_what_is_left():
    cache = make_cache('sliding_window', budget=40)
    consume(cache, 2)
    health = cache.health()
    assert (health.first_tokens, health.newest_tokens, health.history_tokens) == (12, 12, 0)
    assert health.attention_kept == 1 and health.steps == 2
    consume(cache, 8)
    health = cache.health()
    assert (health.first_tokens, health.newest_tokens, health.history_tokens) == (12, 12, 16)
    assert health.steps == 4  # the first, the newest, the one before and a third of another
    assert 0 < health.attention_kept < 1


def test_attention_kept_is_the_share_of_the_newest_steps_attention():
    """Against softmax attention of the pooled query over everything that could be kept."""
    cache = make_cache('sliding_window', budget=40, pool_size=1, layout=LAYOUT)
    keys = torch.empty(LAYOUT.layers, LAYOUT.heads, 0, LAYOUT.head_dim)
    before = [torch.empty(0, dtype=torch.int64)] * LAYOUT.layers
    for q, k, _, _ in run(cache, 6):
        candidates = [torch.cat([ids, torch.arange(keys.shape[2], keys.shape[2] + 12)])
                      for ids in before]
        keys = torch.cat([keys, k], dim=2)
        before = cache.kept_token_ids()
    shares = []
    for i in range(LAYOUT.layers):
        pooled = q[i].mean(dim=1)  # pools of one: every query counts alike
        logits = (keys[i][:, candidates[i]] @ pooled[:, :, None])[..., 0] * 8 ** -0.5
        stays = torch.isin(candidates[i], before[i])
        shares.append(logits.softmax(1).mean(0)[stays].sum().item())
    assert cache.health().attention_kept == pytest.approx(sum(shares) / 3, abs=1e-5)


@pytest.mark.parametrize('settings, word', [
    ({'policy': 'nonsense'}, 'xstream'),
    ({'max_tokens': 0}, 'max_tokens'),
    ({'camera_max_tokens': -1}, 'camera_max_tokens'),
    ({'pool_size': 0}, 'pool_size'),
    ({'pool_size': None}, 'pool_size'),
    ({'max_tokens': 60.0}, 'max_tokens'),
    ({'quantization': 'int3'}, 'int4'),
    ({'scheme': 'kivi'}, 'kcvt'),
    ({'memory_budget_mb': 0.0}, 'memory_budget_mb'),
    ({'storage': 'fp8'}, 'bf16'),
])
def test_wrong_settings_are_named(settings, word):
    with pytest.raises(ValueError, match=word):
        CacheConfig(**settings)


@pytest.mark.wrong_shapes
@pytest.mark.parametrize('wrong', [(1, 4, 8), (2, 5, 8), (2, 4, 16)])
@pytest.mark.parametrize('part', range(3))
def test_what_has_another_shape_is_refused_and_changes_nothing(wrong, part):
    layout = CacheLayout(layers=1, heads=2, head_dim=8, tokens_per_step=4, special_tokens=1)
    cache = build_cache(layout, CacheConfig(policy='full'), None, torch.float32, 'cpu', 'none')
    tensors = [torch.ones(2, 4, 8) for _ in range(3)]
    cache.attend(0, *tensors)
    cache.end_step()
    tensors[part] = torch.zeros(wrong)
    for attend in (cache.attend, cache.attend_readonly):
        with pytest.raises(ValueError, match=r'\[2, 4, 8\]|\[2, 5, 8\]'):
            attend(0, *tensors)
    assert cache.tokens == 4
    assert torch.equal(cache.attend(0, *[torch.ones(2, 4, 8)] * 3), torch.ones(2, 4, 8))
