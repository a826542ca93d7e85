"""The network's depth against landmarks whose depths are exactly known."""

import math

import numpy as np
import pytest
from scenes import CAMERA

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.frame import Frame
from xsvggt_ros.trajectory.local_map import LocalMap
from xsvggt_ros.trajectory.network_depth import NetworkDepth
from xsvggt_ros.trajectory.projection import motion
from xsvggt_ros.trajectory.tracker import Tracks
from xsvggt_ros.trajectory.uncertainty import HALF_NORMAL

POSE = motion(np.array([0.1, 0.4, 0.0, 1.0, 2.0, -1.0]))
SMALLER = np.diag([0.5, 0.5, 1.0])   # the depth map is of half the image's size


def frame_of(depth, **changes):
    depth = np.broadcast_to(np.float32(depth), (120, 160)).copy()
    values = dict(grey=np.zeros((240, 320), np.uint8), depth=depth,
                  confidence=np.ones_like(depth), world_from_camera=np.eye(4),
                  depth_from_image=SMALLER)
    return Frame(**values | changes)


def relief():
    """Return depths [120, 160] that grow from 1 to 4, downwards."""
    return np.exp(np.linspace(0, np.log(4), 120))[:, None]


def landmarks(depths, count=100, sigma=0.05):
    """Return a map with landmarks in a keyframe at POSE, and their tracks; depths: of pixels."""
    rng = np.random.default_rng(0)
    pixels = (2 * rng.integers((5, 5), (155, 115), (count, 2))).astype(np.float32)
    local_map = LocalMap(CAMERA, TrajectoryConfig(), True, 1.0)
    local_map.add_keyframe(0, POSE, Tracks.none())
    ids = local_map.add_landmarks(0, pixels, depths(pixels), np.broadcast_to(sigma, count))
    return local_map, Tracks(ids, pixels)


def times(factor, frame):
    return lambda pixels: factor * frame.depth[tuple((pixels[:, ::-1] / 2).astype(int).T)]


def learned(frame, depths, is_doubtful=False, lean=0.5, **values):
    network = NetworkDepth(TrajectoryConfig(depth_lean=lean))
    local_map, tracks = landmarks(depths, **values)
    network.learn(frame, tracks, POSE, local_map, is_doubtful)
    return network


@pytest.mark.parametrize('lean, doubtful, power', [(0.0, False, 1.0), (0.5, False, 0.5),
                                                   (0.0, True, 0.0)])
def test_a_unit_is_that_of_the_landmarks_as_far_as_it_leans_on_them(lean, doubtful, power):
    frame = frame_of(relief())
    network = learned(frame, times(3.0, frame), doubtful, lean)
    assert network.scale == pytest.approx(3.0 ** power, rel=1e-5)
    pixels = np.array([[10.0, 20.0], [300.0, 238.0]])
    np.testing.assert_allclose(network.of(frame, pixels),
                               3.0 ** power * frame.depth[[10, 119], 0], rtol=1e-5)
    assert network.trust.share == 1.0


def test_a_network_that_contradicts_itself_has_no_unit_to_lean_on():
    frame = frame_of(relief())
    rng = np.random.default_rng(1)
    network = learned(frame, lambda pixels: times(3.0, frame)(pixels) * np.exp(
        rng.normal(0, 0.8, len(pixels))))
    assert network.scale == pytest.approx(3.0, rel=0.15)


def test_landmarks_that_are_not_well_known_do_not_count_beside_those_that_are():
    frame = frame_of(relief())
    rough = np.arange(100) % 4 > 0    # three in four
    network = learned(frame, lambda pixels: times(1.0, frame)(pixels) * np.where(rough, 9, 2),
                      sigma=np.where(rough, 0.5, 0.05), lean=0.0)
    assert network.scale == pytest.approx(2.0, rel=1e-5)
    alone = learned(frame, times(9.0, frame), sigma=0.5, lean=0.0)   # better than nothing
    assert alone.scale == pytest.approx(9.0, rel=1e-5)


@pytest.mark.parametrize('depth, count', [(2.0, 20), (2.0, 0), (np.nan, 100), (0.0, 100),
                                          (-1.0, 100)])
def test_what_says_nothing_changes_nothing(depth, count):
    network = learned(frame_of(depth), lambda pixels: np.full(len(pixels), 5.0), count=count)
    assert network.log_scale == 0.0 and network.trust.share == 1.0


def test_depths_come_with_sigmas_of_errors_or_of_confidences_within_bounds():
    network = NetworkDepth(TrajectoryConfig(depth_sigma=0.2))
    network.log_scale = math.log(3.0)
    pixels = 2.0 * np.array([[10, 60], [50, 60], [90, 60], [130, 60], [150, 60]])
    columns = np.repeat([0.0, 1.0, 1.0, 1.44, 100.0], [30, 40, 40, 30, 20]).astype(np.float32)
    frame = frame_of(2.0, confidence=np.tile(columns, (120, 1)))
    depths, sigmas = network.judged(frame, pixels)
    np.testing.assert_allclose(depths, 6.0, rtol=1e-6)
    np.testing.assert_allclose(sigmas / 0.2, [2, 1, 1, 1 / 1.2, 0.7], rtol=1e-6)
    errors = np.repeat([0.0, 0.2, np.nan, 0.1, 5.0], [30, 40, 40, 30, 20]).astype(np.float32)
    told = frame_of(2.0, depth_error=lambda: np.tile(errors, (120, 1)))
    sigmas = network.judged(told, pixels)[1]
    np.testing.assert_allclose(sigmas, [0.05, 0.2 / HALF_NORMAL, 0.6, 0.1 / HALF_NORMAL, 0.6],
                               rtol=1e-6)
    depths, sigmas = network.judged(frame_of(np.nan, confidence=np.zeros((120, 160))), pixels)
    assert np.isnan(depths).all() and np.isfinite(sigmas).all() and (sigmas > 0).all()


def test_factors_bring_each_part_of_the_depth_to_its_landmarks():
    frame, network = frame_of(2.0), NetworkDepth(TrajectoryConfig())
    network.log_scale = math.log(3.0)
    local_map, tracks = landmarks(lambda pixels: 5 + pixels[:, 0] / 160, 300, 0.01)
    factors = network.factors(frame, tracks, POSE, local_map)
    assert factors.shape == (120, 160) and factors.dtype == np.float32
    np.testing.assert_allclose(2 * factors[60, [20, 80, 140]], [5.25, 6, 6.75], rtol=0.02)
    for few, other in ((tracks.chosen(np.arange(10)), frame), (tracks, frame_of(np.nan))):
        flat = network.factors(other, few, POSE, local_map)
        np.testing.assert_allclose(flat, 3.0, rtol=1e-6)
