"""The map output by itself: unit, topic, what is said of a full map, and errors."""

from dataclasses import replace
from pathlib import Path
import re
import time
from types import SimpleNamespace

from fake_topics import FakeTopic
import numpy as np
import pytest
from std_msgs.msg import Header
import torch

from xsvggt_ros.mapping.map_files import make_cloud, pack, read_ply, read_tum
from xsvggt_ros.node.frames import Pose
from xsvggt_ros.node.loading import StartError
from xsvggt_ros.node.outputs import map_output
from xsvggt_ros.node.outputs.map_output import MapError, MapOutput
from xsvggt_ros.node.settings import DEFAULTS
from xsvggt_ros.node.status.fault_log import FaultLog


@pytest.fixture
def make_output():
    def make(**changes):
        settings = DEFAULTS.changed(changes).map
        publisher, told = FakeTopic(), []
        output = MapOutput(SimpleNamespace(map_points=publisher), FaultLog(told.append),
                           torch.device('cpu'), 'tiny', settings, 'xsvggt_odom')
        output.forget()
        return output, settings, publisher, told
    return make


def header(second):
    message = Header(frame_id='camera')
    message.stamp.sec = second
    return message


def some_cloud(seed=0, count=2000):
    rng = np.random.default_rng(seed)
    return pack(make_cloud(rng.normal(size=(count, 3)), np.full((count, 3), 9),
                           np.full(count, 2.0)))


def pose(x):
    return Pose((x, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def test_without_a_map_nothing_is_gathered_and_saving_says_why(make_output):
    output, settings, publisher, _ = make_output(**{'map.enable': False})
    publisher.subscribers = 1
    output.add(header(1), lambda: some_cloud(), pose(0.0), None, settings)
    output.publish_if_due(settings)
    assert publisher.messages == [] and output.report is None
    with pytest.raises(MapError, match=r'map\.enable'):
        output.save(settings)


def test_a_map_without_points_says_why_when_it_is_to_be_saved(make_output):
    output, settings, *_ = make_output()
    with pytest.raises(MapError, match='no image with a known pose has been processed'):
        output.save(settings)
    for second in range(3):
        output.add(header(second), lambda: some_cloud(count=0), pose(second), None, settings)
    assert output.report.fill.points == 0
    for why, words in (('', 'Look at cloud.max_error'), ('the lens is covered', 'the lens is')):
        with pytest.raises(MapError, match=f'3 poses are known: no cloud .* point. {words}'):
            output.save(settings, why_empty=why)
    output.add(header(4), lambda: some_cloud(), pose(4.0), None, settings)
    assert output.report.fill.points > 0


def test_map_and_way_follow_the_unit(make_output, tmp_path):
    output, settings, *_ = make_output(**{'map.save_directory': str(tmp_path)})
    cloud = some_cloud()
    output.add(header(1), lambda: cloud, pose(3.0), None, settings)
    reach = [max(read(output, settings)[0]['x'])]
    assert b"the network's own unit" in next(tmp_path.glob('*.ply')).read_bytes()
    for second, metres in enumerate((2.0, 0.5), start=2):
        cloud_in_metres = cloud.copy()
        cloud_in_metres[:, :3] *= metres
        output.add(header(second), cloud_in_metres.copy, pose(3.0 * metres), metres, settings)
        points, way = read(output, settings)
        reach.append(max(points['x']))
        assert [place.position[0] for place in way] == pytest.approx([3.0 * metres] * second)
    np.testing.assert_allclose(reach, reach[0] * np.array([1.0, 2.0, 0.5]), rtol=1e-3)
    files = tmp_path.glob('*.ply')
    assert sum(b'lengths in metres' in file.read_bytes() for file in files) == 2


def read(output, settings):
    ply, tum = re.findall(r'\S+\.(?:ply|tum)', output.save(settings))
    return read_ply(Path(ply)), read_tum(Path(tum))


def test_a_map_is_published_only_for_somebody_and_only_when_it_changed(make_output):
    output, settings, publisher, _ = make_output(**{'map.publish_period': 0.1})
    for second in range(3):
        output.add(header(second), lambda: some_cloud(second), pose(0.0), None, settings)
        output.publish_if_due(settings)
    assert publisher.messages == []
    publisher.subscribers = 1
    output.publish_if_due(settings)
    assert len(publisher.messages) == 1 and publisher.messages[0].header.stamp.sec == 2
    time.sleep(0.15)
    output.publish_if_due(settings)
    assert len(publisher.messages) == 1
    settings = replace(settings, publish_period=3600.0)
    output.add(header(3), lambda: some_cloud(3), pose(0.0), None, settings)
    output.publish_if_due(settings)
    assert len(publisher.messages) == 1
    publisher.subscribers = 0
    output.forget()      # what is latched is taken back, though nobody is there
    assert publisher.messages[-1].width == 0
    output.forget()
    assert len(publisher.messages) == 2


def test_a_full_map_says_so_once_and_what_to_do(make_output):
    output, settings, _, told = make_output(
        **{'map.max_points': 64, 'map.voxel_size': 0.01, 'map.publish_period': 0.1})
    for second in range(20):
        output.add(header(second), lambda: some_cloud(second), pose(0.0), None, settings)
    assert len(told) == 1
    assert all(word in told[0] for word in ('full', 'map.voxel_size', 'map.max_points', '~/reset'))
    assert output.report.fill.points <= output.report.fill.capacity == 64


def test_a_map_that_fails_does_not_take_the_stream_with_it(make_output, monkeypatch):
    output, settings, _, told = make_output()
    output.add(header(1), lambda: some_cloud(), pose(0.0), None, settings)
    points = output.report.fill.points

    def fail(*arguments):
        raise RuntimeError('out of memory')

    monkeypatch.setattr(map_output.PointMap, 'add', fail)
    output.add(header(2), lambda: some_cloud(1), pose(0.0), None, settings)
    monkeypatch.undo()
    assert 'out of memory' in told[0]
    assert output.report.fill.points == points


def test_no_memory_for_a_map_is_said_with_its_parameter(make_output, monkeypatch):
    def fail(*arguments):
        raise torch.OutOfMemoryError('tried to allocate too much')

    monkeypatch.setattr(map_output, 'PointMap', fail)
    with pytest.raises(StartError, match=r'map\.max_points.*map\.enable'):
        make_output()
    make_output(**{'map.enable': False})
