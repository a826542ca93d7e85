"""Rectified pictures against pictures of a pinhole camera, and what is not seen in them."""

import golden_data
import numpy as np
import pytest
from test_camera_model import camera, P, R, undistort
import torch

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.errors import FrameError
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.geometry.camera_model import CameraError, CameraModel, LENSES
from xsvggt_ros.images import rectify
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.images.rectify import (
    CameraView,
    DepthViews,
    MAX_SAMPLES,
    MOST_DEPTH_VIEWS,
    Rectification,
)
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.mapping.point_cloud import CloudOptions, pack_cloud
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.streamvggt import StreamVGGT

CASE = golden_data.load_case('tiny_h1')
SIDE = 56


def paint(directions):
    """Return what is seen in directions [..., 2] of the plane at distance 1, uint8 [..., 3]."""
    x, y = directions[..., 0], directions[..., 1]
    waves = (np.sin(11 * x + 5 * y), np.sin(13 * y - 3 * x), np.sin(9 * x * y + 7 * x))
    return np.round(127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)


def directions_of(matrix, width, height, rotation=np.eye(3)):
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack((u, v, np.ones_like(u)), -1) @ np.linalg.inv(matrix).T @ rotation
    return rays[..., :2] / rays[..., 2:]


def view_of(model):
    return CameraView(model, Resize.plan(model.height, model.width, None, 14))


@pytest.mark.slow
@pytest.mark.parametrize('lens', LENSES)
@pytest.mark.parametrize('rectification', [{}, {'r': R, 'p': P}])
def test_a_distorted_picture_becomes_the_pinhole_cameras(lens, rectification):
    model = camera(lens, **rectification).for_images(376, 240)
    raw = paint(undistort(model, directions_of(model.camera_matrix, 376, 240)))
    pinhole = paint(directions_of(model.rectified_matrix, 376, 240, model.rectified_from_raw))
    view = view_of(model)
    rectified = view.model_image(torch.from_numpy(raw)).numpy()
    seen = np.ones((240, 376), bool) if view.valid is None else view.valid.numpy()
    assert seen.mean() > 0.8
    error = np.abs(rectified.astype(int) - pinhole)[seen]
    assert error.max() <= 6 and error.mean() < 0.5
    assert np.abs(raw.astype(int) - pinhole)[seen].mean() > 3
    assert not rectified[np.isnan(model.rectification_map()).any(-1)].any()


@pytest.mark.slow
@pytest.mark.parametrize('lens', LENSES)
def test_large_pictures_are_sampled_and_show_the_same(lens):
    model = camera(lens).for_images(752, 480)
    raw = torch.from_numpy(paint(undistort(model, directions_of(model.camera_matrix, 752, 480))))
    resize = Resize.plan(480, 752, 28, 14)
    view = CameraView(model, resize)
    assert view._rectify.inside.shape == (round(480 / 752 * 28 * MAX_SAMPLES),
                                          28 * MAX_SAMPLES)
    sampled = view.model_image(raw).int()
    whole = resize(Rectification(model, 752, 480)(raw)).int()
    difference = (sampled - whole).abs()[2:-2, 2:-2]   # to others the outside contributes
    assert difference.max() <= 4 and difference.float().mean() < 0.6


def test_opencv_and_pytorch_rectify_alike(monkeypatch):
    model = camera().for_images(376, 240)
    raw = torch.randint(0, 256, (240, 376, 3), dtype=torch.uint8)
    for width, height in ((376, 240), (188, 120)):
        by_opencv = Rectification(model, width, height)
        with monkeypatch.context() as patch:
            patch.setattr(rectify, '_OPENCV_SIDE', 0)
            by_pytorch = Rectification(model, width, height)
        difference = (by_opencv(raw).int() - by_pytorch(raw).int()).abs()
        # OpenCV interpolates in steps of 1/32 of a pixel.
        assert difference.float().mean() < 2 and difference.max() <= 2 * 255 / 32 + 1
        assert torch.equal(by_opencv.inside, by_pytorch.inside)


def test_a_pinhole_cameras_pictures_stay_as_they_are():
    view = view_of(camera(d=()))
    frame = torch.randint(0, 256, (480, 752, 3), dtype=torch.uint8)
    assert torch.equal(view.model_image(frame), frame) and view.valid is None


def test_intrinsics_are_those_of_the_model_image():
    resize = Resize.plan(480, 752, 518, 14)
    view = CameraView(camera(p=P), resize)
    expected = resize.model_from_source() @ torch.tensor(P).double().view(3, 4)[:, :3]
    torch.testing.assert_close(view.intrinsics, expected.float())


def test_depth_of_a_lens_is_rectified_by_the_nearest_pixel():
    model = camera(r=R, p=(300, 0, 360, 0, 0, 300, 250, 0, 0, 0, 1, 0))
    depth = np.random.default_rng(0).uniform(1, 9, (480, 752)).astype(np.float32)
    rectified = DepthViews().rectify(depth, model)
    sources = model.rectification_map()
    inside = model.is_inside(sources)
    assert 0.5 < inside.mean() < 1 and (np.isnan(rectified) == ~inside).all()
    columns, rows = np.rint(sources[inside]).astype(int).T
    np.testing.assert_array_equal(rectified[inside],
                                  depth[rows.clip(0, 479), columns.clip(0, 751)])
    assert DepthViews().rectify(depth, None) is depth
    assert DepthViews().rectify(depth, model.rectified()) is depth


def test_depth_of_another_size_has_one_map_for_all_images(monkeypatch):
    made = []
    original = CameraModel.rectification_rows
    monkeypatch.setattr(CameraModel, 'rectification_rows',
                        lambda self: made.append((self.width, self.height)) or original(self))
    views, model = DepthViews(), camera()
    sizes = [(752, 480), (376, 240), (188, 120)]
    for _ in range(5):
        for width, height in sizes:
            assert views.rectify(np.ones((height, width), np.float32), model).shape == (
                height, width)
    assert made == sizes
    for _ in range(3 * MOST_DEPTH_VIEWS):  # a lens that zooms must not fill the memory
        views.rectify(np.ones((120, 188), np.float32), camera())
    assert len(views._views) == MOST_DEPTH_VIEWS
    with pytest.raises(CameraError, match='another aspect'):
        views.rectify(np.ones((100, 100), np.float32), model)


# The engine with a calibrated camera -------------------------------------------------------------

def make_engine():
    model = StreamVGGT(ModelConfig.from_dict(CASE.config))
    model.load_state_dict(CASE.weights, strict=True)
    return StreamEngine(model, EngineConfig(CacheConfig(max_tokens=60, camera_max_tokens=24)))


def small_camera(**changes):
    fields = {'size': (SIDE, SIDE), 'k': (60, 0, 27, 0, 62, 28, 0, 0, 1)}
    return CameraModel.calibrated(**fields | changes)


def test_without_distortion_only_the_intrinsics_change():
    plain, calibrated = make_engine(), make_engine()
    pinhole = small_camera()
    for index in range(3):
        a, b = plain.step(CASE.rgb(index)), calibrated.step(CASE.rgb(index), pinhole)
        for field in ('image', 'depth', 'points', 'depth_confidence', 'camera_from_world'):
            torch.testing.assert_close(getattr(a, field), getattr(b, field), rtol=0, atol=0)
        torch.testing.assert_close(b.predicted_intrinsics, a.intrinsics)
        assert b.intrinsics.tolist() == [[60, 0, 27], [0, 62, 28], [0, 0, 1]]
    cloud = pack_cloud(b, CloudOptions()).view(SIDE, SIDE, 5)
    torch.testing.assert_close(cloud[9, 7, :3], b.depth[9, 7] * torch.tensor(
        ((7 - 27) / 60, (9 - 28) / 62, 1.0)))
    by_head = pack_cloud(b, CloudOptions(source='points'))
    torch.testing.assert_close(by_head, pack_cloud(a, CloudOptions(source='points')))


def test_what_the_lens_does_not_show_is_nothing():
    # A rectified camera with a third of the focal length sees more than the image does.
    wide = small_camera(p=(20, 0, 27, 0, 0, 20, 28, 0, 0, 0, 1, 0))
    result = make_engine().step(torch.full((SIDE, SIDE, 3), 200, dtype=torch.uint8), wide)
    outside = torch.isnan(result.depth)
    assert 0.8 < outside.float().mean() < 0.95
    assert not outside[19:37, 18:37].any()
    assert outside[:19].all() and outside[37:].all() and outside[:, :18].all()
    assert (result.image[~outside] == 200).all() and not result.image[:18].any()
    assert torch.equal(outside, torch.isnan(result.points).all(-1))
    assert (result.depth_confidence[outside] == 0).all()
    assert (result.depth_confidence[~outside] >= 1).all()
    assert result.mean_confidence().item() == pytest.approx(
        result.depth_confidence[~outside].mean().item())
    inside = int((~outside).sum())
    for source in ('depth', 'points'):
        cloud = pack_cloud(result, CloudOptions(source=source))
        assert len(cloud) == inside and torch.isfinite(cloud[:, :3]).all()
        half = pack_cloud(result, CloudOptions(source=source, confidence_percentile=50.0))
        assert len(half) == pytest.approx(inside / 2, abs=2)
    assert torch.equal(torch.isnan(result.scaled(2.0).depth), outside)


def test_cameras_may_change_from_frame_to_frame():
    engine = make_engine()
    cameras = [small_camera(d=(0.01 * i,)) for i in range(1, 12)]
    for index, model in enumerate(cameras):
        result = engine.step(CASE.rgb(index % 4), model)
        torch.testing.assert_close(result.image, view_of(model).model_image(CASE.rgb(index % 4)))
    assert len(engine._input._views) <= 8


def test_a_camera_of_another_size_leaves_the_stream_alone():
    engine, undisturbed = make_engine(), make_engine()
    engine.step(CASE.rgb(0))
    with pytest.raises(FrameError, match='calibration is for images of 28x28'):
        engine.step(CASE.rgb(1), small_camera().for_images(28, 28))
    undisturbed.step(CASE.rgb(0))
    torch.testing.assert_close(engine.step(CASE.rgb(1)).depth,
                               undisturbed.step(CASE.rgb(1)).depth, rtol=0, atol=0)
