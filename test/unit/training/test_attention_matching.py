"""What teaches attention to find places again: true matches, and a loss that falls with them."""

import numpy as np
import pytest
import torch

pytest.importorskip('embreex')
pytest.importorskip('numba')

from training.attention_matching import find_matches, HEAD, Matches, MatchLoss, Readout  # noqa: E402
from training.clips import Clips  # noqa: E402
from xsvggt_ros.model.causal import predict_clips  # noqa: E402
from xsvggt_ros.model.streamvggt import StreamVGGT  # noqa: E402

PATCH, HEIGHT, WIDTH = 14, 84, 112


def wall(shift=0.0, distance=2.0):
    """Return a clip of a camera before a wall that moves `shift` metres to the right."""
    poses = torch.eye(4).repeat(1, 2, 1, 1)
    poses[0, 1, 0, 3] = -shift
    return Clips(torch.zeros(1, 2, 3, HEIGHT, WIDTH), torch.full((1, 2, HEIGHT, WIDTH), distance),
                 poses, torch.tensor([0.9, 1.2]).expand(1, 2, 2), poses)


def matches(clips):
    return find_matches(clips, PATCH, torch.Generator().manual_seed(0))


def test_a_camera_at_rest_sees_each_patch_where_it_was():
    found = matches(wall())
    assert found.later.tolist() == [1] * 3 and found.earlier.tolist() == [0] * 3
    assert found.known.all()
    assert torch.allclose(found.shares[0, 0], torch.eye(48), atol=1e-5)


def test_a_camera_that_moves_by_half_a_patch_sees_each_between_two():
    metres_a_pixel = 2.0 * np.tan(0.6) / (WIDTH / 2)
    found = matches(wall(shift=7 * metres_a_pixel))
    shares = found.shares[0, 0].unflatten(0, (6, 8)).unflatten(-1, (6, 8))
    assert shares[2, 3, 2, 3].item() == pytest.approx(0.5, abs=0.01)
    assert shares[2, 3, 2, 4].item() == pytest.approx(0.5, abs=0.01)
    assert torch.allclose(shares.sum((-1, -2)), torch.ones(6, 8))
    assert torch.allclose(found.moved[0, 0], torch.tensor([0.5, 0.0]), atol=1e-4)
    # The right ones were not to be seen yet.
    far = matches(wall(shift=20 * metres_a_pixel)).known[0, 0].unflatten(0, (6, 8))
    assert far[:, :6].all() and not far[:, 7].any()


def test_what_is_hidden_has_no_match():
    clips = wall()
    clips.depth[:, 0, :, :56] = 1.0    # something stood before the left half
    known = matches(clips).known[0, 0].unflatten(0, (6, 8))
    assert not known[:, :4].any() and known[:, 4:].all()
    clips.camera_from_first[0, 1, :3, :3] = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]])
    assert not matches(clips).known.any()    # it looks the other way


def test_the_loss_falls_where_attention_goes_to_the_match():
    shares = torch.eye(6).roll(1, dims=1)[None, None]
    found = Matches(torch.tensor([1]), torch.tensor([0]), shares,
                    torch.ones(1, 1, 6, dtype=torch.bool), torch.zeros(1, 1, 6, 2))
    query, key, other = torch.zeros(3, 1, 2, 2, 8, 16)
    query[0, HEAD, 1, 2:, :6] = other[0, HEAD, 0, 2:, :6] = 9 * torch.eye(6)
    key[0, HEAD, 0, 2:, :6] = 9 * torch.eye(6).roll(1, dims=0)
    right, wrong, even = (MatchLoss(found, 2, (0,)) for _ in range(3))
    right(0, query, key)
    wrong(0, query, other)
    even(0, 0 * query, key)
    right(1, 0 * query, key)    # of a block that is not asked
    assert right.value() < 0.01 < np.log(6) < wrong.value()
    assert even.value().item() == pytest.approx(np.log(6), rel=1e-5)
    found.known[:] = False
    blind = MatchLoss(found, 2, (0,))
    blind(0, query, key)
    assert blind.value() == 0


def test_a_network_can_learn_it_and_watching_changes_nothing(config):
    torch.manual_seed(0)
    model = StreamVGGT(config)
    clips = wall(shift=0.3)
    clips.images = torch.rand(clips.images.shape, generator=torch.Generator().manual_seed(0))
    found = matches(clips)
    seen = MatchLoss(found, config.special_tokens, (0,))
    plain, watched = (predict_clips(model, clips.images, [0], watch=watch)
                      for watch in (None, seen))
    assert torch.equal(plain.poses, watched.poses) and torch.equal(plain.depth, watched.depth)
    first = seen.value()
    assert first.isfinite() and first > 1
    optimizer = torch.optim.AdamW(model.aggregator.parameters(), lr=3e-3)
    for _ in range(15):
        loss = MatchLoss(found, config.special_tokens, (0,))
        predict_clips(model, clips.images, [0], watch=loss)
        optimizer.zero_grad()
        loss.value().backward()
        optimizer.step()
    assert loss.value() < 0.9 * first


def test_the_readout_learns_how_far_patches_have_moved():
    torch.manual_seed(0)
    metres_a_pixel = 2.0 * np.tan(0.6) / (WIDTH / 2)
    found = matches(wall(shift=7 * metres_a_pixel))
    tokens, readout = torch.randn(1, 2, 48, 10), Readout(10)
    assert readout(tokens, found).item() == pytest.approx(0.5, abs=1e-3)    # nothing has moved
    tokens[:, 1, :, 0] = 1.0
    optimizer = torch.optim.Adam(readout.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        readout(tokens, found).backward()
        optimizer.step()
    assert readout(tokens, found) < 0.1
    found.known[:] = False
    assert readout(tokens, found) == 0
