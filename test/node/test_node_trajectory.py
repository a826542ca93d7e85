"""trajectory.mode in the real node: poses, covariance, twist and diagnostics of tracked images."""

from geometry_msgs.msg import PoseArray
from nav_msgs.msg import Path
import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from stream_harness import make_image, NodeProcess

from xsvggt_ros.geometry import metrics
from xsvggt_ros.world.synthetic_world import SPLITS, SyntheticWorld

RATE = 5.0
COUNT = 12


@pytest.fixture(scope='module')
def node(robot, tmp_path_factory):
    with NodeProcess(tmp_path_factory.mktemp('trajectory') / 'node.log',
                     trajectory__mode='optimized') as node:
        robot.wait_until_subscribed(node)
        yield node


def message_of(frame, index):
    message = make_image(index, 320, 240)
    stamp = round(index * 1e9 / RATE) + 1_700_000_000 * 10 ** 9
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10 ** 9)
    message.data = frame.image.tobytes()
    assert isinstance(message, Image)
    return message


def odometry_of(robot, message):
    """Return what was published of an image."""
    stamp = message.header.stamp
    return robot.wait(lambda: next(
        (one for one in list(robot.received['odometry']) if one.header.stamp == stamp), None),
        'odometry')


def test_a_camera_in_a_room_is_followed(node, robot):
    world = SyntheticWorld(SPLITS['test'][1], 320, 240)
    frames = [world.frame(index / RATE) for index in range(COUNT)]
    robot.record('keyframes', PoseArray, '/xsvggt/keyframes')
    robot.record('path', Path, '/xsvggt/path')
    found = []
    for index, frame in enumerate(frames):
        message = message_of(frame, index)
        robot.process(node, message)
        found.append(odometry_of(robot, message))
    ways = np.array([[one.pose.pose.position.x, one.pose.pose.position.y,
                      one.pose.pose.position.z] for one in found])
    truth = np.array([frame.world_from_camera[:3, 3] for frame in frames])
    assert metrics.position_errors(ways, truth)[1] < 0.15
    for one in found[1:]:
        covariance = np.reshape(one.pose.covariance, (6, 6))
        assert np.linalg.eigvalsh(covariance).min() > 0
        assert covariance[0, 0] < 0.1 and np.abs(covariance - covariance.T).max() < 1e-12
        assert np.reshape(one.twist.covariance, (6, 6))[0, 0] < 1e3
    diagnostic = robot.wait_for_diagnostic(node, 'Tracking', f'{COUNT} images')
    values = {value.key: value.value for value in diagnostic.values}
    assert values['pose from'] == 'tracks' and int(values['landmarks']) > 50
    assert values['reprojection error'].endswith('pixels')
    assert values['loops closed'] == '0' and values['drift corrected'].endswith('degrees')
    status = robot.received['status'][-1]
    assert status.pose_source == 'tracks' and status.pose_inliers > 50
    assert 0 < status.reprojection_error < 3 and status.keyframes >= 2
    assert status.loops_closed == 0
    robot.wait(lambda: robot.received['path'] and len(robot.received['path'][-1].poses) == COUNT,
               'the path')
    keyframes = robot.wait(lambda: robot.received['keyframes'], 'keyframes')[-1]
    assert keyframes.header.frame_id == found[0].header.frame_id
    assert 2 <= len(keyframes.poses) < COUNT
    # Each is where an image was.
    places = np.array([[one.position.x, one.position.y, one.position.z]
                       for one in keyframes.poses])
    assert np.linalg.norm(places[:, None] - ways, axis=2).min(1).max() < 0.1


def test_a_reset_goes_on_from_where_the_camera_was(node, robot):
    world = SyntheticWorld(SPLITS['test'][1], 320, 240)
    before = robot.received['odometry'][-1].pose.pose.position
    assert robot.call(Trigger, '/xsvggt/reset', Trigger.Request()).success
    message = message_of(world.frame(COUNT / RATE), COUNT)
    robot.process(node, message)
    after = odometry_of(robot, message).pose.pose.position
    assert np.linalg.norm([after.x - before.x, after.y - before.y, after.z - before.z]) < 1e-6
    blank = make_image(COUNT + 1, 320, 240)
    blank.header.stamp = message_of(world.frame(0.0), COUNT + 1).header.stamp
    blank.data = bytes(320 * 240 * 3)
    robot.process(node, blank)
    held = odometry_of(robot, blank)
    assert held.pose.pose.position.x == pytest.approx(after.x, abs=1e-6)
    assert np.reshape(held.pose.covariance, (6, 6))[0, 0] > 0.5
