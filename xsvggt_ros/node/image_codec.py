"""From sensor_msgs/Image to pixels, without cv_bridge."""

import numpy as np
from sensor_msgs.msg import Image

# encoding: (bytes a pixel, where red, green and blue are)
_ENCODINGS = {
    'rgb8': (3, (0, 1, 2)),
    'bgr8': (3, (2, 1, 0)),
    'rgba8': (4, (0, 1, 2)),
    'bgra8': (4, (2, 1, 0)),
    'mono8': (1, (0, 0, 0)),
    '8UC1': (1, (0, 0, 0)),
    '8UC3': (3, (2, 1, 0)),
    '8UC4': (4, (2, 1, 0)),
}


class ImageError(ValueError):
    """An image that cannot be read; says why and what to do."""


def decode_image(message: Image) -> np.ndarray:
    """
    Return the pixels as uint8 [height, width, 3] RGB; a view of the message where possible.

    Rows may be padded (``step``). Raises ImageError for an unknown encoding, a size of zero, a
    ``step`` below a row's bytes, or too little data.
    """
    if message.height == 0 or message.width == 0:
        raise ImageError(
            f'image is empty ({message.width}x{message.height}); check the camera driver')
    if message.encoding not in _ENCODINGS:
        raise ImageError(
            f"encoding '{message.encoding}' is not supported; let the camera driver send one of "
            + ', '.join(_ENCODINGS))
    channels, order = _ENCODINGS[message.encoding]
    row = message.width * channels
    if message.step < row:
        raise ImageError(
            f'step is {message.step} bytes, but a row of {message.width} {message.encoding} '
            f'pixels needs {row}; the driver fills in the message wrongly')
    data = np.frombuffer(message.data, np.uint8) if len(message.data) else np.empty(0, np.uint8)
    needed = message.step * (message.height - 1) + row  # the last row needs no padding
    if data.size < needed:
        raise ImageError(
            f'image data has {data.size} bytes, but {message.width}x{message.height} '
            f'{message.encoding} with step {message.step} needs {needed}; the image is cut off')
    pixels = np.lib.stride_tricks.as_strided(
        data, (message.height, message.width, channels), (message.step, channels, 1))
    if order == (0, 1, 2) and channels == 3:
        return pixels
    return pixels[:, :, order]
