"""Pixels out of image messages: encodings, padding, and every way a message can be wrong."""

from array import array
import io
import sys

import numpy as np
import PIL.Image
import pytest
from sensor_msgs.msg import CompressedImage, Image

from xsvggt_ros.node.inputs.image_codec import decode_compressed, decode_image, ImageError

RGB = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
ALPHA = np.full((6, 5, 1), 7, np.uint8)


def make_image(pixels, encoding, padding=0, **fields):
    """Return a message whose rows carry ``padding`` extra bytes."""
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    message = Image()
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.step = rows.shape[1]
    data = array('B')
    data.frombytes(rows.tobytes())
    message.data = data
    message.is_bigendian = int(pixels.dtype.byteorder == '>')
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize('encoding, pixels', [
    ('rgb8', RGB),
    ('bgr8', RGB[..., ::-1]),
    ('8UC3', RGB[..., ::-1]),
    ('rgba8', np.concatenate([RGB, ALPHA], -1)),
    ('bgra8', np.concatenate([RGB[..., ::-1], ALPHA], -1)),
])
def test_colour_encodings_give_rgb(encoding, pixels, padding):
    decoded = decode_image(make_image(pixels, encoding, padding))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, RGB)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_fills_three_channels(encoding):
    decoded = decode_image(make_image(RGB[..., :1], encoding, 2))
    np.testing.assert_array_equal(decoded, np.repeat(RGB[..., :1], 3, -1))


def test_the_last_row_needs_no_padding():
    message = make_image(RGB, 'rgb8', 4)
    message.data = message.data[:-4]
    np.testing.assert_array_equal(decode_image(message), RGB)


def test_rgb_is_not_copied():
    message = make_image(RGB, 'rgb8', 4)
    assert np.shares_memory(decode_image(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize('encoding, channels', [
    ('rgb16', (0, 1, 2)), ('bgr16', (2, 1, 0)), ('rgba16', (0, 1, 2, 3)), ('bgra16', (2, 1, 0, 3)),
])
def test_16_bit_colours_lose_their_low_byte(encoding, channels, padding, order):
    low = np.random.default_rng(1).integers(0, 256, (6, 5, 4), dtype=np.uint16)
    samples = np.concatenate([RGB, ALPHA], -1) * np.uint16(256) + low
    message = make_image(samples[:, :, channels].astype(f'{order}u2'), encoding, padding)
    np.testing.assert_array_equal(decode_image(message), RGB)


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize('encoding', ['mono16', '16UC1'])
@pytest.mark.parametrize('brightest, divisor', [
    (0, 4), (200, 4), (1023, 4), (1024, 16), (4095, 16), (4096, 64), (16383, 64), (16384, 256),
    (65535, 256),
])
def test_grey_of_10_to_16_bits_fills_8(brightest, divisor, encoding, padding, order):
    samples = np.random.default_rng(2).integers(0, brightest + 1, (6, 5), dtype=np.uint16)
    samples[2, 3] = brightest
    decoded = decode_image(make_image(samples.astype(f'{order}u2'), encoding, padding))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, np.stack([samples // divisor] * 3, -1))


def mirrored(index, length):
    return -index if index < 0 else 2 * length - 2 - index if index >= length else index


def demosaic(samples, cell):
    """Return each colour as the sample itself, else the mean of those of it in the 3x3 around."""
    height, width = samples.shape
    rgb = np.empty((height, width, 3), np.uint8)
    for row, column, colour in np.ndindex(rgb.shape):
        found = [samples[mirrored(y, height), mirrored(x, width)]
                 for y in range(row - 1, row + 2) for x in range(column - 1, column + 2)
                 if cell[y % 2 * 2 + x % 2] == 'rgb'[colour]]
        if cell[row % 2 * 2 + column % 2] == 'rgb'[colour]:
            found = [samples[row, column]]
        rgb[row, column, colour] = int(sum(map(int, found)) / len(found) + 0.5)
    return rgb


CELLS = pytest.mark.parametrize('cell', ['rggb', 'bggr', 'gbrg', 'grbg'])
SIZES = pytest.mark.parametrize('height, width', [(6, 8), (5, 7), (6, 5), (3, 4), (2, 2), (3, 3)])


@CELLS
@SIZES
@pytest.mark.parametrize('padding', [0, 3])
def test_bayer_takes_the_mean_of_the_nearest(cell, height, width, padding):
    samples = np.random.default_rng(3).integers(0, 256, (height, width), dtype=np.uint8)
    decoded = decode_image(make_image(samples, f'bayer_{cell}8', padding))
    np.testing.assert_array_equal(decoded, demosaic(samples, cell))


@CELLS
@SIZES
def test_bayer_keeps_a_constant_colour_up_to_the_border(cell, height, width):
    colour = {'r': 250, 'g': 101, 'b': 3}
    samples = np.array([[colour[cell[y % 2 * 2 + x % 2]] for x in range(width)]
                        for y in range(height)], np.uint8)
    decoded = decode_image(make_image(samples, f'bayer_{cell}8'))
    assert (decoded == [250, 101, 3]).all()


@CELLS
@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('bits', [12, 16])
def test_bayer_of_more_bits_is_reduced_to_8(cell, bits, order):
    samples = np.random.default_rng(4).integers(0, 2 ** bits, (5, 7), dtype=np.uint16)
    samples[1, 1] = 2 ** bits - 1
    decoded = decode_image(make_image(samples.astype(f'{order}u2'), f'bayer_{cell}16', 3))
    np.testing.assert_array_equal(decoded, demosaic(samples // 2 ** (bits - 8), cell))


def rgb_from_yuv(luma, blue, red):
    """Return BT.601's RGB of one pixel, luma from 16 to 235, chroma from 16 to 240."""
    light = 255 / 219 * (max(luma, 16) - 16)
    blue, red = 255 / 224 * (blue - 128), 255 / 224 * (red - 128)
    values = (light + 2 * 0.701 * red,
              light - (2 * 0.886 * 0.114 * blue + 2 * 0.701 * 0.299 * red) / 0.587,
              light + 2 * 0.886 * blue)
    return [min(max(round(value), 0), 255) for value in values]


def pack_yuv(yuv, encoding):
    """Return the bytes of an encoding; chroma is that of the first pixel of each pair or block."""
    luma, blue, red = np.moveaxis(yuv, -1, 0)
    packed = np.empty((*luma.shape, 2), np.uint8)
    place = {'uyvy': 1, 'yuv422': 1, 'yuyv': 0, 'yuv422_yuy2': 0}.get(encoding)
    if place is not None:
        packed[:, :, place] = luma
        packed[:, 0::2, 1 - place], packed[:, 1::2, 1 - place] = blue[:, ::2], red[:, ::2]
        return packed
    planes = (blue, red) if encoding == 'nv12' else (red, blue)
    chroma = np.stack([plane[::2, ::2] for plane in planes], -1)
    return np.concatenate([luma, chroma.reshape(len(chroma), -1)])


YUV = pytest.mark.parametrize('encoding, block', [
    ('uyvy', (1, 2)), ('yuv422', (1, 2)), ('yuyv', (1, 2)), ('yuv422_yuy2', (1, 2)),
    ('nv12', (2, 2)), ('nv21', (2, 2)),
])


@YUV
@pytest.mark.parametrize('padding', [0, 3])
def test_yuv_follows_bt601(encoding, block, padding):
    yuv = np.random.default_rng(5).integers(0, 256, (16, 22, 3), dtype=np.uint8)
    expected = np.empty(yuv.shape, int)
    for row, column in np.ndindex(yuv.shape[:2]):
        tint = yuv[row - row % block[0], column - column % block[1], 1:]
        expected[row, column] = rgb_from_yuv(int(yuv[row, column, 0]), *map(int, tint))
    message = make_image(pack_yuv(yuv, encoding), encoding, padding, height=16, width=22)
    decoded = decode_image(message)
    assert decoded.dtype == np.uint8
    difference = decoded - expected
    assert abs(difference).max() <= 1
    assert abs(difference.mean()) < 0.1  # rounded, not cut off


@YUV
@pytest.mark.parametrize('yuv, rgb', [
    ((16, 128, 128), (0, 0, 0)), ((235, 128, 128), (255, 255, 255)),
    ((126, 128, 128), (128, 128, 128)), ((81, 90, 240), (254, 0, 0)),
    ((0, 128, 128), (0, 0, 0)), ((255, 128, 128), (255, 255, 255)),
    ((255, 255, 255), (255, 125, 255)), ((0, 0, 0), (0, 154, 0)),
])
def test_yuv_of_known_colours(encoding, block, yuv, rgb):
    pixels = np.full((2, 4, 3), yuv, np.uint8)
    message = make_image(pack_yuv(pixels, encoding), encoding, height=2, width=4)
    assert (decode_image(message) == rgb).all()


@pytest.mark.parametrize('encoding, height, width, words', [
    ('uyvy', 4, 5, ('uyvy', 'even width', '5x4')),
    ('yuv422_yuy2', 4, 5, ('even width', '5x4')),
    ('nv21', 4, 5, ('even width', '5x4')),
    ('nv12', 5, 4, ('even height', '4x5')),
    ('bayer_rggb8', 1, 4, ('2x2', '4x1')),
    ('bayer_rggb8', 4, 1, ('2x2', '1x4')),
])
def test_a_size_that_an_encoding_cannot_have_is_refused(encoding, height, width, words):
    pixels = np.zeros((16, 16), np.uint8)
    with pytest.raises(ImageError) as error:
        decode_image(make_image(pixels, encoding, height=height, width=width))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize('encoding, needed', [('nv21', 36), ('uyvy', 48), ('mono16', 48)])
def test_every_plane_and_byte_must_be_there(encoding, needed):
    row = needed // 4 if encoding != 'nv21' else 6
    message = make_image(np.zeros((needed // row, row), np.uint8), encoding, height=4, width=6)
    decode_image(message)
    message.data = message.data[:-1]
    with pytest.raises(ImageError, match=f'{needed - 1} bytes.*needs {needed}'):
        decode_image(message)


def compress(pixels, file_format, field=None, **options):
    """Return a message that holds the pixels as a picture."""
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, file_format, **options)
    return CompressedImage(format=file_format if field is None else field,
                           data=array('B', stream.getvalue()))


@pytest.mark.parametrize('field', ['png', 'rgb8; png compressed bgr8', 'bgr8; png compressed', ''])
@pytest.mark.parametrize('pixels', [RGB, np.concatenate([RGB, ALPHA], -1)])
def test_png_gives_its_pixels(pixels, field):
    decoded = decode_compressed(compress(pixels, 'png', field))
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable
    np.testing.assert_array_equal(decoded, RGB)


@pytest.mark.parametrize('field', ['jpeg', 'rgb8; jpeg compressed bgr8', 'bgr8; jpeg compressed '])
def test_jpeg_gives_about_its_pixels(field):
    pixels = np.full((24, 16, 3), (200, 120, 30), np.uint8)
    pixels[:, 8:] = (20, 90, 160)
    decoded = decode_compressed(compress(pixels, 'jpeg', field, quality=95, subsampling=0))
    assert decoded.dtype == np.uint8
    np.testing.assert_allclose(decoded.astype(int), pixels, atol=6)


@pytest.mark.parametrize('field', ['png', 'mono8; png compressed', 'rgb8; png compressed ',
                                   'bayer_rggb8; png compressed mono8'])
def test_compressed_grey_fills_three_channels(field):
    decoded = decode_compressed(compress(RGB[..., 0], 'png', field))
    np.testing.assert_array_equal(decoded, np.repeat(RGB[..., :1], 3, -1))


def test_compressed_grey_of_12_bits_fills_8():
    samples = np.random.default_rng(6).integers(0, 4096, (6, 5), dtype=np.uint16)
    samples[0, 0] = 4095
    decoded = decode_compressed(compress(samples, 'png', '16UC1; png compressed'))
    np.testing.assert_array_equal(decoded, np.stack([samples // 16] * 3, -1))


@CELLS
def test_a_compressed_mosaic_becomes_colours(cell):
    decoded = decode_compressed(compress(RGB[..., 0], 'png', f'bayer_{cell}8; png compressed '))
    np.testing.assert_array_equal(decoded, demosaic(RGB[..., 0], cell))


@pytest.mark.parametrize('field, data, words', [
    ('16UC1; compressedDepth png', b'x', ('depth image', 'subscribe')),
    ('jpeg', b'', ("'jpeg'", '0 bytes', 'raw image')),
    ('png', b'no picture', ("'png'", '10 bytes')),
    ('h264', b'no picture', ("'h264'", 'JPEG or PNG')),
])
def test_what_is_no_picture_is_refused_with_its_reason(field, data, words):
    with pytest.raises(ImageError) as error:
        decode_compressed(CompressedImage(format=field, data=array('B', data)))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize('file_format', ['jpeg', 'png'])
def test_a_picture_that_breaks_off_is_refused(file_format):
    message = compress(np.tile(RGB, (20, 20, 1)), file_format)
    for kept in (20, 60, len(message.data) // 2, len(message.data) * 9 // 10):
        with pytest.raises(ImageError, match=f'{kept} bytes'):
            decode_compressed(CompressedImage(format=file_format, data=message.data[:kept]))


def test_without_pillow_raw_images_can_be_read_still(monkeypatch):
    message = compress(RGB, 'png')
    monkeypatch.delitem(sys.modules, 'xsvggt_ros.images.pictures', raising=False)
    monkeypatch.setitem(sys.modules, 'PIL', None)
    with pytest.raises(ImageError, match='python3-pil'):
        decode_compressed(message)
    np.testing.assert_array_equal(decode_image(make_image(RGB, 'rgb8')), RGB)


@pytest.mark.parametrize('change, words', [
    ({'encoding': 'jpeg'}, ('jpeg', 'rgb8')),
    ({'step': 14}, ('step', '14', '15')),
    ({'data': array('B', [0] * 20)}, ('20 bytes', '90')),
    ({'data': array('B')}, ('0 bytes',)),
    ({'width': 0}, ('empty',)),
    ({'height': 0, 'data': array('B')}, ('empty',)),
])
def test_a_broken_image_is_refused_with_its_reason(change, words):
    with pytest.raises(ImageError) as error:
        decode_image(make_image(RGB, **{'encoding': 'rgb8'} | change))
    for word in words:
        assert word in str(error.value)
