"""Each export is read back by the tool it is for, and tells the truth about a known world."""

import json
from types import SimpleNamespace

from export_files import nav2_cells
import numpy as np
from PIL import Image
import pytest
import torch

from xsvggt_ros.geometry.se3 import flu_from_optical
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.mapping.floor import Floor
from xsvggt_ros.mapping.keyframes import Keyframes
from xsvggt_ros.mapping.map_files import make_cloud, pack
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.recordings.exports.colmap import ColmapExport
from xsvggt_ros.recordings.exports.depth import DepthExport
from xsvggt_ros.recordings.exports.export import (
    ExportOptions,
    FrameOutput,
    make_exports,
    SourcePictures,
)
from xsvggt_ros.recordings.exports.grid import FREE, GridExport, OCCUPIED, UNKNOWN
from xsvggt_ros.recordings.outputs import CacheRow
from xsvggt_ros.recordings.recording import Recording

WIDTH, HEIGHT = 64, 48
K = np.array([[40.0, 0, 31.5], [0, 40.0, 23.5], [0, 0, 1]])
ODOM_FROM_OPTICAL = np.eye(4)
ODOM_FROM_OPTICAL[:3, :3] = flu_from_optical().numpy()


# A room that is known exactly --------------------------------------------------------------------

def room_depth(odom_from_camera, half=(3.0, 2.0), height=1.0, top=1.5):
    """Return the depth of a room about the origin: walls, a floor `height` below, a ceiling."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K).T @ odom_from_camera[:3, :3].T
    nearest = np.full((HEIGHT, WIDTH), np.inf)
    for axis, (low, high) in enumerate([(-half[0], half[0]), (-half[1], half[1]),
                                        (-height, top)]):
        with np.errstate(divide='ignore'):
            for wall in (low, high):
                far = (wall - odom_from_camera[axis, 3]) / rays[..., axis]
                nearest = np.where((far > 0) & (far < nearest), far, nearest)
    return nearest.astype(np.float32)


def turned(degrees, place=(0.0, 0.0, 0.0), tilt=0.0):
    """Return odom_from_camera of a camera that was turned to the left, and tilted down."""
    a, b = np.radians(degrees), np.radians(tilt)
    pose = np.eye(4)
    yaw = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    pitch = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    pose[:3, :3] = yaw @ pitch @ ODOM_FROM_OPTICAL[:3, :3]
    pose[:3, 3] = place
    return pose


def frame_of(number, pose, depth=None, source=None, matrix=K, camera=None):
    """Return a frame of the room as a run gives it."""
    depth = room_depth(pose) if depth is None else depth
    source = np.full((96, 128, 3), number, np.uint8) if source is None else source
    resize = Resize(source.shape[0], source.shape[1], HEIGHT, HEIGHT, WIDTH)
    result = SimpleNamespace(
        image=torch.full((HEIGHT, WIDTH, 3), 7, dtype=torch.uint8), depth=torch.from_numpy(depth),
        depth_confidence=torch.full(depth.shape, 2.0), intrinsics=torch.from_numpy(matrix))
    row = CacheRow('0.0', number, 5, 10, 0.5, 0, 100, 200, 0.01)
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K).T
    points = (rays * depth[..., None]).reshape(-1, 3)
    cloud = torch.from_numpy(pack(make_cloud(
        points, np.full((len(points), 3), 9, np.uint8), np.ones(len(points)))))
    stamp = 10 ** 18 + number * 10 ** 8
    return FrameOutput(number, stamp, source, result, StampedPose.from_matrix(stamp, pose), cloud,
                       row, SourcePictures(camera, resize))


def run(export, poses, metric=False, **settings):
    """Put frames of the room through an export; return its files and the recording."""
    recording = Recording(metric=metric)
    for number, pose in enumerate(poses):
        frame = frame_of(number, pose, **settings)
        recording.poses.append(frame.pose)
        recording.map.add(frame.cloud, torch.from_numpy(pose))
        export.add(frame)
    return export.finish(recording), recording


# COLMAP ------------------------------------------------------------------------------------------

def test_colmap_reads_the_model_as_it_was_meant(tmp_path):
    pycolmap = pytest.importorskip('pycolmap')
    poses = [turned(8.0 * step, (0.1 * step, 0.05 * step, 0)) for step in range(6)]
    _, recording = run(ColmapExport(ExportOptions(tmp_path)), poses)
    folder = tmp_path / 'colmap' / 'sparse' / '0'
    text = tmp_path / 'text'
    text.mkdir()
    for file in folder.glob('*.txt'):
        (text / file.name).write_bytes(file.read_bytes())
    again = tmp_path / 'again'
    again.mkdir()
    for place in (folder, text):
        model = pycolmap.Reconstruction(place)
        assert (model.num_images(), model.num_cameras()) == (6, 1)
        assert model.compute_mean_reprojection_error() < 1e-6 and model.num_points3D() > 1000
        assert model.compute_mean_track_length() > 1.2
        for image in model.images.values():
            number = int(image.name.removeprefix('frame_').removesuffix('.png'))
            camera_from_odom = np.linalg.inv(recording.poses[number].matrix())
            found = image.cam_from_world().matrix()
            np.testing.assert_allclose(found, camera_from_odom[:3], atol=1e-6)
            size = Image.open(tmp_path / 'colmap' / 'images' / image.name).size
            assert size == (image.camera.width, image.camera.height) == (128, 96)
            # The source is twice the model image: the centre of a pixel of that lies between two.
            np.testing.assert_allclose(image.camera.params, [80, 80, 64, 48])
        walls = np.array([point.xyz for point in model.points3D.values()])
        nearest = np.abs(np.abs(walls) - (3, 2, np.inf)).min(axis=1)
        level = np.minimum(np.abs(walls[:, 2] + 1), np.abs(walls[:, 2] - 1.5))
        assert np.minimum(nearest, level).max() < 1e-4
    model.write_binary(str(again))
    for file in folder.glob('*.bin'):
        assert file.read_bytes() == (again / file.name).read_bytes(), file.name


def test_cameras_that_differ_are_several(tmp_path):
    export, recording = ColmapExport(ExportOptions(tmp_path)), Recording()
    for number, focal in enumerate((40.0, 40.0, 44.0)):
        frame = frame_of(number, turned(20.0 * number), matrix=K * (focal / 40, focal / 40, 1))
        recording.poses.append(frame.pose)
        export.add(frame)
    export.finish(recording)
    assert export.notes['cameras'] == 2 and export.notes['images'] == 3


def test_keyframes_stay_bounded_and_their_images_go(tmp_path, monkeypatch):
    monkeypatch.setattr('xsvggt_ros.recordings.exports.colmap.MOST_IMAGES', 4)
    export = ColmapExport(ExportOptions(tmp_path))
    (tmp_path / 'colmap' / 'images').mkdir(parents=True)
    (tmp_path / 'colmap' / 'images' / 'frame_000099.png').write_text('of an earlier run')
    (tmp_path / 'colmap' / 'images' / 'mine.png').write_text("somebody's own")
    run(export, [turned(10.0 * step) for step in range(20)])
    images = sorted(file.name for file in (tmp_path / 'colmap' / 'images').glob('frame*'))
    assert 2 <= len(images) == export.notes['images'] <= 4
    assert images[0] == 'frame_000000.png' and 'frame_000099.png' not in images
    assert (tmp_path / 'colmap' / 'images' / 'mine.png').exists()


def test_a_camera_that_stands_still_has_one_keyframe():
    frames = Keyframes(10)
    assert [frames.takes(turned(0.01 * step), 2.0) for step in range(5)] == [True] + [False] * 4
    assert frames.takes(turned(0, (0.11, 0, 0)), 2.0) and frames.takes(turned(6, (0.11, 0, 0)), 2)


def test_images_are_rectified(tmp_path):
    from xsvggt_ros.geometry.camera_model import CameraModel
    camera = CameraModel.calibrated(
        (128, 96), np.array([80, 0, 63.5, 0, 80, 47.5, 0, 0, 1.0]), (-0.3, 0.1, 0, 0, 0))
    source = np.zeros((96, 128, 3), np.uint8)
    source[::8] = 255
    run(ColmapExport(ExportOptions(tmp_path)), [turned(0)], source=source, camera=camera)
    written = np.asarray(Image.open(tmp_path / 'colmap' / 'images' / 'frame_000000.png'))
    assert written.shape == source.shape and not np.array_equal(written, source)
    assert np.array_equal(written[48, 60:68], source[48, 60:68])   # the middle stays


# Depth -------------------------------------------------------------------------------------------

def test_depth_is_millimetres_and_floats(tmp_path):
    depth = np.full((HEIGHT, WIDTH), 1.2344, np.float32)
    depth[0, :4] = np.nan, 70.0, 0.0001, 65.535
    run(DepthExport(ExportOptions(tmp_path)), [turned(0)], metric=True, depth=depth)
    folder = tmp_path / 'depth'
    png = np.asarray(Image.open(folder / '1000000000000000000.png'))
    assert png.dtype == np.uint16 and png.shape == depth.shape
    assert png[0, :5].tolist() == [0, 0, 0, 65535, 1234]
    with np.load(folder / '1000000000000000000.npz') as arrays:
        np.testing.assert_array_equal(arrays['depth'], depth)
        np.testing.assert_array_equal(arrays['intrinsics'], K)
        assert arrays['confidence'].shape == depth.shape
    assert json.loads((folder / 'depth.json').read_text())['unit'] == 'metre'


# Occupancy grid ----------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize('tilt', [0.0, 15.0])
def test_the_map_is_the_room_however_the_camera_is_tilted(tmp_path, tilt):
    """The odometry frame of a tilted camera is tilted: the floor says where up is."""
    poses = [turned(12.0 * step, (0.3 * np.cos(step), 0.3 * np.sin(step), 0), 15.0)
             for step in range(30)]
    export = GridExport(ExportOptions(tmp_path, grid={'resolution': 0.1}))
    recording = Recording()
    for number, pose in enumerate(poses):
        tilted = turned(0, tilt=-tilt) @ np.linalg.inv(turned(0)) @ pose
        frame = frame_of(number, pose)
        recording.poses.append(StampedPose.from_matrix(frame.stamp_ns, tilted))
        recording.map.add(frame.cloud, torch.from_numpy(tilted))
        export.add(frame)
    export.finish(recording)
    assert export.notes['camera_height'] == pytest.approx(1.0, abs=0.05)
    cells, about = nav2_cells(tmp_path)
    assert about['resolution'] == pytest.approx(0.1) and about['origin'][2] == 0

    def at(x, y):
        left, bottom, _ = about['origin']
        return cells[int((y - bottom) / 0.1), int((x - left) / 0.1)]

    for x in np.arange(-2.5, 2.6, 0.5):
        for y in (-1.5, -0.5, 0.5, 1.5):
            assert at(x, y) == 0
    for y in np.arange(-1.5, 1.6, 0.25):
        assert max(at(3 + shift, y) for shift in (-0.05, 0.05)) == 100
        assert max(at(-3 + shift, y) for shift in (-0.05, 0.05)) == 100
    assert cells[0, 0] == cells[-1, -1] == -1
    grey = np.asarray(Image.open(tmp_path / 'map.pgm'))
    assert set(np.unique(grey)) == {OCCUPIED, FREE, UNKNOWN}


def test_without_a_floor_the_cameras_say_where_up_is():
    rng = np.random.default_rng(0)
    cloud = make_cloud(rng.normal(size=(2000, 3)), np.zeros((2000, 3), np.uint8), np.ones(2000))
    floor = Floor.find(cloud, [turned(0)])
    np.testing.assert_allclose(floor.grid_from_odom[:3, :3], np.eye(3), atol=1e-9)
    assert floor.words.startswith('none found') and floor.camera_height > 0
    assert Floor.find(cloud[:0], []).camera_height > 0


# MCAP --------------------------------------------------------------------------------------------

def test_the_mcap_has_the_node_s_topics_at_the_source_s_stamps(tmp_path):
    pytest.importorskip('mcap')
    pytest.importorskip('rosbags')
    from rosbags.highlevel import AnyReader
    poses = [turned(10.0 * step, (0.1 * step, 0, 0)) for step in range(4)]
    (file,), recording = run(make_exports(['mcap'], ExportOptions(tmp_path))[0], poses)
    with AnyReader([file]) as reader:
        read = {}
        for connection, log_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            read.setdefault(connection.topic, []).append((log_ns, message))
    assert {topic: len(items) for topic, items in read.items()} == {
        '/tf': 4, '/xsvggt/odometry': 4, '/xsvggt/points': 4, '/xsvggt/confidence': 4,
        '/xsvggt/rgb/image_rect_color': 4, '/xsvggt/rgb/camera_info': 4,
        '/xsvggt/depth/image_rect': 4, '/xsvggt/depth/camera_info': 4,
        '/xsvggt/map_points': 1, '/xsvggt/path': 1}
    for number, (log_ns, odometry) in enumerate(read['/xsvggt/odometry']):
        stamp = odometry.header.stamp
        assert stamp.sec * 10 ** 9 + stamp.nanosec == log_ns == recording.poses[number].stamp_ns
        assert odometry.header.frame_id == 'xsvggt_odom'
        place = odometry.pose.pose.position
        np.testing.assert_allclose((place.x, place.y, place.z), poses[number][:3, 3])
    depth = read['/xsvggt/depth/image_rect'][2][1]
    np.testing.assert_array_equal(depth.data.view(np.float32).reshape(HEIGHT, WIDTH),
                                  room_depth(poses[2]))
    # Whole numbers in float fields: rosbags would write their bits.
    info = read['/xsvggt/depth/camera_info'][0][1]
    np.testing.assert_array_equal(info.k.reshape(3, 3), K)
    np.testing.assert_array_equal(info.p.reshape(3, 4)[:, :3], K)
    cloud = read['/xsvggt/map_points'][0][1]
    assert cloud.width == len(recording.cloud()) and cloud.header.frame_id == 'xsvggt_odom'
    edge = read['/tf'][3][1].transforms[0]
    assert (edge.header.frame_id, edge.child_frame_id) == ('xsvggt_odom', 'camera_optical_frame')
    assert len(read['/xsvggt/path'][0][1].poses) == 4


# Rerun -------------------------------------------------------------------------------------------

def test_rerun_gets_colours_and_stamps(tmp_path):
    pytest.importorskip('rerun', reason='rerun-sdk is 170 MB')
    from rerun.chunk import RrdReader
    poses = [turned(10.0 * step, (0.1 * step, 0, 0)) for step in range(3)]
    (file,), recording = run(make_exports(['rerun'], ExportOptions(tmp_path))[0], poses)
    chunks = {}
    for chunk in RrdReader(file).stream().to_chunks():
        chunks.setdefault(str(chunk.entity_path), []).append(chunk.to_record_batch())
    assert {'/odom/camera', '/odom/camera/image', '/odom/camera/image/rgb', '/plots/latency_ms',
            '/odom/camera/image/depth', '/plots/cache_occupancy'} <= chunks.keys()
    stamps = [value.value for batch in chunks['/odom/camera'] for value in batch['stamp']]
    assert sorted(stamps) == [pose.stamp_ns for pose in recording.poses]
    points, = chunks['/odom/map']
    assert len(points['Points3D:positions'][0]) == len(recording.cloud())
    assert points['Points3D:colors'][0].as_py()[0] == 0x090909ff
