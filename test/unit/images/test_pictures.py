"""Picture files: what is read, and that a size which cannot be true costs no memory."""

import io
import struct
import zlib

import numpy as np
from PIL import Image
import pytest

from xsvggt_ros.images.pictures import FORMATS, opened_picture, PictureError, upright

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def encoded(pixels, **options):
    """Return the bytes of a picture."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, **options)
    return stream.getvalue()


def claiming(width, height):
    """Return a PNG whose header says that it is of this size."""
    png = encoded(PIXELS, format='PNG')
    header = b'IHDR' + struct.pack('>II', width, height) + png[24:29]
    return png[:12] + header + struct.pack('>I', zlib.crc32(header)) + png[33:]


@pytest.mark.parametrize('name', set(FORMATS) - {'JPEG'})
@pytest.mark.parametrize('by_path', [True, False])
def test_every_format_gives_its_pixels(tmp_path, name, by_path):
    data = encoded(PIXELS, format=name, **({'lossless': True} if name == 'WEBP' else {}))
    (tmp_path / 'a').write_bytes(data)
    with opened_picture(tmp_path / 'a' if by_path else io.BytesIO(data)) as picture:
        np.testing.assert_array_equal(np.asarray(picture), PIXELS)


def test_formats_that_run_programs_are_not_read():
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, 'EPS')
    with pytest.raises(PictureError, match='cannot identify'), opened_picture(stream):
        pass


@pytest.mark.parametrize('size, words', [
    ((10_001, 10_000), '10001x10000 pixels are more than the 100000000 that are read'),
    ((5_000, 5_000), 'bytes cannot hold 5000x5000 pixels'),
    ((60_000, 60_000), 'pixels'),
    ((2 ** 31 - 1, 2 ** 31 - 1), 'pixels'),
])
def test_a_size_that_cannot_be_true_is_refused_before_decoding(monkeypatch, size, words):
    def load(picture):
        raise AssertionError('decoded')

    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', load)
    with pytest.raises(PictureError, match=words), opened_picture(io.BytesIO(claiming(*size))):
        pass


def test_the_most_pixels_are_a_choice():
    with pytest.raises(PictureError, match='8x6 pixels are more than the 47'):
        with opened_picture(io.BytesIO(claiming(8, 6)), most_pixels=47):
            pass


def test_an_even_picture_is_believed():
    """A picture of one colour packs a thousand pixels into a byte."""
    data = encoded(np.zeros((4000, 4000), bool), format='PNG', compress_level=9)
    assert 4000 * 4000 / len(data) > 5000
    with opened_picture(io.BytesIO(data)) as picture:
        assert picture.size == (4000, 4000)


def test_an_error_of_the_reader_is_one_that_says_so(monkeypatch):
    def load(picture):
        raise IndexError

    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', load)
    with pytest.raises(PictureError, match='IndexError'):
        with opened_picture(io.BytesIO(claiming(8, 6))):
            pass


def test_damaged_exif_turns_nothing():
    turned = Image.Exif()
    turned[0x0112] = 6
    good = encoded(PIXELS, format='JPEG', exif=turned.tobytes())
    assert good.count(b'MM\0*') == 1
    damaged = good.replace(b'MM\0*', b'XX\0*')
    with opened_picture(io.BytesIO(good)) as picture:
        assert upright(picture).size == (6, 8)
    with opened_picture(io.BytesIO(damaged)) as picture:
        assert upright(picture).size == (8, 6)
