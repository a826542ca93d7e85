"""
From raw and compressed image messages to pixels, for the node and for recordings. No ROS.

Messages are whatever has the fields of sensor_msgs/Image and sensor_msgs/CompressedImage.
"""

from collections.abc import Callable
import io
from typing import Any, NamedTuple, Protocol

import numpy as np

from xsvggt_ros.images.image_limit import check_pixels

SENSOR_BITS = (10, 12, 14, 16)  # that a camera may send in 16-bit samples

# BT.601, luma 16..235 and chroma 16..240, as V4L2's default for Y'CbCr (videodev2.h,
# V4L2_QUANTIZATION_DEFAULT) and with the numbers of OpenCV's cvtColor, which cv_bridge calls
# (imgproc/src/color_yuv.simd.hpp, ITUR_BT_601_*, there times 2^20):
#     red   = 1.164 (Y - 16)                    + 1.596 (V - 128)
#     green = 1.164 (Y - 16) - 0.391 (U - 128) - 0.813 (V - 128)
#     blue  = 1.164 (Y - 16) + 2.018 (U - 128)
# Y below 16 counts as 16. The tables hold 32nds, so that every sum fits into 16 bits; the half in
# that of Y makes the shift at the end round.
_FRACTION_BITS = 5
_Y = np.maximum(np.arange(-16, 240), 0) * 1.164 + 0.5
_LIGHT, _RED_OF_V, _GREEN_OF_U, _GREEN_OF_V, _BLUE_OF_U = (
    np.round(table * 2 ** _FRACTION_BITS).astype(np.int16)
    for table in (_Y, *(np.arange(-128, 128) * part for part in (1.596, -0.391, -0.813, 2.018))))

# Bilinear Bayer filter: at a pixel this many rows and columns from a red one (modulo 2), the
# (row, column) steps to the samples whose mean is red, green and blue.
_CENTRE = ((0, 0),)
_ROW = ((0, -1), (0, 1))
_COLUMN = ((-1, 0), (1, 0))
_CROSS = _ROW + _COLUMN
_DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
_NEIGHBOURS = {
    (0, 0): (_CENTRE, _CROSS, _DIAGONAL),
    (0, 1): (_ROW, _CENTRE, _COLUMN),
    (1, 0): (_COLUMN, _CENTRE, _ROW),
    (1, 1): (_DIAGONAL, _CROSS, _CENTRE),
}


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


def _from_bayer(samples: np.ndarray, red: tuple[int, int]) -> np.ndarray:
    """Return RGB from a mosaic with a red pixel at (row, column) `red`, mirrored at its border."""
    height, width = samples.shape[:2]
    if height < 2 or width < 2:
        raise ImageError(f'a Bayer image needs 2x2 pixels or more, but it is {width}x{height}; '
                         'check the camera driver')
    if samples.dtype.itemsize == 2:
        samples = _to_bytes(samples)
    padded = np.pad(samples[:, :, 0], 1, mode='reflect').astype(np.uint16)
    rgb = np.empty((height, width, 3), np.uint8)
    for row, column in np.ndindex(2, 2):
        neighbours = _NEIGHBOURS[(row - red[0]) % 2, (column - red[1]) % 2]
        for colour, steps in enumerate(neighbours):
            planes = [padded[1 + row + down:1 + height + down:2,
                             1 + column + right:1 + width + right:2] for down, right in steps]
            total = sum(planes[1:], planes[0])
            rgb[row::2, column::2, colour] = (total + len(planes) // 2) // len(planes)
    return rgb


def _from_yuv_422(samples: np.ndarray, luma: int) -> np.ndarray:
    """Return RGB from pixels of two bytes, of which number `luma` is Y, the other U or V."""
    chroma = samples[:, :, 1 - luma]
    return _from_yuv(samples[:, :, luma], chroma[:, 0::2], chroma[:, 1::2])


def _from_yuv_420(samples: np.ndarray, blue: int) -> np.ndarray:
    """Return RGB from lines of Y, then half as many of U and V in turn, U at number `blue`."""
    height = samples.shape[0] * 2 // 3
    chroma = samples[height:, :, 0]
    return _from_yuv(samples[:height, :, 0], chroma[:, blue::2], chroma[:, 1 - blue::2])


def _from_yuv(luma: np.ndarray, blue: np.ndarray, red: np.ndarray) -> np.ndarray:
    """Return RGB; the chroma planes may have fewer rows and columns than `luma`."""
    light = _LIGHT[luma]
    tints = _RED_OF_V[red], _GREEN_OF_U[blue] + _GREEN_OF_V[red], _BLUE_OF_U[blue]
    down, right = luma.shape[0] // blue.shape[0], luma.shape[1] // blue.shape[1]
    rgb = np.empty((*luma.shape, 3), np.uint8)
    for row, column in np.ndindex(down, right):
        for colour, tint in enumerate(tints):
            value = (light[row::down, column::right] + tint) >> _FRACTION_BITS
            rgb[row::down, column::right, colour] = value.clip(0, 255)
    return rgb


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
    **{f'bayer_{cell}{8 * size}': _Layout(_from_bayer, divmod(cell.index('r'), 2), 1, size)
       for size in (1, 2) for cell in ('rggb', 'bggr', 'gbrg', 'grbg')},
    'uyvy': _Layout(_from_yuv_422, 1, 2, columns=2),
    'yuv422': _Layout(_from_yuv_422, 1, 2, columns=2),
    'yuyv': _Layout(_from_yuv_422, 0, 2, columns=2),
    'yuv422_yuy2': _Layout(_from_yuv_422, 0, 2, columns=2),
    'nv12': _Layout(_from_yuv_420, 0, columns=2, rows=2, has_chroma_plane=True),
    'nv21': _Layout(_from_yuv_420, 1, columns=2, rows=2, has_chroma_plane=True),
}
ENCODINGS = tuple(_LAYOUTS)  # that `decode_image` reads itself
