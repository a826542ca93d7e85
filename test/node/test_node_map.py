"""The map of the node: gathered whatever anyone subscribes to, latched, in one unit, and saved."""

import math
from pathlib import Path
import re
import time

from nav_msgs.msg import OccupancyGrid
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from stream_harness import make_image, NodeProcess

from xsvggt_ros.geometry.frame_names import nanoseconds
from xsvggt_ros.mapping.map_files import read_ply, read_tum
from xsvggt_ros.recordings.outputs import cloud_from_message

LATCHED = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1,
                     durability=DurabilityPolicy.TRANSIENT_LOCAL,
                     reliability=ReliabilityPolicy.RELIABLE)
PERIOD = 0.2


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('node_map')


@pytest.fixture(scope='module')
def running(folder, robot, checkpoint):
    with NodeProcess(
            folder / 'node.log', model__checkpoint=checkpoint, model__image_size=70,
            cache__max_tokens=100, map__publish_period=PERIOD, scale__mode='fixed',
            map__save_directory=folder / 'maps') as node:
        robot.wait_until_subscribed(node)
        yield node


@pytest.fixture
def node(running, robot, folder):
    """Return the node with an empty map and the settings it was started with."""
    for name, value in (('map.save_directory', str(folder / 'maps')), ('map.voxel_size', 0.0),
                        ('scale.value', 1.0)):
        assert robot.set_parameter(name, value).successful
    assert robot.call(Trigger, '/xsvggt/reset', Trigger.Request()).success
    return running


def save(robot):
    return robot.call(Trigger, '/xsvggt/save_map', Trigger.Request())


def saved_files(answer):
    """Return the cloud and the poses that an answer names, which must be as many as it says."""
    assert answer.success, answer.message
    ply, points, tum, poses = re.fullmatch(
        r'(\S+\.ply) \((\d+) points\), (\S+\.tum) \((\d+) poses\)', answer.message).groups()
    cloud, way = read_ply(Path(ply)), read_tum(Path(tum))
    assert (len(cloud), len(way)) == (int(points), int(poses))
    return cloud, way


class MapSubscriber:
    """Subscribes to the map like RViz, from now on."""

    def __init__(self, robot):
        self.maps = []
        self._node = robot.node
        self._subscription = self._node.create_subscription(
            PointCloud2, '/xsvggt/map_points', self.maps.append, LATCHED)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._node.destroy_subscription(self._subscription)

    def of(self, image):
        """Return the maps that have an image's stamp."""
        return [cloud for cloud in list(self.maps)
                if nanoseconds(cloud.header) == nanoseconds(image.header)]


@pytest.mark.both_networks
def test_a_late_subscriber_gets_all_that_was_gathered(robot, node):
    images = [make_image(100 + i) for i in range(5)]
    for image in images:
        robot.process(node, image)
    with MapSubscriber(robot) as subscriber:      # no image comes any more
        cloud = robot.wait(lambda: subscriber.of(images[-1]), 'the map', node)[-1]
    assert cloud.header.frame_id == 'xsvggt_odom'
    assert [field.name for field in cloud.fields] == ['x', 'y', 'z', 'rgb', 'confidence']
    values = cloud_from_message(cloud)
    written, _ = saved_files(save(robot))
    np.testing.assert_array_equal(np.sort(values), np.sort(written))
    assert len(values) > 500 and all(np.isfinite(values[name]).all() for name in 'xyz')
    with MapSubscriber(robot) as second:          # latched now: the same message
        again = robot.wait(lambda: second.of(images[-1]), 'the latched map', node)[0]
        assert bytes(again.data) == bytes(cloud.data)


def test_the_occupancy_grid_comes_to_late_subscribers_and_goes_with_the_stream(robot, node):
    grids = []
    subscription = robot.node.create_subscription(
        OccupancyGrid, '/xsvggt/occupancy', grids.append, LATCHED)
    try:
        for i in range(12):   # keyframes are those that lie apart: not every image is one
            robot.process(node, make_image(700 + i))
        grid = robot.wait(lambda: [each for each in list(grids) if each.info.width],
                          'a grid', node)[-1]
        assert grid.header.frame_id == 'xsvggt_odom' and grid.info.resolution > 0
        assert len(grid.data) == grid.info.width * grid.info.height
        assert set(grid.data) <= {-1, 0, 100}
        turn = grid.info.origin.orientation
        assert math.hypot(turn.x, turn.y, turn.z, turn.w) == pytest.approx(1.0)
        # The network of the tests sees no room: whatever its height, it is an obstacle.
        assert robot.set_parameter('occupancy.max_height', 1e6).successful
        assert robot.set_parameter('occupancy.min_height', 1e-6).successful
        refused = robot.set_parameter('occupancy.min_height', 1e6)
        assert not refused.successful and 'is not below occupancy.max_height' in refused.reason
        assert robot.set_parameter('occupancy.resolution', 0.5).successful
        robot.wait(lambda: grids[-1].info.resolution == 0.5 and 100 in grids[-1].data,
                   'coarser cells', node)
        assert robot.call(Trigger, '/xsvggt/reset', Trigger.Request()).success
        robot.wait(lambda: not grids[-1].info.width, 'an empty grid', node)
        assert grids[-1].info.resolution == 0.5   # RViz and planners divide by it
    finally:
        robot.node.destroy_subscription(subscription)
        for name in ('resolution', 'min_height', 'max_height'):
            assert robot.set_parameter(f'occupancy.{name}', 0.0).successful


def test_maps_come_no_more_often_than_the_period_and_the_last_one_comes(robot, node):
    image = make_image(200)
    robot.process(node, image)
    with MapSubscriber(robot) as subscriber:
        robot.wait(lambda: subscriber.of(image), 'the first map', node)
        begin = time.monotonic()
        for i in range(201, 231):
            image = make_image(i)
            robot.process(node, image)
        robot.wait(lambda: subscriber.of(image), 'the last map', node)
        elapsed = time.monotonic() - begin
        assert len(subscriber.maps) <= elapsed / PERIOD + 3


@pytest.mark.both_networks
def test_saved_files_have_every_frame_and_names_of_their_own(robot, node):
    images = [make_image(300 + i) for i in range(7)]
    for image in images:
        robot.process(node, image)
    answers = [save(robot) for _ in range(2)]
    assert answers[0].message != answers[1].message
    (cloud, way), (same_cloud, same_way) = (saved_files(answer) for answer in answers)
    np.testing.assert_array_equal(cloud, same_cloud)
    assert way == same_way
    assert [pose.stamp_ns for pose in way] == [nanoseconds(image.header) for image in images]
    odometry = robot.wait(lambda: next(
        (m for m in reversed(robot.received['odometry'])
         if m.header.stamp == images[-1].header.stamp),
        None), 'odometry', node)
    position = odometry.pose.pose.position
    np.testing.assert_allclose(
        way[-1].position, (position.x, position.y, position.z), rtol=1e-6, atol=1e-8)


def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_lost(robot, node, folder):
    (folder / 'file').write_text('in the way')
    robot.process(node, make_image(400))
    before, _ = saved_files(save(robot))
    for name in (str(folder / 'file'), str(folder / 'file' / 'maps'), '/proc/maps'):
        assert robot.set_parameter('map.save_directory', name).successful
        answer = save(robot)
        assert not answer.success
        assert 'map.save_directory' in answer.message and name in answer.message
    assert robot.set_parameter('map.save_directory', str(folder / 'other' / 'maps')).successful
    after, _ = saved_files(save(robot))
    np.testing.assert_array_equal(after, before)
    assert len(list((folder / 'other' / 'maps').iterdir())) == 2
    robot.process(node, make_image(401))


def test_a_reset_empties_the_map_for_late_subscribers_too(robot, node):
    image = make_image(500)
    robot.process(node, image)
    with MapSubscriber(robot) as subscriber:
        assert robot.wait(lambda: subscriber.of(image), 'the map', node)[0].width > 0
        assert robot.call(Trigger, '/xsvggt/reset', Trigger.Request()).success
        robot.wait(lambda: subscriber.maps[-1].width == 0, 'the empty map', node)
    with MapSubscriber(robot) as late:
        assert robot.wait(lambda: late.maps, 'the latched map', node)[0].width == 0
    answer = save(robot)
    assert not answer.success and 'empty' in answer.message
    robot.process(node, make_image(501))
    assert len(saved_files(save(robot))[1]) == 1


def test_a_map_of_another_unit_or_voxel_size_is_the_same_map(robot, node):
    robot.process(node, make_image(600))
    first, way = saved_files(save(robot))
    assert robot.set_parameter('scale.value', 2.5).successful
    robot.process(node, make_image(601))
    cloud, scaled_way = saved_files(save(robot))
    camera = np.array(way[-1].position)  # where it is, all is scaled about it
    np.testing.assert_allclose(
        scaled_way[0].position, camera + 2.5 * (np.array(way[0].position) - camera), atol=1e-5)
    np.testing.assert_allclose(scaled_way[-2].position, camera, atol=1e-5)
    # Points of the first map are there, scaled, but those that the newest image has moved.
    before, after = (np.stack([c[name] for name in 'xyz'], -1) for c in (first[::10], cloud))
    expected = camera + 2.5 * (before - camera)
    nearest = np.linalg.norm(expected[:, None] - after, axis=-1).min(axis=1)
    assert np.mean(nearest < 1e-3) > 0.5
    size = 0.5 * np.ptp(cloud['x'])
    assert robot.set_parameter('map.voxel_size', float(size)).successful
    robot.process(node, make_image(602))
    coarse, _ = saved_files(save(robot))
    points = np.stack([coarse[name] for name in 'xyz'], -1).astype(np.float64)
    origin = camera - 2.5 * camera  # of the voxels, which were scaled about the camera too
    voxels = np.floor((points - origin) / np.float32(size) + 1e-6)
    assert len(np.unique(voxels, axis=0)) == len(coarse) < 0.2 * len(cloud)


def test_diagnostics_say_how_full_the_map_is(robot, node):
    robot.process(node, make_image(700))
    cloud, _ = saved_files(save(robot))
    status = robot.wait_for_diagnostic(node, 'Map', f'{len(cloud)} points')
    assert status.level == b'\x00'
    assert {value.key: value.value for value in status.values}['room for'] == str(2 ** 20)


def test_the_map_can_be_saved_from_an_inactive_node_and_is_empty_when_it_is_active(robot, node):
    robot.process(node, make_image(800))
    before, _ = saved_files(save(robot))
    robot.change_states('deactivate')
    after, _ = saved_files(save(robot))
    np.testing.assert_array_equal(after, before)
    robot.change_states('activate')
    robot.wait_until_subscribed(node)
    assert 'empty' in save(robot).message
    robot.process(node, make_image(801))
