"""7-Scenes: pictures, depth, poses and intrinsics, and what is said of files that are none."""

from dataset_folders import (
    colour,
    depth_map,
    flat,
    message,
    only,
    seven_scenes,
    SIZE,
    text,
    TURNED,
)
import numpy as np
from PIL import Image
import pytest

from xsvggt_ros.console.errors import ToolError


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
