"""Smaller frames that are not remembered: they see all that is remembered, and nothing else."""

from functools import partial

import pytest
from test_cuda_graph import stream, TapeGraphs
import tiny_stream
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from xsvggt_ros.engine.stream_caches import ReadOnlyCaches
from xsvggt_ros.engine.upsample import EDGE, upsample
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.kernels import native
from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout
from xsvggt_ros.kv_cache.read_only import ReadOnlyCache
from xsvggt_ros.kv_cache.retention import POLICIES
from xsvggt_ros.model.network import FramePrediction
from xsvggt_ros.model.positions import grid_rotary_table, rotary_table

LAYOUT = CacheLayout(layers=3, heads=2, head_dim=8, tokens_per_step=12, special_tokens=5)
FEW = 7  # tokens of a smaller step
STORES = [('none', 'token', 'fp32'), ('none', 'token', 'bf16'), ('int8', 'token', 'fp32'),
          ('int8', 'kcvt', 'fp32')]


@pytest.fixture(autouse=True)
def plainly(monkeypatch):
    """Ask PyTorch for everything: a tape has only that."""
    monkeypatch.setattr(native, 'library', lambda: None)


def make_cache(policy, budget=40, **settings):
    config = CacheConfig(policy=policy, pool_size=4, **settings)
    return build_cache(LAYOUT, config, budget, torch.float32, 'cpu', config.quantization)


def tokens(generator, count=LAYOUT.tokens_per_step):
    return torch.randn(3, LAYOUT.layers, LAYOUT.heads, count, LAYOUT.head_dim,
                       generator=generator)


def attend(memory, step):
    return torch.stack([memory.attend(i, *step[:, i]) for i in range(LAYOUT.layers)])


def state(policy):
    """Return the tensors that a policy holds."""
    return [value.clone() for value in vars(policy).values() if isinstance(value, torch.Tensor)]


# The cache ---------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize('limit', [None, 30])
@pytest.mark.parametrize('quantization, scheme, storage', STORES)
@pytest.mark.parametrize('policy', sorted(POLICIES))
def test_a_look_sees_what_is_kept_and_leaves_every_bit(
        policy, quantization, scheme, storage, limit):
    settings = {'quantization': quantization, 'scheme': scheme, 'storage': storage}
    looked, plain = make_cache(policy, **settings), make_cache(policy, **settings)
    reserved = looked.bytes_reserved
    close = {'none': 1e-5, 'int8': 0.05}[quantization] if storage == 'fp32' else 0.02
    generator, others = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    history = torch.empty(2, LAYOUT.layers, LAYOUT.heads, 0, LAYOUT.head_dim)
    for number in range(10):
        if number == 7:
            for cache in (looked, plain):
                cache.limit_tokens(limit)
        step = tokens(generator)
        looked.compact(gapless=False)
        assert torch.equal(attend(looked, step), attend(plain, step)), number
        for cache in (looked, plain):
            cache.end_step()
        history = torch.cat([history, step[1:]], dim=3)
        kept, visible = looked.kept_token_ids(), looked.visible_token_ids()
        before = state(looked.policy)
        for count in (FEW, 12, 1, FEW)[:number % 5]:     # sometimes none at all
            looked.compact(gapless=count < 12)
            few = tokens(others, count)
            seen = attend(ReadOnlyCache(looked), few)
            for i, ids in enumerate(visible):
                expected = scaled_dot_product_attention(few[0, i], *(
                    torch.cat([history[part, i][:, ids], few[1 + part, i]], dim=1)
                    for part in (0, 1)))
                torch.testing.assert_close(seen[i], expected, atol=close, rtol=close)
        assert all(torch.equal(a, b) for a, b in zip(state(looked.policy), before))
        assert all(torch.equal(a, b) for a, b in zip(kept, plain.kept_token_ids()))
        assert all(torch.equal(a, b) for a, b in zip(kept, looked.kept_token_ids()))
        assert looked.health() == plain.health() and looked.bytes_used == plain.bytes_used
    if policy != 'full':
        assert looked.bytes_reserved == reserved and looked.evicted_total > 0


class Copies(TorchDispatchMode):
    """Counts what moves tokens, and what waits for the device."""

    def __init__(self):
        super().__init__()
        self.moved = self.waits = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        self.moved += name == 'index_copy_'
        self.waits += name in ('_local_scalar_dense', 'item', 'nonzero')
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize('quantization', ['none', 'int4'])
def test_tokens_move_once_after_a_step_and_nothing_waits(quantization):
    cache = make_cache('xstream', quantization=quantization)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        attend(cache, tokens(generator))
        cache.end_step()
    counts = []
    for gapless in (True, True, True, False, False):
        with Copies() as copies:
            cache.compact(gapless)
        counts.append(copies.moved > 0)
        assert copies.waits == 0
    assert counts == [True, False, False, True, False]
    with Copies() as copies:
        cache.compact(gapless=True)
        attend(ReadOnlyCache(cache), tokens(generator, FEW))
    assert copies.waits == 0


def test_a_reset_forgets_that_gaps_were_closed():
    cache, fresh = make_cache('xstream'), make_cache('xstream')
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        attend(cache, tokens(generator))
        cache.end_step()
    cache.compact(gapless=True)
    cache.reset()
    for _ in range(6):
        step = tokens(generator)
        for one in (cache, fresh):
            one.compact(gapless=False)
        assert torch.equal(attend(cache, step), attend(fresh, step))
        for one in (cache, fresh):
            one.end_step()


# Positions and maps ------------------------------------------------------------------------------

def test_patches_of_a_smaller_grid_stand_in_the_middle_of_those_they_cover():
    small = grid_rotary_table(2, 3, 1, 16, 100.0, extent=(4, 6))
    places = torch.tensor([(0, 0), (1.5, 1.5), (1.5, 3.5), (1.5, 5.5),
                           (3.5, 1.5), (3.5, 3.5), (3.5, 5.5)])
    for table, expected in zip(small, rotary_table(places, 16, 100.0)):
        assert torch.equal(table, expected)
    for table, expected in zip(grid_rotary_table(3, 5, 2, 16, 100.0, extent=(3, 5)),
                               grid_rotary_table(3, 5, 2, 16, 100.0)):
        assert torch.equal(table, expected)


@pytest.mark.parametrize('size, width, expected', [
    ((392, 518), 224, (168, 224)), ((84, 112), 56, (42, 56)), ((14, 518), 224, (14, 224)),
    ((518, 518), 14, (14, 14)), ((294, 518), 266, (154, 266))])
def test_the_smaller_image_is_all_of_the_other(size, width, expected):
    resize = Resize(*size, size[0], *size).smaller(width, 14)
    assert (resize.height, resize.width) == expected and resize.crop_top == 0
    image = torch.zeros(*size, 3, dtype=torch.uint8)
    image[:, :, 0] = torch.linspace(0, 250, size[1])[None]
    image[:, :, 1] = torch.linspace(0, 250, size[0])[:, None]
    small = resize(image)
    assert small.shape == (*expected, 3)
    # Both ends are there: the ramps are cut at half a (large) pixel of the smaller image.
    ends = 125 * torch.tensor([1 / expected[1], 1 - 1 / expected[1]])
    assert small[0, 0, 0] <= ends[0] + 4 and small[0, -1, 0] >= 250 - ends[0] - 4


def plane(height, width, slope=0.3):
    """Return depth and points of a plane that a camera of 90 degrees sees at a slant."""
    focal = width / 2
    columns = (torch.arange(width) + 0.5 - width / 2) / focal
    rows = (torch.arange(height) + 0.5 - height / 2) / focal
    depth = 1 / (0.5 + slope * columns[None] * 0.5 + 0.1 * rows[:, None])
    points = torch.stack([columns[None] * depth, rows[:, None] * depth, depth], dim=-1)
    return FramePrediction(torch.zeros(9), depth, 1 + depth, points, 1 + depth)


def test_a_plane_stays_the_plane_when_it_is_enlarged():
    small, expected = plane(42, 56), plane(84, 112)
    large = upsample(small, 84, 112)
    inside = slice(2, -2), slice(2, -2)
    torch.testing.assert_close(large.depth[inside], expected.depth[inside], rtol=1e-5, atol=0)
    torch.testing.assert_close(large.points[inside], expected.points[inside], rtol=0, atol=2e-3)
    torch.testing.assert_close(large.depth_confidence[inside], 1 + expected.depth[inside],
                               rtol=1e-3, atol=0)
    assert torch.equal(large.points_confidence, large.depth_confidence)
    assert torch.equal(large.pose_encoding, small.pose_encoding)
    assert large.points.shape == (84, 112, 3)


def test_nothing_hangs_in_the_air_between_a_thing_and_the_wall_behind_it():
    small = plane(42, 56, slope=0.0)
    small.depth[:, 20:30] = 0.7
    small.points[:, 20:30] *= 0.5
    large = upsample(small, 98, 133)
    near = (large.depth / 0.7 - 1).abs() < EDGE
    wall = upsample(plane(42, 56, slope=0.0), 98, 133).depth
    behind = (large.depth / wall - 1).abs() < EDGE
    assert (near | behind).all() and near.any() and behind.any()


# The stream --------------------------------------------------------------------------------------

@pytest.fixture(params=tiny_stream.NETWORKS)
def model(request):
    return tiny_stream.make_model(request.param)


make_engine = partial(tiny_stream.make_engine, image_size=56)  # a patch is 14 pixels


@pytest.mark.slow
@pytest.mark.parametrize('policy', ['xstream', 'value_aware', 'frame_coverage', 'random',
                                    'sliding_window', 'full', 'lingbot'])
@pytest.mark.parametrize('quantization, scheme', [('none', 'token'), ('int4', 'token'),
                                                  ('int4', 'kcvt')])
def test_small_frames_between_leave_no_trace(model, policy, quantization, scheme):
    settings = {'policy': policy, 'quantization': quantization, 'scheme': scheme}
    mixed = make_engine(model, tracking_size=28, **settings)
    plain = make_engine(model, **settings)
    sent = stream(18)
    for index, frame in enumerate(sent):
        result = mixed.step(frame, remember=index % 3 == 0)
        assert result.depth.shape == (56, 56) and torch.equal(result.image, frame)
        if index % 3 == 0:
            # Depth knows nothing of the camera head, which remembers all frames.
            assert torch.equal(result.depth, plain.step(frame).depth)
        else:
            assert mixed.cache_stats().evicted_this_frame == 0
    for ids, expected in zip(mixed.kept_token_ids(), plain.kept_token_ids()):
        assert torch.equal(ids, expected)
    assert mixed.frames == len(sent) and plain.frames == len(sent) // 3
    assert mixed.cache_stats().health == plain.cache_stats().health


def test_a_small_frame_is_a_frame_like_the_others(model):
    engine = make_engine(model, tracking_size=28)
    first, small = (engine.step(frame, remember=False) for frame in stream(2))
    for name in ('image', 'depth', 'depth_confidence', 'points', 'points_confidence',
                 'intrinsics', 'predicted_intrinsics', 'pose_encoding'):
        one, other = getattr(first, name), getattr(small, name)
        if one is None:  # there is no head for points
            assert other is None
            continue
        assert one.shape == other.shape and one.dtype == other.dtype
        assert other.is_contiguous() and other.float().isfinite().all()
    assert (small.depth > 0).all() and (small.depth_confidence >= 1).all()
    assert small.intrinsics[0, 2] == 28 and small.frame_index == 1  # the middle of 56 pixels
    engine.want_points(False)
    assert engine.step(stream(1)[0], remember=False).points is None


def test_the_network_sees_the_small_image_in_its_place_in_the_large_one(model):
    seen = []
    original = model.step

    def step(image, memory, points=True, **settings):
        seen.append((tuple(image.shape), settings.get('stream_size')))
        return original(image, memory, points, **settings)

    model.step = step
    engine = make_engine(model, tracking_size=28)
    for index, frame in enumerate(stream(4)):
        engine.step(frame, remember=index % 2 == 0)
    # LingBot-Map takes the first frame as the others, StreamVGGT by a function of its own.
    assert seen[-3:] == [((3, 28, 28), (56, 56)), ((3, 56, 56), None), ((3, 28, 28), (56, 56))]


def test_queries_and_keys_of_a_small_image_turn_by_its_places_in_the_large_one(model):
    config = model.config
    table = model.aggregator.frame_tables(28, 42, (56, 70)).rope
    for part, expected in zip(table, grid_rotary_table(
            2, 3, config.special_tokens, config.head_dim, config.rope_freq, extent=(4, 5))):
        assert torch.equal(part, expected.to(part))
    engine = make_engine(model, tracking_size=28)
    engine.step(stream(1)[0])
    small = torch.rand(3, 28, 28, generator=torch.Generator().manual_seed(0))
    engine.finish_frame()
    memory = ReadOnlyCaches(ReadOnlyCache(engine.caches.tokens), engine.caches.camera)
    with torch.inference_mode():
        placed, unplaced = (model.step(small, memory, stream_size=size).depth
                            for size in ((56, 56), None))
    assert not torch.allclose(placed, unplaced, rtol=1e-4)


def test_a_lens_is_taken_out_of_small_frames_too(model):
    camera = CameraModel.calibrated(
        size=(56, 56), k=(40, 0, 28, 0, 40, 28, 0, 0, 1), d=(-0.3, 0.1))
    small, whole = make_engine(model, tracking_size=28), make_engine(model)
    for index, frame in enumerate(stream(2)):
        result, expected = (one.step(frame, camera, remember=index == 0)
                            for one in (small, whole))
    assert torch.equal(result.image, expected.image)
    assert torch.equal(result.intrinsics, expected.intrinsics)
    assert torch.equal(result.depth.isnan(), expected.depth.isnan())


def test_a_tracking_size_of_the_stream_changes_nothing(model):
    same, without = make_engine(model, tracking_size=56), make_engine(model)
    for index, frame in enumerate(stream(6)):
        one, other = (engine.step(frame, remember=index % 2 == 0) for engine in (same, without))
        assert torch.equal(one.depth, other.depth)


@pytest.mark.parametrize('width, words', [
    (20, 'tracking_size must be a multiple of the patch size 14, for example 14; got 20'),
    (0, 'tracking_size must be a multiple'), (70, 'must not be above image_size, 56; got 70')])
def test_a_tracking_size_that_cannot_be_is_refused(model, width, words):
    with pytest.raises(ValueError, match=words):
        make_engine(model, tracking_size=width)


@pytest.mark.slow
@pytest.mark.parametrize('policy, quantization', [('xstream', 'none'), ('random', 'int4'),
                                                  ('frame_coverage', 'int4'),
                                                  ('lingbot', 'int4')])
def test_both_kinds_of_frames_are_replayed_from_graphs_of_their_own(model, policy, quantization):
    settings = {'policy': policy, 'quantization': quantization, 'tracking_size': 28}
    graphs, lines = TapeGraphs(), []
    eager = make_engine(model, **settings)
    replayed = make_engine(model, graphs=graphs, report=lines.append, **settings)
    for index, frame in enumerate(stream(24)):
        one, other = (engine.step(frame, remember=index % 2 == 0)
                      for engine in (eager, replayed))
        assert (one.points is None) == (other.points is None)
        for name in ('pose_encoding', 'depth', 'depth_confidence', 'points'):
            if getattr(one, name) is not None:
                assert torch.equal(getattr(one, name), getattr(other, name)), (index, name)
        for ids, expected in zip(replayed.kept_token_ids(), eager.kept_token_ids()):
            assert torch.equal(ids, expected)
    assert graphs.captured == 4 and graphs.replayed >= 4 * 3
    assert len(lines) == 4  # nothing is dropped because sizes alternate
    assert len([line for line in lines if line.startswith('images that are not remem')]) == 2
