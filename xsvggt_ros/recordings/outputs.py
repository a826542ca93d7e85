"""The cache's occupancy on disk, and the reader for PointCloud2 messages. Works without ROS."""

from collections.abc import Callable, Iterable
import csv
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from xsvggt_ros.mapping.map_files import make_cloud

# sensor_msgs/PointField.datatype, as numpy type letters without the byte order.
_FIELD_TYPES = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 8: 'f8'}


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


# Cache occupancy: CSV ----------------------------------------------------------------------------

def write_cache_csv(path: Path, rows: Iterable[CacheRow]) -> None:
    """Write one line per processed frame, with a header line."""
    with open(path, 'w', encoding='ascii', newline='') as file:
        writer = csv.writer(file)
        writer.writerow([column.name for column in fields(CacheRow)])
        for row in rows:
            writer.writerow([f'{value:.6g}' if isinstance(value, float) else value
                             for value in astuple(row)])


# Cloud: from a message ---------------------------------------------------------------------------

def read_point_cloud(message: Any) -> np.ndarray:
    """
    Return the points of a sensor_msgs/PointCloud2 as a structured array [height * width].

    Honours every field's offset and type, padding between points and rows, and byte order. Common
    clouds are read by sensor_msgs_py where it is installed. Raises ValueError for too little data.
    """
    read_points = _installed_reader()
    rows_are_padded = message.row_step != message.width * message.point_step
    is_whole = len(message.data) >= message.row_step * message.height > 0
    if read_points is None or rows_are_padded or message.is_bigendian or not is_whole:
        # sensor_msgs_py skips no padding of rows, and turns bytes round in the message itself.
        return read_any_cloud(message)
    points = read_points(message)
    # Older ones do not skip padding after a point's last field either.
    return points if points.dtype.itemsize == message.point_step else read_any_cloud(message)


def read_any_cloud(message: Any) -> np.ndarray:
    """Do what `read_point_cloud` does, without sensor_msgs_py."""
    dtype = _point_dtype(message)
    if message.width == 0 or message.height == 0:
        return np.empty(0, dtype)
    if message.row_step < message.width * message.point_step or message.point_step == 0:
        raise ValueError(f'the cloud says that a row of {message.width} points of '
                         f'{message.point_step} bytes has {message.row_step} bytes')
    data = np.frombuffer(message.data, np.uint8)
    rows = np.lib.stride_tricks.as_strided(
        _at_least(data, message.row_step * (message.height - 1)
                  + message.width * message.point_step),
        (message.height, message.width * message.point_step), (message.row_step, 1))
    return np.ascontiguousarray(rows).reshape(-1).view(dtype)


def _point_dtype(message: Any) -> np.dtype:
    """Return how the fields of a point lie in memory; raise ValueError if they cannot."""
    order = '>' if message.is_bigendian else '<'
    formats = []
    for field in message.fields:
        kind = _FIELD_TYPES.get(field.datatype)
        if kind is None:
            raise ValueError(f"the field '{field.name}' of the cloud has the unknown type "
                             f'{field.datatype}')
        if field.offset + max(1, field.count) * int(kind[1:]) > message.point_step:
            raise ValueError(f"the field '{field.name}' of the cloud does not lie in a point of "
                             f'{message.point_step} bytes')
        formats.append((order + kind, (field.count,)) if field.count > 1 else order + kind)
    return np.dtype({'names': [field.name for field in message.fields], 'formats': formats,
                     'offsets': [field.offset for field in message.fields],
                     'itemsize': message.point_step})


def cloud_from_message(message: Any) -> np.ndarray:
    """
    Return a PointCloud2 with x, y, z, rgb and maybe confidence as `CLOUD_DTYPE` [N].

    Raises ValueError for a cloud of other fields, and as `read_point_cloud`.
    """
    raw = read_point_cloud(message)
    kinds = {name: raw.dtype[name] for name in raw.dtype.names or ()}
    if any(kinds.get(name, raw.dtype).kind not in 'fiu' for name in ('x', 'y', 'z')) or (
            kinds.get('rgb', raw.dtype).itemsize != 4 or kinds['rgb'].shape):
        raise ValueError('the cloud lacks one of the fields x, y, z, rgb, or has it in another '
                         f'type; it has {kinds}')
    points = np.stack([raw['x'], raw['y'], raw['z']], axis=-1).astype(np.float32)
    bits = np.ascontiguousarray(raw['rgb'])
    bits = bits.view(bits.dtype.byteorder.replace('|', '=') + 'u4')   # 0x00RRGGBB
    colours = np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], axis=-1)
    confident = 'confidence' in kinds and not kinds['confidence'].shape
    confidence = raw['confidence'] if confident else np.ones(len(raw), np.float32)
    return make_cloud(points, colours.astype(np.uint8), confidence)


def _installed_reader() -> Callable[[Any], np.ndarray] | None:
    try:
        from sensor_msgs_py.point_cloud2 import read_points
    except ImportError:
        return None
    return read_points


def _at_least(data: np.ndarray, size: int) -> np.ndarray:
    """Return `data`; raises ValueError if it is shorter than its message says."""
    if data.size < size:
        raise ValueError(f'the cloud has {data.size} bytes of data, but its size needs {size}')
    return data
