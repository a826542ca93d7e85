"""Quaternions, ours and the middleware's order (x, y, z, w), against transforms3d (w first)."""

from geometry_msgs.msg import Quaternion, TransformStamped
import numpy as np
import pytest
import torch

from xsvggt_ros import geometry
from xsvggt_ros.engine.trajectory import quaternion_from_rotation
from xsvggt_ros.node.tf_listener import TransformTree

quaternions = pytest.importorskip('transforms3d.quaternions')


def random_turns(count):
    """Return random rotations [3, 3], and the half turns about the axes."""
    rng = np.random.default_rng(0)
    turns = [quaternions.quat2mat(rng.normal(size=4)) for _ in range(count)]
    return [*turns, *(quaternions.quat2mat(row) for row in np.eye(4))]


def w_first(quaternion):
    return [quaternion[3], *quaternion[:3]]


def test_matrices_of_quaternions():
    for wxyz in np.random.default_rng(1).normal(size=(50, 4)):
        ours = geometry.quaternion_to_matrix(torch.from_numpy(np.roll(wxyz, -1)))
        np.testing.assert_allclose(ours, quaternions.quat2mat(wxyz), atol=1e-12)


def test_quaternions_of_matrices():
    for turn in random_turns(50):
        for found in (geometry.matrix_to_quaternion(torch.from_numpy(turn)).tolist(),
                      quaternion_from_rotation(turn)):
            np.testing.assert_allclose(quaternions.quat2mat(w_first(found)), turn, atol=1e-12)
            assert found[3] >= 0


@pytest.mark.parametrize('part', [0.0, 0.2, 0.5, 0.9])
def test_tf_between_two_stamps_is_near_the_great_arc(part):
    """Interpolation is not spherical: 0.05 degrees off over 20 degrees would be too much."""
    axis = np.array([0.3, -0.5, 0.8])
    angles = [np.radians(35), np.radians(55)]
    tree = TransformTree()
    for second, angle in enumerate(angles):
        w, x, y, z = quaternions.axangle2quat(axis, angle)
        edge = TransformStamped(child_frame_id='camera')
        edge.header.frame_id = 'base_link'
        edge.header.stamp.sec = second
        edge.transform.rotation = Quaternion(x=x, y=y, z=z, w=w)
        tree.add(edge, static=False)
    found = tree.lookup('base_link', 'camera', int(part * 1e9))[:3, :3]
    angle = angles[0] + part * (angles[1] - angles[0])
    truth = quaternions.quat2mat(quaternions.axangle2quat(axis, angle))
    cosine = (np.trace(found @ truth.T) - 1) / 2
    assert np.degrees(np.arccos(min(cosine, 1.0))) < 0.05
