"""A loop that closes in the real node: odom goes on, the map takes it, the past is moved."""

from geometry_msgs.msg import PoseArray
from nav_msgs.msg import Path
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo
from stream_harness import FRAME_ID, NodeProcess
from test_node_localization import edge
from test_node_tf import matrix_of
from test_node_trajectory import message_of, odometry_of, RATE

from xsvggt_ros.geometry import metrics
from xsvggt_ros.world.synthetic_world import SPLITS, SyntheticWorld

ROUND = 30      # images of one round, in which the camera turns by 12 degrees each
MOST = 4        # rounds: the thread that looks for loops may be behind
AFTER = 3       # images after the loop


class RoundWay:
    """A camera that goes round in the middle of a room, looking outwards."""

    way = None

    def __init__(self, room):
        self._centre = np.array([room[0] / 2, room[1] / 2, 1.2])

    def world_from_camera(self, time):
        angle = 2 * np.pi * time * RATE / ROUND
        ahead = np.array([np.cos(angle), np.sin(angle), 0.0])
        pose = np.eye(4)
        pose[:3, :3] = np.stack([[ahead[1], -ahead[0], 0.0], [0.0, 0.0, -1.0], ahead], -1)
        pose[:3, 3] = self._centre + 0.4 * ahead
        return pose


@pytest.fixture(scope='module')
def node(robot, tmp_path_factory):
    with NodeProcess(tmp_path_factory.mktemp('loops') / 'node.log', publish_map_tf=True,
                     trajectory__mode='optimized', map__enable=False,
                     diagnostics__image_timeout=600.0) as node:
        robot.wait_until_subscribed(node)
        yield node


@pytest.fixture(scope='module')
def world():
    world = SyntheticWorld(SPLITS['test'][1], 320, 240, clean=True)
    world.path = RoundWay(world.scene.size)
    places = [world.path.world_from_camera(index / RATE)[:3, 3] for index in range(ROUND)]
    assert world.scene.is_free(np.array(places)).all()
    return world


class Drive:
    """What the node has published of each image on the way."""

    def __init__(self, robot, node, world):
        self.robot, self.node, self.world = robot, node, world
        self.true, self.odom, self.map_from_odom, self.statuses = [], [], [], []
        self.message = None

    def on(self):
        """Go on by an image; return its status."""
        index = len(self.true)
        frame = self.world.frame(index / RATE)
        message = self.message = message_of(frame, index)
        self.statuses.append(self.robot.process(self.node, message))
        pose = odometry_of(self.robot, message).pose.pose
        self.true.append(frame.world_from_camera)
        self.odom.append(matrix_of(pose.position, pose.orientation))
        self.robot.wait(lambda: edge(self.robot, message, 'xsvggt_odom') is not None, 'TF')
        self.map_from_odom.append(edge(self.robot, message, 'xsvggt_odom'))
        return self.statuses[-1]

    def newest(self, name):
        """Return poses [n, 4, 4] of the newest image's message, which may come behind TF."""
        message = self.robot.wait(lambda: next(
            (one for one in reversed(self.robot.received[name])
             if one.header.stamp == self.message.header.stamp), None), name, self.node)
        poses = [getattr(one, 'pose', one) for one in message.poses]
        return np.array([matrix_of(one.position, one.orientation) for one in poses])


def far(first, second):
    """Return the metres and degrees from one pose [4, 4] to another."""
    return (np.linalg.norm(first[:3, 3] - second[:3, 3]),
            float(metrics.angles(first[None, :3, :3], second[None, :3, :3])[0]))


def test_a_loop_closes(node, robot, world):
    robot.record('path', Path, '/xsvggt/path')
    robot.record('keyframes', PoseArray, '/xsvggt/keyframes')
    intrinsics = world.intrinsics.matrix()
    info = CameraInfo(width=320, height=240, distortion_model='plumb_bob', d=[0.0] * 5)
    info.header.frame_id = FRAME_ID
    info.k, info.p = intrinsics.ravel(), np.c_[intrinsics, np.zeros(3)].ravel()
    robot.send(node, robot.infos, info)
    drive = Drive(robot, node, world)
    while drive.on().loops_closed == 0:
        assert len(drive.true) < MOST * ROUND, robot.diagnostic('Tracking')
    found = len(drive.true) - 1
    assert found > ROUND / 2     # nothing is seen again before
    for _ in range(AFTER):
        drive.on()

    # No jump in the odometry frame: each step is the camera's, at the loop and behind it, too.
    # Their unit is the network's, and takes over that of the beginning at the loop.
    truth = [np.linalg.inv(one) @ other for one, other in zip(drive.true, drive.true[1:])]
    steps = [np.linalg.inv(one) @ other for one, other in zip(drive.odom, drive.odom[1:])]
    for step, true in zip(steps, truth):
        length, angle = far(step, true)
        assert length < 0.06 and angle < 2.0      # of 0.08 m and 12 degrees

    # The map takes what the loop says, and nothing before it.
    for edge_before in drive.map_from_odom[:found]:
        np.testing.assert_allclose(edge_before, np.eye(4), atol=1e-6)
    status = drive.statuses[-1]
    assert status.loops_closed >= drive.statuses[found].loops_closed >= 1
    assert status.drift_corrected > 0.001
    map_from_odom = drive.map_from_odom[-1]
    assert np.abs(map_from_odom - np.eye(4)).max() > 1e-3

    # The path is moved to where the loop says that it was: in the map its beginning stays.
    path = drive.newest('path')
    assert len(path) == len(drive.odom)
    np.testing.assert_allclose(path[-1], drive.odom[-1], atol=1e-6)
    assert max(far(map_from_odom @ path[0], drive.odom[0])) < 1e-3
    assert np.abs(path[0] - drive.odom[0]).max() > 1e-3
    # So is its middle: it is nearer to where the camera was than what was known on the way, and
    # looks no farther off, which tracks alone knew to half a degree.
    begin = drive.odom[0] @ np.linalg.inv(drive.true[0])
    path_off = [far(map_from_odom @ pose, begin @ true) for pose, true in zip(path, drive.true)]
    odom_off = [far(pose, begin @ true) for pose, true in zip(drive.odom, drive.true)]
    assert (np.mean(path_off, 0) < (0.9, 1.0) * np.mean(odom_off, 0)).all(), (path_off, odom_off)
    # Keyframes are where the path says that the camera was then.
    keyframes = drive.newest('keyframes')
    assert len(keyframes) == status.keyframes > ROUND / 2
    off = np.linalg.norm(keyframes[:, None, :3, 3] - path[None, :, :3, 3], axis=2).min(1)
    assert off.max() < 0.03
    tracking = robot.wait_for_diagnostic(node, 'Tracking', f'{len(drive.true)} images')
    values = {value.key: value.value for value in tracking.values}
    assert int(values['loops closed']) == status.loops_closed
