"""What other people's tools read of a run's files: PLY, TUM and MCAP, as far as they are here."""

import numpy as np
import pytest
from test_exports import frame_of, run, turned

from xsvggt_ros.mapping.map_files import make_cloud, write_ply, write_tum
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.recordings.exports.export import ExportOptions, make_exports

POINTS = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
COLOURS = np.random.default_rng(1).integers(0, 256, (500, 3), np.uint8)


def plyfile(path):
    rows = pytest.importorskip('plyfile').PlyData.read(str(path))['vertex']
    return (np.stack([rows[name] for name in 'xyz'], 1),
            np.stack([rows[name] for name in ('red', 'green', 'blue')], 1))


def trimesh(path):
    cloud = pytest.importorskip('trimesh').load(path)
    return np.asarray(cloud.vertices), np.asarray(cloud.colors)[:, :3]


def open3d(path):
    library = pytest.importorskip('open3d', reason='Open3D is 450 MB')
    cloud = library.io.read_point_cloud(str(path))
    return np.asarray(cloud.points), np.rint(np.asarray(cloud.colors) * 255)


def pycolmap(path):
    model = pytest.importorskip('pycolmap').Reconstruction()
    model.import_PLY(str(path))
    points = [model.points3D[key] for key in sorted(model.points3D)]
    return np.array([each.xyz for each in points]), np.array([each.color for each in points])


@pytest.mark.parametrize('read', [plyfile, trimesh, open3d, pycolmap], ids=lambda f: f.__name__)
def test_the_ply_is_read_with_its_colours(tmp_path, read):
    write_ply(tmp_path / 'map.ply', make_cloud(POINTS, COLOURS, np.ones(500)))
    points, colours = read(tmp_path / 'map.ply')
    np.testing.assert_allclose(points, POINTS, atol=1e-6)
    np.testing.assert_array_equal(colours, COLOURS)


def test_evo_reads_the_trajectory(tmp_path):
    pytest.importorskip('evo')
    from evo.core import metrics
    from evo.tools import file_interface
    poses = [StampedPose.from_matrix(10 ** 18 + number * 10 ** 8, turned(
        7.0 * number, (0.1 * number, 0.02 * number ** 2, 0.0))) for number in range(9)]
    write_tum(tmp_path / 'trajectory.tum', poses)
    read = file_interface.read_tum_trajectory_file(tmp_path / 'trajectory.tum')
    assert read.check()[0]
    np.testing.assert_allclose(read.positions_xyz, [pose.position for pose in poses], atol=1e-8)
    for found, pose in zip(read.poses_se3, poses):
        np.testing.assert_allclose(found, pose.matrix(), atol=1e-7)
    np.testing.assert_allclose(read.timestamps, [pose.stamp_ns / 1e9 for pose in poses])
    error = metrics.APE(metrics.PoseRelation.translation_part)
    error.process_data((read, read))
    assert error.get_statistic(metrics.StatisticsType.max) == 0


def test_the_mcap_library_reads_every_message_by_its_own_definition(tmp_path):
    pytest.importorskip('rosbags')
    reader = pytest.importorskip('mcap.reader')
    (file,), _ = run(make_exports(['mcap'], ExportOptions(tmp_path))[0],
                     [turned(10.0 * step) for step in range(3)])
    from rosbags.typesys import get_types_from_msg, get_typestore, Stores
    with open(file, 'rb') as stream:
        opened = reader.make_reader(stream, validate_crcs=True)
        assert opened.get_header().profile == 'ros2'
        counts = {}
        for schema, channel, message in opened.iter_messages():
            assert (schema.encoding, channel.message_encoding) == ('ros2msg', 'cdr')
            store = get_typestore(Stores.EMPTY)
            store.register(get_types_from_msg(schema.data.decode(), schema.name))
            content = store.deserialize_cdr(message.data, schema.name)
            counts[channel.topic] = counts.get(channel.topic, 0) + 1
            if schema.name == 'sensor_msgs/msg/PointCloud2' and channel.topic.endswith('/points'):
                rows = np.frombuffer(content.data, np.float32).reshape(content.width, -1)
                assert content.width == len(frame_of(0, turned(0)).cloud)
                assert np.isfinite(rows[:, :3]).all()
    assert counts['/xsvggt/points'] == 3 and counts['/xsvggt/map_points'] == 1
