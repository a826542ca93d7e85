"""trajectory.use_odometry in the real node: wheels carry a camera that is covered."""

from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile
from stream_harness import FRAME_ID, make_image, NodeProcess, qos
from tf2_msgs.msg import TFMessage

from xsvggt_ros.geometry.quaternions import quaternion_from_matrix
from xsvggt_ros.trajectory.projection import motion
from xsvggt_ros.world.synthetic_world import SPLITS, SyntheticWorld

RATE = 5.0
SEEN, COVERED = 5, 5     # images, at least
MOUNT = motion(np.array([0.4, -1.0, 0.6, 0.15, -0.1, 0.4]))   # of the camera on the robot


@pytest.fixture(scope='module')
def node(robot, tmp_path_factory):
    with NodeProcess(tmp_path_factory.mktemp('odometry') / 'node.log',
                     trajectory__mode='optimized', trajectory__use_odometry=True,
                     scale__mode='fixed', diagnostics__image_timeout=600.0) as node:
        robot.wait_until_subscribed(node)
        yield node


def set_stamp(header, index):
    stamp = round(index * 1e9 / RATE) + 1_700_000_000 * 10 ** 9
    header.stamp.sec, header.stamp.nanosec = divmod(stamp, 10 ** 9)


def image(frame, index, covered):
    message = make_image(index, 320, 240)
    set_stamp(message.header, index)
    message.data = bytes(320 * 240 * 3) if covered else frame.image.tobytes()
    return message


def wheels(world, index):
    """Return where the robot's wheels say that it is."""
    pose = world.path.world_from_camera(index / RATE) @ np.linalg.inv(MOUNT)
    message = Odometry(child_frame_id='base_link')
    message.header.frame_id = 'wheel_odom'
    set_stamp(message.header, index)
    place, turn = message.pose.pose.position, message.pose.pose.orientation
    place.x, place.y, place.z = pose[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = quaternion_from_matrix(pose[:3, :3])
    return message


def mount():
    message = TransformStamped(child_frame_id=FRAME_ID)
    message.header.frame_id = 'base_link'
    place, turn = message.transform.translation, message.transform.rotation
    place.x, place.y, place.z = MOUNT[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = quaternion_from_matrix(MOUNT[:3, :3])
    return TFMessage(transforms=[message])


def status_of(robot, message):
    stamp = message.header.stamp
    return robot.wait(lambda: next(
        (one for one in list(robot.received['status']) if one.header.stamp == stamp), None),
        'status')


def place_of(robot, message):
    stamp = message.header.stamp
    found = robot.wait(lambda: next(
        (one for one in list(robot.received['odometry']) if one.header.stamp == stamp), None),
        'odometry')
    at = found.pose.pose.position
    return np.array([at.x, at.y, at.z]), np.reshape(found.pose.covariance, (6, 6))


def test_a_covered_camera_is_carried_and_what_is_missing_is_named(node, robot):
    world = SyntheticWorld(SPLITS['test'][1], 320, 240)
    publisher = robot.node.create_publisher(Odometry, '/odom_hint', qos(10, reliable=True))
    robot.wait(lambda: publisher.get_subscription_count() > 0, 'the node to listen', node)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    transforms = robot.node.create_publisher(TFMessage, '/tf_static', latched)
    sent = []

    def drive(covered):
        index, asked = len(sent), [0]

        def is_taken():
            reports = len(robot.received['diagnostics'])
            if reports > asked[0]:    # best effort: again, until it has come; twice counts once
                asked[0] = reports
                publisher.publish(wheels(world, index))
            return f'{index + 1} used' in values(robot)['odometry']

        robot.wait(is_taken, 'odometry', node)
        sent.append(image(world.frame(index / RATE), index, covered))
        robot.process(node, sent[-1])

    robot.wait(lambda: 'odometry' in values(robot), 'diagnostics', node)
    drive(covered=False)
    words = ('without odometry', "'base_link'", '/odom_hint', FRAME_ID,
             'trajectory.use_odometry to false')

    def is_named():
        publisher.publish(wheels(world, 0))    # or it is silent, which is worse
        status = robot.diagnostic('Input')
        return status if all(word in status.message for word in words) else None

    assert robot.wait(is_named, 'what is missing', node).level == b'\x01'
    transforms.publish(mount())
    while len(sent) < SEEN or 'without odometry' in robot.diagnostic('Input').message:
        drive(covered=False)
    seen = len(sent)
    for _ in range(COVERED):
        drive(covered=True)
    assert [status_of(robot, one).pose_source for one in sent] == (
        ['first'] + ['tracks'] * (seen - 1) + ['odometry'] * COVERED)
    before, sure = place_of(robot, sent[seen - 1])
    after, less_sure = place_of(robot, sent[-1])
    true = (world.path.world_from_camera((seen + COVERED - 1) / RATE)
            - world.path.world_from_camera((seen - 1) / RATE))[:3, 3]
    # The unit is the network's, which takes a metre for a little more or less.
    assert np.linalg.norm(after - before) == pytest.approx(np.linalg.norm(true), rel=0.3)
    assert np.trace(sure[:3, :3]) < np.trace(less_sure[:3, :3]) < 0.3
    robot.wait(lambda: values(robot, 'Tracking').get('pose from') == 'odometry', 'source', node)

    def is_well():
        publisher.publish(wheels(world, len(sent) - 1))
        return 'without odometry' not in robot.diagnostic('Input').message

    robot.wait(is_well, 'an end of what was wrong', node)


def values(robot, name='Input'):
    status = robot.diagnostic(name)
    return {} if status is None else {value.key: value.value for value in status.values}
