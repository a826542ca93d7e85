"""Pixels out of image messages: encodings, padding, and every way a message can be wrong."""

from array import array

import numpy as np
import pytest
from sensor_msgs.msg import Image

from xsvggt_ros.node.image_codec import decode_image, ImageError

RGB = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
ALPHA = np.full((6, 5, 1), 7, np.uint8)


def make_image(pixels, encoding, padding=0, **fields):
    """Return a message whose rows carry ``padding`` extra bytes."""
    rows = pixels.reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    message = Image()
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.step = rows.shape[1]
    data = array('B')
    data.frombytes(rows.tobytes())
    message.data = data
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
