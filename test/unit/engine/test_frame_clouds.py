"""Clouds of the engine: where they lie, thinned as asked, and how they come to the host."""

from dataclasses import replace

from engine_frames import frames, WITH_POINTS
import pytest
from tiny_stream import make_engine, make_model, NETWORKS
import torch

from xsvggt_ros.bench.operator_count import OperatorCount
from xsvggt_ros.geometry.se3 import transform_points
from xsvggt_ros.mapping import point_cloud
from xsvggt_ros.mapping.point_cloud import (
    _least_on_device,
    _least_on_host,
    CloudOptions,
    lay_out_cloud,
    pack_cloud,
)
from xsvggt_ros.model.error_table import ErrorTable


@pytest.fixture(params=NETWORKS)
def model(request):
    return make_model(request.param)


@WITH_POINTS
def test_both_sources_of_a_cloud_lie_in_the_cameras_frame(model):
    engine = make_engine(model)
    for frame in frames(3):
        result = engine.step(frame)
    height, width = result.depth.shape
    depth = pack_cloud(result, CloudOptions(source='depth')).view(height, width, 5)
    torch.testing.assert_close(depth[..., 2], result.depth)
    k = result.intrinsics
    torch.testing.assert_close(depth[7, 9, 0], (9 - k[0, 2]) / k[0, 0] * result.depth[7, 9])
    points = pack_cloud(result, CloudOptions(source='points')).view(height, width, 5)
    torch.testing.assert_close(
        points[..., :3], transform_points(result.camera_from_world, result.points))
    torch.testing.assert_close(points[..., 4], result.points_confidence)


def test_clouds_are_thinned_as_asked(model):
    result = make_engine(model).step(frames()[0])
    assert len(pack_cloud(result, CloudOptions(stride=4))) == 14 * 14
    surest = pack_cloud(result, CloudOptions(confidence_percentile=75.0))
    assert len(surest) == pytest.approx(56 * 56 / 4, rel=0.02)
    assert surest[:, 4].min() >= result.depth_confidence.quantile(0.74)
    alike = replace(result, depth_confidence=torch.ones_like(result.depth_confidence))
    assert len(pack_cloud(alike, CloudOptions(confidence_percentile=75.0))) == 56 * 56
    limit = pack_cloud(result, CloudOptions())[:, :3].norm(dim=1).median().item()
    near = pack_cloud(result, CloudOptions(max_range=limit))
    assert 0 < len(near) <= 56 * 56 / 2 + 1
    assert near[:, :3].norm(dim=1).max() <= limit


def test_clouds_leave_out_what_is_expected_to_be_far_off(model):
    result = make_engine(model).step(frames()[0])
    assert result.depth_error() is None and result.typical_error() == 0
    assert len(pack_cloud(result, CloudOptions(max_error=0.01))) == 56 * 56
    low, middle, high = result.depth_confidence.quantile(torch.tensor((0.0, 0.5, 1.0))).tolist()
    told = replace(result, depth_errors=ErrorTable((low, middle, high), (0.9, 0.3, 0.1)))
    assert told.typical_error().item() == pytest.approx(0.3, rel=0.05)
    errors = told.depth_error()
    assert errors.min().item() == pytest.approx(0.1) and errors.max().item() == pytest.approx(0.9)
    surer = pack_cloud(told, CloudOptions(max_error=0.2))
    assert len(surer) == (errors <= 0.2).sum() and 0 < len(surer) < 56 * 56 / 2
    half = torch.arange(56)[:, None].expand(56, 56) < 28
    masked = told.masked(half)
    assert torch.equal(masked.depth_error() < torch.inf, half)
    assert masked.typical_error() == told.depth_error()[half].sort().values[56 * 14 - 1]
    assert told.masked(torch.zeros_like(half)).typical_error() == 0


def test_a_cloud_lies_in_one_buffer_of_the_same_shape_every_time(model):
    engine = make_engine(model)
    for frame in frames(3):
        result = engine.step(frame)
        for percentile in (0.0, 33.3, 99.0):
            options = CloudOptions(stride=2, confidence_percentile=percentile)
            rows, count = lay_out_cloud([result], [torch.eye(4)], options)
            assert rows.shape == (28 * 28, 5) and rows.is_contiguous()
            assert torch.equal(rows[:count], pack_cloud(result, options))


def test_frames_of_a_rig_share_a_buffer(model):
    engine = make_engine(model)
    results = [engine.step(frame) for frame in frames(3)]
    moved = torch.eye(4, dtype=torch.float64)
    moved[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    options = CloudOptions(confidence_percentile=30.0)
    rows, count = lay_out_cloud(results, [torch.eye(4), torch.eye(4), moved], options)
    assert rows.shape == (3 * 56 * 56, 5)
    single = [pack_cloud(result, options).clone() for result in results]
    single[2][:, :3] += moved[:3, 3].float()
    torch.testing.assert_close(rows[:count], torch.cat(single))


@pytest.mark.parametrize('organized', [False, True])
def test_nothing_waits_for_the_device_between_the_network_and_the_copies(
        model, monkeypatch, organized):
    engine = make_engine(model)
    results = [engine.step(frame) for frame in frames(4)]
    engine.finish_frame()
    monkeypatch.setattr(point_cloud, '_least_on_host', _least_on_device)  # as on a device
    options = CloudOptions(confidence_percentile=20.0, max_range=5.0, organized=organized)
    with OperatorCount() as count:
        lay_out_cloud(results[-1:] if organized else results, [torch.eye(4)] * 4, options)
        results[-1].scaled(2.0).mean_confidence()
        pending = engine.pending_stats()
    assert count.waits == 0 and count.operators > 10, count.names
    assert pending.stats.health is None
    assert pending.complete(pending.health) == engine.cache_stats()
    with OperatorCount() as count:
        pack_cloud(results[0], options)
    assert organized or count.waits > 0     # the count is able to tell


@pytest.mark.parametrize('share', [0.0, 1e-4, 0.2, 0.75, 0.999])
def test_the_least_confidence_is_the_same_with_and_without_waiting(share):
    generator = torch.Generator().manual_seed(0)
    confidence = 1 + torch.rand(5000, generator=generator).mul(50).round()  # with equals
    for known in (torch.ones(5000, dtype=torch.bool), torch.rand(5000, generator=generator) < 0.3):
        kept = [confidence[known] >= least(confidence, known, share)
                for least in (_least_on_host, _least_on_device)]
        assert torch.equal(*kept) and kept[0].float().mean() >= 1 - share
    nothing = torch.zeros(5000, dtype=torch.bool)
    assert _least_on_device(confidence, nothing, share).numel() == 1


@WITH_POINTS
@pytest.mark.parametrize('source', ['depth', 'points'])
def test_an_organised_cloud_has_the_same_points_in_their_places(model, source):
    engine = make_engine(model)
    for frame in frames(2):
        result = engine.step(frame)
    options = CloudOptions(source, stride=3, confidence_percentile=40.0)
    there, whole = pack_cloud(result, options), pack_cloud(result, CloudOptions(source, stride=3))
    cloud = pack_cloud(result, replace(options, organized=True))
    assert cloud.shape == (19, 19, 5)          # of 56 x 56
    finite = cloud[..., :3].isfinite().all(dim=-1)
    assert (finite | cloud[..., :3].isnan().all(dim=-1)).all()
    assert torch.equal(cloud[finite], there)
    assert torch.equal(cloud[finite], whole.view(19, 19, 5)[finite])
    assert torch.equal(cloud[..., 3:].view(torch.int32),
                       whole.view(19, 19, 5)[..., 3:].view(torch.int32))
