"""Quaternions, ours and the middleware's order (x, y, z, w), against transforms3d (w first)."""

import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
import transforms3d
from transforms3d import axangles, quaternions

from xsvggt_ros.geometry import quaternions as ours
from xsvggt_ros.geometry import se3
from xsvggt_ros.mapping.trajectory import StampedPose

BACKENDS = ('tf_transformations', 'transforms3d', 'xsvggt_ros.geometry.se3')


def tf_transformations():
    """Return a module with the names, orders and shapes of tf_transformations, by transforms3d."""
    module = ModuleType('tf_transformations')

    def quaternion_matrix(quaternion):
        whole = np.eye(4)
        whole[:3, :3] = quaternions.quat2mat(w_first(quaternion))
        return whole

    def quaternion_slerp(first, second, fraction, spin=0, shortestpath=True):
        start, end = np.array(first), np.array(second)
        cosine = start @ end
        if shortestpath and cosine < 0:
            end, cosine = -end, -cosine
        angle = np.arccos(min(cosine, 1.0)) + spin * np.pi
        if angle < 1e-15:
            return start
        return (np.sin((1 - fraction) * angle) * start + np.sin(fraction * angle) * end
                ) / np.sin(angle)

    module.quaternion_matrix = quaternion_matrix
    module.quaternion_slerp = quaternion_slerp
    module.quaternion_from_matrix = lambda matrix: tuple(
        np.roll(quaternions.mat2quat(np.asarray(matrix)[:3, :3]), -1))
    return module


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Have each backend convert, as if those before it were not installed."""
    hidden = dict.fromkeys(BACKENDS[:BACKENDS.index(request.param)])
    if request.param == 'tf_transformations':
        hidden = {'tf_transformations': tf_transformations()}
    for name, module in hidden.items():
        monkeypatch.setitem(sys.modules, name, module)
    chosen = ours.choose_backend()
    assert chosen.name == request.param
    monkeypatch.setattr(ours, '_BACKEND', chosen)
    return chosen


def random_turns(count):
    """Return random rotations [3, 3], and the half turns about the axes."""
    rng = np.random.default_rng(0)
    turns = [quaternions.quat2mat(rng.normal(size=4)) for _ in range(count)]
    return [*turns, *(quaternions.quat2mat(row) for row in np.eye(4))]


def w_first(quaternion):
    return [quaternion[3], *quaternion[:3]]


def test_matrices_of_quaternions(backend):
    for wxyz in np.random.default_rng(1).normal(size=(50, 4)):
        truth = quaternions.quat2mat(wxyz)
        xyzw = np.roll(wxyz, -1)
        found = se3.quaternion_to_matrix(torch.from_numpy(xyzw))
        np.testing.assert_allclose(found, truth, atol=1e-12)
        np.testing.assert_allclose(ours.matrix_from_quaternion(xyzw), truth, atol=1e-12)
        pose = StampedPose(0, (1.0, 2.0, 3.0), tuple(xyzw))
        np.testing.assert_allclose(pose.matrix()[:3, :3], truth, atol=1e-12)


def test_quaternions_of_matrices(backend):
    for turn in random_turns(50):
        for found in (se3.matrix_to_quaternion(torch.from_numpy(turn)).tolist(),
                      ours.quaternion_from_matrix(turn)):
            np.testing.assert_allclose(quaternions.quat2mat(w_first(found)), turn, atol=1e-12)
            assert found[3] >= 0 and all(type(part) is float for part in found)


@pytest.mark.parametrize('part', [0.0, 0.2, 0.5, 0.9, 1.0])
def test_between_two_turns_it_goes_evenly_the_shorter_way(backend, part):
    axis = np.array([0.3, -0.5, 0.8])
    for begin, end in ((35, 55), (-170, 175), (10, 10), (20, 20.001)):
        angles = np.radians((begin, end))
        first, second = (np.roll(quaternions.axangle2quat(axis, angle), -1) for angle in angles)
        short = (end - begin + 180) % 360 - 180
        truth = axangles.axangle2mat(axis, angles[0] + part * np.radians(short))
        for sign in (1, -1):  # the negative is the same turn
            found = ours.quaternion_between(first, sign * second, part)
            np.testing.assert_allclose(
                quaternions.quat2mat(w_first(found)), truth, atol=1e-7)


def test_what_is_no_rotation_is_no_matrix(backend):
    for bad in ((0.0,) * 4, (np.nan, 0, 0, 1), (np.inf, 0, 0, 1)):
        assert np.isnan(ours.matrix_from_quaternion(bad)).all()
        with pytest.raises(ValueError, match='no rotation'):
            ours.quaternion_between((0, 0, 0, 1), bad, 0.5)


def test_one_that_is_broken_is_passed_over(monkeypatch):
    """As transforms3d 0.3 is with a new NumPy, and something else with the name it needs."""
    wrong = tf_transformations()
    wrong.quaternion_from_matrix = lambda matrix: (1.0, 0.0, 0.0, 0.0)  # w first
    monkeypatch.setitem(sys.modules, 'tf_transformations', wrong)
    assert ours.choose_backend().name == 'transforms3d'

    def fail(*_):
        raise AttributeError("module 'numpy' has no attribute 'float'")

    monkeypatch.setattr(transforms3d.quaternions, 'quat2mat', fail)
    assert ours.choose_backend().name == 'xsvggt_ros.geometry.se3'


def test_the_camera_of_the_demo_starts_without_torch():
    program = ('import sys, xsvggt_ros.mapping.trajectory as t\n'
               't.StampedPose(0, (0, 0, 0), (0, 0, 0, 1)).matrix()\n'
               'assert "torch" not in sys.modules')
    subprocess.run([sys.executable, '-c', program], check=True)


def test_many_rotations_at_once_are_as_one_by_one():
    rng = np.random.default_rng(1)
    turns = rng.normal(size=(50, 4))
    turns[:3] = (1, 0, 0, 0), (0, 0, 0, 1), (0, 0.6, 0.8, 0)   # half turns, and none
    turns /= np.linalg.norm(turns, axis=1, keepdims=True)
    matrices = np.array([ours.matrix_from_quaternion(turn) for turn in turns])
    found = ours.quaternions_from_matrices(matrices)
    assert (found[:, 3] >= 0).all()
    np.testing.assert_allclose([ours.matrix_from_quaternion(turn) for turn in found], matrices,
                               atol=1e-12)
    both = ours.quaternion_products(turns, turns[::-1])
    np.testing.assert_allclose([ours.matrix_from_quaternion(turn) for turn in both],
                               matrices @ matrices[::-1], atol=1e-12)
