"""The life of a stream: what goes in, what stays, and what happens when something goes wrong."""

from copy import deepcopy
import gc
import warnings
import weakref

from engine_frames import frames, WITH_POINTS
import numpy as np
import pytest
from tiny_stream import make_engine, make_model, NETWORKS
import torch

from xsvggt_ros.engine.errors import BudgetError, FrameError
from xsvggt_ros.mapping.point_cloud import (
    CloudOptions,
    pack_cloud,
)


@pytest.fixture(params=NETWORKS)
def model(request):
    return make_model(request.param)


def tokens_of(model):
    return model.config.special_tokens + 4 * 4


def test_a_stream_can_begin_again_and_gives_the_same(model):
    engine = make_engine(model)
    first = [engine.step(frame).depth for frame in frames()]
    reserved = engine.cache_stats().bytes_reserved
    engine.reset()
    assert engine.frames == 0
    assert engine.cache_stats().tokens_per_layer == (0,) * 4
    again = [engine.step(frame).depth for frame in frames()]
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    assert engine.cache_stats().bytes_reserved == reserved


def test_numpy_and_torch_frames_are_the_same(model):
    a, b = make_engine(model), make_engine(model)
    for frame in frames(3):
        torch.testing.assert_close(
            a.step(frame.numpy()).points, b.step(frame).points, rtol=0, atol=0)


def test_frames_that_may_not_be_written_are_taken_without_a_warning(model):
    frame = frames(1)[0].numpy()
    frame.flags.writeable = False
    warned_always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            make_engine(model).step(frame)
    finally:
        torch.set_warn_always(warned_always)


def test_results_do_not_share_the_callers_memory(model):
    frame = frames(1)[0].clone()
    result = make_engine(model).step(frame)
    before = frame.clone()
    frame.zero_()
    assert torch.equal(result.image, before)


def test_finishing_a_frame_early_or_late_is_the_same(model):
    a, b = make_engine(model), make_engine(model)
    for frame in frames():
        first = a.step(frame)
        a.finish_frame()
        a.finish_frame()
        torch.testing.assert_close(b.step(frame).depth, first.depth, rtol=0, atol=0)


@pytest.mark.slow
def test_no_frame_and_no_result_is_held(model):
    engine = make_engine(model)
    alive = []
    for frame in frames(4):
        frame = frame.clone()
        result = engine.step(frame)
        own = frame, result, result.depth, result.points, result.image
        alive += [weakref.ref(one) for one in own if one is not None]
        del frame, result, own
    gc.collect()
    assert [reference() for reference in alive] == [None] * len(alive)


@pytest.mark.slow
def test_the_number_of_live_tensors_does_not_grow(model):
    engine = make_engine(model)

    def live_tensors():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    counts = []
    for i in range(24):
        engine.step(frames()[i % 8])
        engine.finish_frame()
        if i >= 12:
            counts.append(live_tensors())
    assert len(set(counts)) == 1, counts


def test_statistics_tell_what_is_there(model):
    engine, tokens = make_engine(model, camera_max_tokens=12), tokens_of(model)
    of_camera = 1 if model.cache_layout(56, 56).camera_follows else 4  # tokens a frame
    assert engine.cache_stats().frames == 0
    for i, frame in enumerate(frames(5)):
        engine.step(frame)
        stats = engine.cache_stats()
        used = min(60, (i + 1) * tokens)
        assert stats.tokens_per_layer == (used,) * 4
        assert stats.tokens_per_frame == tokens
        assert stats.budget == 60 and stats.camera_budget == 12
        assert stats.occupancy == pytest.approx(used / 60)
        assert stats.camera_tokens == min(12, of_camera * (i + 1))
        assert stats.evicted_total == (i + 1) * tokens - used
        assert 0 < stats.bytes_used <= stats.bytes_reserved
        # 4 layers of 64 channels, keys and values; the camera head's single layer of 128, which
        # has a memory for each of its 4 iterations where a frame is one token
        camera = stats.camera_tokens * 128 * (4 // of_camera)
        assert stats.bytes_used == 4 * 2 * (used * 4 * 64 + camera)
    assert stats.evicted_this_frame == tokens


@WITH_POINTS
def test_without_points_the_rest_is_the_same(model):
    engine, plenty = make_engine(model), make_engine(model)
    for i, frame in enumerate(frames(6)):
        engine.want_points(i == 4)
        result, expected = engine.step(frame), plenty.step(frame)
        for name in ('depth', 'depth_confidence', 'pose_encoding'):
            assert torch.equal(getattr(result, name), getattr(expected, name))
        if i == 4:
            assert torch.equal(result.points, expected.points)
        else:
            assert result.points is None and result.points_confidence is None
            assert result.scaled(2.0).points is None
            assert pack_cloud(result, CloudOptions()).isfinite().any()


@pytest.mark.slow
def test_the_history_can_be_limited_while_the_stream_runs(model):
    engine, plenty = make_engine(model, max_tokens=80), make_engine(model, max_tokens=80)
    seen = []
    for i, frame in enumerate(2 * frames(6)):
        engine.limit_tokens({4: 50, 7: 1, 8: 70, 10: None}.get(i, engine._limit))
        depth, expected = engine.step(frame).depth, plenty.step(frame).depth
        assert torch.equal(depth, expected) == (i < 5)  # the frame under a new limit sees all
        engine.finish_frame()
        stats = engine.cache_stats()
        assert stats.budget == 80
        seen.append((stats.tokens_per_layer[0], stats.limit))
    tokens = tokens_of(model)
    two = 2 * tokens
    assert seen[3:] == [(80, 80), (50, 50), (50, 50), (50, 50), (two, two),
                        (min(two + tokens, 70), 70),
                        (70, 70), (80, 80), (80, 80)]
    engine.limit_tokens(50)
    engine.reset()
    for frame in frames(6):
        engine.step(frame)
    assert engine.cache_stats().tokens_per_layer[0] == 50
    with pytest.raises(ValueError, match='got 0'):
        engine.limit_tokens(0)


@pytest.mark.wrong_shapes
@pytest.mark.slow
@pytest.mark.parametrize('frame, word', [
    (np.zeros((56, 56, 3), np.float32), 'uint8'),
    (torch.zeros(56, 56, 3), 'uint8'),
    (np.zeros((56, 56), np.uint8), 'height, width, 3'),
    (np.zeros((56, 0, 3), np.uint8), 'height, width, 3'),
    (np.zeros((56, 70, 3), np.uint8), '70x56'),
])
def test_a_frame_that_does_not_fit_leaves_the_stream_alone(model, frame, word):
    engine, undisturbed = make_engine(model), make_engine(model)
    for i, good in enumerate(frames(5)):
        if i == 3:
            with pytest.raises(FrameError, match=word):
                engine.step(frame)
        torch.testing.assert_close(
            engine.step(good).depth, undisturbed.step(good).depth, rtol=0, atol=0)


def test_sides_must_be_whole_patches_without_an_image_size(model):
    with pytest.raises(FrameError, match='patch size 14'):
        make_engine(model).step(np.zeros((57, 56, 3), np.uint8))


def test_another_size_is_welcome_after_a_reset(model):
    engine = make_engine(model, image_size=56)
    engine.step(np.zeros((60, 80, 3), np.uint8))
    engine.reset()
    result = engine.step(np.zeros((90, 80, 3), np.uint8))
    assert result.depth.shape == (56, 56) and result.frame_index == 0


@pytest.mark.parametrize('size', [100, 0, -14])
def test_an_image_size_that_is_no_multiple_is_refused(model, size):
    with pytest.raises(ValueError, match='multiple of the patch size 14'):
        make_engine(model, image_size=size)


def test_running_out_of_memory_in_a_dense_head_loses_nothing(model, monkeypatch):
    engine, undisturbed = make_engine(model), make_engine(model)
    for i, frame in enumerate(frames()):
        if i == 5:
            with monkeypatch.context() as patch, pytest.raises(MemoryError):
                patch.setattr(model.dense_heads()[-1], 'forward', fail)
                engine.step(frame)
            assert engine.frames == 5
        torch.testing.assert_close(
            engine.step(frame).depth, undisturbed.step(frame).depth, rtol=0, atol=0)


@pytest.mark.slow
def test_a_failure_inside_the_camera_head_loses_nothing(model, monkeypatch):
    engine, undisturbed = make_engine(model), make_engine(model)
    branch = model.camera_head.pose_branch
    for index, frame in enumerate(2 * frames()):
        if index in (0, 3, 12):     # the cache of the camera head is full from the sixth on
            calls, forward = [], branch.forward
            with monkeypatch.context() as patch, pytest.raises(MemoryError):
                patch.setattr(branch, 'forward', lambda x: (
                    fail() if calls else calls.append(1), forward(x))[1])
                engine.step(255 - frame)
            assert engine.frames == index
        expected, result = undisturbed.step(frame), engine.step(frame)
        assert torch.equal(result.pose_encoding, expected.pose_encoding)
        assert torch.equal(result.depth, expected.depth)


def fail(*_):
    raise MemoryError('no memory left')


def test_a_budget_that_leaves_no_history_is_told_with_its_numbers(model):
    engine = make_engine(model, max_tokens=40)
    assert engine.budget_warning() is None
    engine.step(frames()[0])
    warning = engine.budget_warning()
    assert '40' in warning and f'{2 * tokens_of(model)} tokens' in warning
    generous = make_engine(model, max_tokens=100)
    generous.step(frames()[0])
    assert generous.budget_warning() is None


@pytest.mark.slow
@pytest.mark.parametrize('quantization', ['none', 'int8', 'int4'])
def test_a_memory_budget_is_a_ceiling_known_before_the_first_frame(model, quantization):
    engine = make_engine(model, memory_budget_mb=0.4, quantization=quantization)
    needed = engine.bytes_needed(56, 56)
    for frame in frames():
        engine.step(frame)
        stats = engine.cache_stats()
        assert stats.bytes_used <= stats.bytes_reserved == needed <= 0.4e6
        assert max(stats.tokens_per_layer) <= stats.budget
    more = make_engine(model, max_tokens=stats.budget + 1, quantization=quantization)
    assert more.bytes_needed(56, 56) > 0.4e6, 'a token more would have fitted'
    assert engine.tokens_that_fit(56, 56, 0.4) == stats.budget
    assert f'{stats.budget} tokens per layer = first + newest' in engine.budget_description()


def test_fewer_bits_hold_more_tokens_in_the_same_bytes(model):
    budgets = {}
    for quantization in ('none', 'int8', 'int4'):
        engine = make_engine(model, memory_budget_mb=2.0, quantization=quantization)
        engine.step(frames()[0])
        budgets[quantization] = engine.cache_stats().budget
    assert budgets['int4'] > 1.2 * budgets['int8'] > 1.2 * budgets['none']


def test_a_memory_budget_that_is_too_small_names_one_that_is_not(model):
    with pytest.raises(BudgetError, match='set it to') as error:
        make_engine(model, memory_budget_mb=0.01).step(frames()[0])
    enough = float(str(error.value).split('set it to ')[1].split()[0])
    make_engine(model, memory_budget_mb=enough).step(frames()[0])


@pytest.mark.slow
@pytest.mark.parametrize('policy', ['xstream', 'frame_coverage', 'value_aware', 'lingbot'])
def test_a_packed_stream_is_close_and_tells_its_health(model, policy):
    exact, unbounded = make_engine(model, policy=policy), make_engine(model, policy='full')
    packed = make_engine(model, policy=policy, quantization='int8')
    off = torch.zeros(2)
    for frame in frames():
        expected, *others = (engine.step(frame).depth.log()
                             for engine in (exact, packed, unbounded))
        off += torch.stack([(other - expected).abs().mean() for other in others])
    # What is remembered counts; its rounding does not, even where a close choice is turned over.
    assert 0 < off[0] < off[1] / 5
    health = packed.cache_stats().health
    assert health.first_tokens == tokens_of(model)
    total = health.first_tokens + health.history_tokens + health.newest_tokens
    assert total == pytest.approx(packed.cache_stats().tokens_per_layer[0])
    assert 0 < health.attention_kept < 1 < health.steps


def test_half_precision_is_close(model):
    exact, half = make_engine(model), make_engine(deepcopy(model), dtype=torch.bfloat16)
    for frame in frames(3):
        reference, result = exact.step(frame), half.step(frame)
        assert result.depth.dtype == torch.float32
        # On the way all numbers are rounded, the logarithms last, which are up to 8: by half a
        # unit of the last place, at most, of a number like that.
        half_a_unit = 8 * torch.finfo(torch.bfloat16).eps / 2
        assert (result.depth.log() - reference.depth.log()).abs().mean() < half_a_unit


@pytest.mark.slow
@pytest.mark.parametrize('policy', ['xstream', 'frame_coverage', 'sliding_window', 'lingbot'])
@pytest.mark.parametrize('quantization', ['none', 'int4'])
def test_a_frame_that_is_not_remembered_leaves_no_trace(model, policy, quantization):
    settings = {'max_tokens': 40, 'policy': policy, 'quantization': quantization}
    gaps, plain = make_engine(model, **settings), make_engine(model, **settings)
    sent = [*frames(), *frames()]
    for index, frame in enumerate(sent):
        result = gaps.step(frame, remember=index % 2 == 0)  # the first one is in any case
        if index % 2 == 0:
            torch.testing.assert_close(result.depth, plain.step(frame).depth, rtol=0, atol=0)
        else:
            assert gaps.cache_stats().evicted_this_frame == 0
    kept, expected = gaps.kept_token_ids(), plain.kept_token_ids()
    assert [ids.tolist() for ids in kept] == [ids.tolist() for ids in expected]
    assert gaps.frames == len(sent) and plain.frames == (len(sent) + 1) // 2
