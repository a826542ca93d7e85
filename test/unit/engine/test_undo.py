"""Frames that are undone: the caches are bit for bit as before, whatever was done to them."""

from dataclasses import replace
from itertools import count

import pytest
from tiny_stream import CASE, make_engine, make_model, NETWORKS
import torch

from xsvggt_ros.engine.frame_result import ResultError
from xsvggt_ros.kv_cache.dense_store import DenseStore
from xsvggt_ros.kv_cache.retention import POLICIES

STORES = [('none', 'token', 'fp32'), ('none', 'token', 'fp16'), ('int4', 'token', 'fp32'),
          ('int8', 'kcvt', 'fp32')]
FRAMES = [CASE.rgb(index % len(CASE.frames)) for index in range(9)]


@pytest.fixture(params=NETWORKS)
def model(request):
    return make_model(request.param)


def remembered(cache):
    """Return all that a cache remembers, and all that decides what it will forget."""
    ids = cache.token_ids
    state = [ids[:, :cache.budget].clone() if cache.budget else ids[:, :cache.tokens].clone(),
             cache._next_slots.clone(), cache.scores.kept.clone(),
             torch.tensor([cache.steps, cache.tokens, cache.evicted_last, cache.evicted_total])]
    for layer in range(len(ids)):
        slots = (ids[layer] >= 0).nonzero()[:, 0].expand(len(ids), -1)
        for part in cache.store.save(slots):
            if isinstance(cache.store, DenseStore):    # keys and values in one
                part = part.transpose(0, 1)
            state.append(part[layer].clone())
    if getattr(cache.policy, '_frame', None) is not None:
        described = cache.policy._described.clone()
        described[cache.policy._frame < 0] = 0
        state += [cache.policy._frame.clone(), described]
    if getattr(cache.policy, '_generator', None) is not None:
        state.append(cache.policy._generator.get_state())
    return state


def memory(engine):
    return remembered(engine.caches.tokens) + remembered(engine.caches.camera)


def assert_same(state, expected):
    assert len(state) == len(expected)
    for index, (one, other) in enumerate(zip(state, expected)):
        assert torch.equal(one, other), index


@pytest.mark.slow
@pytest.mark.parametrize('quantization, scheme, storage', STORES)
@pytest.mark.parametrize('policy', sorted(POLICIES))
def test_frames_that_are_undone_leave_every_bit(model, policy, quantization, scheme, storage):
    settings = {'policy': policy, 'quantization': quantization, 'scheme': scheme,
                'storage': storage}
    engine, undisturbed = make_engine(model, **settings), make_engine(model, **settings)
    engine.want_points(False), undisturbed.want_points(False)
    for index, frame in enumerate(FRAMES):
        if index in (0, 1, 2, 5, 8):
            before = memory(engine) if index else None
            for trial in ([(255 - frame, False)],
                          [(frame // 2, False), (255 - frame, True), (frame // 3, True)]):
                for image, joins in trial:
                    engine.step(image, joins=joins)
                engine.discard_frame()
                assert engine.frames == index
                if before is not None:
                    assert_same(memory(engine), before)
        result, expected = engine.step(frame), undisturbed.step(frame)
        assert torch.equal(result.depth, expected.depth)
        assert torch.equal(result.pose_encoding, expected.pose_encoding)
        engine.finish_frame(), undisturbed.finish_frame()
    assert_same(memory(engine), memory(undisturbed))


@pytest.mark.slow
@pytest.mark.parametrize('tracking_size', [None, 28])
@pytest.mark.parametrize('policy', ['xstream', 'frame_coverage', 'lingbot'])
def test_a_frame_that_is_not_remembered_is_undone_in_the_camera_head_too(
        model, policy, tracking_size):
    settings = {'policy': policy, 'image_size': 56, 'tracking_size': tracking_size}
    engine, undisturbed = make_engine(model, **settings), make_engine(model, **settings)
    for index, frame in enumerate(FRAMES):
        engine.step(255 - frame, remember=False)
        engine.discard_frame()
        one, other = (each.step(frame, remember=index % 2 == 0) for each in (engine, undisturbed))
        assert torch.equal(one.pose_encoding, other.pose_encoding)
        assert torch.equal(one.depth, other.depth)
        engine.finish_frame(), undisturbed.finish_frame()
        assert engine.cache_stats() == undisturbed.cache_stats()


@pytest.mark.slow
def test_a_limit_that_is_lowered_within_a_set_can_be_undone(model):
    engine, undisturbed = (make_engine(model, max_tokens=100) for _ in range(2))
    for frame in FRAMES:
        for each in (engine, undisturbed):
            each.step(frame)
            each.finish_frame()
    before = memory(engine)
    engine.limit_tokens(45)
    engine.step(FRAMES[0])
    engine.step(FRAMES[1], joins=True)
    engine.discard_frame()
    assert_same(memory(engine), before)
    engine.limit_tokens(45), undisturbed.limit_tokens(45)
    for frame in FRAMES:
        for each in (engine, undisturbed):
            each.step(frame)
            each.finish_frame()
        assert_same(memory(engine), memory(undisturbed))


def test_what_is_finished_stays_and_there_is_nothing_to_undo(model):
    engine = make_engine(model)
    engine.discard_frame()
    engine.step(FRAMES[0])
    engine.finish_frame()
    engine.discard_frame()
    assert engine.frames == 1 and engine.cache_stats().tokens_per_layer[0] > 0


# What is found out about the frame ---------------------------------------------------------------

def spoil(monkeypatch, cache, layer, part, value):
    """Have one number of a step's key or value be another."""
    attend = cache.attend

    def attend_spoiled(number, *parts):
        if number == layer:
            monkeypatch.undo()
            parts = [x.clone() for x in parts]
            parts[part].view(-1)[7] = value
        return attend(number, *parts)

    monkeypatch.setattr(cache, 'attend', attend_spoiled)


@pytest.mark.slow
@pytest.mark.parametrize('layer, value', [(0, torch.inf), (3, torch.nan), (3, -torch.inf)])
@pytest.mark.parametrize('part', [1, 2], ids=['key', 'value'])
@pytest.mark.parametrize('quantization, scheme, storage', STORES)
def test_one_bad_number_is_noticed_and_never_kept(
        model, monkeypatch, quantization, scheme, storage, layer, part, value):
    settings = {'quantization': quantization, 'scheme': scheme, 'storage': storage}
    engine, undisturbed = make_engine(model, **settings), make_engine(model, **settings)
    for index, frame in enumerate(FRAMES[:7]):
        if index in (1, 5):
            before = memory(engine)
            spoil(monkeypatch, engine.caches.tokens, layer, part, value)
            result = engine.step(frame)
            monkeypatch.undo()
            with pytest.raises(ResultError):
                engine.accept([result])
            assert_same(memory(engine), before)
        result, expected = engine.step(frame), undisturbed.step(frame)
        engine.accept([result])
        assert torch.equal(result.depth, expected.depth)
        engine.finish_frame(), undisturbed.finish_frame()
    assert_same(memory(engine), memory(undisturbed))


@pytest.mark.slow
@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize('part', [1, 2], ids=['key', 'value'])
def test_a_bad_number_in_the_camera_heads_cache_is_never_kept(model, monkeypatch, part, value):
    engine, undisturbed = make_engine(model), make_engine(model)
    for index, frame in enumerate(FRAMES):
        # Later on, a key that nobody attends to would be evicted within its own frame.
        if index in (1, 8) and (index == 1 or value != -torch.inf):
            before = memory(engine)
            spoil(monkeypatch, engine.caches.camera, 0, part, value)
            with pytest.raises(ResultError):
                engine.accept([engine.step(frame)])
            monkeypatch.undo()
            assert_same(memory(engine), before)
        assert torch.equal(engine.step(frame).pose_encoding, undisturbed.step(frame).pose_encoding)
        engine.finish_frame(), undisturbed.finish_frame()


@pytest.mark.slow
@pytest.mark.parametrize('quantization, scheme, storage', STORES[1:])
@pytest.mark.parametrize('part', [1, 2], ids=['key', 'value'])
def test_what_is_too_large_for_its_16_bits_is_never_kept(
        model, monkeypatch, quantization, scheme, storage, part):
    engine = make_engine(model, quantization=quantization, scheme=scheme, storage=storage)
    for index, frame in enumerate(FRAMES[:5]):
        if index in (2, 4):
            before = memory(engine)
            spoil(monkeypatch, engine.caches.tokens, 1, part, 1e9)
            with pytest.raises(ResultError):
                engine.accept([engine.step(frame)])
            monkeypatch.undo()
            assert_same(memory(engine), before)
        engine.accept([engine.step(frame)])
        engine.finish_frame()


@pytest.mark.slow
def test_a_bad_frame_of_a_set_takes_the_others_with_it(model):
    engine, undisturbed = make_engine(model), make_engine(model)
    for index, frame in enumerate(FRAMES):
        if index % 3 == 1:
            before = memory(engine)
            results = [engine.step(frame), engine.step(255 - frame, joins=True)]
            results[0] = replace(results[0], depth=results[0].depth * torch.nan)
            with pytest.raises(ResultError, match='depth'):
                engine.accept(results)
            assert engine.frames == 2 * index
            assert_same(memory(engine), before)
        for each in (engine, undisturbed):
            results = [each.step(frame), each.step(255 - frame, joins=True)]
            each.accept(results)
            each.finish_frame()
        assert_same(memory(engine), memory(undisturbed))


# What fails --------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize('policy, quantization', [
    ('xstream', 'int4'), ('frame_coverage', 'none'), ('random', 'none')])
@pytest.mark.parametrize('when', ['before', 'after'])
@pytest.mark.parametrize('which', ['tokens', 'camera'])
def test_an_eviction_that_fails_loses_nothing(
        model, monkeypatch, policy, quantization, which, when):
    settings = {'policy': policy, 'quantization': quantization}
    engine, undisturbed = make_engine(model, **settings), make_engine(model, **settings)
    for index, frame in enumerate(FRAMES):
        if index in (1, 7):
            before, cache = memory(engine), getattr(engine.caches, which)
            free, calls = cache._free_slots, count()
            last = 0 if engine.caches.camera_follows else 2  # a frame's steps count from 0

            def fail(*arguments):
                failing = which == 'tokens' or next(calls) == last
                slots = None if failing and when == 'before' else free(*arguments)
                if failing:
                    raise MemoryError
                return slots

            with monkeypatch.context() as patch, pytest.raises(MemoryError):
                patch.setattr(cache, '_free_slots', fail)
                engine.step(frame)
                engine.finish_frame()
            assert engine.frames == index
            assert_same(memory(engine), before)
        for each in (engine, undisturbed):
            each.step(frame)
            each.finish_frame()
    assert_same(memory(engine), memory(undisturbed))


def test_what_cannot_be_undone_begins_a_new_stream(model, monkeypatch):
    engine = make_engine(model)
    first = engine.step(FRAMES[0])
    engine.step(FRAMES[1])
    monkeypatch.setattr(engine.caches.camera, 'rewind', lambda: 1 / 0)
    engine.discard_frame()
    assert engine.frames == 0
    assert torch.equal(engine.step(FRAMES[0]).depth, first.depth)


def test_a_reset_that_fails_leaves_no_half_stream(model, monkeypatch):
    engine = make_engine(model)
    first = engine.step(FRAMES[0])
    monkeypatch.setattr(engine.caches.camera, 'reset', lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.reset()
    assert engine.frames == 0
    assert torch.equal(engine.step(FRAMES[0]).depth, first.depth)
