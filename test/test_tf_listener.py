"""Transforms of others, looked up along the tree."""

from geometry_msgs.msg import TransformStamped
import numpy as np
import pytest
import torch

from xsvggt_ros.geometry import matrix_to_quaternion, quaternion_to_matrix
from xsvggt_ros.node.tf_listener import LookupError_, TransformTree

SECOND = 10 ** 9


def random_transform(rng):
    matrix = np.eye(4)
    matrix[:3, :3] = quaternion_to_matrix(torch.from_numpy(rng.normal(size=4))).numpy()
    matrix[:3, 3] = rng.normal(size=3)
    return matrix


def edge(parent, child, matrix, stamp_ns=0):
    message = TransformStamped()
    message.header.frame_id, message.child_frame_id = parent, child
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND)
    move, turn = message.transform.translation, message.transform.rotation
    move.x, move.y, move.z = matrix[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = matrix_to_quaternion(
        torch.from_numpy(matrix[:3, :3])).tolist()
    return message


@pytest.mark.parametrize('seed', range(5))
def test_frames_are_found_up_and_down_the_tree(seed):
    rng = np.random.default_rng(seed)
    world_from = {'world': np.eye(4)}
    tree = TransformTree()
    for parent, child in (('world', 'body'), ('body', 'left'), ('body', 'mast'),
                          ('mast', 'right')):
        world_from[child] = random_transform(rng)
        tree.add(edge(parent, child, np.linalg.inv(world_from[parent]) @ world_from[child]),
                 static=bool(rng.integers(2)))
    for target in world_from:
        for source in world_from:
            np.testing.assert_allclose(
                tree.lookup(target, source, None),
                np.linalg.inv(world_from[target]) @ world_from[source], atol=1e-9)


def test_what_is_not_known_is_not_guessed():
    tree = TransformTree()
    with pytest.raises(LookupError_, match="nothing is known of 'left'"):
        tree.lookup('left', 'right', None)
    tree.add(edge('body', 'left', np.eye(4)), static=True)
    tree.add(edge('other', 'right', np.eye(4)), static=True)
    with pytest.raises(LookupError_, match="from 'right' to 'left'"):
        tree.lookup('left', 'right', None)
    tree.add(edge('body', 'body', np.eye(4)), static=True)
    tree.add(edge('a', 'b', np.eye(4)), static=True)
    tree.add(edge('b', 'a', np.eye(4)), static=True)   # a loop
    with pytest.raises(LookupError_):
        tree.lookup('left', 'a', None)


def test_a_moving_edge_is_interpolated_and_never_extrapolated():
    tree = TransformTree()
    quarter = np.array([[0.0, -1, 0, 2], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    tree.add(edge('world', 'body', np.eye(4), SECOND), static=False)
    tree.add(edge('world', 'body', quarter, 2 * SECOND), static=False)
    half = tree.lookup('world', 'body', 3 * SECOND // 2)
    np.testing.assert_allclose(half[:3, 3], (1, 0, 0))
    np.testing.assert_allclose(half[:2, :2], np.sqrt(0.5) * np.array([[1, -1], [1, 1]]))
    np.testing.assert_allclose(tree.lookup('world', 'body', 2 * SECOND), quarter, atol=1e-12)
    for stamp in (SECOND // 2, 5 * SECOND // 2):
        with pytest.raises(LookupError_, match='0.5 s'):
            tree.lookup('world', 'body', stamp)
    tree.add(edge('world', 'body', np.eye(4), SECOND), static=False)   # time went back
    np.testing.assert_allclose(tree.lookup('world', 'body', None), np.eye(4))


def test_what_moves_above_both_frames_and_a_second_parent_do_not_matter():
    tree = TransformTree()
    tree.add(edge('left', 'right', random_transform(np.random.default_rng(0))), static=True)
    before = tree.lookup('left', 'right', None)
    tree.add(edge('odom', 'left', np.eye(4), SECOND), static=False)
    np.testing.assert_allclose(tree.lookup('left', 'right', 5 * SECOND), before)
    tree.add(edge('odom', 'right', np.eye(4), SECOND), static=False)
    np.testing.assert_allclose(tree.lookup('left', 'right', None), before)
