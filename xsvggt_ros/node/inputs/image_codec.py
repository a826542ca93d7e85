"""From sensor_msgs/Image and CompressedImage to pixels; cv_bridge only for rare encodings."""

from collections.abc import Sequence

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from xsvggt_ros.images import image_codec
from xsvggt_ros.images.image_codec import decode_compressed, ENCODINGS, ImageError
from xsvggt_ros.node.inputs.foreign_images import BridgeError, decode_foreign


def decode_set(
    images: Sequence[tuple[str, Image | CompressedImage]], is_rig: bool,
) -> list[np.ndarray]:
    """
    Return the pixels of images that belong together, each given with its topic.

    Raises ImageError unless all can be read and are of one size; of a rig it names the topic.
    """
    decoded: list[np.ndarray] = []
    for topic, message in images:
        try:
            pixels = (decode_compressed(message) if isinstance(message, CompressedImage)
                      else decode_image(message))
        except ImageError as error:
            raise ImageError(f'{topic}: {error}' if is_rig else str(error)) from error
        if decoded and pixels.shape != decoded[0].shape:
            sizes = [f'{shape[1]}x{shape[0]}' for shape in (pixels.shape, decoded[0].shape)]
            raise ImageError(
                f'{topic} sends {sizes[0]}, but {images[0][0]} {sizes[1]}: all cameras of a '
                'rig must have one size; resize in the driver, or leave it out of '
                'image_topics')
        decoded.append(pixels)
    return decoded


def describe_image(message: Image | CompressedImage, pixels: np.ndarray) -> str:
    """Return an image's encoding and size in words."""
    kind = getattr(message, 'encoding', None) or message.format
    return f'{kind} {pixels.shape[1]}x{pixels.shape[0]}'


def decode_image(message: Image) -> np.ndarray:
    """
    Return the pixels as uint8 [height, width, 3] RGB; a view of the message where possible.

    As `images.image_codec.decode_image`, and cv_bridge reads what that one does not know.
    """
    return image_codec.decode_image(message, _ask_bridge)


def _ask_bridge(message: Image) -> np.ndarray:
    """Return what cv_bridge makes of it; raise ImageError."""
    try:
        return decode_foreign(message)
    except BridgeError as error:
        raise ImageError(
            f"encoding '{message.encoding}' is not supported, and {error}; let the camera "
            'driver send one of ' + ', '.join(ENCODINGS)) from error
