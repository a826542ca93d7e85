"""Calibration files as tools write them, and what comes from elsewhere: one line, no traceback."""

import os

import numpy as np
from PIL import Image
import pytest
from std_msgs.msg import Header

from xsvggt_ros.cli.main import main
from xsvggt_ros.demo.ros_messages import camera_info_message
from xsvggt_ros.node.inputs.camera_calibration import CameraCalibration
from xsvggt_ros.recordings import calibration as calibration_files
from xsvggt_ros.recordings.calibration import CalibrationError, load_calibration
from xsvggt_ros.recordings.image_folder import ImageFolder

ROS = """\
image_width: 160
image_height: 120
camera_matrix: {rows: 3, cols: 3, data: [120, 0, 80, 0, 121, 60, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.1, 0.02, 0, 0, 0]}
projection_matrix: {rows: 3, cols: 4, data: [120, 0, 80, -18, 0, 121, 60, 0, 0, 0, 1, 0]}
"""
# As cv::FileStorage writes it for OpenCV's calibration sample.
OPENCV = """\
%YAML:1.0
---
calibration_time: "Thu Jan  1 00:00:00 1970"
nframes: 2
image_width: 160
image_height: 120
board_width: 9
square_size: 2.5000000000000001e-02
flags: 0
fisheye_model: 0
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 1.2000000000000000e+02, 0., 80., 0., 121., 60., 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: [ -1.0000000000000001e-01, 2.0000000000000000e-02, 0., 0., 0. ]
avg_reprojection_error: 2.5e-01
per_view_reprojection_errors: !!opencv-matrix
   rows: 2
   cols: 1
   dt: f
   data: [ 1.97e-01, .Nan ]
"""
KALIBR = """\
cam0:
  cam_overlaps: []
  camera_model: pinhole
  distortion_coeffs: [-0.1, 0.02, 0.0, 0.0]
  distortion_model: radtan
  intrinsics: [120.0, 121.0, 80.0, 60.0]
  resolution: [160, 120]
  rostopic: /cam0/image_raw
"""
K = [[120, 0, 80], [0, 121, 60], [0, 0, 1]]


def write(folder, text, name='calibration.yaml'):
    file = folder / name
    if isinstance(text, bytes):
        file.write_bytes(text)
    else:
        file.write_text(text)
    return file


def shorter(name):
    """Return the file of OpenCV's with the names that Python programs give."""
    return OPENCV.replace('camera_matrix', 'cameraMatrix').replace('distortion_coefficients', name)


@pytest.mark.parametrize('text', [
    ROS, OPENCV, KALIBR, '\ufeff' + OPENCV, OPENCV.replace('\n', '\r\n'), shorter('distCoeffs'),
    shorter('dist_coeff'), ROS + 'calibration_time: 2024-02-30\n', ROS.replace('160', '160.0'),
    ROS.replace('{rows: 3, cols: 3, data: [120, 0, 80, 0, 121, 60, 0, 0, 1]}', str(K)),
    ROS.replace('[-0.1', '&it [-0.1') + 'again: *it\n'])
def test_what_calibration_tools_write_is_one_camera(tmp_path, text):
    calibration = load_calibration(write(tmp_path, text))
    assert (calibration.width, calibration.height) == (160, 120)
    np.testing.assert_array_equal(calibration.camera_matrix, K)
    assert calibration.distortion_model == 'plumb_bob'
    assert calibration.distortion == (-0.1, 0.02, 0, 0, 0)
    camera = calibration.camera()
    assert camera.needs_rectification
    np.testing.assert_array_equal(camera.rectified_matrix, K)


def test_the_lens_of_an_opencv_file_follows_from_its_coefficients(tmp_path):
    numbers = '-1.0000000000000001e-01, 2.0000000000000000e-02, 0., 0., 0.'
    assert numbers in OPENCV
    for text, lens in ((OPENCV.replace(numbers, numbers + ', 0.3, 0., 0.'), 'rational_polynomial'),
                       (OPENCV.replace(numbers, numbers + ', 0., 0., 0.'), 'plumb_bob'),
                       (OPENCV.replace(numbers, '0.1, 0.2, 0.3, 0.4')
                        .replace('fisheye_model: 0', 'fisheye_model: 1'), 'equidistant')):
        assert load_calibration(write(tmp_path, text)).camera().lens == lens
    with pytest.raises(CalibrationError, match='14 distortion coefficients are too many'):
        load_calibration(write(tmp_path, OPENCV.replace(numbers, ', '.join(14 * ['0.1']))))


@pytest.mark.parametrize('name', ['none', "''", 'pinhole'])
def test_a_camera_without_a_lens_is_a_pinhole(tmp_path, name):
    text = ROS.replace('plumb_bob', name)
    with pytest.raises(CalibrationError, match='distortion_model'):
        load_calibration(write(tmp_path, text))
    camera = load_calibration(write(tmp_path, text.replace('-0.1, 0.02', '0, 0'))).camera()
    assert not camera.needs_rectification


def changed(old, new, text=ROS):
    assert old in text
    return text.replace(old, new)


BILLION = 'a: &a [1,1]\n' + ''.join(
    f'{new}: &{new} [{",".join(9 * [f"*{old}"])}]\n' for old, new in zip('abcdefgh', 'bcdefghi'))
WRONG = {
    'a size that is infinite': (changed('160', '.inf'), 'image_width'),
    'a size that is a list': (changed('160', '[1, 2]'), 'image_width'),
    'a size that is a word': (changed('160', 'wide'), "image_width.*'wide'"),
    'a size of half pixels': (changed('160', '160.5'), 'image_width'),
    'a size of nothing': (changed('160', '0'), 'image_width'),
    'a size of billions': (changed('160', '4000000000'), 'image_width'),
    'a size that is empty': (changed('160', ''), 'image_width'),
    'no size': (changed('image_height: 120\n', ''), "'image_height' is missing"),
    '400 digits': (changed('120, 0, 80, 0, 121', '1' + 400 * '0' + ', 0, 80, 0, 121'),
                   'camera_matrix.*finite'),
    '5000 digits': (changed('160', 5000 * '1'), 'image_width'),
    'NaN': (changed('-0.1', '.nan'), 'distortion_coefficients'),
    'a matrix that is a number': (changed('{rows: 3, cols: 3, data: [120, 0, 80, 0, 121, 60, 0, 0,'
                                          ' 1]}', '5'), 'camera_matrix is .5. instead'),
    'a matrix without data': (changed('data: [120, 0, 80, 0, 121, 60, 0, 0, 1]', 'x: 1'),
                              'camera_matrix.data is missing'),
    'a matrix of mappings': (changed('[120, 0, 80, 0,', '[{a: 1}, 0, 80, 0,'), 'camera_matrix'),
    'a mapping as coefficients': (changed('data: [-0.1, 0.02, 0, 0, 0]', 'data: {a: 1}'),
                                  'distortion_coefficients.data'),
    'a model that is a list': (changed('plumb_bob', '[plumb_bob]'), 'distortion_model'),
    'a projection of eleven': (changed('0, 0, 1, 0]', '0, 0, 1]'), 'projection_matrix has 11'),
    'no coefficients': (changed('distortion_coefficients', 'coefficients'),
                        "'distortion_coefficients' is missing"),
    'two cameras': (KALIBR + KALIBR.replace('cam0', 'cam1'), '2 cameras.*cam0.*cam1'),
    'a resolution of one': (changed('[160, 120]', '[160]', KALIBR), 'resolution'),
    'deep lists': ('[' * 3000, 'more than 16 deep'),
    'deep mappings': ('{a: ' * 3000, 'more than 16 deep'),
    'deep blocks': ('- ' * 3000 + 'x', 'more than 16 deep'),
    'a billion laughs': (BILLION + 'camera_matrix: *i\nimage_width: 1\nimage_height: 1\n',
                         'camera_matrix'),
    'merged mappings': (f'<<: [{",".join(["{a: 1}"] * 2000)}]\n' + changed('160', 'x'),
                        'image_width'),
    'itself': ('camera_matrix: &a [*a]\n', 'not a YAML file'),
    'many references': ('a: &a 1\nb: [' + 101 * '*a, ' + ']', '100 references'),
    'many numbers': (f'a: &a [{1001 * "1,"}]\nimage_width: 1\nimage_height: 1\n'
                     'camera_matrix: *a', 'camera_matrix has 1001 numbers'),
    'many values': ('b: [' + 100_001 * '1,' + ']', '100000 values'),
    'a key that is a list': ('? [a]\n: 1\n', 'not a YAML file'),
    'characters that are none': ('a: \x07', 'not a YAML file'),
    'bytes that are no text': (b'\xff\xfe\x00', 'cannot read'),
    'two documents': ('a: 1\n---\nb: 2\n', 'not a YAML file'),
    'nothing': ('', 'neither'),
    'a list': ('[1, 2]', 'neither'),
    'an object': ('!!python/object/apply:os.getcwd []', 'neither'),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', WRONG)
def test_what_is_wrong_is_one_line_with_file_and_field(tmp_path, name):
    text, words = WRONG[name]
    file = write(tmp_path, text)
    with pytest.raises(CalibrationError, match=words) as error:
        load_calibration(file)
    message = str(error.value)
    assert message.startswith(str(file)) and '\n' not in message
    assert len(message) < len(str(file)) + 400


@pytest.mark.parametrize('old, new, words', [
    ('120, 0, 80, 0, 121', '120, 120, 80, 120, 120', 'K is no camera matrix.*singular'),
    ('120, 0, 80, 0, 121', '1, 0, 80, 0, 1', 'K has focal lengths.*placeholder'),
    ('[120, 0, 80, -18', '[1, 0, 0, 0', 'P has focal lengths.*placeholder'),
    ('[120, 0, 80, -18', '[0, 0, 80, 0', 'P has no positive focal'),
])
def test_a_camera_that_is_none_is_named_with_its_file(tmp_path, old, new, words):
    file = write(tmp_path, changed(old, new))
    with pytest.raises(CalibrationError, match=words) as error:
        load_calibration(file).camera()
    assert str(error.value).startswith(str(file))


def test_a_file_is_not_read_beyond_its_bound(tmp_path, monkeypatch):
    file = tmp_path / 'huge.yaml'
    with open(file, 'wb') as huge:
        huge.truncate(2 ** 40)  # takes no room on the disk, and none in memory
    with pytest.raises(CalibrationError, match='more than 1048576 bytes'):
        load_calibration(file)
    os.mkfifo(tmp_path / 'pipe')
    for other in (tmp_path, tmp_path / 'pipe', '/dev/zero'):  # a pipe would be waited for
        with pytest.raises(CalibrationError, match='not a file'):
            load_calibration(other)
    with pytest.raises(CalibrationError, match='cannot read'):
        load_calibration('a\0b')
    read = []
    monkeypatch.setattr(calibration_files._Loader, '__init__',
                        lambda self, text: read.append(text))
    with pytest.raises(CalibrationError):
        load_calibration(file)
    assert read == []


def test_what_the_command_says_is_one_line(tmp_path, capsys):
    Image.new('RGB', (160, 120)).save(tmp_path / '1.png')
    file = write(tmp_path, '[' * 3000, 'deep.yaml')
    assert main(['reconstruct', str(tmp_path), '--calibration', str(file),
                 '--out', str(tmp_path / 'out')]) == 1
    said = capsys.readouterr().err.strip()
    assert str(file) in said and '\n' not in said


@pytest.mark.parametrize('size', [(320, 240), (80, 60)])
def test_a_calibration_of_another_size_is_scaled_as_the_node_scales_it(tmp_path, size):
    Image.new('RGB', size).save(tmp_path / '1.png')
    file = write(tmp_path, ROS)
    calibration = ImageFolder(tmp_path, calibration=file).calibration
    factor = size[0] / 160
    assert (calibration.width, calibration.height) == size
    assert calibration.projection[0, 3] == -18 * factor  # the baseline, in pixels
    node = CameraCalibration('/info', '/image', True, True, lambda: True)
    node.on_message(camera_info_message(Header(), load_calibration(file)))
    expected, camera = node.camera('', *size), calibration.camera()
    for name in ('camera_matrix', 'rectified_matrix', 'rectified_from_raw', 'coefficients'):
        np.testing.assert_allclose(getattr(camera, name), getattr(expected, name), rtol=1e-12)
    assert camera.camera_matrix[0, 0] == 120 * factor
