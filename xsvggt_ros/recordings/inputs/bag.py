"""A recording of any number of files as one: its topics, and their messages in order of time."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
import heapq
from pathlib import Path, PurePosixPath
import re
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from xsvggt_ros.console.optional import need
from xsvggt_ros.recordings.image_folder import SUFFIXES as IMAGES
from xsvggt_ros.recordings.inputs.bag_files import (
    bag_kind,
    BagFile,
    BagMessage,
    BagTopic,
    open_bag_file,
)
from xsvggt_ros.recordings.inputs.bag_types import BagError, refusing, short_words

METADATA = 'metadata.yaml'
SUFFIXES = ('.mcap', '.db3', '.bag')
_PACKED = '.zstd'
_PART = re.compile(r'(.*?)_?(\d+)(\.\w+)', re.ASCII)
_DATE = re.compile(r'_\d{4}(-\d{2}){5}', re.ASCII)
_MOST_METADATA = 2 ** 24   # bytes
_MOST_UNPACKED = 2 ** 30   # bytes of a message
_TRIED = 10                # messages that are tried for one that can be decoded


@dataclass
class _Layout:
    """Which files a recording has, and whether each message is packed by itself."""

    files: list[Path]
    packed_messages: bool = False
    missing: list[str] = field(default_factory=list)


class Bag:
    """
    A recording: one file, or a folder of those that it was split into.

    Files may overlap in time and are read side by side, merged by log time. Files or messages
    that rosbag2 packed with zstd are unpacked, whole files into a temporary folder.
    """

    def __init__(self, path: Path) -> None:
        """Open a file or folder; raises BagError."""
        self.path = path
        layout = _layout(path)
        self._packed_messages = layout.packed_messages
        self._temporary: TemporaryDirectory | None = None
        self.notes = [f'{name} is missing: {path} is read without it' for name in layout.missing]
        self.files: list[BagFile] = [open_bag_file(self._unpacked(file)) for file in layout.files]
        self.topics = self._join_topics()
        self.unread: dict[str, str] = {}   # why `first` found nothing, by topics
        spans = [file.span for file in self.files if any(file.span)]
        self.span = ((min(start for start, _ in spans), max(end for _, end in spans)) if spans
                     else (0, 0))

    @property
    def faults(self) -> list[str]:
        """Return what is known by now to be wrong with the files."""
        return [*self.notes,
                *(f'{file.path.name}: {file.fault}' for file in self.files if file.fault)]

    def messages(self, topic: str) -> Iterator[BagMessage]:
        """Yield the messages of a topic by log time, as far as each file is in that order."""
        for message in heapq.merge(*(file.messages(topic) for file in self.files),
                                   key=lambda message: message.log_ns):
            expected = self.topics[topic].type
            if message.type != expected:
                message = replace(message, decode=refusing(
                    f'a message of type {message.type} on a topic of {expected}'))
            yield _packed(message) if self._packed_messages else message

    def first(self, topic: str) -> Any:
        """Return the first message of a topic that can be decoded, None if there is none."""
        with suppress(BagError):   # who needs this topic's messages is told then
            for number, message in enumerate(self.messages(topic)):
                try:
                    return message.decode(message.data)
                except Exception as error:   # of the library, for bytes that nobody thought of
                    self.unread.setdefault(topic, short_words(error))
                if number == _TRIED:
                    break
        return None

    def _join_topics(self) -> dict[str, BagTopic]:
        topics: dict[str, BagTopic] = {}
        for file in self.files:
            for name, topic in file.topics.items():
                joined = topics.setdefault(name, BagTopic(name, topic.type, 0, topic.fault))
                joined.count += topic.count
        return topics

    def _unpacked(self, path: Path) -> Path:
        """Return a file that is not packed; raises BagError."""
        if path.suffix != _PACKED:
            return path
        zstandard = need('zstandard', f'{path.name}, which is packed,', 'zstandard', 'recordings')
        if self._temporary is None:
            self._temporary = TemporaryDirectory(prefix='xsvggt_bag_')
        target = Path(self._temporary.name) / path.stem
        try:
            with open(path, 'rb') as source, open(target, 'wb') as file:
                zstandard.ZstdDecompressor().copy_stream(source, file)
        except (OSError, zstandard.ZstdError) as error:
            raise BagError(f'{path}: cannot be unpacked into {target.parent}: {error}') from error
        return target


def is_bag(path: Path) -> bool:
    """
    Return whether a path is a recording by its name, its first bytes or what is in it.

    A folder of images stays one, whatever lies beside them, unless rosbag2 made it.
    """
    if path.is_dir():
        return (path / METADATA).is_file() or bool(_files_in(path)) and not any(
            entry.suffix.lower() in IMAGES for entry in path.iterdir())
    return path.name.removesuffix(_PACKED).endswith(SUFFIXES) or bool(bag_kind(path))


def is_one_bag(folder: Path) -> bool:
    """Return whether a folder is one recording: rosbag2's, a single file or the parts of one."""
    return is_bag(folder) and ((folder / METADATA).is_file() or _are_parts(_files_in(folder)))


def _are_parts(files: list[Path]) -> bool:
    """Return whether files are what one recording was split into, by their names: NAME_0, ..."""
    if len(files) < 2:
        return True
    # rosbag of ROS 1 puts the time of each part before its number.
    parts = [_PART.fullmatch(_DATE.sub('', file.name.removesuffix(_PACKED))) for file in files]
    return all(parts) and len({(part[1], part[3]) for part in parts if part}) == 1


def _layout(path: Path) -> _Layout:
    """Return the files of a recording; raises BagError."""
    if not path.exists():
        raise BagError(f'{path}: no such file or folder')
    if path.is_file():
        beside = path.parent / METADATA
        packed = beside.is_file() and path.name in _named(beside) and _packs_messages(beside)
        return _Layout([path], packed)
    metadata = path / METADATA
    if not metadata.is_file():
        files = _files_in(path)
        if not files:
            raise BagError(f'{path}: no recording in it ({", ".join(SUFFIXES)})')
        if not _are_parts(files):
            raise BagError(f'{path}: has {len(files)} recordings, such as {files[0].name}: give '
                           'one of them, or all to xsvggt batch')
        return _Layout(files)
    names = _named(metadata) or [file.name for file in _files_in(path)]
    files = [path / name for name in names]
    there = [file for file in files if file.is_file()]
    if not there:
        raise BagError(f'{path}: none of the files is there that {METADATA} names: '
                       f'{", ".join(names[:5])}')
    missing = [file.name for file in files if not file.is_file()]
    return _Layout(there, _packs_messages(metadata), missing)


def _files_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file()
                  and file.name.removesuffix(_PACKED).endswith(SUFFIXES))


def _information(metadata: Path) -> dict[str, Any]:
    """Return what rosbag2 wrote about a recording; empty if that is damaged."""
    try:
        if metadata.stat().st_size > _MOST_METADATA:
            return {}
        loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
        content = yaml.load(metadata.read_text('utf-8'), loader)  # noqa: S506 both are safe
        return dict(content['rosbag2_bagfile_information'])
    except (OSError, ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError):
        return {}


def _named(metadata: Path) -> list[str]:
    """Return the names of a recording's files, without folders."""
    names = _information(metadata).get('relative_file_paths') or []
    return [PurePosixPath(str(name)).name for name in names]


def _packs_messages(metadata: Path) -> bool:
    return str(_information(metadata).get('compression_mode', '')).lower() == 'message'


def _packed(message: BagMessage) -> BagMessage:
    """Return a message that is unpacked when it is decoded."""
    return replace(message, decode=lambda data: message.decode(_unpack(data)))


def _unpack(data: bytes) -> bytes:
    """Return what rosbag2 packed into a message; raises ValueError."""
    zstandard = need('zstandard', 'a recording with packed messages', 'zstandard', 'recordings')
    pieces, size = [], 0
    try:
        for piece in zstandard.ZstdDecompressor().read_to_iter(data):
            pieces.append(piece)
            size += len(piece)
            if size > _MOST_UNPACKED:
                raise ValueError(f'a message has more than {_MOST_UNPACKED} bytes')
    except zstandard.ZstdError as error:
        raise ValueError(f'a message cannot be unpacked: {error}') from error
    return b''.join(pieces)
