"""Keyframes that see the same give their similarity; what does not agree gives a reason."""

from dataclasses import replace

from loop_scene import Room, round_way
import numpy as np
import pytest

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.keyframe import Keyframe
from xsvggt_ros.trajectory.loop_check import Loop, LoopCheck


@pytest.fixture(scope='module')
def seen() -> tuple[Keyframe, Keyframe, np.ndarray]:
    room, (first, second) = Room(), round_way(2)
    return room.keyframe(3, first), room.keyframe(40, second, scale=1.25), np.linalg.inv(
        first) @ second


def test_pose_and_scale_between_both_are_found(seen):
    old, new, between = seen
    loop = LoopCheck(TrajectoryConfig()).loop(old, new)
    assert isinstance(loop, Loop) and (loop.first, loop.second) == (3, 40)
    assert np.allclose(loop.first_from_second[:3, 3], between[:3, 3], atol=0.01)
    assert np.allclose(loop.first_from_second[:3, :3] * 1.25, between[:3, :3], atol=0.01)
    assert loop.inliers > 60 and (loop.sigma > 0).all()


def test_what_does_not_agree_is_refused_with_the_reason(seen):
    old, new, _ = seen
    check, rng = LoopCheck(TrajectoryConfig()), np.random.default_rng(0)
    none = replace(new, features=replace(new.features, descriptors=rng.integers(
        0, 256, new.features.descriptors.shape, dtype=np.uint8)))
    assert check.loop(old, none) == 'few matches'
    assert check.loop(replace(old, points=np.full_like(old.points, np.nan)), new) == 'few matches'
    assert check.loop(replace(old, points=rng.permutation(old.points)), new) in (
        'no pose', 'few inliers')
    assert check.loop(old, replace(new, points=np.full_like(new.points, np.nan))) == 'no scale'
    assert check.loop(old, replace(new, points=5 * new.points)) == 'no scale'
    for depth in (2 * new.depth, np.full_like(new.depth, np.nan)):
        assert check.loop(old, replace(new, depth=depth)) == 'depths disagree'


def test_few_inliers_are_less_sure(seen):
    old, new, _ = seen
    check = LoopCheck(TrajectoryConfig())
    many = check.loop(old, new)
    few = check.loop(replace(old, points=np.where(
        (np.arange(len(old.points)) % 4)[:, None] > 0, np.nan, old.points)), new)
    assert isinstance(few, Loop) and few.inliers < many.inliers
    assert (few.sigma > many.sigma).all()
