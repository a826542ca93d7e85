"""From packets of a video to upright RGB pictures: colour matrix, range, rotation."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from xsvggt_ros.console.optional import need
from xsvggt_ros.images.image_limit import check_pixels

# What messages call an encoding, to FFmpeg's decoders; names of encoders come as well.
_DECODERS = {'h264': 'h264', 'avc': 'h264', 'h265': 'hevc', 'hevc': 'hevc', 'av1': 'av1',
             'vp9': 'vp9', 'vp8': 'vp8', 'mjpeg': 'mjpeg', 'mpeg4': 'mpeg4', 'ffv1': 'ffv1',
             'x264': 'h264', 'x265': 'hevc'}
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}   # AVColorSpace to swscale's SWS_CS_*
_BT601 = 5      # swscale's default, which the ffmpeg command takes too where nothing is said
_FULL = 2       # AVColorRange and PyAV's ColorRange: JPEG's; 1: video's


def need_av(purpose: str) -> Any:
    """Return PyAV; raises ToolError that says how to install it."""
    return need('av', purpose, 'av', 'recordings')


def rgb_of(frame: Any) -> np.ndarray:
    """
    Return a decoded frame of PyAV as uint8 [H, W, 3] RGB, turned upright.

    Y'CbCr becomes RGB by the frame's own matrix and range, which PyAV's default does not heed.
    """
    check_pixels(frame.width, frame.height)
    if frame.format.is_rgb or frame.format.name.startswith(('gray', 'mono', 'pal')):
        pixels = frame.to_ndarray(format='rgb24')
    else:
        matrix = _MATRICES.get(int(frame.colorspace), _BT601)
        full = int(frame.color_range) == _FULL or frame.format.name.startswith('yuvj')
        # PyAV looks at all this only if the two matrices differ; RGB's is not looked at then.
        pixels = frame.reformat(
            format='rgb24', src_colorspace=matrix, dst_colorspace=1 if matrix != 1 else _BT601,
            src_color_range=_FULL if full else 1, dst_color_range=_FULL).to_ndarray()
    turns = round(frame.rotation / 90) % 4   # counter-clockwise, of how it is to be shown
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def decoder_name(encoding: str) -> str:
    """
    Return FFmpeg's decoder for what a message calls its encoding; raises ValueError.

    Such as 'h264', 'hevc', 'libx264', 'h264_nvenc' or 'h264;yuv420p;bgr8;bgr8'.
    """
    name = encoding.split(';')[0].strip().lower().removeprefix('lib')
    for start, decoder in _DECODERS.items():
        if name.split('_')[0].split('-')[0] == start:
            return decoder
    raise ValueError(f"video of encoding '{encoding}' is not read; record h264 or hevc")


class PacketDecoder:
    """Decodes the packets of a video that come one by one, each with the stamp of its picture."""

    def __init__(self, encoding: str) -> None:
        """Begin before the first packet; raises ValueError for an encoding that is not read."""
        self._av = need_av('video in a bag')
        self._codec = self._av.CodecContext.create(decoder_name(encoding), 'r')
        self._codec.thread_type = 'SLICE'   # no packet waits for others
        self._stamps: dict[int, int] = {}
        self._count = 0

    def decode(self, data: bytes, stamp_ns: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the pictures that are complete with this packet; raises ValueError."""
        packet = self._av.Packet(bytes(data))
        packet.pts = packet.dts = self._count
        self._stamps[self._count] = stamp_ns
        self._count += 1
        try:
            yield from self._stamped(self._codec.decode(packet))
        except self._av.error.FFmpegError as error:
            raise ValueError(
                f'a packet cannot be decoded ({error.strerror}); pictures begin with the first '
                'key frame') from error

    def flush(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the pictures that the decoder still holds, up to one that is damaged."""
        try:
            yield from self._stamped(self._codec.decode(None))
        except (self._av.error.FFmpegError, ValueError):
            return

    def _stamped(self, frames: Any) -> Iterator[tuple[int, np.ndarray]]:
        for frame in frames:
            stamp = self._stamps.pop(frame.pts, None)
            if stamp is not None and not frame.is_corrupt:
                yield stamp, rgb_of(frame)
        for key in [key for key in self._stamps if key < self._count - 100]:
            del self._stamps[key]   # of packets that never became a picture
