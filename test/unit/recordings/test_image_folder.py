"""Folders of images as streams: order, stamps, rate, pixels, calibration and what is broken."""

import logging

import numpy as np
from PIL import Image
import pytest

from xsvggt_ros.recordings.calibration import CalibrationError, load_calibration
from xsvggt_ros.recordings.frame_source import FolderSource, FramesAhead, looped, WorldSource
from xsvggt_ros.recordings.image_folder import FolderError, ImageFolder

ROS_CALIBRATION = """\
image_width: 8
image_height: 6
camera_name: test
camera_matrix: {rows: 3, cols: 3, data: [10, 0, 4, 0, 11, 3, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0.01, 0.02, 0.3]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [9, 0, 4, 0, 0, 9, 3, 0, 0, 0, 1, 0]}
"""
ASL_CALIBRATION = """\
#Default cam sensor yaml file
sensor_type: camera
rate_hz: 20
resolution: [8, 6]
camera_model: pinhole
intrinsics: [458.654, 457.296, 367.215, 248.375] #fu, fv, cu, cv
distortion_model: radial-tangential
distortion_coefficients: [-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05]
"""


def save(path, value, size=(8, 6), mode='RGB'):
    colour = (value, value + 1, value + 2) if mode == 'RGB' else value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def test_names_are_sorted_as_people_count(tmp_path):
    for number in (10, 2, 1):
        save(tmp_path / f'img{number}.png', number)
    (tmp_path / 'notes.txt').write_text('no image')
    folder = ImageFolder(tmp_path)
    assert [frame.pixels[0, 0, 0] for frame in folder.frames()] == [1, 2, 10]
    assert folder.stamps_ns is None
    assert folder.rate == 10.0
    assert [frame.offset_ns for frame in folder.frames()] == [0, 100_000_000, 200_000_000]
    assert {frame.stamp_ns for frame in folder.frames()} == {None}


def test_names_that_are_nanoseconds_give_stamps_and_pace(tmp_path):
    stamps = [1403715273262142976, 1403715273312143104, 1403715273362142976, 1403715273462143104]
    for number, stamp in enumerate(reversed(stamps)):
        save(tmp_path / f'{stamp}.png', number)
    folder = ImageFolder(tmp_path)
    assert [frame.stamp_ns for frame in folder.frames()] == stamps     # exact to the nanosecond
    assert [frame.offset_ns for frame in folder.frames()] == [s - stamps[0] for s in stamps]
    assert folder.rate == pytest.approx(20.0, rel=1e-4)
    assert folder.duration_ns == pytest.approx(0.25e9, rel=1e-4)


def test_a_rate_that_is_given_sets_the_pace_but_not_the_stamps(tmp_path):
    for number, stamp in enumerate((10 ** 18, 10 ** 18 + 50_000_000)):
        save(tmp_path / f'{stamp}.png', number)
    frames = list(ImageFolder(tmp_path, rate=2.0).frames())
    assert [frame.stamp_ns for frame in frames] == [10 ** 18, 10 ** 18 + 50_000_000]
    assert [frame.offset_ns for frame in frames] == [0, 500_000_000]


@pytest.mark.parametrize('name', ['123456789012345', '1403715273262142976a',
                                  'x1403715273262142976', '99999999999999999999'])
def test_other_names_are_no_stamps(tmp_path, name):
    save(tmp_path / f'{name}.png', 1)
    assert ImageFolder(tmp_path).stamps_ns is None


def test_images_may_lie_in_data_as_in_the_asl_layout(tmp_path):
    save(tmp_path / 'cam0' / 'data' / '1403715273262142976.png', 5)
    (tmp_path / 'cam0' / 'sensor.yaml').write_text(ASL_CALIBRATION)
    folder = ImageFolder(tmp_path / 'cam0')
    assert folder.stamps_ns == [1403715273262142976]
    assert folder.calibration.camera_matrix[0, 0] == 458.654


def test_grey_stays_grey_and_alpha_goes(tmp_path):
    Image.new('L', (8, 6), 7).save(tmp_path / '1.png')
    Image.new('RGBA', (8, 6), (1, 2, 3, 0)).save(tmp_path / '2.png')
    Image.new('LA', (8, 6), (9, 0)).save(tmp_path / '3.png')
    Image.new('RGB', (8, 6), (200, 100, 50)).quantize().save(tmp_path / '4.png')
    grey, colour, grey_alpha, indexed = (f.pixels for f in ImageFolder(tmp_path).frames())
    assert grey.shape == (6, 8) and (grey == 7).all()
    assert colour.shape == (6, 8, 3) and (colour == (1, 2, 3)).all()
    assert grey_alpha.shape == (6, 8) and (grey_alpha == 9).all()
    assert indexed.shape == (6, 8, 3) and np.abs(indexed.astype(int) - (200, 100, 50)).max() < 8


def test_16_bit_grey_is_stretched_by_the_first_image(tmp_path):
    ramp = np.linspace(1000, 5000, 48).reshape(6, 8).astype(np.uint16)     # a 12-bit sensor
    Image.fromarray(ramp).save(tmp_path / '1.png')
    Image.fromarray(ramp // 2).save(tmp_path / '2.png')
    first, second = (frame.pixels for frame in ImageFolder(tmp_path).frames())
    assert first.dtype == np.uint8 and first.shape == (6, 8)
    assert first.min() == 0 and first.max() == 255
    assert 100 < first[3, 0] < 150
    # The darker image is shown darker: the window does not follow every image.
    assert second.max() < 110


def test_a_photo_is_turned_upright(tmp_path):
    image = Image.new('RGB', (8, 6), (0, 0, 0))
    exif = image.getexif()
    exif[0x0112] = 6     # orientation: turn by 90 degrees
    image.save(tmp_path / '1.jpg', exif=exif)
    assert ImageFolder(tmp_path).size == (6, 8)


def test_a_broken_file_is_named_and_skipped(tmp_path, caplog):
    for number in range(4):
        save(tmp_path / f'{number}.png', number)
    (tmp_path / '0.png').write_bytes(b'no image at all')
    whole = (tmp_path / '2.png').read_bytes()
    (tmp_path / '2.png').write_bytes(whole[:len(whole) // 2])
    folder = ImageFolder(tmp_path)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        frames = list(folder.frames())
    assert [frame.pixels[0, 0, 0] for frame in frames] == [1, 3]
    assert [frame.offset_ns for frame in frames] == [100_000_000, 300_000_000]
    assert str(tmp_path / '0.png') in caplog.text and str(tmp_path / '2.png') in caplog.text


def test_an_image_of_another_size_is_named_and_skipped(tmp_path, caplog):
    save(tmp_path / '1.png', 1)
    save(tmp_path / '2.png', 2, size=(4, 6))
    with caplog.at_level(logging.WARNING):
        assert len(list(ImageFolder(tmp_path).frames())) == 1
    assert '2.png' in caplog.text and '4x6' in caplog.text and '8x6' in caplog.text


def test_folders_that_cannot_be_played_say_why(tmp_path):
    with pytest.raises(FolderError, match='nowhere: no such file or folder'):
        ImageFolder(tmp_path / 'nowhere')
    with pytest.raises(FolderError, match='no images in it'):
        ImageFolder(tmp_path)
    save(tmp_path / 'left' / '1.png', 1)
    with pytest.raises(FolderError, match='sub-folder.*left'):
        ImageFolder(tmp_path)
    with pytest.raises(FolderError, match='not a folder'):
        ImageFolder(tmp_path / 'left' / '1.png')
    (tmp_path / 'left' / '1.png').write_bytes(b'')
    with pytest.raises(FolderError, match='none of the 1 images can be read'):
        ImageFolder(tmp_path / 'left')


# Calibration -------------------------------------------------------------------------------------

@pytest.mark.parametrize('place', ['camera_info.yaml', 'calibration.yaml', '../camera_info.yaml'])
def test_calibration_is_found_beside_the_images(tmp_path, place):
    save(tmp_path / 'images' / '1.png', 1)
    (tmp_path / 'images' / place).resolve().write_text(ROS_CALIBRATION)
    calibration = ImageFolder(tmp_path / 'images').calibration
    assert (calibration.width, calibration.height) == (8, 6)
    np.testing.assert_array_equal(calibration.camera_matrix, [[10, 0, 4], [0, 11, 3], [0, 0, 1]])
    assert calibration.distortion == (0.1, -0.2, 0.01, 0.02, 0.3)
    assert calibration.distortion_model == 'plumb_bob'
    assert calibration.projection[0, 0] == 9


def test_without_calibration_there_is_none(tmp_path):
    save(tmp_path / 'images' / '1.png', 1)
    assert ImageFolder(tmp_path / 'images').calibration is None


def test_asl_calibration_becomes_camera_info(tmp_path):
    (tmp_path / 'sensor.yaml').write_text(ASL_CALIBRATION)
    calibration = load_calibration(tmp_path / 'sensor.yaml')
    assert calibration.distortion_model == 'plumb_bob'
    assert calibration.distortion == (-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05, 0.0)
    np.testing.assert_array_equal(calibration.projection[:, :3], calibration.camera_matrix)
    np.testing.assert_array_equal(calibration.rectification, np.eye(3))


def test_the_drone_calibration_that_ships_is_readable(request):
    calibration = load_calibration(request.config.rootpath / 'config' / 'euroc_cam0.yaml')
    assert (calibration.width, calibration.height) == (752, 480)
    np.testing.assert_array_equal(calibration.camera_matrix.ravel(),
                                  [458.654, 0, 367.215, 0, 457.296, 248.375, 0, 0, 1])
    assert calibration.distortion[:2] == (-0.28340811, 0.07395907)


def test_a_calibration_of_another_aspect_is_refused_with_both_sizes(tmp_path):
    save(tmp_path / '1.png', 1, size=(16, 16))
    file = tmp_path / 'other.yaml'
    file.write_text(ROS_CALIBRATION)
    with pytest.raises(CalibrationError, match='8x6.*16x16'):
        ImageFolder(tmp_path, calibration=file)


def test_a_calibration_becomes_the_engines_camera(tmp_path):
    file = tmp_path / 'camera_info.yaml'
    file.write_text(ROS_CALIBRATION)
    camera = load_calibration(file).camera()
    assert (camera.width, camera.height, camera.lens) == (8, 6, 'plumb_bob')
    assert camera.coefficients == (0.1, -0.2, 0.01, 0.02, 0.3)
    assert (camera.camera_matrix[1, 1], camera.rectified_matrix[1, 1]) == (11, 9)
    file.write_text(ROS_CALIBRATION.replace('[10, 0, 4', '[0, 0, 4'))
    with pytest.raises(CalibrationError, match='camera_info.yaml: K has no positive focal'):
        load_calibration(file).camera()


@pytest.mark.parametrize('text, words', [
    ('hello', 'neither'), ('{', 'not a YAML'), ('camera_matrix: 3', 'image_width'),
    (ROS_CALIBRATION.replace('plumb_bob', 'magic'), "'magic' is not one of"),
    (ROS_CALIBRATION.replace('11, 3, ', ''), 'camera_matrix has 7 numbers'),
    (ASL_CALIBRATION.replace('pinhole', 'omni'), "'omni' is not supported"),
    (ASL_CALIBRATION.replace('248.375]', ']'), 'not enough values')])
def test_a_wrong_calibration_says_what_is_wrong(tmp_path, text, words):
    file = tmp_path / 'camera_info.yaml'
    file.write_text(text)
    with pytest.raises(CalibrationError, match=words) as error:
        load_calibration(file)
    assert str(file) in str(error.value)


def test_a_missing_calibration_is_named(tmp_path):
    with pytest.raises(CalibrationError, match='nowhere.yaml'):
        load_calibration(tmp_path / 'nowhere.yaml')


# Streams -----------------------------------------------------------------------------------------

def test_a_loop_goes_on_in_time(tmp_path):
    for number, stamp in enumerate((10 ** 18, 10 ** 18 + 50_000_000)):
        save(tmp_path / f'{stamp}.png', number)
    frames = looped(FolderSource(ImageFolder(tmp_path)))
    five = [next(frames) for _ in range(5)]
    assert [frame.offset_ns for frame in five] == [n * 50_000_000 for n in range(5)]
    assert [frame.stamp_ns for frame in five] == [10 ** 18 + n * 50_000_000 for n in range(5)]
    assert [frame.pixels[0, 0, 0] for frame in five] == [0, 1, 0, 1, 0]


def test_frames_can_be_limited(tmp_path):
    for number in range(5):
        save(tmp_path / f'{number}.png', number)
    source = FolderSource(ImageFolder(tmp_path), count=3)
    assert source.count == 3
    assert [frame.pixels[0, 0, 0] for frame in source.frames()] == [0, 1, 2]


@pytest.mark.slow
def test_world_frames_come_at_exact_steps():
    source = WorldSource(0, (32, 24), rate=30.0, count=4)
    assert [f.offset_ns for f in source.frames()] == [0, 33333333, 66666667, 100000000]


def test_frames_ahead_keeps_order_and_memory_within_bounds(tmp_path):
    for number in range(12):
        save(tmp_path / f'{number}.png', number)
    ahead = FramesAhead(FolderSource(ImageFolder(tmp_path)).frames(), max_bytes=3 * 8 * 6 * 3)
    ahead.wait_until_steady(rate=1e9)     # never fast enough: waits until the store is full
    assert ahead._bytes == 3 * 8 * 6 * 3
    assert [frame.pixels[0, 0, 0] for frame in ahead] == list(range(12))
    ahead.stop()


def test_frames_ahead_hands_on_what_goes_wrong():
    def failing():
        yield from WorldSource(0, (32, 24), count=1).frames()
        raise FolderError('the disk is gone')
    ahead = FramesAhead(failing())
    frames = iter(ahead)
    next(frames)
    with pytest.raises(FolderError, match='the disk is gone'):
        next(frames)
