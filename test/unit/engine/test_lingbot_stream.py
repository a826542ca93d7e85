"""A stream of LingBot-Map in the engine: where it differs from one of StreamVGGT."""

from dataclasses import replace

from golden_data import excess
import lingbot_golden
import pytest
from tiny_stream import make_engine, make_model
import torch

from xsvggt_ros.engine.errors import FrameError

CASE = lingbot_golden.load_case('lb_tiny_h1')
FRAMES = [CASE.rgb(index) for index in range(len(CASE.frames))]


@pytest.fixture
def model():
    return make_model('lingbot')


def test_the_engine_gives_the_published_stream_of_one_scale_frame(model):
    """14 frames, a window of 4: what the default settings of a live stream come to."""
    tokens = model.cache_layout(56, 56).tokens.tokens_per_step
    # The newest 4 frames with the one in work, and special tokens of the others.
    engine = make_engine(
        model, policy='lingbot', max_tokens=4 * (tokens + 6), camera_max_tokens=100)
    policy = engine_policy(engine)
    for index, frame in enumerate(FRAMES):
        result = engine.step(frame)
        old = max(0, index - policy.frames_of(engine.caches.tokens.budget)[0])
        if old > policy.frames_of(engine.caches.tokens.budget)[1]:
            break  # from here on the budget forgets what the published rule keeps
        golden = CASE.tensors['scale1/depth'][index]
        assert excess(result.depth[::4, ::4], golden) < 1, index
        world_from_camera = result.camera_from_world.inverse()
        assert excess(world_from_camera[:3, 3], CASE.tensors['scale1/pose_enc'][index, :3]) < 1
        assert result.points is None and result.points_confidence is None
    assert index > 8


def engine_policy(engine):
    engine.prepare(56, 56)
    return engine.caches.tokens.policy


@pytest.mark.slow
@pytest.mark.parametrize('policy, quantization', [
    ('lingbot', 'none'), ('lingbot', 'int4'), ('frame_coverage', 'int4'), ('xstream', 'int8')])
def test_memory_stays_flat_and_the_stream_can_be_repeated(model, policy, quantization):
    engine = make_engine(model, policy=policy, quantization=quantization, max_tokens=140)
    used, depths = [], []
    for index in range(60):
        depths.append(engine.step(FRAMES[index % 14]).depth)
        engine.finish_frame()
        stats = engine.cache_stats()
        assert stats.tokens_per_layer[0] <= stats.budget and stats.bytes_used <= \
            stats.bytes_reserved
        used.append((stats.bytes_used, stats.bytes_reserved))
    assert len(set(used[20:])) == 1
    assert all(depth.isfinite().all() for depth in depths)
    engine.reset()
    for depth, index in zip(depths, range(20)):
        assert torch.equal(engine.step(FRAMES[index % 14]).depth, depth)
        engine.finish_frame()


@pytest.mark.slow
def test_a_byte_budget_holds_for_all_that_is_kept(model):
    for quantization in ('none', 'int4'):
        engine = make_engine(
            model, policy='lingbot', quantization=quantization, memory_budget_mb=0.6)
        for index in range(40):
            engine.step(FRAMES[index % 14])
        stats = engine.cache_stats()
        assert stats.evicted_total > 0 and stats.bytes_reserved <= 0.6e6


@pytest.mark.slow
def test_a_frame_that_is_not_remembered_leaves_nothing_in_the_camera_head(model):
    engine, other = (make_engine(model, policy='lingbot', max_tokens=140) for _ in range(2))
    for index in range(30):
        frame = FRAMES[index % 14]
        assert torch.equal(engine.step(frame).depth, other.step(frame).depth)
        engine.finish_frame()
        before = engine.caches.camera.steps
        result = engine.step(FRAMES[(index + 5) % 14], remember=False)
        engine.accept([result])
        engine.finish_frame()
        assert engine.caches.camera.steps == before == index + 1
    assert torch.equal(
        engine.caches.camera.kept_token_ids()[0], other.caches.camera.kept_token_ids()[0])


def test_a_stream_ends_before_the_network_runs_out_of_numbers(model, monkeypatch):
    layout = model.cache_layout
    monkeypatch.setattr(model, 'cache_layout', lambda *size: replace(
        layout(*size), max_steps=6, trained_steps=4))
    engine = make_engine(model, policy='lingbot', max_tokens=140, camera_max_tokens=100)
    assert engine.exhausted(100) is None  # there is no stream yet
    for index in range(5):
        engine.step(FRAMES[index])
    assert engine.exhausted() is None and '6' in engine.exhausted(2)
    assert engine.caches.camera.budget == 6
    engine.step(FRAMES[5])
    with pytest.raises(FrameError, match='up to 6'):
        engine.step(FRAMES[6])
    assert engine.frames == 6
    assert engine.step(FRAMES[6], remember=False).depth.isfinite().all()
    assert [engine.caches.keyframe_stride(frames) for frames in (1, 4, 5, 9)] == [1, 1, 2, 3]
    engine.reset()
    assert engine.exhausted() is None
    engine.step(FRAMES[6])


@pytest.mark.slow
def test_cameras_that_belong_together_are_undone_together(model):
    engine, other = (make_engine(model, policy='lingbot', max_tokens=140, camera_max_tokens=8)
                     for _ in range(2))
    for index in range(16):
        frame = FRAMES[index % 14]
        engine.step(frame, remember=True)
        engine.step(FRAMES[3], remember=False, joins=True)
        engine.step(FRAMES[5], joins=True)
        engine.discard_frame()
        assert engine.frames == other.frames
        assert torch.equal(engine.step(frame).depth, other.step(frame).depth), index
        for each in (engine, other):
            each.finish_frame()
