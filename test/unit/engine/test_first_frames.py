"""A stream that begins with several frames, which the network sees together."""

from dataclasses import replace

from golden_data import excess
import lingbot_golden
import pytest
from tiny_stream import make_model
import torch

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.errors import FrameError
from xsvggt_ros.engine.first_frames import grouped
from xsvggt_ros.engine.frame_result import ResultError
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kv_cache.config import CacheConfig

CASE = lingbot_golden.load_case('lb_tiny_h1')
FRAMES = [CASE.rgb(index) for index in range(len(CASE.frames))]
FIRST = 3  # as in the golden data
TOKENS = 22  # of a frame


def make_engine(model=None, first_frames=FIRST, **cache):
    cache = {'policy': 'full', 'camera_max_tokens': None} | cache
    return StreamEngine(model or make_model('lingbot'), EngineConfig(
        CacheConfig(**cache), first_frames=first_frames))


def begin(engine, frames=FRAMES[:FIRST]):
    return engine.begin(frames, [None] * len(frames))


@pytest.mark.parametrize('mode, stride', [('stream', 1), ('kf2', 2)])
def test_the_engine_gives_the_published_stream(mode, stride):
    """Before anything is evicted: three frames together, a window of four."""
    engine = make_engine()
    results = []
    for group in grouped(FRAMES[:7], FIRST):
        if len(results) == 0:
            results += begin(engine, group)
        else:
            keyframe = engine.config.is_keyframe(len(results), stride)
            results.append(engine.step(group[0], remember=keyframe))
    assert [result.frame_index for result in results] == list(range(7))
    for index, result in enumerate(results):
        assert excess(result.depth[::4, ::4], CASE.tensors[f'{mode}/depth'][index]) < 1, index
        assert excess(result.camera_from_world.inverse()[:3, 3],
                      CASE.tensors[f'{mode}/pose_enc'][index, :3]) < 1, index
    engine.finish_frame()
    assert engine.caches.tokens.steps == (7 if stride == 1 else FIRST + 2)


@pytest.mark.slow
@pytest.mark.parametrize('policy, quantization, tokens', [
    ('lingbot', 'none', 5 * TOKENS + 12), ('frame_coverage', 'int4', 2 * TOKENS),
    ('xstream', 'int8', 4 * TOKENS)])
def test_all_of_them_are_undone_together(policy, quantization, tokens):
    """Also where the budget holds fewer than begin."""
    settings = {'policy': policy, 'quantization': quantization, 'max_tokens': tokens,
                'camera_max_tokens': 6}
    engine, undisturbed = (make_engine(first_frames=5, **settings) for _ in range(2))
    begin(engine, FRAMES[5:10])
    engine.discard_frame()
    assert engine.frames == 0 and engine.caches.tokens.tokens == 0
    for results in zip(begin(engine, FRAMES[:5]), begin(undisturbed, FRAMES[:5])):
        assert torch.equal(*(result.depth for result in results))
    for index in range(5, 14):
        one, other = (each.step(FRAMES[index]) for each in (engine, undisturbed))
        assert torch.equal(one.depth, other.depth), index
        assert torch.equal(one.pose_encoding, other.pose_encoding)
    for each in (engine, undisturbed):
        each.finish_frame()
        stats = each.cache_stats()
        assert stats.tokens_per_layer[0] <= stats.budget and stats.evicted_total > 0
    assert all(torch.equal(*ids) for ids in zip(
        engine.kept_token_ids(), undisturbed.kept_token_ids()))


def test_what_is_no_reconstruction_leaves_no_stream(monkeypatch):
    engine, undisturbed = make_engine(), make_engine()
    good = engine._model.first_frames

    def spoiled(images, memory):
        found = good(images, memory)
        return [*found[:-1], replace(found[-1], pose_encoding=torch.full((9,), torch.nan))]

    monkeypatch.setattr(engine._model, 'first_frames', spoiled)
    with pytest.raises(ResultError):
        engine.accept(begin(engine))
    assert engine.frames == 0
    monkeypatch.setattr(engine._model, 'first_frames', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        begin(engine)
    assert engine.frames == 0
    monkeypatch.undo()
    accepted = engine.accept(begin(engine))
    assert accepted.shape == (FIRST, 4, 4)
    assert (accepted == undisturbed.accept(begin(undisturbed))).all()


def test_keys_of_every_one_of_them_are_looked_at(monkeypatch):
    """Those of the first one, which the last one's are not: nothing not finite is kept."""
    engine = make_engine()
    good = engine._model.aggregator.special

    def spoiled(first, count, scale_frames):
        tokens = good(first, count, scale_frames).clone()
        tokens[0, 1] = torch.nan   # a register of the first frame
        return tokens

    monkeypatch.setattr(engine._model.aggregator, 'special', spoiled)
    results = begin(engine)
    stored = engine._progress.stored
    assert not torch.cat([part.flatten() for part in stored]).isfinite().all()
    with pytest.raises(ResultError):
        engine.accept(results)


def test_the_published_rule_keeps_all_of_them():
    engine = make_engine(policy='lingbot', max_tokens=5 * TOKENS + 12)
    begin(engine)
    for frame in FRAMES[3:12]:
        engine.step(frame)
    for ids in engine.kept_token_ids():
        assert ids[:FIRST * TOKENS].tolist() == list(range(FIRST * TOKENS))
        assert ids[-1] == 12 * TOKENS - 1


def test_fewer_begin_where_there_are_no_more():
    engine, other = make_engine(first_frames=8), make_engine(first_frames=8)
    begin(engine, FRAMES[:2])
    assert engine.frames == 2 and engine.step(FRAMES[2]).frame_index == 2
    one, = begin(other, FRAMES[:1])
    assert torch.equal(one.depth, make_engine(first_frames=8).step(FRAMES[0]).depth)


def test_what_cannot_begin_together_is_named():
    engine = make_engine()
    for frames, words in ((FRAMES[:4], 'up to 3 frames'), ([FRAMES[0], FRAMES[1][:28]], '56x28'),
                          ([], 'got 0')):
        with pytest.raises(FrameError, match=words):
            begin(engine, frames)
    assert engine.frames == 0
    begin(engine)
    with pytest.raises(FrameError, match='has had 3 frames'):
        begin(engine)
    assert engine.frames == FIRST
    engine.reset()
    assert len(begin(engine)) == FIRST


def test_a_network_that_sees_one_after_the_other_says_so():
    with pytest.raises(ValueError, match='first_frames is 8, .* set it to 1'):
        make_engine(make_model('streamvggt'), first_frames=8)
    with pytest.raises(ValueError, match='first_frames must be at least 1'):
        EngineConfig(first_frames=0)
    model = make_model('lingbot')
    make_engine(model, first_frames=8)
    assert 'poses begin with image 8' in model.beginning()
    make_engine(model, first_frames=1)  # the next engine has a choice of its own
    assert 'poses from the first image on' in model.beginning()


def test_which_frames_are_remembered():
    together, single = EngineConfig(first_frames=3), EngineConfig()
    assert [together.is_keyframe(number, 2) for number in range(7)] == [
        True, True, True, True, False, True, False]
    assert [single.is_keyframe(number, 3) for number in range(7)] == [
        True, False, False, True, False, False, True]
    assert [single.is_keyframe(number, 2, cameras=2) for number in range(6)] == [
        True, True, False, False, True, True]


def test_groups():
    assert list(grouped(range(5), 3)) == [[0, 1, 2], [3], [4]]
    assert list(grouped(range(2), 8)) == [[0, 1]]
    assert list(grouped([], 8)) == []
