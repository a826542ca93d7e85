"""What the network may say of a frame, and what is refused as no reconstruction."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from xsvggt_ros.bench.operator_count import OperatorCount
from xsvggt_ros.engine.frame_result import check_results, FrameResult, ResultError
from xsvggt_ros.geometry.se3 import pose_encoding_to_camera

SIZE = 4, 6
ENCODING = torch.tensor([1.0, 2.0, 3.0, 0.0, 0.6, 0.0, 0.8, 0.9, 1.2])


def result(points=False):
    pose, intrinsics = pose_encoding_to_camera(ENCODING, *SIZE)
    return FrameResult(
        frame_index=3, image=torch.zeros(*SIZE, 3).byte(), pose_encoding=ENCODING.clone(),
        camera_from_world=pose, intrinsics=intrinsics, predicted_intrinsics=intrinsics.clone(),
        depth=torch.full(SIZE, 2.0), depth_confidence=torch.full(SIZE, 1.5),
        points=torch.full((*SIZE, 3), -2.0) if points else None,
        points_confidence=torch.full(SIZE, 1.5) if points else None, upload_seconds=0.0)


def spoiled(name, place, value, points=True):
    one = result(points)
    tensor = getattr(one, name).clone()
    tensor[place] = value
    return replace(one, **{name: tensor})


@pytest.mark.parametrize('points', [False, True])
def test_a_reconstruction_is_accepted_and_its_pose_is_on_the_host(points):
    results = [result(points), result(points)]
    places = check_results(results, [torch.tensor([-50.0, 60.0])], largest=65504)
    assert places.shape == (2, 4, 4) and places.dtype == np.float64
    np.testing.assert_array_equal(places[1], results[1].camera_from_world.double().numpy())


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize('name, place, what, lost', [
    ('depth', (1, 2), 'the depth is not finite', False),
    ('depth_confidence', (0, 0), 'the confidence is not finite', False),
    ('points', (3, 5, 1), 'a point is not finite', False),
    ('points_confidence', (3, 5), 'the confidence of a point is not finite', False),
    ('camera_from_world', (0, 3), 'the pose is not finite', True),
    ('camera_from_world', (2, 1), 'the pose is not finite', True),
    ('pose_encoding', 4, 'the pose is not finite', True),
    ('intrinsics', (0, 0), 'the focal length is not finite', False),
    ('predicted_intrinsics', (1, 1), 'the focal length is not finite', False)])
def test_one_number_that_is_none_is_enough_to_refuse(name, place, value, what, lost):
    with pytest.raises(ResultError, match=what) as error:
        check_results([result(True), spoiled(name, place, value)])
    assert error.value.lost == lost


@pytest.mark.parametrize('name, place, value, what', [
    ('camera_from_world', (1, 3), 1e30, 'the pose is 1e.30 units'),
    ('camera_from_world', (slice(3), slice(3)), 0, 'no rotation'),
    ('camera_from_world', (0, 0), 5, 'no rotation'),
    ('camera_from_world', 0, torch.tensor([-0.28, 0, -0.96, 0]), 'no rotation'),  # a mirror
    ('pose_encoding', slice(3, 7), 0, 'no rotation'),
    ('depth', (0, 0), 1e30, 'the depth is 1e.30'), ('depth', (0, 0), -1, 'the depth is -1'),
    ('points', (0, 0, 0), -1e20, 'a point is -1e.20')])
def test_what_no_camera_can_have_seen_is_refused(name, place, value, what):
    with pytest.raises(ResultError, match=what):
        check_results([spoiled(name, place, value)])


def test_what_is_unknown_at_the_border_of_a_rectified_image_is_no_fault():
    valid = torch.ones(SIZE, dtype=torch.bool)
    valid[0] = False
    masked = result(True).masked(valid)
    assert masked.depth.isnan().any()
    check_results([masked])
    for name in ('depth', 'points'):
        values = getattr(masked, name).clone()
        values[2, 2] = torch.nan
        with pytest.raises(ResultError, match='not finite'):
            check_results([replace(masked, **{name: values})])


@pytest.mark.parametrize('stored', [torch.nan, torch.inf, 70_000.0, -70_000.0])
def test_what_cannot_be_stored_is_refused(stored):
    with pytest.raises(ResultError, match='KV cache'):
        check_results([result()], [torch.ones(3), torch.tensor([0.0, stored])], largest=65504)


def test_the_numbers_are_gathered_without_waiting():
    one = result(True)
    with OperatorCount() as count:
        one.numbers()
    assert count.waits == 0 and count.operators < 20
