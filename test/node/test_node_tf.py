"""The edges the real node publishes, over DDS: REP-105, one parent, none without the robot."""

from geometry_msgs.msg import TransformStamped
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile
from scipy.spatial.transform import Rotation
from std_srvs.srv import Trigger
from stream_harness import FRAME_ID, make_image, NodeProcess, Robot
from tf2_msgs.msg import TFMessage

from xsvggt_ros.geometry.quaternions import quaternion_from_matrix
from xsvggt_ros.trajectory.projection import motion

LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture
def started(checkpoint, tmp_path):
    """Return a function that starts a robot and a node with parameters."""
    robots, nodes = [], []

    def start(prepare=None, **parameters):
        robot = Robot()
        robots.append(robot)
        if prepare is not None:
            prepare(robot)
        node = NodeProcess(
            tmp_path / f'{len(nodes)}.log', model__checkpoint=checkpoint, use_camera_info=False,
            map__enable=False, **parameters)
        nodes.append(node)
        robot.wait_until_subscribed(node)
        return robot, node

    yield start
    for node in nodes:
        node.end()
    for robot in robots:
        robot.close()


def edge(parent, child, position=(0.0, 0.0, 0.0), stamp=None):
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    place = message.transform.translation
    place.x, place.y, place.z = position
    if stamp is not None:
        message.header.stamp = stamp
    return message


def static_edges(*edges):
    """Return what publishes static edges on a robot."""
    def prepare(robot):
        robot.static = robot.node.create_publisher(TFMessage, '/tf_static', LATCHED)
        robot.static.publish(TFMessage(transforms=list(edges)))
    return prepare


def edges_of(robot):
    """Return {(parent, child): newest translation} of all that was published on /tf."""
    return {(e.header.frame_id, e.child_frame_id): e.transform
            for message in list(robot.received['tf']) for e in message.transforms}


def vector(position):
    return np.array((position.x, position.y, position.z))


def test_the_robot_moves_with_its_camera_and_a_new_stream_does_not_jump(started):
    robot, node = started(
        static_edges(edge('base_link', 'mast', (0.2, 0.0, 0.5)), edge('mast', FRAME_ID)),
        base_frame='base_link', odom_frame='odom', publish_map_tf=True)
    for index in range(3):
        robot.process(node, make_image(index))
    robot.wait(lambda: len(robot.received['odometry']) == 3, 'odometry', node)
    first, *_, last = list(robot.received['odometry'])
    assert (last.header.frame_id, last.child_frame_id) == ('odom', 'base_link')
    edges = edges_of(robot)
    assert set(edges) == {('odom', 'base_link'), ('map', 'odom')}
    moved = vector(last.pose.pose.position)
    assert vector(edges['odom', 'base_link'].translation) == pytest.approx(moved)
    assert vector(edges['map', 'odom'].translation) == pytest.approx(np.zeros(3), abs=1e-9)

    assert robot.call(Trigger, '/xsvggt/reset', Trigger.Request()).success
    robot.process(node, make_image(0, stamp=(1700000003, 0)))
    robot.wait(lambda: len(robot.received['odometry']) == 4, 'odometry', node)
    after = vector(robot.received['odometry'][-1].pose.pose.position)
    assert after == pytest.approx(moved, abs=1e-6)
    # In the map frame the same image has the pose that it had in the first stream.
    edges = edges_of(robot)
    turn = edges['map', 'odom'].rotation
    half = np.array((turn.x, turn.y, turn.z))
    in_map = after + 2 * np.cross(half, np.cross(half, after) + turn.w * after)
    in_map += vector(edges['map', 'odom'].translation)
    assert in_map == pytest.approx(vector(first.pose.pose.position), abs=1e-5)


def test_nothing_is_guessed_while_the_place_of_the_camera_is_not_known(started):
    robot, node = started(base_frame='base_link', tf_timeout=0.05)
    robot.process(node, make_image(0))
    robot.wait_for_diagnostic(node, 'Tracking', 'base_link', 'robot_state_publisher')
    assert not robot.received['odometry'] and not robot.received['tf']
    static_edges(edge('base_link', FRAME_ID))(robot)
    for index in range(1, 20):
        robot.process(node, make_image(index))
        if robot.received['odometry']:
            break
    assert robot.received['odometry'][0].child_frame_id == 'base_link'
    robot.wait_for_diagnostic(node, 'Tracking', 'images in this stream')


def test_slashes_and_what_tf2_refuses(started):
    """A transform that was never set is none; the right one counts, whoever writes a slash."""
    spoilt = edge('base_link', FRAME_ID, (0.3, 0.0, 0.5))
    spoilt.transform.rotation.w = 0.0
    robot, node = started(static_edges(spoilt), base_frame='/base_link', tf_timeout=0.05)
    message = make_image(0)
    message.header.frame_id = '/' + FRAME_ID
    robot.process(node, message)
    robot.wait_for_diagnostic(node, 'Tracking', 'base_link', 'refused', 'never set')
    assert not robot.received['odometry'] and not edges_of(robot)
    refused = [line for line in node.output().splitlines() if 'never set' in line]
    assert any('WARN' in line for line in refused)
    static_edges(edge('/base_link', '/' + FRAME_ID, (0.3, 0.0, 0.5)))(robot)
    for index in range(1, 20):
        message = make_image(index)
        message.header.frame_id = '/' + FRAME_ID
        robot.process(node, message)
        if robot.received['odometry']:
            break
    robot.wait(lambda: edges_of(robot), 'TF', node)
    assert set(edges_of(robot)) == {('xsvggt_odom', 'base_link')}
    assert robot.received['points'][-1].header.frame_id == FRAME_ID


def test_a_frame_never_gets_a_second_parent(started):
    robot, node = started(static_edges(edge('camera_link', FRAME_ID)))
    robot.process(node, make_image(0))
    status = robot.wait_for_diagnostic(node, 'Tracking', "'camera_link'", 'one parent only')
    assert 'base_frame' in status.message and 'invert_tf' in status.message
    robot.process(node, make_image(1))
    assert not edges_of(robot)
    assert len(robot.received['odometry']) == 2  # says the same without TF


def test_two_nodes_on_one_camera_do_not_fight_over_its_frame(started):
    robot, node = started()
    publisher = robot.node.create_publisher(TFMessage, '/tf', 10)
    robot.wait(lambda: publisher.get_subscription_count() > 1, 'the node to listen', node)
    for index in range(3):
        message = make_image(index)
        robot.process(node, message)
        publisher.publish(TFMessage(transforms=[
            edge('xsvggt_odom', FRAME_ID, stamp=message.header.stamp)]))
    robot.process(node, make_image(3))
    robot.wait_for_diagnostic(node, 'Tracking', 'by another node as well')


def test_a_robot_with_a_root_of_its_own_gets_our_frame_below_it(started):
    robot, node = started(static_edges(edge('camera_link', FRAME_ID)), invert_tf=True)
    for index in range(2):
        robot.process(node, make_image(index))
    robot.wait(lambda: len(robot.received['odometry']) == 2, 'odometry', node)
    edges = edges_of(robot)
    assert set(edges) == {(FRAME_ID, 'xsvggt_odom')}
    # The transform is the inverse of the pose: together they are nothing.
    pose = robot.received['odometry'][-1].pose.pose
    turn = pose.orientation
    half = -np.array((turn.x, turn.y, turn.z))
    place = -vector(pose.position)
    place = place + 2 * np.cross(half, np.cross(half, place) + turn.w * place)
    inverse = edges[FRAME_ID, 'xsvggt_odom'].translation
    assert vector(inverse) == pytest.approx(place, abs=1e-6)


def matrix_of(position, turn):
    """Return a transform [4, 4] of a message's position and orientation."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    matrix[:3, 3] = vector(position)
    return matrix


class Wheels:
    """The odometry of a robot: what its driver says on TF."""

    def __init__(self, robot, node):
        self.robot, self.node = robot, node
        self.publisher = robot.node.create_publisher(TFMessage, '/tf', 100)
        robot.wait(lambda: self.publisher.get_subscription_count() > 1, 'the node', node)
        self.place = motion(np.array([0.0, 0.0, 0.7, 5.0, -2.0, 0.0]))

    def tell(self, stamp):
        """Publish where the robot is at a time, and wait until the node knows it."""
        found = edge('odom', 'base_link', self.place[:3, 3].tolist(), stamp)
        turn = found.transform.rotation
        turn.x, turn.y, turn.z, turn.w = quaternion_from_matrix(self.place[:3, :3])
        self.robot.send(self.node, self.publisher, TFMessage(transforms=[found]))

    def drive(self, index, known=True):
        """Go on to an image; return map_from_odom, and what joins the map to the node's frame."""
        message = make_image(index)
        self.place = self.place @ motion(np.array([0.0, 0.0, 0.1, 0.3, 0.0, 0.0]))
        if known:
            self.tell(message.header.stamp)
        self.robot.process(self.node, message)
        self.robot.wait(lambda: self.robot.received['odometry'] and (
            self.robot.received['odometry'][-1].header.stamp == message.header.stamp),
            'odometry', self.node)
        stamps = {'odom': message.header.stamp.nanosec + 250_000_000,
                  'xsvggt_odom': message.header.stamp.nanosec}

        def found():
            edges = {(e.header.frame_id, e.child_frame_id): e.transform
                     for one in list(self.robot.received['tf']) for e in one.transforms
                     if (e.header.stamp.sec == message.header.stamp.sec and
                         e.header.stamp.nanosec == stamps.get(e.child_frame_id))}
            return len(edges) == 2 and edges

        edges = self.robot.wait(found, 'both edges', self.node)
        pose = self.robot.received['odometry'][-1].pose.pose
        return *(matrix_of(edges['map', child].translation, edges['map', child].rotation)
                 for child in ('odom', 'xsvggt_odom')), matrix_of(pose.position, pose.orientation)

    def is_agreed(self, found):
        """Return whether TF and ~/odometry have the robot at one place in the map."""
        map_from_odom, map_from_ours, ours_from_base = found
        return np.allclose(map_from_odom @ self.place, map_from_ours @ ours_from_base, atol=1e-6)


def test_the_odometry_of_a_robot_is_corrected_below_the_map(started):
    """It is told nothing that is true: all that the node sees is a correction of it."""
    robot, node = started(
        static_edges(edge('base_link', FRAME_ID, (0.2, 0.0, 0.5))), base_frame='base_link',
        robot_odom_frame='/odom', publish_map_tf=True, scale__mode='fixed',
        transform_tolerance=0.25)
    wheels = Wheels(robot, node)
    found = [wheels.drive(0)]
    np.testing.assert_allclose(found[0][0], np.eye(4), atol=1e-9)   # begins as the odometry
    for index in range(1, 4):
        found.append(wheels.drive(index))
        assert wheels.is_agreed(found[-1])
        np.testing.assert_allclose(found[-1][1], found[0][1], atol=1e-9)
    assert np.abs(found[-1][0] - np.eye(4)).max() > 0.1
    wheels.place = motion(np.array([0.0, 0.0, 2.0, -9.0, 4.0, 0.0]))   # its driver has restarted
    found.append(wheels.drive(4))
    assert wheels.is_agreed(found[-1])
    np.testing.assert_allclose(found[-1][1], found[0][1], atol=1e-9)

    assert robot.call(Trigger, '/xsvggt/reset', Trigger.Request()).success
    before = found[-1][0]
    found.append(wheels.drive(5))
    np.testing.assert_allclose(found[-1][0], before, atol=1e-6)   # goes on where the wheels say
    found.append(wheels.drive(6))
    assert wheels.is_agreed(found[-1])
    pairs = {(e.header.frame_id, e.child_frame_id)
             for one in list(robot.received['tf']) for e in one.transforms}
    assert pairs == {('map', 'odom'), ('map', 'xsvggt_odom'), ('odom', 'base_link')}

    held = found[-1][0]
    for index in range(7, 11):    # the wheels fall silent
        np.testing.assert_allclose(wheels.drive(index, known=False)[0], held, atol=1e-9)
    status = robot.wait_for_diagnostic(node, 'Tracking', "'map' -> 'odom' is held at", 'base_link')
    assert 'robot_odom_frame' in status.message and status.level == b'\x01'
    assert wheels.is_agreed(wheels.drive(11))
    robot.wait_for_diagnostic(node, 'Tracking', 'images in this stream, lengths in metres')
    values = {value.key: value.value for value in robot.diagnostic('Tracking').values}
    assert values['robot odometry'].startswith('corrects ')


def test_what_keeps_the_map_from_an_odometry_is_said(started):
    robot, node = started(
        static_edges(edge('base_link', FRAME_ID)), base_frame='base_link',
        robot_odom_frame='odom', publish_map_tf=True, scale__mode='odometry')
    robot.process(node, make_image(0))
    robot.wait_for_diagnostic(node, 'Tracking', "'map' -> 'odom' is not published", 'metres')
    assert not edges_of(robot)


def test_a_second_localisation_keeps_its_odometry(started):
    robot, node = started(
        static_edges(edge('base_link', FRAME_ID), edge('map', 'odom')), base_frame='base_link',
        robot_odom_frame='odom', publish_map_tf=True, scale__mode='fixed')
    publisher = robot.node.create_publisher(TFMessage, '/tf', 100)
    for index in range(2):
        message = make_image(index)
        robot.send(node, publisher, TFMessage(transforms=[
            edge('odom', 'base_link', (float(index), 0.0, 0.0), message.header.stamp)]))
        robot.process(node, message)
    robot.wait_for_diagnostic(node, 'Tracking', "'map' -> 'odom' is not published",
                              'by another node as well', 'publish_map_tf')
    ours = {('map', 'odom'), ('map', 'xsvggt_odom')} & set(edges_of(robot))
    assert ours == {('map', 'xsvggt_odom')}


def test_settings_that_contradict_each_other_are_refused(robot, start):
    node = start(wait=False, invert_tf=True, publish_map_tf=True)
    robot.wait_for_diagnostic(node, 'Model', 'invert_tf and publish_map_tf')
