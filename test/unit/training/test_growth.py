"""Networks to go on from say what they said before, and their new parts learn."""

import pytest
import torch

from training.growth import grow, parameters, renew_confidences
from xsvggt_ros.model.causal import predict_clips
from xsvggt_ros.model.checkpoint import load_model, save_checkpoint


@pytest.mark.parametrize('pairs', [1, 3])
def test_a_grown_network_says_the_same(pairs, tmp_path):
    small = load_model('small').model
    grown = grow(small, pairs).eval()
    assert grown.config.depth == small.config.depth + pairs
    assert parameters(grown) == parameters(small) + pairs * 2 * parameters(
        small.aggregator.frame_blocks[0])
    images = torch.rand(1, 3, 3, 42, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = predict_clips(small, images), predict_clips(grown, images)
    assert torch.allclose(before.poses, after.poses, atol=1e-6)
    assert torch.allclose(before.depth, after.depth, rtol=1e-5)
    assert torch.allclose(before.points, after.points, rtol=1e-5, atol=1e-6)
    save_checkpoint(grown, tmp_path / 'grown.safetensors')
    assert load_model(str(tmp_path / 'grown.safetensors')).config == grown.config


def test_what_was_added_learns():
    grown = grow(load_model('small').model, 2).requires_grad_(True)
    images = torch.rand(1, 2, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(grown.parameters(), lr=1e-2)
    for _ in range(2):
        predicted = predict_clips(grown, images)
        (predicted.poses.square().mean() + predicted.depth.log().square().mean()).backward()
        nn_norm = torch.nn.utils.clip_grad_norm_(grown.parameters(), 1.0)
        assert torch.isfinite(nn_norm)
        optimizer.step()
    idle = [name for name, weight in grown.named_parameters()
            if weight.grad is None or not weight.grad.any()]
    assert not [name for name in idle if '_blocks' in name]
    places = [place for place in range(grown.config.depth)
              if float(grown.aggregator.frame_blocks[place].ls1.gamma.detach().abs().max()) < 0.05]
    assert len(places) == 2 and all(
        bool(grown.aggregator.frame_blocks[place].ls1.gamma.any()) for place in places)


def test_confidences_begin_anew_and_nothing_else_changes():
    model = load_model('random', size='small').model
    images = torch.rand(1, 2, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = predict_clips(model, images)
        renew_confidences(model)
        after = predict_clips(model, images)
    for confidence in (after.depth_confidence, after.points_confidence):
        assert torch.equal(confidence, torch.full_like(confidence, 2.0))
    assert not torch.equal(before.depth_confidence, after.depth_confidence)
    assert torch.equal(before.depth, after.depth) and torch.equal(before.points, after.points)
    assert torch.equal(before.poses, after.poses)
