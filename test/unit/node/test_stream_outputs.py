"""What is published of a stream: its stages and rate; map and path follow closed loops."""

from dataclasses import replace
from functools import partial
from pathlib import Path
import re
import time
from types import SimpleNamespace

from fake_topics import FakeTopics
import numpy as np
import pytest
import torch

pytest.importorskip('rclpy')
from std_msgs.msg import Header  # noqa: E402

from xsvggt_ros.mapping.map_files import make_cloud, pack, read_ply, read_tum  # noqa: E402
from xsvggt_ros.mapping.point_map import PointMap  # noqa: E402
from xsvggt_ros.node.frames import Pose  # noqa: E402
from xsvggt_ros.node.outputs import pose_outputs, stream_outputs  # noqa: E402
from xsvggt_ros.node.outputs.map_output import MapOutput  # noqa: E402
from xsvggt_ros.node.outputs.pose_outputs import PoseOutputs  # noqa: E402
from xsvggt_ros.node.outputs.stream_outputs import (  # noqa: E402
    FrameTimestamps,
    StreamOutputs,
)
from xsvggt_ros.node.settings import DEFAULTS  # noqa: E402
from xsvggt_ros.node.status.fault_log import FaultLog  # noqa: E402
from xsvggt_ros.node.status.stream_statistics import StreamStatistics, Ticket  # noqa: E402
from xsvggt_ros.trajectory.corrections import Corrections  # noqa: E402
from xsvggt_ros.trajectory.map_frame import MapFrame  # noqa: E402

TIMES = FrameTimestamps(start=1.0, decoded=2.0, computed=5.0, located=5.1, copying=6.0, upload=.5)


@pytest.mark.parametrize('begin, end, seconds', [
    (2.5, 3.0, 0.0),   # a pose that the image alone told: the network was at work all the while
    (4.5, 5.5, 0.5), (5.0, 5.5, 0.5), (5.5, 6.0, 0.5)])
def test_what_went_on_beside_the_network_is_not_counted_twice(begin, end, seconds):
    assert TIMES.after_computing(begin, end) == pytest.approx(seconds)


@pytest.mark.parametrize('cameras', [1, 2, 3])
def test_the_rate_is_that_of_images_as_the_rate_of_those_that_come(monkeypatch, cameras):
    now, statistics = [10.0], StreamStatistics()
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(stream_outputs, 'frame_outputs', lambda *args: [])
    outputs = SimpleNamespace(
        _publishers=None, _statistics=statistics, _locating=10.0, _located=10.0)
    for _ in range(9):
        StreamOutputs.publish(outputs, SimpleNamespace(
            timestamps=TIMES, resize=SimpleNamespace(height=4, width=4), header=None, host=None,
            topics=(), ticket=Ticket(cameras)))
        now[0] += 0.25
    now[0] -= 0.25
    assert statistics.processed == 9 * cameras
    assert statistics.out_meter.rate() == pytest.approx(4.0 * cameras)


FRAMES = 40


def small_similarity(rng, scale=True):
    matrix = np.eye(4)
    angle = rng.uniform(-0.3, 0.3)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, :3] *= rng.uniform(0.8, 1.25) if scale else 1.0
    matrix[:3, 3] = rng.uniform(-1, 1, 3)
    return matrix


def with_loops(rng, keyframe):
    """Return the map after a loop at a keyframe: every one before it is somewhere else now."""
    corrections = Corrections(np.arange(keyframe + 1), np.array(
        [small_similarity(rng) for _ in range(keyframe + 1)]))
    map_from_odom = small_similarity(rng, scale=False)
    # What the newest keyframe sees stays where it is in the odometry frame.
    placed = Corrections(np.arange(keyframe + 2), np.array(
        [*corrections.similarities[:-1], map_from_odom, map_from_odom]))
    return MapFrame(corrections, map_from_odom, placed=placed)


def moved_to(map_frame, keyframe, position):
    moved = np.linalg.inv(map_frame.map_from_odom) @ map_frame.placed.at(keyframe)
    return moved[:3, :3] @ position + moved[:3, 3]


@pytest.fixture
def poses():
    publishers = FakeTopics()
    poses = PoseOutputs(publishers, FaultLog(print), None, FRAMES)
    poses._frame.place(np.eye(4), np.eye(4))
    return poses, publishers


def fill_map(tmp_path, poses, rng, looked_at=()):
    """Fill a map with a point a frame, at each a new loop; return it, its last frame, points."""
    settings = DEFAULTS.changed({'map.save_directory': str(tmp_path), 'map.max_points': 4096,
                                 'map.voxel_size': 1e-3})
    outputs = SimpleNamespace(
        map=MapOutput(FakeTopics(), FaultLog(pytest.fail), torch.device('cpu'), 'tiny',
                      settings.map, 'odom'),
        _poses=poses, _occupancy=SimpleNamespace(follow=lambda *a: None, add=lambda *a: None),
        _map_frame=MapFrame.none(), _followed=MapFrame.none(), _centre=None,
        publish_maps=lambda settings: None)
    outputs._moves = partial(StreamOutputs._moves, outputs)
    put = rng.uniform(-5, 5, (FRAMES, 3)).astype(np.float32)
    map_frame = MapFrame.none()
    for number, point in enumerate(put):
        if number % 7 != 3:
            map_frame = with_loops(rng, number)
        cloud = pack(make_cloud(point[None], np.full((1, 3), 9), np.full(1, 2.0)))
        outputs._pose = Pose((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
        loops = SimpleNamespace(map_frame=map_frame, placement=number)
        StreamOutputs._fill_map(outputs, SimpleNamespace(
            settings=settings, scale=None, header=Header(frame_id='camera'),
            tracked=SimpleNamespace(loops=loops),
            host={'cloud': torch.from_numpy(cloud), 'cloud_size': torch.tensor(1)}))
        if number in looked_at:
            outputs.map.save(settings.map)
    return outputs.map, map_frame, put, settings.map


@pytest.mark.parametrize('looked_at', [(), (5, 6, 23), tuple(range(FRAMES))])
def test_the_map_is_where_the_last_loop_says_however_late_it_follows(
        tmp_path, poses, looked_at):
    found, map_frame, put, settings = fill_map(
        tmp_path, poses[0], np.random.default_rng(0), looked_at)
    ply, tum = re.findall(r'\S+\.(?:ply|tum)', found.save(settings))
    expected = np.array([moved_to(map_frame, k, point) for k, point in enumerate(put)])
    cloud = read_ply(Path(ply))
    points = np.stack([cloud[name] for name in 'xyz'], axis=1)
    order = [np.linalg.norm(points - place, axis=1).argmin() for place in expected]
    assert sorted(order) == list(range(FRAMES))
    np.testing.assert_allclose(points[order], expected, atol=1e-3)
    way = np.array([pose.position for pose in read_tum(Path(tum))])
    np.testing.assert_allclose(
        way, [moved_to(map_frame, k, np.zeros(3)) for k in range(FRAMES)], atol=1e-6)


def test_a_map_that_nobody_looks_at_moves_no_more_points_than_are_added(
        tmp_path, poses, monkeypatch):
    moved, move = [], PointMap.move
    monkeypatch.setattr(PointMap, 'move', lambda points, similarities: (
        moved.append(points.fill().points), move(points, similarities)))
    found, *_ = fill_map(tmp_path, poses[0], np.random.default_rng(1))
    assert 0 < sum(moved) <= FRAMES and found.is_behind
    monkeypatch.undo()


@pytest.mark.parametrize('voxel_size', [0.0, 0.02])
def test_what_is_seen_again_does_not_fill_a_map_that_is_behind(tmp_path, voxel_size):
    settings = DEFAULTS.changed({'map.save_directory': str(tmp_path), 'map.max_points': 1024,
                                 'map.voxel_size': voxel_size}).map
    found = MapOutput(FakeTopics(), FaultLog(pytest.fail), torch.device('cpu'), 'tiny', settings,
                      'odom')
    seen = np.random.default_rng(3).uniform(-2, 2, (500, 3)).astype(np.float32)
    cloud, pose = make_cloud(seen, np.full((500, 3), 9), np.full(500, 2.0)), Pose(
        (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    sizes, followed = [], 0
    for number in range(40):
        # The odometry drifts: all was seen as far to one side as there were images since.
        def moves(placements, since=followed, now=number):
            moved = np.tile(np.eye(4), (len(placements), 1, 1))
            moved[:, 0, 3] = 0.5 * (now - np.maximum(placements, since))
            return moved

        part = pack(cloud[number % 2::2] if number else cloud)
        part[:, 0] += 0.5 * number
        found.add(Header(), lambda part=part: part, pose, None, settings, None, number,
                  moves if number else None)
        followed = followed if found.is_behind else number
        sizes.append(found.report.voxel_size)
    assert sizes == [sizes[0]] * 40 and found.report.fill.lost_total < 5


def test_the_path_follows_loops_when_somebody_looks_at_it(poses, monkeypatch):
    output, publishers = poses
    monkeypatch.setattr(pose_outputs, 'fill_motion', lambda *arguments: None)
    rng, asked = np.random.default_rng(2), []
    moves = output.moves
    output.moves = lambda *frames: asked.append(frames) or moves(*frames)
    settings, positions = DEFAULTS.pose, rng.uniform(-5, 5, (12, 3))
    settings = replace(settings, base_frame='', publish_tf=False, publish_map_tf=False)
    for number, position in enumerate(positions):
        map_frame, pose = with_loops(rng, number), np.eye(4)
        pose[:3, 3] = position
        publishers.path.subscribers = int(number in (7, 11))
        output.publish(Header(frame_id='camera'), pose, settings, SimpleNamespace(
            loops=SimpleNamespace(map_frame=map_frame, placement=number)))
    assert len(asked) == 2 and len(publishers.path.messages) == 2
    path = publishers.path.messages[-1].poses
    at = [(one.pose.position.x, one.pose.position.y, one.pose.position.z) for one in path]
    expected = [moved_to(map_frame, k, place) for k, place in enumerate(positions)]
    np.testing.assert_allclose(at, expected, atol=1e-9)
