"""
From raw and compressed image messages to pixels, for the node and for recordings. No ROS.

Messages are whatever has the fields of sensor_msgs/Image and sensor_msgs/CompressedImage.
"""

from collections.abc import Callable
import io
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from xsvggt_ros.images.image_limit import check_pixels

SENSOR_BITS = (10, 12, 14, 16)  # that a camera may send in 16-bit samples


class ImageError(ValueError):
    """An image that cannot be read; says why and what to do."""


class RawImage(Protocol):
    """The fields of sensor_msgs/Image that say how its pixels lie in ``data``."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int       # bytes from one row to the next
    data: Any       # a buffer of bytes


class CompressedPicture(Protocol):
    """The fields of sensor_msgs/CompressedImage."""

    format: str
    data: Any       # a buffer of bytes


def refuse_foreign(message: RawImage) -> np.ndarray:
    """Raise ImageError for an encoding that is not among `decode_image`'s own."""
    raise ImageError(
        f"encoding '{message.encoding}' is not supported; let the camera driver send one of "
        + ', '.join(ENCODINGS))


def decode_image(
    message: RawImage, foreign: Callable[[RawImage], np.ndarray] = refuse_foreign,
) -> np.ndarray:
    """
    Return the pixels as uint8 [height, width, 3] RGB; a view of the message where possible.

    Rows may be padded (``step``). Grey and Bayer images of 16 bits are scaled as `_to_bytes` says,
    16-bit colours lose their low byte. foreign: decodes encodings other than `ENCODINGS`. Raises
    ImageError, as foreign does for an encoding that is unknown to it too, for a size that is zero
    or does not fit the encoding, a ``step`` below a row's bytes, or too little data.
    """
    size = f'{message.width}x{message.height}'
    if message.height == 0 or message.width == 0:
        raise ImageError(f'image is empty ({size}); check the camera driver')
    _refuse_huge(message.width, message.height)
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        return foreign(message)
    for name, length, multiple in (('width', message.width, layout.columns),
                                   ('height', message.height, layout.rows)):
        if length % multiple:
            raise ImageError(
                f'{message.encoding} needs an even {name}, but the image is {size}; set another '
                'size or encoding in the camera driver')
    row = message.width * layout.channels * layout.sample_bytes
    if message.step < row:
        raise ImageError(
            f'step is {message.step} bytes, but a row of {message.width} {message.encoding} '
            f'pixels needs {row}; the driver fills in the message wrongly')
    lines = message.height + message.height // 2 * layout.has_chroma_plane
    needed = message.step * (lines - 1) + row  # the last row needs no padding
    if len(message.data) < needed:
        raise ImageError(
            f'image data has {len(message.data)} bytes, but {size} {message.encoding} with step '
            f'{message.step} needs {needed}; the image is cut off')
    order = '>' if message.is_bigendian else '<'
    samples: np.ndarray = np.ndarray(
        (lines, message.width, layout.channels), f'{order}u{layout.sample_bytes}', message.data,
        strides=(message.step, layout.channels * layout.sample_bytes, layout.sample_bytes))
    return layout.to_rgb(samples, layout.places)


def decode_compressed(message: CompressedPicture) -> np.ndarray:
    """
    Return the pixels of a JPEG or PNG picture as uint8 [height, width, 3] RGB.

    What the data holds decides, not ``format``, but for two cases that only ``format`` tells: a
    Bayer image compressed as if it were grey, and depth images. Raises ImageError for these, for
    other formats, for broken data, and, before anything is decoded, for pictures beyond
    `image_limit.MOST_PIXELS`.
    """
    original, _, codec = message.format.partition(';')
    if 'compressedDepth' in message.format:
        raise ImageError(
            f"format '{message.format}' is a depth image; subscribe to the colour image's topic")
    try:
        # Here, since only compressed images need Pillow.
        from xsvggt_ros.images.pictures import opened_picture
    except ImportError as error:
        raise ImageError(
            'compressed images need Pillow; install python3-pil, or subscribe to the raw image'
        ) from error
    try:
        with opened_picture(io.BytesIO(message.data), ('JPEG', 'PNG')) as picture:
            is_grey = picture.mode in ('1', 'L') or picture.mode.startswith('I')
            if picture.mode.startswith('I'):
                samples = _to_bytes(np.asarray(picture).astype(np.uint16))
            else:
                samples = np.array(picture.convert('L' if is_grey else 'RGB'))  # writable
    except ValueError as error:  # PictureError, and Pillow's for modes that it cannot convert
        raise ImageError(
            f"compressed image of format '{message.format}' with {len(message.data)} bytes cannot "
            f'be read as JPEG or PNG ({error}); if that goes on, let the driver compress to one '
            'of them or subscribe to the raw image') from error
    if not is_grey:
        return samples
    layout = _LAYOUTS.get(original.strip(), _LAYOUTS['mono8'])
    if layout.to_rgb is not _from_bayer or 'mono' in codec:
        layout = _LAYOUTS['mono8']
    return layout.to_rgb(samples[:, :, np.newaxis], layout.places)


def _refuse_huge(width: int, height: int) -> None:
    try:
        check_pixels(width, height)
    except ValueError as error:
        raise ImageError(f'{error} in the camera driver') from error


def _to_bytes(samples: np.ndarray) -> np.ndarray:
    """
    Return 16-bit samples as 8 bits, the highest of the sensor's bits.

    A message does not say how many of the 16 bits the sensor fills, and dropping 8 of 10 would
    leave a black picture. The fewest of SENSOR_BITS that hold the brightest sample are taken: a
    fixed factor while any sample is saturated, as lamps, sky and faulty pixels mostly are, where a
    percentile would let the brightness flicker with the scene. A scene without any can jump by a
    factor of 4; drivers that fill all 16 bits, or 8-bit encodings, avoid that for good.
    """
    brightest = int(samples.max())
    bits = next(bits for bits in SENSOR_BITS if brightest < 2 ** bits)
    return (samples >> (bits - 8)).astype(np.uint8)


def _from_colours(samples: np.ndarray, places: tuple[int, int, int]) -> np.ndarray:
    """Return RGB from the channels at `places`."""
    if samples.dtype.itemsize == 2:
        samples = _to_bytes(samples) if samples.shape[2] == 1 else samples >> 8
    elif samples.shape[2] == 3 and places == (0, 1, 2):
        return samples
    rgb = np.empty((*samples.shape[:2], 3), np.uint8)
    for colour, place in enumerate(places):  # contiguous, and faster than one indexed copy
        rgb[:, :, colour] = samples[:, :, place]
    return rgb


def _from_bayer(samples: np.ndarray, pattern: int) -> np.ndarray:
    """Return RGB from a mosaic, bilinear by OpenCV's `pattern`, mirrored at its border."""
    height, width = samples.shape[:2]
    if height < 2 or width < 2:
        raise ImageError(f'a Bayer image needs 2x2 pixels or more, but it is {width}x{height}; '
                         'check the camera driver')
    if samples.dtype.itemsize == 2:
        samples = _to_bytes(samples)
    # OpenCV repeats what is beside the border there; two pixels more keep the pattern.
    mirrored = cv2.copyMakeBorder(samples[:, :, 0], 2, 2, 2, 2, cv2.BORDER_REFLECT_101)
    return np.ascontiguousarray(cv2.cvtColor(mirrored, pattern)[2:-2, 2:-2])


def _from_yuv(samples: np.ndarray, layout: int) -> np.ndarray:
    """Return RGB from YUV (BT.601, luma from 16 to 235) by OpenCV's conversion `layout`."""
    return cv2.cvtColor(np.ascontiguousarray(samples), layout)


class _Layout(NamedTuple):
    """How an encoding's samples lie in memory, and what makes RGB of them."""

    to_rgb: Callable[[np.ndarray, Any], np.ndarray]
    places: Any                       # second argument of `to_rgb`
    channels: int = 1
    sample_bytes: int = 1
    columns: int = 1                  # width must be a multiple of this
    rows: int = 1                     # height as well
    has_chroma_plane: bool = False    # half as many further rows


_RGB, _BGR, _GREY = (0, 1, 2), (2, 1, 0), (0, 0, 0)
# OpenCV's names of patterns begin at their second row and column.
_BAYER = {'rggb': cv2.COLOR_BayerBG2RGB, 'bggr': cv2.COLOR_BayerRG2RGB,
          'gbrg': cv2.COLOR_BayerGR2RGB, 'grbg': cv2.COLOR_BayerGB2RGB}
_LAYOUTS = {
    'rgb8': _Layout(_from_colours, _RGB, 3),
    'bgr8': _Layout(_from_colours, _BGR, 3),
    'rgba8': _Layout(_from_colours, _RGB, 4),
    'bgra8': _Layout(_from_colours, _BGR, 4),
    'mono8': _Layout(_from_colours, _GREY),
    '8UC1': _Layout(_from_colours, _GREY),
    '8UC3': _Layout(_from_colours, _BGR, 3),
    '8UC4': _Layout(_from_colours, _BGR, 4),
    'rgb16': _Layout(_from_colours, _RGB, 3, 2),
    'bgr16': _Layout(_from_colours, _BGR, 3, 2),
    'rgba16': _Layout(_from_colours, _RGB, 4, 2),
    'bgra16': _Layout(_from_colours, _BGR, 4, 2),
    'mono16': _Layout(_from_colours, _GREY, 1, 2),
    '16UC1': _Layout(_from_colours, _GREY, 1, 2),
    **{f'bayer_{cell}{8 * size}': _Layout(_from_bayer, pattern, 1, size)
       for size in (1, 2) for cell, pattern in _BAYER.items()},
    'uyvy': _Layout(_from_yuv, cv2.COLOR_YUV2RGB_UYVY, 2, columns=2),
    'yuv422': _Layout(_from_yuv, cv2.COLOR_YUV2RGB_UYVY, 2, columns=2),
    'yuyv': _Layout(_from_yuv, cv2.COLOR_YUV2RGB_YUY2, 2, columns=2),
    'yuv422_yuy2': _Layout(_from_yuv, cv2.COLOR_YUV2RGB_YUY2, 2, columns=2),
    'nv12': _Layout(_from_yuv, cv2.COLOR_YUV2RGB_NV12, columns=2, rows=2, has_chroma_plane=True),
    'nv21': _Layout(_from_yuv, cv2.COLOR_YUV2RGB_NV21, columns=2, rows=2, has_chroma_plane=True),
}
ENCODINGS = tuple(_LAYOUTS)  # that `decode_image` reads itself
