"""Depth images at the times of images, and what is in them."""

from array import array

import numpy as np
import pytest
from sensor_msgs.msg import Image

from xsvggt_ros.images.depth_codec import decode_depth
from xsvggt_ros.mapping.depth_hint import DepthHint, MAX_IMAGES
from xsvggt_ros.node.inputs.image_codec import ImageError

MILLI = 10 ** 6


def depth_image(values, encoding, padding=0, big_endian=False):
    values = np.asarray(values)
    swapped = values.astype(values.dtype.newbyteorder('>' if big_endian else '<'))
    rows = swapped.view(np.uint8).reshape(len(values), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=7)
    message = Image(encoding=encoding, height=values.shape[0], width=values.shape[1],
                    step=rows.shape[1], is_bigendian=int(big_endian))
    message.data = array('B', rows.tobytes())
    return message


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('big_endian', [False, True])
def test_millimetres_and_metres(padding, big_endian):
    millimetres = np.array([[0, 1000, 65534], [1, 2, 300]], np.uint16)
    decoded = decode_depth(depth_image(millimetres, '16UC1', padding, big_endian))
    np.testing.assert_allclose(decoded, millimetres * 1e-3, rtol=1e-6)
    millimetres[1, 1] = 65535  # nothing seen
    decoded = decode_depth(depth_image(millimetres, '16UC1', padding, big_endian))
    assert np.isnan(decoded[1, 1]) and np.isnan(decoded).sum() == 1
    assert decoded.dtype == np.float32
    metres = np.array([[0, 1.5, np.nan], [np.inf, 2, -1]], np.float32)
    np.testing.assert_array_equal(
        decode_depth(depth_image(metres, '32FC1', padding, big_endian)), metres)


def test_what_is_no_depth_is_refused_with_the_reason():
    with pytest.raises(ImageError, match='rgb8.*32FC1'):
        decode_depth(Image(encoding='rgb8'))
    message = depth_image(np.ones((4, 5), np.float32), '32FC1')
    message.height = 5
    with pytest.raises(ImageError, match='5x5'):
        decode_depth(message)
    with pytest.raises(ImageError):
        decode_depth(Image(encoding='16UC1'))


def test_the_nearest_image_within_half_a_period():
    hint = DepthHint()
    assert hint.at(0) is None and hint.distance(0) is None
    images = [Image(width=index) for index in range(5)]
    for index, image in enumerate(images):
        hint.add(index * 60 * MILLI, image)
    assert hint.at(60 * MILLI) is images[1] and hint.at(89 * MILLI) is images[1]
    assert hint.at(91 * MILLI) is images[2]
    assert hint.at(269 * MILLI) is images[4] and hint.at(271 * MILLI) is None
    assert hint.distance(300 * MILLI) == pytest.approx(0.06)


def test_a_slow_sensor_is_no_excuse_and_time_may_go_back():
    hint = DepthHint()
    for index in range(MAX_IMAGES + 2):
        hint.add(index * 1000 * MILLI, Image(width=index))
    assert hint.at(5040 * MILLI).width == 5 and hint.at(5060 * MILLI) is None
    assert hint.at(0) is None
    hint.add(0, Image(width=99))
    assert hint.at(5000 * MILLI) is None and hint.at(0).width == 99
