"""Targets: calibrations, lists, trajectories, folders of data sets, clouds and tables on disk."""

import argparse
import contextlib
import os
from pathlib import Path
import shutil

import numpy as np
import PIL.Image

from fuzz.pictures import picture_bytes
from fuzz.target import file_with, scratch, Target
from xsvggt_ros.console import arguments
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation.datasets.layouts import open_sequences
from xsvggt_ros.mapping import map_files
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.recordings.calibration import CalibrationError, load_calibration
from xsvggt_ros.recordings.image_folder import ImageFolder
from xsvggt_ros.trajectory.keyframe import Keyframe
from xsvggt_ros.trajectory.landmark_file import LandmarkFileError, read_landmarks, to_bytes
from xsvggt_ros.trajectory.landmark_map import LandmarkMap
from xsvggt_ros.trajectory.matching import Features

BREAK = b'\0|\0'  # between the files of one input
STAMPS = ('1305031102.175304', '1305031102.211214', '1305031102.243211')


def check_recordings(folder: Path, layout: str) -> bool:
    """Open a data set and read its frames; return whether there is any."""
    read = False
    with contextlib.suppress(ToolError):
        for recording in open_sequences(folder, layout):
            assert len(recording) > 0
            for index in range(min(len(recording), 2)):
                with contextlib.suppress(ToolError):
                    pose = recording.frame(index).world_from_camera
                    assert pose is None or pose.shape == (4, 4) and np.isfinite(pose).all()
                    read = True
    return read


def write_lists(folder: Path, names: tuple[str, ...], data: bytes) -> None:
    """Write the parts of an input to the files that are called so; missing ones are empty."""
    parts = data.split(BREAK)
    for index, name in enumerate(names):
        (folder / name).write_bytes(parts[index] if index < len(parts) else b'')


def read_tum_lists(data: bytes) -> bool:
    """Read rgb.txt, depth.txt and groundtruth.txt."""
    folder = tum_folder()
    write_lists(folder, ('rgb.txt', 'depth.txt', 'groundtruth.txt'), data)
    return check_recordings(folder, 'tum')


def tum_folder() -> Path:
    """Return a folder with one picture and one depth map."""
    folder = scratch() / 'rgbd_dataset_freiburg1_desk'
    if not folder.is_dir():
        folder.mkdir()
        PIL.Image.new('RGB', (4, 3)).save(folder / 'a.png')
        PIL.Image.new('I;16', (4, 3), 5000).save(folder / 'd.png')
    return folder


def read_kitti_lists(data: bytes) -> bool:
    """Read calib.txt and the poses of a KITTI sequence."""
    root = scratch() / 'kitti'
    folder = root / 'sequences' / '00'
    if not root.is_dir():
        (folder / 'image_2').mkdir(parents=True)
        (root / 'poses').mkdir()
        for name in ('000000.png', '000001.png'):
            PIL.Image.new('RGB', (4, 3)).save(folder / 'image_2' / name)
    write_lists(root, ('sequences/00/calib.txt', 'poses/00.txt'), data)
    return check_recordings(root, 'kitti')


def read_scenes_pose(data: bytes) -> bool:
    """Read the pose file of a 7-Scenes frame."""
    folder = scratch() / 'chess' / 'seq-01'
    if not folder.is_dir():
        folder.mkdir(parents=True)
        PIL.Image.new('RGB', (4, 3)).save(folder / 'frame-000000.color.png')
    (folder / 'frame-000000.pose.txt').write_bytes(data)
    return check_recordings(folder, '7scenes')


def read_names(data: bytes) -> bool:
    """Play a folder whose pictures have the names that the lines of the input say."""
    folder = scratch() / 'played' / 'names'  # beside no calibration
    picture = scratch() / 'picture.png'
    if not picture.is_file():
        picture.write_bytes(picture_bytes()[4])
    folder.mkdir(parents=True)
    try:
        for line in data.split(b'\n')[:4]:
            name = line.replace(b'/', b'').replace(b'\0', b'')[:60]
            with contextlib.suppress(OSError):
                os.link(picture, os.fsencode(folder) + b'/' + name + b'.png')
        with contextlib.suppress(ToolError):
            played = ImageFolder(folder)
            frames = list(played.frames())
            offsets = [frame.offset_ns for frame in frames]
            assert offsets == sorted(offsets) and len(frames) > 0
            assert played.duration_ns > 0
            return True
        return False
    finally:
        shutil.rmtree(folder)


def read_trajectory(data: bytes) -> bool:
    """Read a TUM trajectory."""
    with contextlib.suppress(ValueError):
        for pose in map_files.read_tum(file_with('a.tum', data)):
            assert isinstance(pose, StampedPose) and len(pose.position) == 3
            assert len(pose.quaternion) == 4 and isinstance(pose.stamp_ns, int)
        return True
    return False


def read_cloud(data: bytes) -> bool:
    """Read a PLY file."""
    with contextlib.suppress(ValueError):
        cloud = map_files.read_ply(file_with('a.ply', data))
        assert cloud.ndim == 1 and cloud.nbytes <= len(data)
        return True
    return False


def read_landmark_file(data: bytes) -> bool:
    """Read the landmarks of a saved map."""
    with contextlib.suppress(LandmarkFileError):
        found = read_landmarks(file_with('a.landmarks.safetensors', data))
        assert np.isfinite(found.poses).all() and found.landmarks * 40 <= len(data)
        assert all(np.isfinite(keyframe.points).all() for keyframe in found.keyframes)
        return True
    return False


def read_calibration(data: bytes) -> bool:
    """Read a calibration file and make a camera of it."""
    with contextlib.suppress(CalibrationError):
        camera = load_calibration(file_with('calibration.yaml', data)).camera()
        assert camera.width > 0 and camera.height > 0
        assert np.isfinite(camera.rectified_matrix).all()
        return True
    return False


def read_command_line(data: bytes) -> bool:
    """Parse the values of options; argparse makes one line of ValueError too."""
    text, accepted = data.decode('utf-8', 'replace'), False
    for parse in (arguments.image_size, arguments.seed, arguments.positive_int,
                  arguments.positive_float):
        with contextlib.suppress(argparse.ArgumentTypeError, ValueError):
            assert parse(text) is not None
            accepted = True
    return accepted


def tum_seeds() -> list[bytes]:
    """Return lists as they are published, and as other programs write them."""
    rgb = ''.join(f'{stamp} a.png\n' for stamp in STAMPS)
    depth = ''.join(f'{stamp} d.png\n' for stamp in STAMPS)
    poses = ''.join(f'{stamp} 1.3 0.6 1.6 0.6 0.6 -0.3 -0.3\n' for stamp in STAMPS)
    science = '1.305031102175304e+09 1.3e+00 6e-01 1.6e+00 6e-01 6e-01 -3e-01 -3e-01\n'
    head = '# color images\n# timestamp filename\n'
    return [BREAK.join(part.encode() for part in (head + rgb, head + depth, poses)),
            BREAK.join(part.encode() for part in (rgb, '', science)),
            BREAK.join(part.encode() for part in ('\ufeff' + rgb, depth, '\ufeff' + poses)),
            b'\r\n'.join((rgb + '\0|\0' + depth + '\0|\0' + poses).encode().split(b'\n'))]


def kitti_seeds() -> list[bytes]:
    """Return calibration and poses of two frames."""
    calib = 'P0: 7 0 6 0 0 7 2 0 0 0 1 0\nP2: 7 0 6 4 0 7 2 0 0 0 1 0\n'
    poses = '1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 1 0 1 0 0 0 0 1 0.5\n'
    return [calib.encode() + BREAK + poses.encode()]


def trajectory_seeds() -> list[bytes]:
    """Return the trajectory files of `tum_seeds`."""
    return [seed.split(BREAK)[2] for seed in tum_seeds() if seed.count(BREAK) == 2]


def cloud_seeds() -> list[bytes]:
    """Return our own kind of PLY file and one of others."""
    path = scratch() / 'seed.ply'
    map_files.write_ply(path, map_files.make_cloud(
        np.zeros((2, 3)), np.zeros((2, 3), np.uint8), np.ones(2)), 'weights')
    other = (b'ply\nformat binary_little_endian 1.0\ncomment hello\nelement vertex 1\n'
             b'property double x\nproperty uchar red\nelement face 0\n'
             b'property list uchar int vertex_indices\nend_header\n' + bytes(9))
    return [path.read_bytes(), other]


def landmark_seeds() -> list[bytes]:
    """Return a map of two keyframes with three landmarks each."""
    camera = np.array([[100.0, 0, 80], [0, 100, 60], [0, 0, 1]])
    thumbnail = np.zeros((15, 20), np.float32)
    keyframes = tuple(Keyframe(
        number, Features(number, np.zeros((3, 2), np.float32), np.zeros((3, 32), np.uint8),
                         np.arange(3)), np.ones((3, 3)), np.ones(3), thumbnail, thumbnail,
        camera, (160, 120), False) for number in range(2))
    return [to_bytes(LandmarkMap(keyframes, np.tile(np.eye(4), (2, 1, 1)), True))]


def calibration_seeds() -> list[bytes]:
    """Return one file of each known format."""
    return [b"""image_width: 64
image_height: 48
camera_name: front
camera_matrix: {rows: 3, cols: 3, data: [50.0, 0, 31.5, 0, 50, 23.5, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.3, 0.1, 0.001, -0.001, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [50, 0, 31.5, 0, 0, 50, 23.5, 0, 0, 0, 1, 0]}
""", b"""sensor_type: camera
T_BS: {cols: 4, rows: 4, data: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]}
rate_hz: 20
resolution: [64, 48]
camera_model: pinhole
intrinsics: [50.0, 50.0, 31.5, 23.5] # fu, fv, cu, cv
distortion_model: radial-tangential
distortion_coefficients: [-0.3, 0.1, 0.001, -0.001]
""", b"""%YAML:1.0
---
image_width: 64
image_height: 48
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 50., 0., 31.5, 0., 50., 23.5, 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: [ -0.3, 0.1, 0.001, -0.001, 0. ]
"""]


YAML_TOKENS = (
    b'camera_matrix:', b'intrinsics:', b'data:', b'distortion_model:', b'image_width:', b'!!str',
    b'!!python/object:os.system', b'!!binary', b'!!set', b'!!timestamp', b'!!opencv-matrix',
    b'2001-12-14', b'2001-13-45', b'.nan', b'-.inf', b'0o17', b'1:30', b'<<: *a', b'? ', b'|',
    b'>', b'[[[[[[[[', b'{{{{{{{{', b'- - - - -', b'&a [*a]', b'equidistant', b'~', b'yes',
    b'---', b'...', b'\\x', b'"\\ud800"')
LIST_TOKENS = (BREAK, b'# ', b'\xef\xbb\xbf', b'1e9', b'1.3e+09', b'nan', b'inf', b'-1',
               b'1403636579763555584', b'a.png', b'd.png', b'../../x', b'P2:', b'1_0', b'.5',
               b'5.', b'\xd9\xa3', b'\xe2\x80\xa8', b'\x0c', b'/dev/null', b'.')
NAME_TOKENS = (b'\n', b'\xc2\xb2', b'\xd9\xa3', b'1403636579763555584', b'1403636579.763555584',
               b'1305031102.175304', b'9' * 50, b'img', b'.', b'1e9', b'-1', b'\xff', b'0')
PLY_TOKENS = (b'\nelement vertex ', b'\nproperty float ', b'\nproperty list uchar int ',
              b'\nformat ', b'\nend_header\n', b'\nproperty double x', b'-1', b'element',
              b'format', b'property', b'uint', b'4294967296', b'99999999999999')

TARGETS = (
    Target('calibration_file', read_calibration, calibration_seeds, YAML_TOKENS),
    Target('tum_lists', read_tum_lists, tum_seeds, LIST_TOKENS),
    Target('kitti_lists', read_kitti_lists, kitti_seeds, LIST_TOKENS),
    Target('scenes_pose', read_scenes_pose,
           lambda: [b'1 0 0 0.5\n0 1 0 0\n0 0 1 0\n0 0 0 1\n'], LIST_TOKENS),
    Target('folder_names', read_names,
           lambda: [b'1403636579763555584\n1403636579813555456', b'img1\nimg2\nimg10',
                    b'1305031102.175304\n1305031102.211214\n1305031102.5'], NAME_TOKENS),
    Target('tum_trajectory', read_trajectory, trajectory_seeds, LIST_TOKENS),
    Target('landmark_file', read_landmark_file, landmark_seeds,
           (b'"data_offsets":[0,0]', b'"shape":[', b'"dtype":"F32"', b'__metadata__', b'version',
            b'\x00\x00\xc0\x7f', b'\xff' * 8, b'4294967296')),
    Target('ply_cloud', read_cloud, cloud_seeds, PLY_TOKENS),
    Target('option_values', read_command_line, lambda: [b'640x480', b'7', b'0.5', b'1e3'],
           (b'x', b'\xc2\xb2', b'\xd9\xa3', b'9' * 5000, b'_', b'nan')),
)
