"""What a stream leaves on disk: its map as PLY, its way as TUM, and the readers. Numpy only."""

from collections.abc import Iterable
import os
from pathlib import Path
import time
from typing import BinaryIO

import numpy as np

from xsvggt_ros.engine.trajectory import StampedPose

CLOUD_DTYPE = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('red', 'u1'), ('green', 'u1'),
                        ('blue', 'u1'), ('confidence', '<f4')])

_PLY_TYPES = {'float': '<f4', 'float32': '<f4', 'double': '<f8', 'float64': '<f8',
              'uchar': 'u1', 'uint8': 'u1', 'char': 'i1', 'int8': 'i1', 'ushort': '<u2',
              'uint16': '<u2', 'short': '<i2', 'int16': '<i2', 'uint': '<u4', 'uint32': '<u4',
              'int': '<i4', 'int32': '<i4'}
_LONGEST_LINE = 4096  # bytes of a PLY header
_PLY_NAMES = {'<f4': 'float', '|u1': 'uchar'}


# A map with its way ------------------------------------------------------------------------------

def save_map(
    folder: Path, cloud: np.ndarray, poses: Iterable[StampedPose], comment: str = '',
) -> tuple[Path, Path]:
    """
    Write a cloud [N] and a way under new names, map_DATE_TIME.ply and .tum; return the two files.

    The folder is made if it is missing, nothing is overwritten, and no half a file is left behind.
    Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = base = time.strftime('map_%Y%m%d_%H%M%S')
    number = 1
    while any((folder / (name + ending)).exists() for ending in ('.ply', '.tum')):
        number += 1
        name = f'{base}_{number}'
    files = folder / f'{name}.ply', folder / f'{name}.tum'
    parts = [file.with_suffix(file.suffix + '.part') for file in files]
    try:
        write_ply(parts[0], cloud, comment)
        write_tum(parts[1], poses)
        for part, file in zip(parts, files):
            os.replace(part, file)
    except OSError:
        for part in parts:
            part.unlink(missing_ok=True)
        raise
    return files


# Trajectory: TUM ---------------------------------------------------------------------------------

def write_tum(path: Path, poses: Iterable[StampedPose]) -> None:
    """Write one line `timestamp tx ty tz qx qy qz qw` per pose."""
    with open(path, 'w', encoding='ascii') as file:
        file.write('# timestamp tx ty tz qx qy qz qw\n')
        for pose in poses:
            numbers = ' '.join(f'{value:.9g}' for value in (*pose.position, *pose.quaternion))
            file.write(f'{format_stamp(pose.stamp_ns)} {numbers}\n')


def read_tum(path: Path) -> list[StampedPose]:
    """Return the poses of a TUM trajectory file; raise ValueError for another one, OSError."""
    poses = []
    for line in Path(path).read_text(encoding='ascii').splitlines():
        if not line.strip() or line.startswith('#'):
            continue
        stamp, *rest = line.split()
        if len(rest) != 7:
            raise ValueError(f"{path}: a pose has 8 numbers, but there is the line '{line[:80]}'")
        x, y, z, *quaternion = (float(value) for value in rest)
        poses.append(StampedPose(parse_stamp(stamp), (x, y, z), tuple(quaternion)))
    return poses


def format_stamp(stamp_ns: int) -> str:
    """Return nanoseconds as seconds with nine decimals, exactly (no float on the way)."""
    return f'{stamp_ns // 10 ** 9}.{stamp_ns % 10 ** 9:09d}'


def parse_stamp(text: str) -> int:
    """Return the nanoseconds of a decimal number of seconds, exactly."""
    seconds, _, fraction = text.partition('.')
    return int(seconds) * 10 ** 9 + int((fraction + '0' * 9)[:9])


# Clouds ------------------------------------------------------------------------------------------

def make_cloud(points: np.ndarray, colours: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Return a cloud [N] of `CLOUD_DTYPE` from points [N, 3], colours [N, 3] uint8 and [N]."""
    cloud = np.empty(len(points), CLOUD_DTYPE)
    for column, name in enumerate(('x', 'y', 'z')):
        cloud[name] = points[:, column]
    for column, name in enumerate(('red', 'green', 'blue')):
        cloud[name] = colours[:, column]
    cloud['confidence'] = confidence
    return cloud


def cloud_from_packed(packed: np.ndarray) -> np.ndarray:
    """Return a packed cloud [N, 5] float32 (see `point_cloud`) as `CLOUD_DTYPE` [N]."""
    bits = np.ascontiguousarray(packed[:, 3]).view(np.uint32)
    colours = np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], axis=-1)
    return make_cloud(packed[:, :3], colours, packed[:, 4])


def pack(cloud: np.ndarray) -> np.ndarray:
    """Return a cloud [N] of `CLOUD_DTYPE` as a packed one, [N, 5] float32."""
    red, green, blue = (cloud[name].astype(np.uint32) for name in ('red', 'green', 'blue'))
    rgb = (red << 16 | green << 8 | blue).view(np.float32)
    return np.stack([cloud['x'], cloud['y'], cloud['z'], rgb, cloud['confidence']], axis=-1)


def write_ply(path: Path, cloud: np.ndarray, comment: str = '') -> None:
    """Write a structured cloud [N] as binary little-endian PLY with one property per field."""
    lines = ['ply', 'format binary_little_endian 1.0']
    if comment:
        lines.append(f'comment {comment}')
    lines.append(f'element vertex {len(cloud)}')
    for name in cloud.dtype.names:
        lines.append(f'property {_PLY_NAMES[cloud.dtype[name].str]} {name}')
    lines.append('end_header\n')
    with open(path, 'wb') as file:
        file.write('\n'.join(lines).encode('utf-8'))
        file.write(np.ascontiguousarray(cloud).tobytes())


def read_ply(path: Path) -> np.ndarray:
    """
    Return the vertices of a binary little-endian PLY as a structured array [N].

    Raises ValueError for another file, or one that is cut off; OSError.
    """
    with open(path, 'rb') as file:
        try:
            count, dtype = _read_ply_header(file)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error
        there = (os.fstat(file.fileno()).st_size - file.tell()) // dtype.itemsize
        if there < count:
            raise ValueError(f'{path}: cut off after {there} of {count} points')
        return np.frombuffer(file.read(count * dtype.itemsize), dtype)


def _read_ply_header(file: BinaryIO) -> tuple[int, np.dtype]:
    """Return the number of vertices and what one consists of; raise ValueError."""
    if file.readline(_LONGEST_LINE).strip() != b'ply':
        raise ValueError('not a PLY file')
    count, properties, binary, elements = 0, [], False, []
    while True:
        line = file.readline(_LONGEST_LINE)
        if not line.endswith(b'\n'):
            raise ValueError('the PLY header has no end')
        # Comments are in any encoding.
        match line.decode('ascii', 'replace').split():
            case ['format', name, _]:
                binary = name == 'binary_little_endian'
            case ['element', name, number]:
                elements.append(name)
                if name == 'vertex':
                    count = _ply_count(number)
            case ['property', kind, name] if elements[-1:] == ['vertex']:
                if kind not in _PLY_TYPES:
                    raise ValueError(f"a property of the unknown type '{kind[:40]}'")
                properties.append((name, _PLY_TYPES[kind]))
            case ['property', *_] if elements[-1:] == ['vertex']:
                raise ValueError('a vertex with a list; only single numbers are read')
            case ['end_header']:
                break
    if not binary:
        raise ValueError('only binary little-endian PLY is read')
    if not properties or elements[0] != 'vertex':
        raise ValueError('the first element must be vertex, with properties')
    return count, np.dtype(properties)  # ValueError for two of one name


def _ply_count(text: str) -> int:
    """Return the number of vertices that a header names."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ValueError(f"'{text[:40]}' is no number of vertices")
    return int(text)
