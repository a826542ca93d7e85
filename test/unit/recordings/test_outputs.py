"""What a run leaves: its table, its picture, and what the command line says."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
from PIL import Image
import pytest
import torch

from xsvggt_ros.cli.main import COMMANDS, main
from xsvggt_ros.mapping.map_files import (
    CLOUD_DTYPE,
    format_stamp,
    make_cloud,
    pack,
    read_ply,
    read_tum,
)
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.recordings import outputs
from xsvggt_ros.recordings.figure import write_picture
from xsvggt_ros.recordings.outputs import CacheRow
from xsvggt_ros.recordings.recording import describe_errors, Recording


def random_cloud(count, seed=0):
    rng = np.random.default_rng(seed)
    return make_cloud(rng.normal(size=(count, 3)), rng.integers(0, 256, (count, 3)),
                      rng.uniform(1, 9, count))


def add(recording, cloud):
    recording.map.add(torch.from_numpy(pack(cloud)), torch.eye(4))


def random_rotation(rng):
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.linalg.det(q)


# CSV ---------------------------------------------------------------------------------------------

def test_the_caches_table_has_a_line_for_each_frame(tmp_path):
    rows = [CacheRow('12.000000001', 0, 197, 2048, 0.09375, 0, 1000, 2000, 0.25),
            CacheRow('12.100000001', 1, 394, 0, 0.0, 7, 3000, 4000, float('nan'))]
    outputs.write_cache_csv(tmp_path / 'a.csv', rows)
    assert (tmp_path / 'a.csv').read_text().splitlines() == [
        'stamp,frame_index,tokens_used,tokens_budget,occupancy,evicted,bytes_used,bytes_budget,'
        'latency',
        '12.000000001,0,197,2048,0.09375,0,1000,2000,0.25',
        '12.100000001,1,394,0,0,7,3000,4000,nan']


# Clouds from messages ----------------------------------------------------------------------------

def field(name, offset, datatype, count=1):
    return SimpleNamespace(name=name, offset=offset, datatype=datatype, count=count)


def message(data, fields, step, width, height=1, row_step=None, big=False):
    return SimpleNamespace(data=data, fields=fields, point_step=step, width=width, height=height,
                           row_step=row_step or step * width, is_bigendian=big)


@pytest.fixture
def no_package(monkeypatch):
    """Leave sensor_msgs_py aside: it takes no stand-ins for messages."""
    monkeypatch.setattr(outputs, '_installed_reader', lambda: None)


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.usefixtures('no_package')
def test_cloud_reader_honours_offsets_padding_and_byte_order(order):
    # 2 rows of 3 points, 32 bytes a point with gaps, 8 bytes of padding after each row.
    dtype = np.dtype({'names': ['z', 'x', 'rgb', 'y', 'confidence'],
                      'formats': [order + 'f4', order + 'f4', order + 'u4', order + 'f8',
                                  order + 'f4'],
                      'offsets': [4, 12, 16, 20, 28], 'itemsize': 32})
    points = np.zeros((2, 3), dtype)
    values = np.arange(6).reshape(2, 3)
    points['x'], points['y'], points['z'] = values, values + 0.5, -values
    points['rgb'], points['confidence'] = 0x0A0B0C + values, values * 10
    data = b''.join(row.tobytes() + b'\xff' * 8 for row in points)
    fields = [field('x', 12, 7), field('y', 20, 8), field('z', 4, 7), field('rgb', 16, 7),
              field('confidence', 28, 7)]
    cloud = outputs.cloud_from_message(
        message(data, fields, 32, 3, 2, row_step=3 * 32 + 8, big=order == '>'))
    assert cloud.dtype == CLOUD_DTYPE
    np.testing.assert_array_equal(cloud['x'], np.arange(6))
    np.testing.assert_array_equal(cloud['y'], np.arange(6) + 0.5)
    np.testing.assert_array_equal(cloud['z'], -np.arange(6))
    np.testing.assert_array_equal(cloud['red'], [0x0A] * 6)
    np.testing.assert_array_equal(cloud['green'], [0x0B] * 6)
    np.testing.assert_array_equal(cloud['blue'], 0x0C + np.arange(6))
    np.testing.assert_array_equal(cloud['confidence'], 10 * np.arange(6))


@pytest.mark.usefixtures('no_package')
def test_cloud_without_confidence_and_empty_cloud():
    fields = [field('x', 0, 7), field('y', 4, 7), field('z', 8, 7), field('rgb', 12, 7)]
    data = np.array([1, 2, 3, 0], np.float32).tobytes()
    assert outputs.cloud_from_message(message(data, fields, 16, 1))['confidence'] == 1
    assert len(outputs.cloud_from_message(message(b'', fields, 16, 0))) == 0
    with pytest.raises(ValueError, match='16 bytes.*needs 32'):
        outputs.read_point_cloud(message(data, fields, 16, 2))


@pytest.mark.parametrize('change, words', [
    ({'row_step': 0, 'height': 2 ** 32 - 1}, 'a row of 1 points of 16 bytes has 0 bytes'),
    ({'point_step': 0, 'width': 2 ** 32 - 1}, 'does not lie in a point of 0 bytes'),
    ({'point_step': 12}, "'rgb' of the cloud does not lie in a point of 12 bytes"),
    ({'fields': [field('x', 0, 99)]}, "'x' of the cloud has the unknown type 99"),
    ({'fields': [field('x', 0, 7)]}, 'lacks one of the fields'),
    ({'fields': []}, 'lacks one of the fields'),
])
@pytest.mark.usefixtures('no_package')
def test_a_cloud_that_contradicts_itself_is_refused(change, words):
    fields = [field('x', 0, 7), field('y', 4, 7), field('z', 8, 7), field('rgb', 12, 7)]
    cloud = message(bytes(16), fields, 16, 1)
    for name, value in change.items():
        setattr(cloud, name, value)
    with pytest.raises(ValueError, match=words):
        outputs.cloud_from_message(cloud)


@pytest.fixture(params=['own reader', 'sensor_msgs_py'])
def reader(request, monkeypatch):
    if request.param == 'own reader':
        monkeypatch.setattr(outputs, '_installed_reader', lambda: None)
    else:
        pytest.importorskip('sensor_msgs_py', reason='part of a ROS 2 installation only')


@pytest.mark.usefixtures('reader')
def test_real_messages_are_read_as_written():
    pytest.importorskip('sensor_msgs.msg')
    from std_msgs.msg import Header

    from xsvggt_ros.node.messages import point_cloud
    rng = np.random.default_rng(0)
    packed = rng.normal(size=(10, 5)).astype(np.float32)
    packed[:, 3] = np.array([0x00102030] * 10, np.uint32).view(np.float32)
    cloud = outputs.cloud_from_message(point_cloud(Header(), packed))
    np.testing.assert_array_equal(cloud['y'], packed[:, 1])
    np.testing.assert_array_equal(cloud['confidence'], packed[:, 4])
    assert cloud[['red', 'green', 'blue']].tolist() == [(0x10, 0x20, 0x30)] * 10


def test_the_package_reads_common_clouds_only(monkeypatch):
    """A stand-in for sensor_msgs_py is asked for clouds that the real one reads rightly."""
    asked = []

    def read_points(cloud):
        asked.append(cloud)
        layout = outputs.read_any_cloud(cloud).dtype
        kinds = [layout.fields[name] for name in layout.names]
        dtype = np.dtype({'names': layout.names, 'formats': [kind for kind, _ in kinds],
                          'offsets': [offset for _, offset in kinds]})    # no itemsize, as of old
        return np.ndarray((cloud.width * cloud.height,), dtype, cloud.data)

    package = SimpleNamespace(read_points=read_points)
    monkeypatch.setitem(sys.modules, 'sensor_msgs_py', SimpleNamespace(point_cloud2=package))
    monkeypatch.setitem(sys.modules, 'sensor_msgs_py.point_cloud2', package)
    fields = [field('x', 0, 7), field('y', 4, 7), field('z', 8, 7), field('rgb', 12, 7)]
    values = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32)
    for step, row_step, big, is_asked in ((16, 48, False, True), (20, 60, False, True),
                                          (16, 64, False, False), (16, 48, True, False)):
        cloud = message(values.tobytes(), fields, step, 3, 2, row_step, big)
        points = outputs.read_point_cloud(cloud)
        np.testing.assert_array_equal(points, outputs.read_any_cloud(cloud))
        assert points.dtype.itemsize == step
        assert bool(asked) == is_asked
        asked.clear()


@pytest.mark.parametrize('shape', [(5, 7), (5, 7, 3)])
def test_image_messages_are_read_as_written(shape):
    pytest.importorskip('sensor_msgs.msg')
    from std_msgs.msg import Header

    from xsvggt_ros.demo.ros_messages import image_message, image_pixels
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    sent = image_message(Header(), pixels[:, ::-1])
    assert sent.encoding == ('mono8' if len(shape) == 2 else 'rgb8')
    expected = pixels[:, ::-1] if len(shape) == 3 else np.repeat(pixels[:, ::-1, None], 3, 2)
    np.testing.assert_array_equal(image_pixels(sent), expected)


# The picture -------------------------------------------------------------------------------------

def picture_of(recording, folder):
    folder.mkdir(exist_ok=True)
    return np.asarray(Image.open(write_picture(recording, folder)).convert('RGB')).astype(int)


def test_errors_are_those_of_frames_with_a_true_pose():
    rng = np.random.default_rng(0)
    run = Recording()
    places = rng.normal(size=(12, 3))
    for number, place in enumerate(places):
        run.truth.append(StampedPose(number, tuple(place), (0.0, 0.0, 0.0, 1.0)))
    assert run.errors() is None
    turn = random_rotation(rng)
    for number in range(0, 12, 2):   # every other frame, in another world that is half as large
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn, 0.5 * turn @ places[number] + (1, 2, 3)
        run.poses.append(StampedPose.from_matrix(number, pose))
    errors = run.errors()
    assert errors.ate < 1e-9 and errors.ate_ratio < 1e-9 and errors.rotation_deg < 1e-6
    np.testing.assert_allclose(
        errors.true_positions, [pose.position for pose in run.poses], atol=1e-9)
    assert '0 % of the spread' in describe_errors(errors)
    run.poses[2] = StampedPose(4, (float('nan'),) * 3, (0.0, 0.0, 0.0, 1.0))
    assert len(run.errors().true_positions) == 5
    run.poses[1] = StampedPose(2, (9.0, 9.0, 9.0), (0.0, 0.0, 1.0, 0.0))
    assert run.errors().ate_ratio > 0.1 and run.errors().rotation_deg > 20


@pytest.mark.slow
def test_picture_shows_points_and_warns_of_random_weights(tmp_path):
    pytest.importorskip('matplotlib')

    def recording(**settings):
        run = Recording(model='a test', image=np.full((30, 40, 3), 200, np.uint8), **settings)
        rng = np.random.default_rng(0)
        add(run, make_cloud(rng.uniform(-1, 1, (5000, 3)), np.full((5000, 3), (255, 0, 0)),
                            np.ones(5000)))
        for index in range(10):
            run.poses.append(StampedPose(index * 10 ** 8, (0.1 * index, 0, 0), (0, 0, 0, 1)))
            run.cache.append(CacheRow(format_stamp(index * 10 ** 8), index,
                                      10 * index, 50, 0.5, 0, 100, 200, 0.1))
        return run
    plain = picture_of(recording(), tmp_path / 'plain')
    assert plain.shape == (1080, 1920, 3)
    red = (plain[:, :, 0] > 60) & (plain[:, :, 1] < 30) & (plain[:, :, 2] < 50)
    assert red.mean() > 0.02
    warned = picture_of(recording(random_weights=True), tmp_path / 'warned')
    amber = np.array([0xff, 0xb3, 0x47])
    assert (np.abs(warned - amber).max(axis=2) < 6).sum() > 5000
    assert (np.abs(plain - amber).max(axis=2) < 6).sum() < 3000     # the budget's line


@pytest.mark.slow
@pytest.mark.parametrize('count', [0, 1, 3])
def test_picture_of_nearly_nothing_is_drawn(tmp_path, count):
    pytest.importorskip('matplotlib')
    run = Recording()
    for index in range(count):
        run.poses.append(StampedPose(index, (0.0, 0.0, 0.0), (0, 0, 0, 1)))
        add(run, random_cloud(count))
    assert picture_of(run, tmp_path).shape == (1080, 1920, 3)


# The command line --------------------------------------------------------------------------------

def test_cli_names_its_commands_and_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(['--help'])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    with pytest.raises(SystemExit) as ended:
        main(['--version'])
    assert ended.value.code == 0
    assert re.match(r'xsvggt \S', capsys.readouterr().out)


@pytest.mark.parametrize('arguments, words', [
    (['demo', '--size', '640'], 'is not a size'),
    (['camera', '--rate', '0'], 'not a number above'),
    (['reconstruct', '--frames', '-3'], 'not a whole number'), (['world'], 'ACTION'),
    (['dance'], 'invalid choice')])
def test_cli_says_what_is_wrong_with_an_argument(capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_cli_without_ros_says_how_to_get_it(tmp_path):
    """With rclpy out of reach the commands that need it say so; the others work."""
    (tmp_path / 'rclpy.py').write_text('raise ImportError("No module named rclpy")')
    code = ('import sys; sys.path.insert(0, sys.argv.pop(1)); '
            'from xsvggt_ros.cli.main import main; sys.exit(main(sys.argv[1:]))')

    def xsvggt(*arguments):
        return subprocess.run([sys.executable, '-c', code, str(tmp_path), *arguments],
                              capture_output=True, text=True, timeout=600)
    for command in ('demo', 'camera'):
        result = xsvggt(command)
        assert result.returncode == 1
        assert 'needs ROS 2' in result.stderr and 'make env' in result.stderr
        assert 'Traceback' not in result.stderr
    result = xsvggt('world', 'render', '--frames', '1', '--size', '32x24', '--out',
                    str(tmp_path / 'world'))
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / 'world' / 'intrinsics.json').read_text())['cx'] == 16


@pytest.mark.slow
def test_reconstruct_without_ros_leaves_all_files(tmp_path):
    assert main(['reconstruct', '--frames', '4', '--size', '112x84', '--image-size', '56',
                 '--max-tokens', '60', '--out', str(tmp_path)]) == 0
    rows = np.genfromtxt(tmp_path / 'cache.csv', delimiter=',', names=True)
    assert rows['frame_index'].tolist() == [0, 1, 2, 3]
    assert (rows['tokens_used'] <= rows['tokens_budget']).all()
    assert (rows['tokens_budget'] <= 60).all()
    poses = read_tum(tmp_path / 'trajectory.tum')
    assert [pose.stamp_ns for pose in poses] == [0, 10 ** 8, 2 * 10 ** 8, 3 * 10 ** 8]
    # 80 % of 4 frames of 56 x 42 points, thinned.
    assert 1000 < len(read_ply(tmp_path / 'map.ply')) <= 0.81 * 4 * 56 * 42
    assert Image.open(tmp_path / 'reconstruction.png').size == (1920, 1080)


@pytest.mark.slow
def test_reconstruct_takes_the_folders_calibration(tmp_path):
    pytest.importorskip('torch')
    assert main(['world', 'render', '--frames', '1', '--size', '112x84', '--out',
                 str(tmp_path)]) == 0
    widths = []
    for focal in (100, 200):  # twice the focal length is half the width at the same depth
        file = tmp_path / f'focal{focal}.yaml'
        file.write_text('camera_model: pinhole\nresolution: [112, 84]\n'
                        f'intrinsics: [{focal}, {focal}, 56, 42]\n')
        out = tmp_path / f'out{focal}'
        assert main(['reconstruct', str(tmp_path / 'images'), '--calibration', str(file),
                     '--image-size', '56', '--out', str(out)]) == 0
        cloud = read_ply(out / 'map.ply')
        widths.append(np.ptp(cloud['y']))  # left, in the odometry frame
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.05)


def test_reconstruct_names_a_missing_folder_and_checkpoint(tmp_path, capsys):
    assert main(['reconstruct', str(tmp_path / 'nowhere'), '--out', str(tmp_path)]) == 1
    assert 'nowhere: no such file or folder' in capsys.readouterr().err
    assert main(['reconstruct', '--checkpoint', str(tmp_path / 'no.pth'), '--out',
                 str(tmp_path)]) == 1
    assert 'no.pth' in capsys.readouterr().err
    (tmp_path / 'file').write_text('in the way')
    assert main(['reconstruct', '--out', str(tmp_path / 'file')]) == 1
    assert 'cannot be made' in capsys.readouterr().err
