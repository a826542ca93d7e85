"""Targets: bags and videos on disk."""

import contextlib
import functools
from pathlib import Path
import shutil
import sqlite3

from recording_maker import (
    image_items,
    make_frames,
    Messages,
    PICTURE,
    TOPIC,
    VIDEO,
    write_mcap,
    write_ros1,
    write_ros2,
    write_video,
)

from fuzz.target import file_with, MEGABYTE, scratch, Target
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.recordings.frame_source import open_source

SIZE = 16, 12
MEMORY = 1024 * MEGABYTE   # decoders have threads and buffers of their own


def read_recording(name: str, data: bytes) -> bool:
    """Read a file as a recording, all of its frames."""
    path = file_with(f'recordings/{name}', data)
    with contextlib.suppress(ToolError):
        source = open_source(path)
        stamps = []
        for frame in source.frames():
            assert frame.pixels.ndim == 3 and frame.pixels.shape[2] == 3
            stamps.append(frame.stamp_ns)
        assert stamps == sorted(set(stamps)) and source.rate > 0
        return bool(stamps)
    return False


@functools.cache
def seeds(kind: str) -> tuple[bytes, ...]:
    """Return small recordings of a kind."""
    images, stamps = make_frames(3, SIZE)
    folder = scratch() / 'made' / kind
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return tuple(path.read_bytes() for path in _written(kind, folder, images, stamps))


def _written(kind: str, folder: Path, images: list, stamps: list) -> list[Path]:
    messages = Messages(kind == 'bag')
    items = image_items(messages, images, stamps)
    pictures = [(TOPIC, PICTURE, stamp, messages.picture(image, stamp, 'JPEG'))
                for image, stamp in zip(images, stamps)]
    if kind == 'bag':
        return [write_ros1(folder / 'a.bag', items), write_ros1(folder / 'b.bag', pictures, 'LZ4')]
    if kind == 'db3':
        path, = write_ros2(folder / 'a', pictures[:2], 'SQLITE3').glob('*.db3')
        with contextlib.closing(sqlite3.connect(path)) as connection:   # short enough to damage
            connection.execute('DELETE FROM message_definitions')
            connection.execute('DELETE FROM metadata')
            connection.execute('PRAGMA page_size = 512')
            connection.commit()
            connection.execute('VACUUM')
        return [path]
    if kind == 'mcap':
        from mcap.writer import IndexType
        video = [(TOPIC, VIDEO, stamp, message) for stamp, message in
                 zip(stamps, messages.packets(images, stamps))]
        return [write_mcap(folder / 'a.mcap', items), write_mcap(folder / 'b.mcap', video),
                write_mcap(folder / 'c.mcap', pictures, index_types=IndexType.NONE)]
    return [write_video(folder / f'a.{ending}', images, (0, 100, 250))
            for ending in ('mp4', 'mkv')]


TARGETS = [
    Target(f'recording_{kind}', functools.partial(read_recording, f'a.{kind}'),
           lambda kind=kind: list(seeds(kind)), tokens, MEMORY)
    for kind, tokens in (
        ('mcap', (b'\x89MCAP0\r\n', b'ros2msg', b'cdr', b'zstd', b'lz4', b'MSG: ')),
        ('db3', (b'SQLite format 3\0', b'sensor_msgs/msg/Image', b'MSG: ')),
        ('bag', (b'#ROSBAG V2.0\n', b'op=', b'conn=', b'lz4', b'bz2', b'size=')),
        ('mp4', (b'moov', b'stts', b'elst', b'stsz', b'avcC', b'tkhd', b'\0\0\0\1')))]
