"""The images of a bag's topic: which topic it is, what its messages hold, and in which order."""

from collections.abc import Callable, Iterator
import heapq
from types import SimpleNamespace
from typing import Any

import numpy as np

from xsvggt_ros.geometry.frame_names import frame_name
from xsvggt_ros.images.image_codec import decode_compressed, decode_image
from xsvggt_ros.recordings.inputs.bag import Bag
from xsvggt_ros.recordings.inputs.bag_files import BagMessage, BagTopic
from xsvggt_ros.recordings.inputs.bag_types import BagError, short_words
from xsvggt_ros.recordings.inputs.skipped import Skipped
from xsvggt_ros.recordings.inputs.video_decoder import PacketDecoder

RAW = ('sensor_msgs/msg/Image', 'foxglove_msgs/msg/RawImage')
COMPRESSED = ('sensor_msgs/msg/CompressedImage', 'foxglove_msgs/msg/CompressedImage')
VIDEO = ('foxglove_msgs/msg/CompressedVideo', 'ffmpeg_image_transport_msgs/msg/FFMPEGPacket')
TRANSPORTS = ('compressed', 'ffmpeg', 'theora', 'compressedDepth', 'foxglove', 'zstd')

# Messages that wait until earlier ones have come: log times and stamps differ by the transport.
MOST_WAITING = 64
MOST_WAITING_BYTES = 64 * 2 ** 20


def stamp_of(message: Any, log_ns: int) -> int:
    """Return the time of a message in ns by its header; when it was recorded if that is empty."""
    header = getattr(message, 'header', None)
    stamp = header.stamp if header is not None else message.timestamp
    stamp_ns = int(stamp.sec) * 10 ** 9 + int(stamp.nanosec)
    return stamp_ns or log_ns


def frame_of(message: Any) -> str:
    """Return the frame_id of a message; empty if it has none."""
    holder = getattr(message, 'header', message)
    return frame_name(str(getattr(holder, 'frame_id', '')))


# The topic ---------------------------------------------------------------------------------------

def choose_topic(bag: Bag, wanted: str | None) -> BagTopic:
    """
    Return the topic of images to read; raises BagError that lists those that there are.

    wanted: its name. Without it the only one is taken: one that is sent raw and compressed counts
    once, and depth images do not count.
    """
    images = {name: topic for name, topic in bag.topics.items()
              if topic.type in (*RAW, *COMPRESSED, *VIDEO)}
    if wanted is not None:
        topic = bag.topics.get(wanted) or bag.topics.get('/' + wanted.strip('/'))
        if topic is None:
            raise BagError(f'--input-topic {wanted}: {bag.path} has no such topic; '
                           f'{_list(bag, images)}')
        if topic.name not in images:
            raise BagError(f'--input-topic {wanted}: its messages are {topic.type}, no images; '
                           f'{_list(bag, images)}')
        if topic.fault:
            raise BagError(f'--input-topic {wanted}: {topic.fault}')
        return topic
    usable = [topic for topic in images.values() if topic.count and not topic.fault]
    colour = [topic for topic in usable if not is_depth(bag, topic)]
    cameras: dict[str, BagTopic] = {}
    for topic in sorted(colour, key=lambda topic: (topic.type not in RAW, topic.name)):
        cameras.setdefault(base_topic(topic.name), topic)
    if len(cameras) == 1:
        return next(iter(cameras.values()))
    if cameras:
        raise BagError(f'{bag.path} has {len(cameras)} cameras: choose one with --input-topic; '
                       f'{_list(bag, images)}')
    raise BagError(f'{bag.path} has no colour or grey images that can be read; '
                   f'{_list(bag, images)}')


def base_topic(name: str) -> str:
    """Return the raw image's topic of one that a transport of images added."""
    head, _, tail = name.rpartition('/')
    return head if tail in TRANSPORTS and head else name


def is_depth(bag: Bag, topic: BagTopic) -> bool:
    """Return whether a topic's images are depth, by its name and its first message."""
    if 'compressedDepth' in topic.name:
        return True
    message = bag.first(topic.name) if topic.type in (*RAW, *COMPRESSED) else None
    encoding = getattr(message, 'encoding', '')
    return (encoding.startswith('32FC') or 'compressedDepth' in getattr(message, 'format', '')
            or encoding in ('16UC1', 'mono16') and 'depth' in topic.name)


def _list(bag: Bag, images: dict[str, BagTopic]) -> str:
    """Return the topics of images with their counts and rates, or what else there is."""
    if not images:
        others = ', '.join(f'{topic.name} ({topic.type})' for topic in
                           list(bag.topics.values())[:8])
        return '; '.join([f'its topics: {others or "none"}', *bag.faults])
    seconds = (bag.span[1] - bag.span[0]) / 1e9
    lines = []
    for topic in images.values():
        rate = f', {(topic.count - 1) / seconds:.1f} Hz' if seconds > 0 and topic.count > 1 else ''
        fault = f': {topic.fault}' if topic.fault else ''
        lines.append(f'  {topic.name}  ({topic.type}, {topic.count} messages{rate}){fault}')
    return 'its images:\n' + '\n'.join(lines)


# The images --------------------------------------------------------------------------------------

def read_images(bag: Bag, topic: BagTopic, skipped: Skipped) -> Iterator[tuple[int, np.ndarray]]:
    """
    Yield stamp in ns and uint8 [H, W, 3] RGB of a topic's images, in the order of their stamps.

    Images that cannot be decoded, come later than others with later stamps by more than what can
    wait for them, or have the stamp of one before them, are counted in `skipped`.
    """
    decoded = _decoded(bag.messages(topic.name), skipped)
    pictures = (_video(decoded, skipped) if topic.type in VIDEO
                else _pictures(_in_order(decoded, skipped), skipped))
    newest: int | None = None
    for stamp, pixels in pictures:
        if newest is not None and stamp <= newest:
            skipped.add('the stamp of an image before it' if stamp == newest
                        else 'an earlier stamp than images before it')
            continue
        newest = stamp
        yield stamp, pixels


def _decoded(
    messages: Iterator[BagMessage], skipped: Skipped,
) -> Iterator[tuple[int, Any, int]]:
    """Yield stamp, message and size in bytes."""
    for message in messages:
        try:
            content = message.decode(message.data)
            yield stamp_of(content, message.log_ns), content, len(message.data)
        except BagError as error:
            skipped.add(str(error))
        except Exception as error:   # of the library, for bytes that nobody thought of
            skipped.add(f'a message that is damaged: {short_words(error)}')


def _in_order(
    messages: Iterator[tuple[int, Any, int]], skipped: Skipped,
) -> Iterator[tuple[int, Any]]:
    """Yield stamps and messages by their stamps, as far as what waits may be remembered."""
    waiting: list[tuple[int, int, Any, int]] = []
    total = 0
    newest: int | None = None
    for number, (stamp, message, size) in enumerate(messages):
        if newest is not None and stamp < newest:
            skipped.add('an earlier stamp than images before it')
            continue
        heapq.heappush(waiting, (stamp, number, message, size))
        total += size
        while len(waiting) > MOST_WAITING or (total > MOST_WAITING_BYTES and len(waiting) > 1):
            newest, _, oldest, size = heapq.heappop(waiting)
            total -= size
            yield newest, oldest
    while waiting:
        stamp, _, oldest, _ = heapq.heappop(waiting)
        yield stamp, oldest


def _pictures(
    messages: Iterator[tuple[int, Any]], skipped: Skipped,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield stamps and pixels of messages that hold one picture each."""
    for stamp, message in messages:
        try:
            yield stamp, _pixels(message)
        except ValueError as error:   # ImageError
            skipped.add(str(error))


def _pixels(message: Any) -> np.ndarray:
    """Return the pixels; raises ImageError."""
    if hasattr(message, 'encoding'):
        if not hasattr(message, 'is_bigendian'):   # foxglove's
            message = SimpleNamespace(
                height=message.height, width=message.width, encoding=message.encoding,
                is_bigendian=0, step=message.step, data=message.data)
        return decode_image(message)
    data: Any = message.data
    return decode_compressed(SimpleNamespace(format=message.format, data=bytes(data)))


def _video(
    messages: Iterator[tuple[int, Any, int]], skipped: Skipped,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield stamps and pixels of the packets of a video; the decoder is emptied at the end."""
    decoder: PacketDecoder | None = None
    encoding = ''
    for stamp, message, _ in messages:
        named = getattr(message, 'encoding', None) or message.format
        if named != encoding:
            if decoder is not None:
                yield from decoder.flush()
            try:
                decoder, encoding = PacketDecoder(named), named
            except ValueError as error:
                raise BagError(str(error)) from error
        assert decoder is not None
        yield from _guarded(decoder.decode, message.data, stamp, skipped)
    if decoder is not None:
        yield from decoder.flush()


def _guarded(
    decode: Callable[[bytes, int], Iterator[tuple[int, np.ndarray]]], data: Any, stamp: int,
    skipped: Skipped,
) -> Iterator[tuple[int, np.ndarray]]:
    try:
        yield from decode(bytes(data), stamp)
    except ValueError as error:
        skipped.add(str(error))
