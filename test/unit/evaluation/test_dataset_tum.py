"""TUM RGB-D and Bonn: times, poses, lists, and what is said of lists that are none."""

import logging

from dataset_folders import colour, depth_map, flat, message, only, tum, TURNED, TURNED_TUM
import numpy as np
import pytest

from xsvggt_ros.evaluation.datasets.layouts import LAYOUTS, open_sequences


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
