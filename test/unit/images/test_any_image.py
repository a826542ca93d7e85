"""The decoder needs no ROS: whatever has a message's fields is decoded."""

from types import SimpleNamespace

import numpy as np
import pytest

from xsvggt_ros.images.image_codec import decode_image, ENCODINGS, ImageError


def image(encoding, pixels, padding=0):
    rows = np.pad(pixels.reshape(len(pixels), -1), ((0, 0), (0, padding)))
    return SimpleNamespace(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
                           is_bigendian=0, step=rows.shape[1], data=rows.tobytes())


def test_a_stand_in_for_a_message_with_padded_rows_is_decoded():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    np.testing.assert_array_equal(decode_image(image('bgr8', pixels[..., ::-1], 5)), pixels)


def test_an_unknown_encoding_is_refused_or_handed_on():
    message = image('nv61', np.zeros((2, 2), np.uint8))
    with pytest.raises(ImageError, match="'nv61' is not supported.*rgb8, bgr8"):
        decode_image(message)
    asked, theirs = [], np.zeros((2, 2, 3), np.uint8)
    assert decode_image(message, lambda m: asked.append(m) or theirs) is theirs
    assert asked == [message] and 'nv61' not in ENCODINGS
