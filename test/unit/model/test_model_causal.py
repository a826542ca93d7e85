"""The forward pass over clips: what training sees is what a stream sees."""

from golden_data import CASES, load_case
import pytest
import torch

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.causal import predict_clips
from xsvggt_ros.model.checkpoint import load_model
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.streamvggt import StreamVGGT

FRAMES = 4


@pytest.fixture(scope='module', params=CASES)
def case(request):
    """Return a golden network, DINOv2 and plain patches, and its pictures."""
    golden = load_case(request.param)
    model = StreamVGGT(ModelConfig.from_dict(golden.config))
    model.load_state_dict(golden.weights)
    return model.eval(), golden


def close(one, other):
    """Return whether two results agree to fp32's rounding."""
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_a_clip_is_predicted_as_a_stream_is(case):
    model, golden = case
    images = torch.stack([golden.image(index) for index in range(FRAMES)])
    reversed_clip = images.flip(0)   # another clip of the batch, which must not be seen
    with torch.no_grad():
        clips = predict_clips(model, torch.stack([images, reversed_clip]))
    engine = StreamEngine(model, EngineConfig(CacheConfig(policy='full', camera_max_tokens=None)))
    for index in range(FRAMES):
        result = engine.step(golden.rgb(index))
        assert close(clips.poses[-1, 0, index], result.pose_encoding)
        assert close(clips.depth[0, index].log(), result.depth.log())
        assert close(clips.depth_confidence[0, index], result.depth_confidence)
        assert close(clips.points[0, index], result.points)
        assert close(clips.points_confidence[0, index], result.points_confidence)


def test_one_clip_by_a_network_that_streams_has_a_batch_of_one():
    model = load_model('small').model.fold_scales()   # as the node has it, with all C++ kernels
    images = torch.rand(1, 2, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, two = predict_clips(model, images), predict_clips(model, images.expand(2, -1, -1, -1,
                                                                                  -1))
    assert one.poses.shape == (4, 1, 2, 9)
    assert close(one.poses, two.poses[:, :1])


def test_dense_maps_of_chosen_frames_are_those_of_all(case):
    model, golden = case
    images = torch.stack([golden.image(index) for index in range(FRAMES)])[None]
    with torch.no_grad():
        every, some = predict_clips(model, images), predict_clips(model, images, [2, 0])
    assert close(some.depth, every.depth[:, [2, 0]])
    assert close(some.points, every.points[:, [2, 0]])
    assert close(some.poses, every.poses)


def test_no_frame_sees_a_later_one(case):
    model, golden = case
    images = torch.stack([golden.image(index) for index in range(FRAMES)])[None]
    changed = images.clone()
    changed[0, -1] = 1 - changed[0, -1]
    with torch.no_grad():
        before, after = predict_clips(model, images), predict_clips(model, changed)
    assert close(before.depth[:, :-1], after.depth[:, :-1])
    assert close(before.poses[:, :, :-1], after.poses[:, :, :-1])
    assert not close(before.depth[:, -1], after.depth[:, -1])


def test_every_weight_is_trained(case):
    model, golden = case
    model.zero_grad()
    images = torch.stack([golden.image(index) for index in range(2)])[None]
    predicted = predict_clips(model, images)
    total = (predicted.poses.square().sum() + predicted.depth.log().square().sum()
             + predicted.depth_confidence.log().sum() + predicted.points.square().sum()
             + predicted.points_confidence.log().sum())
    total.backward()
    idle = [name for name, weight in model.named_parameters()
            if weight.requires_grad and (weight.grad is None or not weight.grad.any())]
    # The bias of keys shifts all scores of a query alike, but not behind a norm.
    assert idle == []
    model.zero_grad()


def test_patches_are_read_before_the_last_blocks(case):
    # What they are taught to know there, the last global block's camera token can still read.
    model, golden = case
    model.zero_grad()
    images = torch.stack([golden.image(index) for index in range(2)])[None]
    predict_clips(model, images).patch_tokens.sum().backward()
    blocks = model.aggregator.global_blocks
    assert blocks[-1].mlp.fc1.weight.grad is None
    assert blocks[0].mlp.fc1.weight.grad.any()
    model.zero_grad()


@pytest.mark.slow
@pytest.mark.parametrize('frames', [8, 9, 13])
def test_a_long_clip_in_parts_is_what_it_is_at_once(case, monkeypatch, frames):
    model, golden = case
    images = torch.stack([golden.image(index % FRAMES) for index in range(frames)])[None]
    with torch.no_grad():
        parts = predict_clips(model, images)
        monkeypatch.setattr('xsvggt_ros.model.causal._PARTS', 100)
        whole = predict_clips(model, images)
    assert close(parts.poses, whole.poses)
    assert close(parts.depth.log(), whole.depth.log())
