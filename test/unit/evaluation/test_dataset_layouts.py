"""Data sets in the folders in which they are published: units, times, poses, names, errors."""

import logging

import numpy as np
from PIL import Image
import pytest

from xsvggt_ros.cli.main import main
from xsvggt_ros.console.errors import ChoiceError, ToolError
from xsvggt_ros.evaluation.datasets.layouts import LAYOUTS, open_sequences
from xsvggt_ros.evaluation.datasets.sequence import NoTruthError
from xsvggt_ros.geometry.quaternions import quaternion_from_matrix
from xsvggt_ros.world.synthetic_world import SyntheticWorld

SIZE = (8, 6)
# A quarter turn about y (x -> -z, z -> x) at (1, 2, 3), as matrix and as TUM quaternion.
TURNED = np.array([[0.0, 0, 1, 1], [0, 1, 0, 2], [-1, 0, 0, 3], [0, 0, 0, 1]])
TURNED_TUM = '1 2 3 0 0.70710678118654752 0 0.70710678118654752'
P2 = np.array([[700.0, 0, 600, 45.0], [0, 710.0, 170, -0.3], [0, 0, 1, 0.005]])


def colour(path, red, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, (red, 20, 30)).save(path)


def depth_map(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint16)).save(path)


def flat(value, size=SIZE):
    return np.full(size[::-1], value)


def text(matrix):
    return '\n'.join('\t'.join(f'{value:.7e}' for value in row) for row in matrix) + '\n'


def seven_scenes(folder, count=2, pose=TURNED, depth=None):
    for index in reversed(range(count)):
        stem = f'frame-{index:06d}'
        colour(folder / f'{stem}.color.png', 10 + index)
        depth_map(folder / f'{stem}.depth.png', flat(1500 + index) if depth is None else depth)
        (folder / f'{stem}.pose.txt').write_text(text(pose))
    return folder


def tum(folder, pictures=('10.000000',), depths=('10.000000',), poses=('10.0000',)):
    """Write a sequence whose n-th picture has red 10 + n, depth map 5000 * (n + 1), x = n."""
    for name, stamps in (('rgb', pictures), ('depth', depths)):
        lines = ['# color images', "# file: 'a.bag'", '# timestamp filename']
        for index, stamp in enumerate(stamps):
            path = folder / name / f'{stamp}.png'
            if name == 'rgb':
                colour(path, 10 + index)
            else:
                depth_map(path, flat(5000 * (index + 1)))
            lines.append(f'{stamp} {name}/{stamp}.png')
        (folder / f'{name}.txt').write_text('\n'.join(lines) + '\n')
    lines = ['# timestamp tx ty tz qx qy qz qw']
    lines += [f'{stamp} {index} 2 3 0 0 0 1' for index, stamp in enumerate(poses)]
    (folder / 'groundtruth.txt').write_text('\n'.join(lines) + '\n')
    return folder


def kitti(root, name='00', count=2, poses=None):
    sequence = root / 'sequences' / name
    for index in range(count):
        colour(sequence / 'image_2' / f'{index:06d}.png', 10 + index, (12, 4))
    rows = {'P0': np.hstack([P2[:, :3], np.zeros((3, 1))]), 'P2': P2}
    (sequence / 'calib.txt').write_text(''.join(
        f'{key}: {" ".join(f"{value:.12e}" for value in matrix.ravel())}\n'
        for key, matrix in rows.items()))
    (root / 'poses').mkdir(exist_ok=True)
    poses = [np.eye(4), TURNED][:count] if poses is None else poses
    if poses:
        (root / 'poses' / f'{name}.txt').write_text(''.join(
            ' '.join(f'{value:.6e}' for value in pose[:3].ravel()) + '\n' for pose in poses))
    return sequence


def rendered(folder, stamps=(9, 100, 10)):
    """Write a sequence whose n-th picture has red 10 + n, depth n + 1, x = n."""
    lines = ['# timestamp tx ty tz qx qy qz qw']
    (folder / 'depth').mkdir(parents=True)
    for index, stamp in enumerate(stamps):
        colour(folder / 'images' / f'{stamp}.png', 10 + index)
        np.save(folder / 'depth' / f'{stamp}.npy', flat(index + 1.0).astype(np.float32))
        lines.append(f'0.{stamp:09d} {index} 2 3 0 0 0 1')
    (folder / 'poses.tum').write_text('\n'.join(lines) + '\n')
    (folder / 'camera_info.yaml').write_text(
        'image_width: 16\nimage_height: 12\n'
        'camera_matrix: {rows: 3, cols: 3, data: [20, 0, 8, 0, 22, 6, 0, 0, 1]}\n'
        'distortion_model: plumb_bob\n'
        'distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}\n')
    return folder


def only(folder, layout='auto'):
    recordings = open_sequences(folder, layout)
    assert len(recordings) == 1
    return recordings[0]


def message(folder, layout='auto', frame=None):
    """Return the error of opening a folder or of reading a frame of it, but not of both."""
    if frame is not None:
        recording = only(folder, layout)
    with pytest.raises(ToolError) as error:
        open_sequences(folder, layout) if frame is None else recording.frame(frame)
    return str(error.value)


# 7-Scenes ----------------------------------------------------------------------------------------

def test_a_frame_of_seven_scenes(tmp_path):
    values = flat(1234)
    values[0, 0], values[0, 1], values[5, 7] = 0, 65535, 65534
    recording = only(seven_scenes(tmp_path / 'chess' / 'seq-01', depth=values))
    assert recording.name == 'chess/seq-01'
    assert len(recording) == 2
    frame = recording.frame(1)
    assert frame.image.shape == (6, 8, 3)
    assert frame.image.dtype == np.uint8
    np.testing.assert_array_equal(frame.image[0, 0], [11, 20, 30])   # RGB, the second picture
    assert frame.depth.dtype == np.float32
    expected = flat(1.234)
    expected[0, 0], expected[0, 1], expected[5, 7] = 0, 0, 65.534
    np.testing.assert_allclose(frame.depth, expected, rtol=1e-6)
    np.testing.assert_allclose(frame.world_from_camera, TURNED)      # camera to world as it is
    assert frame.world_from_camera.dtype == np.float64


def test_intrinsics_of_seven_scenes_follow_the_size_of_the_picture(tmp_path):
    sequence = seven_scenes(tmp_path / 'seq-01', count=2)
    colour(sequence / 'frame-000001.color.png', 0, (640, 480))
    recording = only(sequence)
    np.testing.assert_array_equal(recording.frame(1).intrinsics,
                                  [[585, 0, 320], [0, 585, 240], [0, 0, 1]])
    small = recording.frame(0).intrinsics     # 80 pixels become one
    np.testing.assert_allclose(small[[0, 1], [0, 1]], 585 / 80)
    # A pixel of 80 x 80 has its centre at 39.5 in the original.
    np.testing.assert_allclose(80 * small[:2, 2] + 39.5, [320, 240])


@pytest.mark.parametrize('size', [(6, 6), (8, 4)])
def test_a_cropped_picture_has_no_known_intrinsics(tmp_path, size):
    sequence = seven_scenes(tmp_path / 'seq-01', count=1)
    colour(sequence / 'frame-000000.color.png', 0, size)
    found = message(sequence, frame=0)
    assert f'seq-01: its pictures are {size[0]}x{size[1]}, but its camera took 640x480' in found


def test_depth_that_was_registered_is_preferred_with_its_focal_length(tmp_path):
    sequence = seven_scenes(tmp_path / 'seq-01', count=1)
    depth_map(sequence / 'frame-000000.depth.proj.png', flat(700))
    frame = only(sequence).frame(0)
    np.testing.assert_allclose(frame.depth, 0.7)
    assert frame.intrinsics[0, 0] == pytest.approx(525 / 80)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_pose_that_is_not_finite_is_not_known(tmp_path, value):
    sequence = seven_scenes(tmp_path / 'seq-01', count=2)
    lost = TURNED.copy()
    lost[1, 3] = value
    (sequence / 'frame-000000.pose.txt').write_text(text(lost))
    recording = only(sequence)
    assert len(recording) == 2
    assert recording.frame(0).world_from_camera is None
    assert recording.frame(0).depth is not None
    assert recording.frame(1).world_from_camera is not None


def test_files_of_seven_scenes_are_read_lazily(tmp_path):
    sequence = seven_scenes(tmp_path / 'seq-01', count=2)
    (sequence / 'frame-000001.color.png').write_text('no picture')
    recording = only(sequence)
    assert recording.frame(0).image[0, 0, 0] == 10
    with pytest.raises(ToolError, match=r'frame-000001\.color\.png: cannot be read as a picture'):
        recording.frame(1)


def test_frames_of_seven_scenes_are_in_the_order_of_their_numbers(tmp_path):
    recording = only(seven_scenes(tmp_path / 'seq-01', count=40))
    frames = [recording.frame(index) for index in range(40)]
    assert [frame.image[0, 0, 0] for frame in frames] == list(range(10, 50))
    np.testing.assert_allclose([frame.depth[0, 0] for frame in frames],
                               1.5 + np.arange(40) / 1000, rtol=1e-6)


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P'])
def test_every_picture_becomes_rgb(tmp_path, mode):
    sequence = seven_scenes(tmp_path / 'seq-01', count=1)
    Image.new('RGB', SIZE, (102, 102, 102)).convert(mode).save(sequence / 'frame-000000.color.png')
    np.testing.assert_array_equal(only(sequence).frame(0).image, np.full((6, 8, 3), 102))


def test_depth_that_is_not_there_is_not_known(tmp_path):
    sequence = seven_scenes(tmp_path / 'seq-01', count=1)
    (sequence / 'frame-000000.depth.png').unlink()
    assert only(sequence).frame(0).depth is None


@pytest.mark.parametrize('content, expected', [
    ('1 0 0 0\n0 1 0\n', r'line 2: 3 values instead of 4; it should be four numbers'),
    ('1 0 0 0\n\n0 1 x 0\n', r"line 3: could not convert string to float: 'x'"),
    ('1 0 0 0\n0 1 0 0\n0 0 1 0\n', r'3 lines of numbers instead of the 4 of a pose'),
])
def test_malformed_poses_of_seven_scenes(tmp_path, content, expected):
    sequence = seven_scenes(tmp_path / 'seq-01', count=1)
    (sequence / 'frame-000000.pose.txt').write_text(content)
    found = message(sequence, frame=0)
    assert f'{sequence}/frame-000000.pose.txt' in found
    assert expected in found


# Depth maps --------------------------------------------------------------------------------------

def test_depth_of_another_size_is_taken_from_the_nearest_pixel(tmp_path):
    sequence = seven_scenes(tmp_path / 'seq-01', count=2)
    depth_map(sequence / 'frame-000000.depth.png', np.arange(12).reshape(3, 4) * 1000 + 1000)
    depth_map(sequence / 'frame-000001.depth.png', np.arange(12 * 24).reshape(12, 24) + 1)
    recording = only(sequence)
    small = np.arange(1, 13).reshape(3, 4)
    np.testing.assert_allclose(recording.frame(0).depth, small.repeat(2, 0).repeat(2, 1))
    large = np.arange(12 * 24).reshape(12, 24) + 1    # 2 rows and 3 columns to each pixel
    np.testing.assert_allclose(recording.frame(1).depth * 1000, large[1::2, 1::3], rtol=1e-6)


@pytest.mark.parametrize('write', [
    lambda path: path.write_bytes(b'\x89PNG broken'),
    lambda path: path.write_bytes(path.read_bytes()[:45])])
def test_depth_that_cannot_be_read(tmp_path, write):
    sequence = seven_scenes(tmp_path / 'seq-01', count=1)
    write(sequence / 'frame-000000.depth.png')
    found = message(sequence, frame=0)
    assert found.startswith(f'{sequence}/frame-000000.depth.png: cannot be read as a picture')
    assert found.endswith('unpack it again')


@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_a_picture_of_a_depth_map_is_none(tmp_path, mode):
    sequence = seven_scenes(tmp_path / 'seq-01', count=1)
    Image.new(mode, SIZE).save(sequence / 'frame-000000.depth.png')
    assert 'frame-000000.depth.png: not a depth map' in message(sequence, frame=0)


# TUM ---------------------------------------------------------------------------------------------

def test_a_frame_of_tum(tmp_path):
    sequence = tum(tmp_path / 'rgbd_dataset_freiburg1_desk')
    (sequence / 'groundtruth.txt').write_text(f'# ground truth trajectory\n10.0 {TURNED_TUM}\n')
    values = flat(7500)
    values[2, 3], values[2, 4] = 0, 65535
    depth_map(sequence / 'depth' / '10.000000.png', values)
    recording = only(sequence)
    assert recording.name == 'rgbd_dataset_freiburg1_desk'
    frame = recording.frame(0)
    expected = flat(1.5)
    expected[2, 3], expected[2, 4] = 0, 13.107
    np.testing.assert_allclose(frame.depth, expected, rtol=1e-6)
    np.testing.assert_allclose(frame.world_from_camera, TURNED, atol=1e-12)


def test_frames_of_tum_are_in_the_order_of_time(tmp_path):
    stamps = ('9.500000', '100.000000', '10.000000')   # as text, 100 sorts before 9.5
    recording = only(tum(tmp_path / 'a', stamps, stamps, stamps))
    frames = [recording.frame(index) for index in range(3)]
    assert [frame.image[0, 0, 0] for frame in frames] == [10, 12, 11]
    assert [frame.depth[0, 0] for frame in frames] == [1, 3, 2]
    assert [frame.world_from_camera[0, 3] for frame in frames] == [0, 2, 1]


def test_the_nearest_depth_and_pose_within_20_ms_count(tmp_path):
    recording = only(tum(
        tmp_path / 'a', pictures=('10.000000', '20.000000', '30.000000', '40.000000'),
        depths=('9.985', '10.010', '20.020000', '30.020001', '99.0'),
        poses=('10.0150', '9.9950', '19.9799', '30.0190', '30.0100', '39.980')))
    frames = [recording.frame(index) for index in range(4)]
    depths = [None if frame.depth is None else frame.depth[0, 0] for frame in frames]
    assert depths == [2, 3, None, None]
    positions = [None if frame.world_from_camera is None else frame.world_from_camera[0, 3]
                 for frame in frames]
    assert positions == [1, None, 4, 5]


def test_times_are_compared_exactly(tmp_path):
    # As 64-bit floats these differ from their text by up to 0.12 us, more than the 10 ns here.
    recording = only(tum(
        tmp_path / 'a', pictures=('1305031102.000000000', '1305031103.000000000'),
        depths=('1305031102.020000010', '1305031103.020000000'), poses=('1305031102.0',)))
    assert recording.frame(0).depth is None
    assert recording.frame(1).depth is not None


@pytest.mark.parametrize('lists', [{'depths': ()}, {'poses': ()}])
def test_lists_may_be_empty(tmp_path, lists):
    frame = only(tum(tmp_path / 'a', **lists)).frame(0)
    assert (frame.depth is None) == ('depths' in lists)
    assert (frame.world_from_camera is None) == ('poses' in lists)


def test_depth_that_is_listed_but_missing_is_passed_over(tmp_path):
    sequence = tum(tmp_path / 'rgbd_bonn_crowd', pictures=('10.000000', '20.000000'),
                   depths=('9.990000', '10.001000', '20.000000'), poses=('10.0',))
    for stamp in ('10.001000', '20.000000'):
        (sequence / 'depth' / f'{stamp}.png').unlink()
    recording = only(sequence)
    assert recording.frame(0).depth[0, 0] == 1   # the next nearest
    assert recording.frame(1).depth is None


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('pose', ['nan nan nan 0 0 0 1', '0 0 0 0 0 0 0'])
def test_a_pose_of_tum_that_is_none_is_not_known(tmp_path, pose):
    sequence = tum(tmp_path / 'a')
    (sequence / 'groundtruth.txt').write_text(f'10.0 {pose}\n')
    assert only(sequence).frame(0).world_from_camera is None


@pytest.mark.parametrize('name, camera', [
    ('rgbd_dataset_freiburg1_xyz', (517.3, 516.5, 318.6, 255.3)),
    ('rgbd_dataset_freiburg2_desk', (520.9, 521.0, 325.1, 249.7)),
    ('rgbd_dataset_freiburg3_walking_xyz', (535.4, 539.2, 320.1, 247.6)),
    ('my_desk', (525.0, 525.0, 319.5, 239.5)),
    ('rgbd_bonn_balloon', (542.822841, 542.576870, 315.593520, 237.756098)),
])
def test_intrinsics_are_those_of_the_camera_that_the_name_tells(tmp_path, name, camera):
    sequence = tum(tmp_path / name)
    colour(sequence / 'rgb' / '10.000000.png', 0, (640, 480))
    fx, fy, cx, cy = camera
    np.testing.assert_array_equal(only(sequence).frame(0).intrinsics,
                                  [[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


@pytest.mark.parametrize('file, content, expected', [
    ('rgb.txt', '# a\n10.0 rgb/a.png b\n', 'line 2: 3 values instead of 2; it should be timestamp '
                                           'filename'),
    ('rgb.txt', 'ten rgb/a.png\n', "line 1: 'ten' is not a time in seconds"),
    ('rgb.txt', '# nothing\n', 'lists no pictures'),
    ('groundtruth.txt', '#\n\n10.0 1 2 3 0 0 1\n', 'line 3: 7 values instead of 8; it should be '
                                                   'timestamp tx ty tz qx qy qz qw'),
    ('groundtruth.txt', '10.0 1 2 3 0 0 0 one\n', 'line 1: could not convert'),
    ('depth.txt', '10.0\n', 'line 1: 1 values instead of 2'),
])
def test_malformed_lists_of_tum(tmp_path, file, content, expected):
    sequence = tum(tmp_path / 'a')
    (sequence / file).write_text(content)
    found = message(sequence)
    assert found.startswith(f'{sequence}/{file}')
    assert expected in found


@pytest.mark.parametrize('content', [None, b'\xff\xfe10.0'])
def test_a_list_that_cannot_be_read(tmp_path, content):
    sequence = tum(tmp_path / 'a')
    (sequence / 'depth.txt').unlink()
    if content:
        (sequence / 'depth.txt').write_bytes(content)
    assert message(sequence).startswith(f'{sequence}/depth.txt: cannot be read (')


def test_a_picture_that_is_listed_but_missing(tmp_path):
    sequence = tum(tmp_path / 'a')
    (sequence / 'rgb' / '10.000000.png').unlink()
    assert f'{sequence}/rgb/10.000000.png: cannot be read' in message(sequence, frame=0)


def test_names_that_no_file_can_have_are_of_files_that_are_missing(tmp_path):
    sequence = tum(tmp_path / 'a')
    for name in ('x' * 5000, 'nul\0'):
        (sequence / 'depth.txt').write_text(f'10.0 {name}\n')
        assert open_sequences(sequence)[0].frame(0).depth is None
        (sequence / 'rgb.txt').write_text(f'10.0 {name}\n')
        assert ': cannot be read as a picture' in message(sequence, frame=0)
        (sequence / 'rgb.txt').write_text('10.0 rgb/10.000000.png\n')


# Bonn --------------------------------------------------------------------------------------------

def test_poses_of_bonn_are_moved_from_the_markers_to_the_camera(tmp_path):
    sequence = tum(tmp_path / 'rgbd_bonn_balloon', depths=('10.0',))
    (sequence / 'groundtruth.txt').write_text(f'10.0 {TURNED_TUM}\n')
    frame = only(sequence).frame(0)
    pose = frame.world_from_camera
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)   # no scale
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
    # Axes are swapped: (x, y, z) of the markers' world are (-x, z, y), and so within the body. The
    # camera is at (0.0113, -0.0098, 0.0111) of the swapped body, which is (-0.0113, 0.0111,
    # -0.0098) of the body; turned: (-0.0098, 0.0111, 0.0113); plus (1, 2, 3).
    np.testing.assert_allclose(pose[:3, 3], [-0.9902, 3.0113, 2.0111], atol=1e-9)
    # The optical axis, the third column of T_m, through the same steps.
    axis = np.array([-0.2389, -0.6413, -0.8085]) / np.linalg.norm([0.2389, 0.6413, 0.8085])
    body = np.array([-axis[0], axis[2], axis[1]])
    turned = TURNED[:3, :3] @ body
    np.testing.assert_allclose(pose[:3, 2], [-turned[0], turned[2], turned[1]], atol=2e-4)
    assert frame.depth[0, 0] == 1.0    # 5000


def test_bonn_moves_the_camera_as_far_as_the_markers(tmp_path):
    stamps = ('10.000000', '20.000000')
    recording = only(tum(tmp_path / 'rgbd_bonn_balloon', stamps, stamps, stamps))
    moved = recording.frame(1).world_from_camera - recording.frame(0).world_from_camera
    np.testing.assert_allclose(moved[:3, 3], [-1, 0, 0], atol=1e-12)


def test_a_renamed_bonn_folder_needs_its_layout_named(tmp_path):
    sequence = tum(tmp_path / 'crowd')
    assert type(only(sequence)) is LAYOUTS['tum']
    assert type(only(sequence, 'bonn')) is LAYOUTS['bonn']
    assert type(only(tum(tmp_path / 'rgbd_bonn_crowd'), 'tum')) is LAYOUTS['tum']


# Rendered ----------------------------------------------------------------------------------------

def test_frames_of_rendered_rooms_are_in_the_order_of_time(tmp_path):
    recording = only(rendered(tmp_path / 'room'))
    frames = [recording.frame(index) for index in range(3)]
    assert [frame.image[0, 0, 0] for frame in frames] == [10, 12, 11]
    assert [frame.depth[0, 0] for frame in frames] == [1, 3, 2]
    assert [frame.world_from_camera[0, 3] for frame in frames] == [0, 2, 1]
    # Half the size of what the calibration is for.
    np.testing.assert_allclose(np.diag(frames[0].intrinsics), (10, 11, 1))


def test_what_the_world_writes_is_read_as_it_was(tmp_path):
    assert main(['world', 'render', '--seed', '2', '--frames', '3', '--size', '32x24',
                 '--out', str(tmp_path / 'room')]) == 0
    recording, world = only(tmp_path / 'room'), SyntheticWorld(2, 32, 24)
    for index in range(3):
        seen, truth = recording.frame(index), world.frame(index / 10)
        np.testing.assert_array_equal(seen.image, truth.image)
        np.testing.assert_array_equal(seen.depth, truth.depth)
        np.testing.assert_allclose(seen.world_from_camera, truth.world_from_camera, atol=1e-6)
        np.testing.assert_allclose(seen.intrinsics, world.intrinsics.matrix())


def test_depth_of_rendered_rooms_may_be_missing_or_unknown(tmp_path):
    folder = rendered(tmp_path / 'room')
    (folder / 'depth' / '9.npy').unlink()
    depth = flat(2.0)
    depth[0, :3] = np.nan, np.inf, -1
    np.save(folder / 'depth' / '10.npy', depth)
    recording = only(folder)
    assert recording.frame(0).depth is None
    assert recording.frame(1).depth[0, :4].tolist() == [0, 0, 0, 2]


@pytest.mark.parametrize('write, expected', [
    (lambda folder: (folder / 'depth/9.npy').write_bytes(b'no'), 'depth/9.npy: cannot be read'),
    (lambda folder: np.save(folder / 'depth/9.npy', np.zeros(3)), '9.npy: not a depth map'),
    (lambda folder: np.save(folder / 'depth/9.npy', np.zeros((2, 2), int)), 'not a depth map'),
])
def test_depth_of_rendered_rooms_that_is_none(tmp_path, write, expected):
    write(rendered(tmp_path / 'room'))
    assert expected in message(tmp_path / 'room', frame=0)


@pytest.mark.parametrize('write, expected', [
    (lambda folder: (folder / 'images/a.png').write_bytes(b''), 'a.png: its name is no time'),
    (lambda folder: (folder / 'poses.tum').write_text('1 2 3\n'), 'poses.tum, line 1: a pose has'),
    (lambda folder: (folder / 'camera_info.yaml').write_text('[]'), 'camera_info.yaml'),
    (lambda folder: (folder / 'camera_info.yaml').write_text(
        (folder / 'camera_info.yaml').read_text().replace('0, 0, 0, 0, 0', '0.3, 0, 0, 0, 0')),
     'its lens is distorted; rectify'),
    (lambda folder: [file.unlink() for file in (folder / 'images').iterdir()], 'no .png'),
])
def test_rendered_rooms_that_cannot_be_opened(tmp_path, write, expected):
    write(rendered(tmp_path / 'room'))
    assert expected in message(tmp_path / 'room')


# KITTI -------------------------------------------------------------------------------------------

def test_a_frame_of_kitti(tmp_path):
    recording = only(kitti(tmp_path))
    assert recording.name == 'KITTI 00'
    assert len(recording) == 2
    frame = recording.frame(1)
    assert frame.image[0, 0, 0] == 11
    assert frame.image.shape == (4, 12, 3)
    assert frame.depth is None
    np.testing.assert_allclose(frame.intrinsics, P2[:, :3])
    np.testing.assert_allclose(frame.world_from_camera[:3, :3], TURNED[:3, :3])


def test_a_point_is_seen_by_camera_2_of_kitti_where_p2_projects_it(tmp_path):
    frame = only(kitti(tmp_path)).frame(1)
    in_camera_0 = np.array([3.0, -1.0, 12.0, 1.0])
    expected = P2 @ in_camera_0
    in_camera_2 = np.linalg.inv(frame.world_from_camera) @ TURNED @ in_camera_0
    seen = frame.intrinsics @ in_camera_2[:3]
    np.testing.assert_allclose(seen / seen[2], expected / expected[2], rtol=1e-9)
    # 45 pixels at a focal length of 700 are 6 cm, of which 600 * 0.005 are from the depth: camera
    # 2 is to the left of camera 0, which a turn about y makes forward (+z).
    assert frame.world_from_camera[2, 3] - 3.0 == pytest.approx((45 - 600 * 0.005) / 700)


def test_the_number_of_a_kitti_picture_tells_its_pose(tmp_path):
    sequence = kitti(tmp_path)
    (sequence / 'image_2' / '000000.png').unlink()
    recording = only(sequence)
    assert len(recording) == 1
    np.testing.assert_allclose(recording.frame(0).world_from_camera[:3, :3], TURNED[:3, :3])


def test_fewer_poses_than_pictures(tmp_path):
    sequence = kitti(tmp_path, poses=[np.eye(4)])
    assert only(sequence).frame(0).world_from_camera is not None
    found = message(sequence, frame=1)
    assert f'{tmp_path}/poses/00.txt: 1 poses, none for 000001.png' in found


def test_a_kitti_picture_without_a_number(tmp_path):
    sequence = kitti(tmp_path)
    (sequence / 'image_2' / '000000.png').rename(sequence / 'image_2' / 'left.png')
    assert 'left.png: its name is no number' in message(sequence, frame=1)


@pytest.mark.parametrize('content, expected', [
    ('P0: 1\n', "calib.txt: no line 'P2: ...'"),
    ('P0: 1\nP2: 1 2 3\n', 'calib.txt, line 2: 4 values instead of 13'),
    ('P2: 0 0 0 0 0 0 0 0 0 0 0 0\n', 'calib.txt, line 1: no camera matrix'),
])
def test_malformed_calibration_of_kitti(tmp_path, content, expected):
    sequence = kitti(tmp_path)
    (sequence / 'calib.txt').write_text(content)
    assert expected in message(sequence)


def test_malformed_poses_of_kitti(tmp_path):
    sequence = kitti(tmp_path)
    (tmp_path / 'poses' / '00.txt').write_text('1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0\n')
    assert 'poses/00.txt, line 2: 3 values instead of 12' in message(sequence)


# Folders -----------------------------------------------------------------------------------------

def test_folders_of_sequences_are_recognised_and_sorted(tmp_path):
    for name in ('fire/seq-02', 'fire/seq-01', 'chess/seq-03'):
        seven_scenes(tmp_path / '7' / name, count=1)
    (tmp_path / '7' / 'chess' / 'TestSplit.txt').write_text('sequence3')
    for name in ('rgbd_dataset_freiburg2_desk', 'rgbd_bonn_crowd', 'rgbd_dataset_freiburg1_xyz'):
        tum(tmp_path / 'rgbd' / name)
    for name in ('10', '02'):
        kitti(tmp_path / 'odometry', name)

    def names(folder):
        return [recording.name for recording in open_sequences(folder)]

    scenes = ['chess/seq-03', 'fire/seq-01', 'fire/seq-02']
    assert names(tmp_path / '7') == scenes
    assert names(tmp_path / '7' / 'fire') == scenes[1:]
    assert names(tmp_path / '7' / 'fire' / 'seq-02') == scenes[2:]
    assert names(str(tmp_path / 'rgbd')) == [
        'rgbd_bonn_crowd', 'rgbd_dataset_freiburg1_xyz', 'rgbd_dataset_freiburg2_desk']
    assert [type(one) for one in open_sequences(tmp_path / 'rgbd')] == [
        LAYOUTS['bonn'], LAYOUTS['tum'], LAYOUTS['tum']]
    assert names(tmp_path / 'odometry') == names(tmp_path / 'odometry' / 'sequences') == [
        'KITTI 02', 'KITTI 10']


@pytest.mark.parametrize('layout', ['7scenes', 'tum', 'kitti'])
def test_a_layout_that_is_named_leaves_out_the_others(tmp_path, layout):
    seven_scenes(tmp_path / 'all' / 'seq-01', count=1)
    tum(tmp_path / 'all' / 'desk')
    kitti(tmp_path / 'all')
    found = open_sequences(tmp_path / 'all', layout)
    assert [type(one) for one in found] == [LAYOUTS[layout]]


def test_the_folder_may_be_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(kitti(tmp_path, '07'))
    assert only('.').name == 'KITTI 07'
    monkeypatch.chdir(tum(tmp_path / 'rgbd_bonn_box'))
    assert type(only('.')) is LAYOUTS['bonn']


def test_sequences_may_lie_two_levels_down_but_no_deeper(tmp_path):
    tum(tmp_path / 'a' / 'b' / 'c')
    assert only(tmp_path / 'a').name == 'c'
    assert 'no sequence found' in message(tmp_path)


def test_hidden_folders_are_not_searched(tmp_path):
    tum(tmp_path / 'a')
    tum(tmp_path / '.b')
    assert only(tmp_path).name == 'a'


def test_nothing_recognised_tells_what_layouts_look_like(tmp_path):
    colour(tmp_path / 'pictures' / '0.png', 0)
    found = message(tmp_path)
    assert found.startswith(f'{tmp_path}: no sequence found in it; give a folder that is or holds')
    for name, kind in LAYOUTS.items():
        assert f'  {name}: {kind.looks_like}' in found
    for word in ('frame-000000.color.png', 'rgb.txt', 'rgbd_bonn_', 'image_2/', 'poses/00.txt'):
        assert word in found
    tum(tmp_path / 'desk')
    found = message(tmp_path, 'kitti')
    assert 'calib.txt' in found
    assert 'rgb.txt' not in found


def test_what_is_no_folder(tmp_path):
    assert message(tmp_path / 'none').startswith(f'{tmp_path}/none: no such folder')
    (tmp_path / 'file').write_text('')
    assert message(tmp_path / 'file').startswith(f'{tmp_path}/file: not a folder')


def test_a_layout_that_does_not_exist(tmp_path):
    with pytest.raises(ChoiceError, match="no layout 'euroc'; choose from auto, 7scenes, bonn, "):
        open_sequences(tmp_path, 'euroc')


def without_truth(tmp_path, layout):
    """Write two sequences, the second without poses; return their folder and the missing file."""
    if layout == 'kitti':
        kitti(tmp_path, '10')
        kitti(tmp_path, '11', poses=[])
        return tmp_path, 'sequences/11', tmp_path / 'poses' / '11.txt'
    write, missing = {'7scenes': (seven_scenes, 'frame-000000.pose.txt'),
                      'tum': (tum, 'groundtruth.txt')}[layout]
    write(tmp_path / 'a')
    missing = write(tmp_path / 'b') / missing
    missing.unlink()
    return tmp_path, 'b', missing


@pytest.mark.parametrize('layout', ['7scenes', 'tum', 'kitti'])
def test_a_sequence_without_ground_truth(tmp_path, layout, caplog):
    folder, sequence, missing = without_truth(tmp_path, layout)
    with pytest.raises(NoTruthError) as error:
        open_sequences(folder / sequence)
    expected = f'{missing}: missing, so the true poses are not known; unpack it there'
    assert str(error.value).startswith(expected)
    # Among others it is left out, and said so.
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        recordings = open_sequences(folder)
    assert len(recordings) == 1
    assert [record.getMessage().startswith(expected) for record in caplog.records] == [True]
    assert caplog.records[0].getMessage().endswith('; left out')


def test_quaternions_of_the_tests_are_what_they_claim():
    quaternion = [float(word) for word in TURNED_TUM.split()[3:]]
    np.testing.assert_allclose(quaternion_from_matrix(TURNED[:3, :3]), quaternion, atol=1e-12)


# Times of others ---------------------------------------------------------------------------------

START = 1305031102_175304000   # ns


@pytest.mark.parametrize('form', [
    lambda ns: f'{ns * 1e-9:.18e}', lambda ns: f'{ns * 1e-9:.6f}', lambda ns: f'{ns // 1000}',
    str, lambda ns: f'{float(ns):.18e}'], ids=['evo', 'plain', 'us', 'ns', 'ns as float'])
def test_true_poses_may_have_times_in_any_notation(tmp_path, form):
    stamps = [START + 100_000_000 * number for number in range(4)]
    pictures = [f'{stamp * 1e-9:.6f}' for stamp in stamps]
    recording = only(tum(tmp_path / 'a', pictures, pictures, [form(stamp) for stamp in stamps]))
    places = [recording.frame(index).world_from_camera[0, 3] for index in range(4)]
    assert places == [0, 1, 2, 3]


@pytest.mark.parametrize('mark, end', [(b'\xef\xbb\xbf', b'\r\n'), (b'', b'\r')])
def test_lists_may_come_from_windows(tmp_path, mark, end):
    folder = tum(tmp_path / 'a', ('10.0', '11.0'), ('10.0', '11.0'), ('10.0', '11.0'))
    for file in folder.glob('*.txt'):
        lines = file.read_bytes().splitlines()[3 if 'ground' not in file.name else 1:]
        file.write_bytes(mark + end.join(lines))
    recording = only(folder)
    assert [recording.frame(index).world_from_camera[0, 3] for index in range(2)] == [0, 1]
    assert recording.frame(1).depth[0, 0] == 2.0


def test_poses_that_match_no_picture_are_told_with_both_ranges(tmp_path):
    folder = tum(tmp_path / 'a', ('10.0', '12.5'), ('10.0',), ('1.305e9', '1.306e9'))
    assert message(folder) == (
        f'{folder}/groundtruth.txt: none of its 2 poses is within 20 ms of a picture: pictures '
        'are from 10.000000000 to 12.500000000 s, poses from 1305000000.000000000 to '
        '1306000000.000000000 s; take pictures and poses of one recording and one clock')


def test_depth_that_matches_no_picture_is_told_with_both_ranges(tmp_path, caplog):
    folder = tum(tmp_path / 'a', ('10.0',), ('20.0', '21.0'), ('10.0',))
    with caplog.at_level(logging.WARNING):
        assert only(folder).frame(0).depth is None
    assert 'depth.txt: none of its 2 depth maps' in caplog.text
    assert 'from 20.000000000 to 21.000000000 s; frames have no depth' in caplog.text


def test_a_time_that_is_none_is_told_with_its_line(tmp_path):
    folder = tum(tmp_path / 'a', poses=('10.0', '9' * 30))
    assert 'groundtruth.txt, line 3: ' in message(folder) and 'too large' in message(folder)
