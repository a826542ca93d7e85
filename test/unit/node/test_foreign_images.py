"""Encodings that only cv_bridge knows: a stand-in for it is asked, a broken one harms nothing."""

import sys

import numpy as np
import pytest
from sensor_msgs.msg import Image

from xsvggt_ros.node.inputs import foreign_images
from xsvggt_ros.node.inputs.image_codec import decode_image, ImageError

GOOD = """
import numpy as np

class CvBridge:
    def imgmsg_to_cv2(self, message, encoding):
        assert encoding == 'rgb8'
        if message.encoding == 'odd':
            return np.zeros((1, 1), np.uint8)
        if message.encoding not in ('mono8', 'nv24'):
            raise TypeError('Unrecognized image encoding')
        return np.full((message.height, message.width, 3), message.data[0], np.uint8)
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return what puts a cv_bridge with this source where Python finds it."""
    def put(source):
        (tmp_path / 'cv_bridge.py').write_text(source)

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, 'cv_bridge', raising=False)
    foreign_images._fault.cache_clear()
    yield put
    foreign_images._fault.cache_clear()
    sys.modules.pop('cv_bridge', None)


def image(encoding):
    return Image(height=2, width=3, encoding=encoding, step=9, data=[7] * 18)


def test_cv_bridge_reads_what_the_node_does_not(install):
    install(GOOD)
    pixels = decode_image(image('nv24'))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.full((2, 3, 3), 7))


def test_what_cv_bridge_does_not_know_either_is_explained(install):
    install(GOOD)
    with pytest.raises(ImageError, match="'secret'.*Unrecognized image encoding.*rgb8, bgr8"):
        decode_image(image('secret'))
    with pytest.raises(ImageError, match=r"'odd'.*uint8 \[1, 1\]"):
        decode_image(image('odd'))


@pytest.mark.parametrize('source, word', [
    ("raise ImportError('numpy.core.multiarray failed to import')", 'multiarray'),
    ("raise AttributeError('_ARRAY_API not found')", '_ARRAY_API'),
    ("raise RuntimeError('built for another NumPy')", 'another NumPy'),
    ('import os\nos.abort()', 'exit -6'),
])
def test_a_cv_bridge_that_breaks_is_told_and_harms_nothing(install, source, word):
    install(source)
    with pytest.raises(ImageError, match=f"'nv24'.*does not work here.*{word}.*rgb8, bgr8"):
        decode_image(image('nv24'))
    assert 'cv_bridge' not in sys.modules
    assert decode_image(image('rgb8')).shape == (2, 3, 3)


def test_common_encodings_do_not_ask_for_it(install):
    install(GOOD)
    decode_image(image('rgb8'))
    assert foreign_images._fault.cache_info().misses == 0


def test_without_cv_bridge_the_message_says_so(install, monkeypatch):
    monkeypatch.setattr(foreign_images, 'find_spec', lambda name: None)
    with pytest.raises(ImageError, match="'nv24'.*cv_bridge.*not installed.*rgb8, bgr8"):
        decode_image(image('nv24'))


def test_the_real_one_agrees_on_a_common_encoding():
    pytest.importorskip('cv_bridge', reason='cv_bridge is part of a ROS 2 installation only')
    message = image('bgr8')
    message.data[0] = 200
    try:
        pixels = foreign_images.decode_foreign(message)
    except foreign_images.BridgeError as error:
        pytest.skip(str(error))
    np.testing.assert_array_equal(pixels, decode_image(message))
