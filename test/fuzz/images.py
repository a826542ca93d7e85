"""Targets: image messages."""

from array import array
import contextlib

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from fuzz.pictures import check_pixels, picture_bytes, TOKENS
from fuzz.source import Source
from fuzz.target import Target
from xsvggt_ros.images.depth_codec import decode_depth
from xsvggt_ros.images.image_codec import _LAYOUTS
from xsvggt_ros.images.image_codec import ENCODINGS as KNOWN_ENCODINGS
from xsvggt_ros.node.inputs import image_codec
from xsvggt_ros.node.inputs.image_codec import ImageError

ENCODINGS = (*KNOWN_ENCODINGS, '32FC1', '64FC1', '', 'jpeg', 'RGB8')
PIXEL_BYTES = (1, 2, 3, 4, 6, 8)
SIZES = (0, 1, 2, 3, 4, 65535, 2 ** 31, 2 ** 32 - 1)
FORMATS = ('jpeg', 'png', 'rgb8; jpeg compressed bgr8', 'bayer_rggb8; jpeg compressed mono8',
           'mono16; png compressed ', '16UC1; compressedDepth png', '', 'bayer_gbrg16; png')


def image_of(source: Source) -> Image:
    """Return an image message of any encoding, size, step and data, mostly nearly right."""
    message = Image()
    encoding = source.one_of(ENCODINGS) if not source.flag(16) else source.words(20)
    message.encoding = encoding.replace('\0', '')
    sizes = [source.one_of(SIZES) if source.flag(8) else source.whole(1, 16) for _ in range(2)]
    message.width, message.height = sizes
    message.is_bigendian = int(source.flag(4))
    if source.flag(8):
        message.step = source.whole(0, 2 ** 32 - 1)
    else:
        step = message.width * source.one_of(PIXEL_BYTES) + source.byte() % 4
        message.step = min(step, 2 ** 32 - 1)
    pixels = source.rest()
    if message.step * message.height <= 4096 and len(pixels) % 8:
        needed = message.step * (message.height + message.height // 2)
        pixels = (pixels * (needed // len(pixels) + 1))[:needed]
    data = array('B')
    data.frombytes(pixels)
    message.data = data
    return message


def read_raw(data: bytes) -> bool:
    """Decode an image message."""
    message = image_of(Source(data))
    with contextlib.suppress(ImageError):
        check_pixels(image_codec.decode_image(message), message.height, message.width)
        return True
    return False


def read_depth(data: bytes) -> bool:
    """Decode a depth image message."""
    source = Source(data)
    encoding = source.one_of(('16UC1', 'mono16', '32FC1', 'rgb8'))
    message = image_of(source)
    message.encoding = encoding
    with contextlib.suppress(ImageError):
        depth = decode_depth(message)
        assert depth.shape == (message.height, message.width) and depth.dtype == np.float32
        return True
    return False


def read_compressed(data: bytes) -> bool:
    """Decode a compressed image message, whose format is chosen by the first byte."""
    message = CompressedImage()
    message.format = FORMATS[data[0] % len(FORMATS)] if data else ''
    content = array('B')
    content.frombytes(data[1:])
    message.data = content
    with contextlib.suppress(ImageError):
        pixels = image_codec.decode_compressed(message)
        check_pixels(pixels, *pixels.shape[:2])
        return True
    return False


def raw_seeds() -> list[bytes]:
    """Return inputs that become a valid message of each encoding."""
    seeds = []
    for index, encoding in enumerate(ENCODINGS[:-4]):
        layout = _LAYOUTS.get(encoding)
        size = PIXEL_BYTES.index(layout.channels * layout.sample_bytes if layout else 4)
        seeds.append(bytes([0, index, 0, 7, 0, 5, 0, 0, size, 0]) + bytes(range(201)))
    return seeds


def depth_seeds() -> list[bytes]:
    """Return inputs that become a valid depth image of each encoding."""
    return [bytes([index, 0, 0, 0, 7, 0, 5, 0, 0, PIXEL_BYTES.index(size), 0]) + bytes(range(201))
            for index, size in enumerate((2, 2, 4))]


def compressed_seeds() -> list[bytes]:
    """Return each picture under each format."""
    return [bytes([form]) + picture for picture in picture_bytes()
            for form in range(len(FORMATS))]


TARGETS = (
    Target('image_raw', read_raw, raw_seeds),
    Target('image_compressed', read_compressed, compressed_seeds, TOKENS),
    Target('image_depth', read_depth, depth_seeds),
)
