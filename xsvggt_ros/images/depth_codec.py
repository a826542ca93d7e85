"""Depth in metres from messages: sensor_msgs/Image, and CompressedImage of compressedDepth."""

import struct
from typing import Any

import cv2
import numpy as np

from xsvggt_ros.images.image_codec import ImageError
from xsvggt_ros.images.image_limit import check_pixels

_HEAD = struct.Struct('<iff')   # of compressedDepth
_PNG = b'\x89PNG\r\n\x1a\n'
# Encoding: type of a sample, metres of its unit.
_ENCODINGS = {'16UC1': (np.uint16, 1e-3), 'mono16': (np.uint16, 1e-3), '32FC1': (np.float32, 1.0)}


def decode_depth(message: Any) -> np.ndarray:
    """
    Return depth in metres, float32 [height, width]; what is not positive is unknown (REP 118).

    So is the largest number of 16 bits, NaN here: sensors write it where they saw nothing.

    Raises ImageError for an encoding that is no depth, and for too little data.
    """
    if message.encoding not in _ENCODINGS:
        raise ImageError(
            f"encoding '{message.encoding}' is no depth image; 16UC1 (millimetres) and 32FC1 "
            '(metres) are')
    try:
        check_pixels(message.width, message.height)
    except ValueError as error:
        raise ImageError(f'a depth image of {error}') from error
    kind, metres = _ENCODINGS[message.encoding]
    dtype = np.dtype(kind).newbyteorder('>' if message.is_bigendian else '<')
    height, width, row = message.height, message.width, message.width * dtype.itemsize
    if 0 in (height, width) or message.step < row or len(message.data) < message.step * height:
        raise ImageError(
            f'a depth image of {width}x{height} in {message.encoding} cannot have {message.step} '
            f'bytes a row and {len(message.data)} in all')
    data = np.frombuffer(message.data, np.uint8)[:message.step * height]
    rows = np.ascontiguousarray(data.reshape(height, message.step)[:, :row]).view(dtype)
    depth = rows.astype(np.float32) * np.float32(metres)
    if kind is np.uint16:
        depth[rows == np.iinfo(np.uint16).max] = np.nan
    return depth


def decode_compressed_depth(message: Any) -> np.ndarray:
    """
    Return the depth in metres of a CompressedImage that image_transport's compressedDepth made.

    Format: documentation of compressed_depth_image_transport. Twelve bytes (a number, and two
    floats A and B), then a PNG of 16 bits: millimetres of a 16UC1, of a 32FC1 v with depth
    A / (v - B). float32 [height, width], NaN where unknown. Raises ImageError.
    """
    kind, data = str(message.format), bytes(message.data)
    if 'rvl' in kind.lower():
        raise ImageError(f"depth of format '{kind}' is not read; png is")
    if len(data) <= _HEAD.size:
        raise ImageError(f'a compressed depth image of {len(data)} bytes')
    _, scale, shift = _HEAD.unpack_from(data)
    png = data[_HEAD.size:]
    if png[:8] != _PNG or len(png) < 24:
        raise ImageError(f"a compressed depth image ('{kind}') that holds no PNG")
    try:
        check_pixels(*struct.unpack('>II', png[16:24]))
    except ValueError as error:
        raise ImageError(f'a depth image of {error}') from error
    values = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 2:
        raise ImageError('a compressed depth image that cannot be decoded as 16 bits of grey')
    known = (values > 0) & (values < np.iinfo(np.uint16).max)
    depth = np.full(values.shape, np.nan, np.float32)
    if '32FC1' in kind:
        with np.errstate(divide='ignore', invalid='ignore'):
            depth[known] = scale / (values[known].astype(np.float32) - np.float32(shift))
    else:
        depth[known] = values[known] * np.float32(1e-3)
    return depth
