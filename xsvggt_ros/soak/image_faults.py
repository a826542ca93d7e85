"""Faults of the images themselves, raw and compressed."""

from collections.abc import Callable
import struct
from typing import Any
import zlib

import numpy as np
from sensor_msgs.msg import Image

from xsvggt_ros.demo.ros_messages import image_message
from xsvggt_ros.node.messages import byte_array
from xsvggt_ros.soak.camera import compressed_image, Shot
from xsvggt_ros.soak.harness import Harness
from xsvggt_ros.soak.kinds import fault

GROUP = 'images'
REFUSED = 'refuses them and says why; the stream goes on'


def each(change: Callable[[Any], Any], part: str = 'image') -> Callable[[Shot, int], None]:
    """Return an edit that changes every message of a part, in place or by another."""
    def edit(shot: Shot, number: int) -> None:
        shot[part] = [change(message) or message for message in shot[part]]

    return edit


def pixels_of(message: Image) -> np.ndarray:
    """Return the pixels [H, W, 3] of one of the camera's images."""
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)


def refused(harness: Harness, change: Callable[[Any], Any], part: str = 'image') -> None:
    """Send changed messages until diagnostics complain of the input."""
    with harness.camera.playing(each(change, part)):
        harness.await_complaint('Input')


def resized(message: Image, height: int, width: int) -> Image:
    """Return an image of another size, with grey in it."""
    return image_message(message.header, np.full((height, width, 3), 127, np.uint8))


@fault(GROUP, REFUSED)
def another_size(harness: Harness) -> None:
    """Send images of another size."""
    size = harness.rng.choice(((240, 320), (60, 80), (120, 161), (14, 14), (1, 1), (480, 20)))
    refused(harness, lambda message: resized(message, *size))


@fault(GROUP, REFUSED)
def huge_images(harness: Harness) -> None:
    """Send images of 3 megapixels, 160 times as large as the others."""
    with harness.camera.playing(each(lambda message: resized(message, 1500, 2000)), rate=5.0):
        harness.await_complaint('Input')


@fault(GROUP, REFUSED)
def sizes_that_take_turns(harness: Harness) -> None:
    """Send every second image in another size."""
    harness.play(lambda shot, number: each(lambda message: resized(message, 60, 80))(shot, number)
                 if number % 2 else None, 20)


@fault(GROUP, 'processes every image')
def encodings_that_change(harness: Harness) -> None:
    """Send every image in another encoding."""
    harness.play(lambda shot, number: each(
        lambda message: encoded(message, ENCODINGS[number % len(ENCODINGS)]))(shot, number), 24)


ENCODINGS = ('rgb8', 'bgr8', 'mono8', 'rgba8', 'bgra8', 'mono16', 'rgb16', 'bayer_rggb8',
             'yuv422_yuy2', 'nv12')


def encoded(message: Image, encoding: str) -> Image:
    """Return an image of the same size in another encoding."""
    height, width = message.height, message.width
    per_pixel = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono16': 2, 'rgb16': 6,
                 'yuv422_yuy2': 2}.get(encoding, 1)
    rows = height * 3 // 2 if encoding == 'nv12' else height
    data = np.resize(pixels_of(message), (rows, width * per_pixel))
    changed = Image(header=message.header, height=height, width=width, encoding=encoding)
    changed.step = width * per_pixel
    changed.data = byte_array(data)
    return changed


@fault(GROUP, REFUSED)
def an_unknown_encoding(harness: Harness) -> None:
    """Send images in an encoding that nobody knows."""
    name = harness.rng.choice(('jpeg', 'h264', '', 'rgb8 ', '32FC1', 'x' * 10_000))
    refused(harness, lambda message: setattr(message, 'encoding', name))


@fault(GROUP, 'says so; the stream goes on, or begins anew', new_stream=True)
def frame_ids_that_change(harness: Harness) -> None:
    """Give every image another frame_id."""
    def rename(shot: Shot, number: int) -> None:
        for name in ('image', 'info'):
            for message in shot[name]:
                message.header.frame_id = f'camera_{number}'

    with harness.camera.playing(rename):
        harness.await_complaint('Input', 'frame_id', 'frame id')


@fault(GROUP, REFUSED)
def data_that_is_cut_off(harness: Harness) -> None:
    """Send images that lack some of their data."""
    share = harness.rng.choice((0.0, 0.5, 0.999))
    refused(harness, lambda message: setattr(
        message, 'data', message.data[:int(share * len(message.data))]))


@fault(GROUP, 'processes every image')
def data_that_is_too_long(harness: Harness) -> None:
    """Send images with a hundred times the data that they need."""
    harness.play(each(lambda message: setattr(message, 'data', message.data * 100)), 10)


@fault(GROUP, 'processes every image')
def padded_rows(harness: Harness) -> None:
    """Send images whose rows are padded."""
    def pad(message: Image) -> None:
        rows = np.pad(pixels_of(message).reshape(message.height, -1), ((0, 0), (0, 37)))
        message.step, message.data = rows.shape[1], byte_array(rows)

    harness.play(each(pad), 10)


@fault(GROUP, REFUSED)
def absurd_sizes(harness: Harness) -> None:
    """Send images that claim to be as large as a message can say."""
    largest = 2 ** 32 - 1
    width, height, step = harness.rng.choice((
        (largest, largest, largest), (largest, 1, 480), (160, largest, 480), (160, 120, largest),
        (2 ** 31, 2 ** 31, 0), (65536, 65536, 196608)))

    def claim(message: Image) -> None:
        message.width, message.height, message.step = width, height, step

    refused(harness, claim)


@fault(GROUP, REFUSED)
def empty_images(harness: Harness) -> None:
    """Send images without rows or columns."""
    name = harness.rng.choice(('width', 'height'))
    refused(harness, lambda message: setattr(message, name, 0))


@fault(GROUP, REFUSED)
def a_wrong_step(harness: Harness) -> None:
    """Send images whose rows are shorter than their pixels."""
    step = harness.rng.choice((0, 1, 479))
    refused(harness, lambda message: setattr(message, 'step', step))


@fault(GROUP, 'goes on; nothing that is published is not finite', tries=3)
def black_white_and_noise(harness: Harness) -> None:
    """Cover the lens, blind it, or send noise."""
    what = harness.rng.choice(('black', 'white', 'noise'))
    rng = np.random.default_rng(harness.rng.randrange(2 ** 32))

    def instead(message: Image) -> None:
        shape = message.height, message.width, 3
        pixels = (rng.integers(0, 256, shape, np.uint8) if what == 'noise'
                  else np.full(shape, 0 if what == 'black' else 255, np.uint8))
        message.data = byte_array(pixels)

    harness.play(each(instead), 20)


# Compressed --------------------------------------------------------------------------------------

@fault(GROUP, REFUSED, setup='compressed')
def pictures_that_are_cut_off(harness: Harness) -> None:
    """Send JPEGs that lack their end."""
    share = harness.rng.choice((0.0, 0.1, 0.5))
    refused(harness, lambda message: setattr(
        message, 'data', message.data[:int(share * len(message.data))]), 'compressed')


@fault(GROUP, REFUSED, setup='compressed')
def pictures_that_are_noise(harness: Harness) -> None:
    """Send random bytes as JPEGs."""
    rng = np.random.default_rng(harness.rng.randrange(2 ** 32))
    refused(harness, lambda message: setattr(
        message, 'data', byte_array(rng.integers(0, 256, 5000, np.uint8))), 'compressed')


@fault(GROUP, 'refuses or shows them; the stream goes on', setup='compressed')
def pictures_with_flipped_bits(harness: Harness) -> None:
    """Send JPEGs of which some bytes are others."""
    def flip(message: Any) -> None:
        for _ in range(10):
            message.data[harness.rng.randrange(len(message.data))] = harness.rng.randrange(256)

    harness.play(each(flip, 'compressed'), 20)


@fault(GROUP, REFUSED, setup='compressed')
def pictures_that_claim_to_be_huge(harness: Harness) -> None:
    """Send PNGs of a few bytes whose header says 60,000 x 60,000."""
    refused(harness, lambda message: setattr(message, 'data', byte_array(
        np.frombuffer(_huge_png(60_000), np.uint8))), 'compressed')


@fault(GROUP, 'processes every image', setup='compressed')
def formats_that_lie(harness: Harness) -> None:
    """Send PNGs that say they are JPEGs, and the other way round."""
    def lie(message: Any) -> Any:
        other = compressed_image(message.header, np.zeros((120, 160, 3), np.uint8), 'PNG')
        other.format = harness.rng.choice(('rgb8; jpeg compressed bgr8', 'jpeg', 'webp', ''))
        return other

    harness.play(each(lie, 'compressed'), 10)


def _huge_png(side: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (struct.pack('>I', len(content)) + kind + content
                + struct.pack('>I', zlib.crc32(kind + content)))

    return (b'\x89PNG\r\n\x1a\n'
            + chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0))
            + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b''))
