"""Transforms of others, looked up along the tree."""

from geometry_msgs.msg import TransformStamped
import numpy as np
import pytest
from transforms3d import quaternions

from xsvggt_ros.geometry.quaternions import matrix_from_quaternion, quaternion_from_matrix
from xsvggt_ros.mapping.transform_tree import (
    LookupError_,
    MAX_ASKED,
    MAX_FRAMES,
    MAX_PARENTS,
    MAX_TRANSFORMS,
    MAX_TRANSFORMS_OF_OTHERS,
    MAX_WARNINGS,
    TransformTree,
)

SECOND = 10 ** 9


def random_transform(rng):
    matrix = np.eye(4)
    matrix[:3, :3] = matrix_from_quaternion(rng.normal(size=4))
    matrix[:3, 3] = rng.normal(size=3)
    return matrix


def edge(parent, child, matrix, stamp_ns=0):
    message = TransformStamped()
    message.header.frame_id, message.child_frame_id = parent, child
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND)
    move, turn = message.transform.translation, message.transform.rotation
    move.x, move.y, move.z = matrix[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = quaternion_from_matrix(matrix[:3, :3])
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
    with pytest.raises(LookupError_, match='no transform has come'):
        tree.lookup('left', 'right', None)
    tree.add(edge('body', 'left', np.eye(4)), static=True)
    tree.add(edge('other', 'right', np.eye(4)), static=True)
    with pytest.raises(LookupError_, match="from 'right' to 'left'.*below 'other' and 'body'"):
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


@pytest.mark.parametrize('part', [0.0, 0.2, 0.5, 0.9])
def test_between_two_stamps_it_turns_along_the_great_arc(part):
    axis = np.array([0.3, -0.5, 0.8])
    angles = np.radians((35, 155))
    tree = TransformTree()
    for second, angle in enumerate(angles):
        matrix = np.eye(4)
        matrix[:3, :3] = quaternions.quat2mat(quaternions.axangle2quat(axis, angle))
        tree.add(edge('base_link', 'camera', matrix, second * SECOND), static=False)
    found = tree.lookup('base_link', 'camera', int(part * 1e9))[:3, :3]
    angle = angles[0] + part * (angles[1] - angles[0])
    truth = quaternions.quat2mat(quaternions.axangle2quat(axis, angle))
    np.testing.assert_allclose(found, truth, atol=1e-8)


def bad_edge(quaternion=(0.0, 0.0, 0.0, 1.0), position=(0.0, 0.0, 0.0)):
    message = edge('base_link', 'camera', np.eye(4), SECOND)
    move, turn = message.transform.translation, message.transform.rotation
    move.x, move.y, move.z = position
    turn.x, turn.y, turn.z, turn.w = quaternion
    return message


@pytest.mark.parametrize('static', [True, False])
@pytest.mark.parametrize(('spoilt', 'word'), [
    (bad_edge((0.0, 0.0, 0.0, 0.0)), 'never set'), (bad_edge((-1.0, 1.0, -1.0, 1.0)), 'length 2'),
    (bad_edge((0.0, 0.0, 0.0, 0.99)), 'length 0.99'),
    (bad_edge((np.nan, 0.0, 0.0, 1.0)), 'finite'),
    (bad_edge(position=(0.0, np.inf, 0.0)), 'finite'),
    (bad_edge((0.0, 0.0, 1e200, 1.0)), 'length 1e')])
def test_what_tf2_refuses_is_refused_and_named_once(static, spoilt, word):
    told = []
    tree = TransformTree(told.append)
    for _ in range(5):
        assert not tree.add(spoilt, static)
    assert len(told) == 1 and word in told[0] and "'camera' to 'base_link'" in told[0]
    with pytest.raises(LookupError_, match=f'refused.*{word}'):  # and where it is missed
        tree.lookup('base_link', 'camera', None)
    assert word in tree.refusals()[0]
    assert tree.add(bad_edge((0.0, 0.0, 0.0, 1.0049)), static)  # as near as tf2 wants it
    turn = tree.lookup('base_link', 'camera', None)[:3, :3]
    np.testing.assert_allclose(turn, np.eye(3), atol=1e-12)
    assert not tree.refusals()
    assert not tree.add(spoilt, static)
    np.testing.assert_allclose(tree.lookup('base_link', 'camera', None)[:3, :3], turn)


def test_a_missing_frame_is_called_missing_and_a_known_one_is_not():
    tree = TransformTree()
    tree.add(edge('base_link', 'laser', np.eye(4)), static=True)
    tree.add(edge('base_link', 'camera_color_optical_frame', np.eye(4)), static=True)
    with pytest.raises(LookupError_) as failure:
        tree.lookup('base_link', 'color_optical_frame', 0)
    said = str(failure.value)
    assert said.startswith("TF has no frame 'color_optical_frame'")
    assert "did you mean 'camera_color_optical_frame'" in said
    assert "it has 'base_link', 'camera_color_optical_frame', 'laser'" in said
    with pytest.raises(LookupError_, match="no frame 'base_footprint'.*; it has"):
        tree.lookup('base_footprint', 'laser', 0)
    with pytest.raises(LookupError_, match="no frame 'eye' and TF has no frame 'foot'; it has"):
        tree.lookup('foot', 'eye', 0)
    for index in range(30):
        tree.add(edge('base_link', f'joint_{index}', np.eye(4)), static=True)
    with pytest.raises(LookupError_, match='and 25 others'):
        tree.lookup('base_link', 'eye', 0)


@pytest.mark.parametrize('published', ['camera', '/camera'])
@pytest.mark.parametrize('asked', ['camera', '/camera'])
def test_slashes_at_the_front_do_not_matter_on_either_side(published, asked):
    tree = TransformTree()
    here = random_transform(np.random.default_rng(0))
    tree.add(edge('/base_link', published, here), static=True)
    np.testing.assert_allclose(tree.lookup('base_link', asked, None), here, atol=1e-12)
    np.testing.assert_allclose(tree.lookup('/base_link', asked, None), here, atol=1e-12)


ROOM = (MAX_FRAMES * (1 + MAX_TRANSFORMS_OF_OTHERS + MAX_PARENTS)
        + MAX_ASKED * (MAX_TRANSFORMS + 1) + MAX_WARNINGS)


@pytest.mark.slow
@pytest.mark.parametrize('static', [True, False])
def test_frames_that_nobody_needs_do_not_pile_up(static):
    """A tree with new frames in each message, all below different parents, some refused."""
    tree = TransformTree()
    place = random_transform(np.random.default_rng(0))
    moving = edge('base_link', 'head', place, SECOND)
    tree.add(moving, static=False)
    tree.add(edge('head', 'camera', np.eye(4)), static=True)
    np.testing.assert_allclose(tree.lookup('base_link', 'camera', None), place, atol=1e-12)
    sizes = []
    for index in range(8 * MAX_FRAMES):
        parent, child = f'parent_{index}', f'child_{index}'
        message = edge(parent, child, np.eye(4), SECOND)
        if index % 5 == 0:
            message.transform.rotation.w = 0.0
        if tree.add(message, static) and not static:
            tree.claim(parent, child)
            tree.claim(parent, 'camera_link')
        if index % MAX_FRAMES == 0:
            sizes.append(len(tree))
    assert len(tree) <= ROOM and sizes[4:] == [sizes[4]] * 4, sizes
    # What was asked for is still there.
    np.testing.assert_allclose(tree.lookup('base_link', 'camera', None), place, atol=1e-12)
    with pytest.raises(LookupError_, match=f'more than {MAX_FRAMES} frames'):
        tree.lookup('base_link', 'child_1', None)


def test_only_what_is_asked_for_has_a_long_memory():
    tree = TransformTree()
    for index in range(3 * MAX_TRANSFORMS):
        for child in ('needed', 'other'):
            tree.add(edge('base_link', child, np.eye(4), index * SECOND), static=False)
        tree.lookup('base_link', 'needed', None)
    assert len(tree) <= MAX_TRANSFORMS + MAX_TRANSFORMS_OF_OTHERS + 2
    tree.lookup('base_link', 'needed', 2 * MAX_TRANSFORMS * SECOND + SECOND)
    with pytest.raises(LookupError_, match='nearest'):
        tree.lookup('base_link', 'other', 2 * MAX_TRANSFORMS * SECOND + SECOND)
    for index in range(MAX_ASKED):  # many others are asked for since
        tree.claimed_parent(f'camera_{index}')
    assert len(tree) <= 2 * MAX_TRANSFORMS_OF_OTHERS + MAX_ASKED


def test_a_loop_is_no_way_and_ends():
    tree = TransformTree()
    for parent, child in (('a', 'b'), ('b', 'c'), ('c', 'a')):
        tree.add(edge(parent, child, np.eye(4)), static=True)
    with pytest.raises(LookupError_):
        tree.lookup('elsewhere', 'a', None)
    np.testing.assert_allclose(tree.lookup('a', 'b', None), np.eye(4))


def test_who_gives_a_frame_its_parent_is_known_but_not_from_what_is_refused():
    tree = TransformTree()
    assert tree.claimed_parent('camera') is None
    tree.add(bad_edge((0.0, 0.0, 0.0, 0.0)), static=True)
    assert tree.claimed_parent('camera') is None
    tree.claim('odom', 'camera')
    assert tree.claimed_parent('camera') == 'odom'
    tree.add(bad_edge(), static=True)
    assert tree.claimed_parent('camera') == 'base_link'
