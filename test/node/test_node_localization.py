"""map.localize_in in the real node: what ~/save_map wrote is what a later stream is found in."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from std_srvs.srv import Trigger
from stream_harness import NodeProcess
from test_node_trajectory import message_of, odometry_of, RATE

from xsvggt_ros.geometry import metrics
from xsvggt_ros.mapping.map_files import read_tum
from xsvggt_ros.trajectory.landmark_file import read_landmarks
from xsvggt_ros.world.synthetic_world import SPLITS, SyntheticWorld

SAVED, LATER, BEGIN = 16, 20, 3     # frames of both streams, and where the later one begins
MOST = 1000   # images until it must be found: only a search that fails ever takes so many


@pytest.fixture(scope='module')
def frames():
    world = SyntheticWorld(SPLITS['test'][1], 320, 240)
    return [world.frame(index / RATE) for index in range(BEGIN + LATER)]


@pytest.fixture(scope='module')
def saved(robot, frames, tmp_path_factory):
    """Return the files of a map that the node has saved, by the ends of their names."""
    folder = tmp_path_factory.mktemp('saved')
    node = NodeProcess(folder / 'node.log', trajectory__mode='optimized',
                       map__save_directory=folder)
    robot.wait_until_subscribed(node)
    for index, frame in enumerate(frames[:SAVED]):
        robot.process(node, message_of(frame, index))
    answer = robot.call(Trigger, '/xsvggt/save_map', Trigger.Request())
    assert answer.success and 'keyframes)' in answer.message
    node.end()
    files = {file.name.partition('.')[2]: file for file in folder.glob('map_*')}
    assert set(files) == {'ply', 'tum', 'landmarks.safetensors'}
    return files


def to_and_fro(begin, end):
    """Yield the numbers of frames forwards and backwards for ever: a motion without a jump."""
    while True:
        yield from range(begin, end - 1)
        yield from range(end - 1, begin, -1)


def edge(robot, message, child):
    """Return parent_from_child [4, 4] of an image, as TF has it; None if it has not."""
    for one in list(robot.received['tf']):
        for found in one.transforms:
            if found.header.stamp == message.header.stamp and found.child_frame_id == child:
                move, turn = found.transform.translation, found.transform.rotation
                matrix = np.eye(4)
                matrix[:3, :3] = Rotation.from_quat(
                    [turn.x, turn.y, turn.z, turn.w]).as_matrix()
                matrix[:3, 3] = move.x, move.y, move.z
                return matrix
    return None


def test_keyframes_are_saved_where_the_map_has_them(saved):
    landmarks = read_landmarks(saved['landmarks.safetensors'])
    assert not landmarks.is_metric and len(landmarks.keyframes) >= 4
    way = np.array([pose.position for pose in read_tum(saved['tum'])])
    apart = np.linalg.norm(landmarks.poses[:, None, :3, 3] - way, axis=2).min(1)
    assert apart.max() < 0.1 and apart[0] < 1e-6   # what the window found out later


@pytest.fixture
def later(robot, saved, tmp_path):
    """Return a node that looks for its stream in the saved map."""
    node = NodeProcess(tmp_path / 'node.log', trajectory__mode='optimized', publish_map_tf=True,
                       map__localize_in=saved['landmarks.safetensors'])
    try:
        robot.wait_until_subscribed(node)
        robot.received['tf'].clear()
        yield node
    finally:
        node.process.kill()


def test_a_later_stream_is_found_in_the_map_that_was_saved(robot, frames, saved, later):
    node = later
    way = np.array([pose.position for pose in read_tum(saved['tum'])])
    true = np.array([frame.world_from_camera[:3, 3] for frame in frames])
    to_truth = metrics.align(way, true[:SAVED])
    localized, off, before = [], [], None
    for index, number in zip(range(MOST), to_and_fro(BEGIN, BEGIN + LATER)):
        message = message_of(frames[number], BEGIN + index)
        message.header.stamp.sec += 1000
        status = robot.process(node, message)
        position = odometry_of(robot, message).pose.pose.position
        odom = np.array([position.x, position.y, position.z])
        assert status.localizing
        robot.wait(lambda: edge(robot, message, message.header.frame_id) is not None, 'TF')
        map_from_odom = edge(robot, message, 'xsvggt_odom')
        assert (map_from_odom is not None) == status.localized
        localized.append(status.localized)
        if not index:
            robot.wait_for_diagnostic(node, 'Tracking', 'not localised', 'map.localize_in')
        if status.localized:
            there = to_truth.points((map_from_odom @ np.append(odom, 1.0))[:3])
            off.append(np.linalg.norm(there - true[number]))
        if before is not None:   # no jump: an image is 0.12 m, and a unit may be another then
            assert np.linalg.norm(odom - before) < 0.5
        before = odom
        if len(off) >= 3 and status.localization_confirmations >= 4:
            break
    assert not localized[0] and len(off) >= 3 and sorted(localized) == localized
    assert status.localization_confirmations >= 4
    since = round((BEGIN + localized.index(True)) * 1e9 / RATE)
    assert status.localized_since.sec == 1_700_001_000 + since // 10 ** 9
    assert status.localized_since.nanosec == since % 10 ** 9
    assert np.median(off) < 0.2, off   # metres
    tracking = robot.wait_for_diagnostic(node, 'Tracking', 'images in this stream')
    assert 'keyframes agree' in {one.key: one.value for one in tracking.values}['localization']
    assert 'localised in the saved map' in node.output()
    # What is saved of this stream is its own map, and the other one is as it was.
    node.end()


@pytest.mark.parametrize('content, parameters, words', [
    (b'nothing', {}, 'is damaged, or no file of landmarks'),
    (None, {}, 'cannot be read: No such file'),
    (b'', {'trajectory__mode': 'tracked'}, 'map.localize_in needs trajectory.mode optimized'),
])
def test_what_cannot_be_used_is_said_and_the_node_does_not_start(
        tmp_path, content, parameters, words):
    file = tmp_path / 'map.landmarks.safetensors'
    if content is not None:
        file.write_bytes(content)
    node = NodeProcess(tmp_path / 'node.log', **{
        'trajectory__mode': 'optimized', 'map__localize_in': file,
        'exit_on_failure': True} | parameters)
    try:
        assert node.process.wait(120) == 1, node.output()
    finally:
        node.process.kill()
    assert 'cannot start' in node.output() and words in node.output(), node.output()
    assert 'Traceback' not in node.output()
