"""Small data sets in the folders in which they are published."""

import numpy as np
from PIL import Image
import pytest

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation.datasets.layouts import open_sequences

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
