"""Picture files and compressed images of others: decoded only if their size is believable."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import os
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps

from xsvggt_ros.images.image_limit import check_pixels, MOST_PIXELS

# Of Pillow's readers those of SUFFIXES; others run programs (EPS) or were never meant for cameras.
FORMATS = ('PNG', 'JPEG', 'BMP', 'PPM', 'TIFF', 'WEBP')
# PNG packs 8 pixels of 1 bit into a byte, and deflate 1032 bytes into one. A file that claims more
# is cut off or wrong, and would take its memory before anybody notices.
PIXELS_PER_BYTE = 10_000


class PictureError(ValueError):
    """A picture that cannot be read, or is too large; says why."""


@contextmanager
def opened_picture(
    source: Path | BinaryIO, formats: Sequence[str] = FORMATS, most_pixels: int = MOST_PIXELS,
) -> Iterator[Image.Image]:
    """
    Give a decoded picture in Pillow's mode for it.

    source: a file, by its path or open to be read. formats: Pillow's names of those to expect. A
    picture of more than most_pixels is refused before it is decoded. Raises PictureError.
    """
    try:
        picture = Image.open(source, formats=tuple(formats))
    except Exception as error:  # of Pillow's readers, which meet bytes that nobody thought of
        raise PictureError(_told(error)) from error
    with picture:
        width, height = picture.size
        try:
            check_pixels(width, height, most_pixels)
        except ValueError as error:
            raise PictureError(str(error)) from error
        size = _size(source)
        if width * height > PIXELS_PER_BYTE * size:
            raise PictureError(f'{size} bytes cannot hold {width}x{height} pixels')
        try:
            picture.load()
        except Exception as error:
            raise PictureError(_told(error)) from error
        yield picture


def upright(picture: Image.Image) -> Image.Image:
    """Return a picture turned as its EXIF says; as it is if that is damaged."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # Pillow parses EXIF as it finds it; the pixels are good all the same
        return picture


def _size(source: Path | BinaryIO) -> int:
    """Return the number of bytes of a file."""
    if isinstance(source, Path):
        return source.stat().st_size
    place = source.tell()
    size = source.seek(0, os.SEEK_END)
    source.seek(place)
    return size


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
