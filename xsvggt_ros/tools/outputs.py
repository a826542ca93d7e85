"""What a reconstruction leaves on disk, and the readers for it: PLY, TUM and CSV. No ROS."""

from collections.abc import Iterable
import csv
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

CLOUD_DTYPE = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('red', 'u1'), ('green', 'u1'),
                        ('blue', 'u1'), ('confidence', '<f4')])

_PLY_TYPES = {'float': '<f4', 'float32': '<f4', 'double': '<f8', 'float64': '<f8',
              'uchar': 'u1', 'uint8': 'u1', 'char': 'i1', 'int8': 'i1', 'ushort': '<u2',
              'uint16': '<u2', 'short': '<i2', 'int16': '<i2', 'uint': '<u4', 'uint32': '<u4',
              'int': '<i4', 'int32': '<i4'}
_PLY_NAMES = {'<f4': 'float', '|u1': 'uchar'}

# sensor_msgs/PointField.datatype, as numpy type letters without the byte order.
_FIELD_TYPES = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 8: 'f8'}


@dataclass(frozen=True)
class StampedPose:
    """Where the camera was: position and quaternion (x, y, z, w) in the odometry frame."""

    stamp_ns: int
    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]

    def matrix(self) -> np.ndarray:
        """Return odom_from_camera [4, 4], float64."""
        x, y, z, w = np.asarray(self.quaternion) / np.linalg.norm(self.quaternion)
        matrix = np.eye(4)
        matrix[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]]
        matrix[:3, 3] = self.position
        return matrix

    @staticmethod
    def from_matrix(stamp_ns: int, matrix: np.ndarray) -> 'StampedPose':
        """Return the pose whose transform is `matrix` [4, 4]."""
        position = tuple(float(value) for value in matrix[:3, 3])
        return StampedPose(stamp_ns, position, quaternion_from_rotation(matrix[:3, :3]))


@dataclass(frozen=True)
class CacheRow:
    """The state of the KV cache after one frame; the columns of cache.csv."""

    stamp: str            # seconds, written from integer nanoseconds
    frame_index: int
    tokens_used: int      # per layer
    tokens_budget: int    # per layer, 0: no limit
    occupancy: float      # 0 ... 1
    evicted: int          # tokens per layer dropped after this frame
    bytes_used: int
    bytes_budget: int
    latency: float        # seconds from receipt to published; nan if unknown


def quaternion_from_rotation(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """Return the quaternion (x, y, z, w), w >= 0, of a rotation [3, 3]."""
    m = np.asarray(rotation, np.float64)
    # The eigenvector of this symmetric matrix to its largest eigenvalue is the quaternion, and
    # stays well conditioned at every angle (Bar-Itzhack 2000).
    k = np.array([
        [m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]],
        [m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]],
        [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
        [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], np.trace(m)]]) / 3.0
    quaternion = np.linalg.eigh(k)[1][:, -1]
    x, y, z, w = quaternion if quaternion[3] >= 0 else -quaternion
    return float(x), float(y), float(z), float(w)


def format_stamp(stamp_ns: int) -> str:
    """Return nanoseconds as seconds with nine decimals, exactly (no float on the way)."""
    return f'{stamp_ns // 10 ** 9}.{stamp_ns % 10 ** 9:09d}'


def parse_stamp(text: str) -> int:
    """Return the nanoseconds of a decimal number of seconds, exactly."""
    seconds, _, fraction = text.partition('.')
    return int(seconds) * 10 ** 9 + int((fraction + '0' * 9)[:9])


# Trajectory: TUM ---------------------------------------------------------------------------------

def write_tum(path: Path, poses: Iterable[StampedPose]) -> None:
    """Write one line `timestamp tx ty tz qx qy qz qw` per pose."""
    with open(path, 'w', encoding='ascii') as file:
        file.write('# timestamp tx ty tz qx qy qz qw\n')
        for pose in poses:
            numbers = ' '.join(f'{value:.9g}' for value in (*pose.position, *pose.quaternion))
            file.write(f'{format_stamp(pose.stamp_ns)} {numbers}\n')


def read_tum(path: Path) -> list[StampedPose]:
    """Return the poses of a TUM trajectory file."""
    poses = []
    for line in Path(path).read_text(encoding='ascii').splitlines():
        if not line.strip() or line.startswith('#'):
            continue
        stamp, *rest = line.split()
        x, y, z, *quaternion = (float(value) for value in rest)
        poses.append(StampedPose(parse_stamp(stamp), (x, y, z), tuple(quaternion)))
    return poses


# Cache occupancy: CSV ----------------------------------------------------------------------------

def write_cache_csv(path: Path, rows: Iterable[CacheRow]) -> None:
    """Write one line per processed frame, with a header line."""
    with open(path, 'w', encoding='ascii', newline='') as file:
        writer = csv.writer(file)
        writer.writerow([column.name for column in fields(CacheRow)])
        for row in rows:
            writer.writerow([f'{value:.6g}' if isinstance(value, float) else value
                             for value in astuple(row)])


def read_cache_csv(path: Path) -> list[CacheRow]:
    """Return the rows of a cache.csv."""
    types = {column.name: column.type for column in fields(CacheRow)}
    with open(path, encoding='ascii', newline='') as file:
        return [CacheRow(**{name: types[name](text) for name, text in line.items()})
                for line in csv.DictReader(file)]


# Cloud: PLY --------------------------------------------------------------------------------------

def make_cloud(points: np.ndarray, colours: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Return a cloud [N] of `CLOUD_DTYPE` from points [N, 3], colours [N, 3] uint8 and [N]."""
    cloud = np.empty(len(points), CLOUD_DTYPE)
    for column, name in enumerate(('x', 'y', 'z')):
        cloud[name] = points[:, column]
    for column, name in enumerate(('red', 'green', 'blue')):
        cloud[name] = colours[:, column]
    cloud['confidence'] = confidence
    return cloud


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
    """Return the vertices of a binary little-endian PLY as a structured array [N]."""
    with open(path, 'rb') as file:
        if file.readline().strip() != b'ply':
            raise ValueError(f'{path}: not a PLY file')
        count, properties, binary, element = 0, [], False, ''
        while True:
            line = file.readline()
            words = line.decode('utf-8').split()
            if not line:
                raise ValueError(f'{path}: the PLY header has no end')
            if words[:1] == ['format']:
                binary = words[1] == 'binary_little_endian'
            elif words[:1] == ['element']:
                element = words[1]
                count = int(words[2]) if element == 'vertex' else count
            elif words[:1] == ['property'] and element == 'vertex':
                properties.append((words[2], _PLY_TYPES[words[1]]))
            elif words == ['end_header']:
                break
        if not binary:
            raise ValueError(f'{path}: only binary little-endian PLY is read')
        dtype = np.dtype(properties)
        data = file.read(count * dtype.itemsize)
    if len(data) < count * dtype.itemsize:
        raise ValueError(f'{path}: cut off after {len(data) // dtype.itemsize} of {count} points')
    return np.frombuffer(data, dtype)


# Cloud: from a message ---------------------------------------------------------------------------

def read_point_cloud(message: Any) -> np.ndarray:
    """
    Return the points of a sensor_msgs/PointCloud2 as a structured array [height * width].

    Honours every field's offset and type, padding between points and rows, and byte order.
    """
    order = '>' if message.is_bigendian else '<'
    dtype = np.dtype({
        'names': [field.name for field in message.fields],
        'formats': [(order + _FIELD_TYPES[field.datatype], (field.count,)) if field.count > 1
                    else order + _FIELD_TYPES[field.datatype] for field in message.fields],
        'offsets': [field.offset for field in message.fields],
        'itemsize': message.point_step})
    if message.width == 0 or message.height == 0:
        return np.empty(0, dtype)
    data = np.frombuffer(message.data, np.uint8)
    rows = np.lib.stride_tricks.as_strided(
        _at_least(data, message.row_step * (message.height - 1)
                  + message.width * message.point_step),
        (message.height, message.width * message.point_step), (message.row_step, 1))
    return np.ascontiguousarray(rows).reshape(-1).view(dtype)


def cloud_from_message(message: Any) -> np.ndarray:
    """Return a PointCloud2 with x, y, z, rgb and maybe confidence as `CLOUD_DTYPE` [N]."""
    raw = read_point_cloud(message)
    points = np.stack([raw['x'], raw['y'], raw['z']], axis=-1).astype(np.float32)
    bits = np.ascontiguousarray(raw['rgb'])
    bits = bits.view(bits.dtype.byteorder.replace('|', '=') + 'u4')   # 0x00RRGGBB
    colours = np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], axis=-1)
    confident = 'confidence' in raw.dtype.names
    confidence = raw['confidence'] if confident else np.ones(len(raw), np.float32)
    return make_cloud(points, colours.astype(np.uint8), confidence)


def _at_least(data: np.ndarray, size: int) -> np.ndarray:
    """Return `data`; raises ValueError if it is shorter than its message says."""
    if data.size < size:
        raise ValueError(f'the cloud has {data.size} bytes of data, but its size needs {size}')
    return data
