"""Target: picture files; and the pictures that several targets begin with."""

import contextlib
import io

import numpy as np
import PIL.Image

from fuzz.target import file_with, MEGABYTE, Target
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation.datasets.pictures import read_colour, read_depth
from xsvggt_ros.recordings.image_folder import ImageFolder

TOKENS = (b'IHDR', b'IDAT', b'IEND', b'PLTE', b'tRNS', b'iCCP', b'eXIf', b'acTL', b'fcTL',
          b'zTXt', b'\x89PNG\r\n\x1a\n', b'\0\0\xff\xff', b'\x7f\xff\xff\xff',
          b'\xff\xd8', b'\xff\xc0', b'\xff\xc2', b'\xff\xc4', b'\xff\xdb', b'\xff\xda',
          b'\xff\xdd', b'\xff\xe1Exif\0\0', b'\xff\xee\0\x0eAdobe', b'\xff\xd9', b'\xff\xff')


def check_pixels(pixels: np.ndarray, height: int, width: int) -> None:
    """Raise AssertionError unless these are RGB pixels of this size."""
    assert pixels.shape == (height, width, 3) and pixels.dtype == np.uint8, pixels.shape


def read_picture(data: bytes) -> bool:
    """Read a file as a picture and a depth map of a data set, and as the only one of a folder."""
    path = file_with('pictures/a.png', data)
    with contextlib.suppress(ToolError):
        pixels = read_colour(path)
        check_pixels(pixels, *pixels.shape[:2])
    with contextlib.suppress(ToolError):
        depth = read_depth(path, 1000.0)
        assert depth.ndim == 2 and depth.dtype == np.float32, depth.shape
    with contextlib.suppress(ToolError):
        for frame in ImageFolder(path.parent).frames():
            assert frame.pixels.dtype == np.uint8 and frame.pixels.ndim in (2, 3)
            assert frame.pixels.shape[2:] in ((), (3,))
        return True
    return False


def picture_bytes() -> list[bytes]:
    """Return small pictures of the formats and modes that cameras and data sets use."""
    rng = np.random.default_rng(0)
    colours = PIL.Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8))
    deep = PIL.Image.fromarray(rng.integers(0, 65536, (9, 13), dtype=np.uint16))
    pictures = []
    for picture, settings in (
            (colours, {'format': 'JPEG'}), (colours, {'format': 'JPEG', 'progressive': True}),
            (colours.convert('L'), {'format': 'JPEG'}), (colours.convert('CMYK'),
                                                         {'format': 'JPEG'}),
            (colours, {'format': 'PNG'}), (colours.convert('P'), {'format': 'PNG'}),
            (colours.convert('RGBA'), {'format': 'PNG'}), (colours.convert('1'),
                                                           {'format': 'PNG'}),
            (colours.convert('LA'), {'format': 'PNG'}), (deep, {'format': 'PNG'})):
        stream = io.BytesIO()
        picture.save(stream, **settings)
        pictures.append(stream.getvalue())
    return pictures


def file_seeds() -> list[bytes]:
    """Return pictures in formats that only files have, too."""
    colours = PIL.Image.fromarray(np.arange(9 * 13 * 3, dtype=np.uint16).astype(np.uint8)
                                  .reshape(9, 13, 3))
    seeds = picture_bytes()
    for name in ('BMP', 'PPM', 'TIFF', 'WEBP'):
        stream = io.BytesIO()
        colours.save(stream, format=name)
        seeds.append(stream.getvalue())
    return seeds


TARGETS = (
    Target('picture_file', read_picture, file_seeds, TOKENS, 512 * MEGABYTE),
)
