"""The files of a recording: MCAP, SQLite and ROS 1 bags, read message by message. No ROS."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
import os
from pathlib import Path
import sqlite3
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from xsvggt_ros.console.optional import need
from xsvggt_ros.recordings.inputs.bag_types import (
    BagError,
    MessageTypes,
    need_rosbags,
    normal_type,
    short_words,
)

MCAP_MAGIC = b'\x89MCAP0\r\n'
_KINDS = {'ros2msg': 'msg', 'ros1msg': 'msg', 'ros2idl': 'idl', 'omgidl': 'idl', '': 'msg'}


@dataclass
class BagTopic:
    """A topic of a file; count: of its messages; fault: why it cannot be read, or ''."""

    name: str
    type: str
    count: int = 0
    fault: str = ''


@dataclass(frozen=True)
class BagMessage:
    """The bytes of one message, when it was recorded, its type, what makes an object of them."""

    log_ns: int
    type: str
    data: bytes
    decode: Callable[[bytes], Any]


class BagFile(Protocol):
    """One file of a recording."""

    path: Path
    topics: dict[str, BagTopic]
    span: tuple[int, int]   # log times of the first and the last message, ns
    fault: str              # why only a part can be read, or ''

    def messages(self, topic: str) -> Iterator[BagMessage]:
        """Yield the messages of a topic in the order of their log times, if the file has it."""


Record = TypeVar('Record')


def guarded(file: BagFile, records: Iterator[Record]) -> Iterator[Record]:
    """Yield what a library reads of a file, up to what it raises, which is the file's fault."""
    try:
        yield from records
    except BagError:
        raise
    except Exception as error:   # of the library, of lz4, zstd and SQLite, for damaged bytes
        file.fault = file.fault or (
            f'it is damaged, and is read up to there ({short_words(error)})')


# MCAP --------------------------------------------------------------------------------------------

class McapFile:
    """
    An MCAP, whoever wrote it; channels that are not of ROS are left aside.

    One without an index, or cut off because the recorder had no time to end it, is read from its
    beginning, as far as it goes, in the order in which it was written.
    """

    def __init__(self, path: Path) -> None:
        """Open a file and list its topics; raises BagError."""
        need('mcap.reader', 'reading an MCAP', 'mcap', 'recordings')
        need_rosbags()
        self.path = path
        self.topics: dict[str, BagTopic] = {}
        self.span = (0, 0)
        self.fault = ''
        self._types = MessageTypes()
        summary = self._summary()
        self._is_indexed = summary is not None
        if summary is not None:
            self._list(summary)
        else:
            self._scan()

    def messages(self, topic: str) -> Iterator[BagMessage]:
        """Yield the messages of a topic, in the order of log times if the file has an index."""
        with open(self.path, 'rb') as stream:
            records = guarded(self, self._indexed(stream, topic) if self._is_indexed
                              else self._in_file_order(stream, topic))
            decoders: dict[int, Callable[[bytes], Any]] = {}
            for schema, channel, message in records:
                decode = decoders.get(channel.id)
                if decode is None:
                    if self._fault_of(schema, channel):
                        continue
                    decode = decoders[channel.id] = self._types.decoder(
                        schema.name, schema.data.decode('utf-8', 'replace'),
                        _KINDS[schema.encoding], channel.message_encoding)
                yield BagMessage(message.log_time, normal_type(schema.name), message.data, decode)

    def _summary(self) -> Any:
        """Return the summary of a file that was ended well and says where its messages are."""
        from mcap.reader import SeekingReader

        try:
            with open(self.path, 'rb') as stream:
                if stream.read(len(MCAP_MAGIC)) != MCAP_MAGIC:
                    raise BagError(f'{self.path}: no MCAP file, it begins with other bytes')
                stream.seek(0)
                summary = SeekingReader(stream).get_summary()
        except BagError:
            raise
        except PermissionError as error:
            raise BagError(f'{self.path}: cannot be read: {error}') from error
        except Exception as error:   # of the library, for bytes that nobody thought of
            self.fault = ('it was not ended (a recorder that was killed, or a full disk), and is '
                          f'read as far as it goes ({str(error) or type(error).__name__})')
            return None
        if summary is None or summary.statistics is None or not summary.chunk_indexes:
            return None
        named = {name for chunk in summary.chunk_indexes for name in chunk.message_index_offsets}
        return summary if named <= summary.channels.keys() else None

    def _list(self, summary: Any) -> None:
        counts = summary.statistics.channel_message_counts
        for key, channel in summary.channels.items():
            self._add(summary.schemas.get(channel.schema_id), channel, counts.get(key, 0))
        self.span = (summary.statistics.message_start_time, summary.statistics.message_end_time)

    def _scan(self) -> None:
        """List the topics by reading all of the file."""
        times: list[int] = []
        with open(self.path, 'rb') as stream:
            for schema, channel, message in guarded(self, self._in_file_order(stream)):
                self._add(schema, channel, 1)
                times = [min([*times[:1], message.log_time]), max([*times[1:], message.log_time])]
        self.span = (times[0], times[1]) if times else (0, 0)

    def _add(self, schema: Any, channel: Any, count: int) -> None:
        name = normal_type(schema.name) if schema is not None else 'unknown'
        topic = self.topics.setdefault(channel.topic, BagTopic(channel.topic, name))
        topic.count += count
        topic.fault = self._fault_of(schema, channel)

    @staticmethod
    def _fault_of(schema: Any, channel: Any) -> str:
        if channel.message_encoding not in ('cdr', 'ros1'):
            return f"its messages are '{channel.message_encoding}', not ROS's"
        if schema is None or schema.encoding not in _KINDS:
            return f"its definition is '{schema.encoding if schema else 'missing'}', not ROS's"
        return ''

    @staticmethod
    def _indexed(stream: Any, topic: str) -> Iterator[tuple[Any, Any, Any]]:
        from mcap.reader import SeekingReader

        yield from SeekingReader(stream, validate_crcs=True).iter_messages(topics=[topic])

    def _in_file_order(
        self, stream: Any, topic: str | None = None,
    ) -> Iterator[tuple[Any, Any, Any]]:
        """Yield schema, channel and message as they lie in the file."""
        from mcap.records import Channel, Message, Schema
        from mcap.stream_reader import StreamReader

        schemas: dict[int, Any] = {}
        channels: dict[int, Any] = {}
        for record in StreamReader(stream, validate_crcs=False).records:
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel):
                channels[record.id] = record
            elif isinstance(record, Message) and record.channel_id in channels:
                channel = channels[record.channel_id]
                if topic in (None, channel.topic):
                    yield schemas.get(channel.schema_id), channel, record


# SQLite ------------------------------------------------------------------------------------------

class SqliteFile:
    """A SQLite file of ROS 2: its tables as rosbag2_storage_sqlite3 documents and writes them."""

    def __init__(self, path: Path) -> None:
        """Open a file and list its topics; raises BagError."""
        need_rosbags()   # for the messages in it; its own reader of files leaves each file open
        self.path = path
        self.topics: dict[str, BagTopic] = {}
        self.span = (0, 0)
        self.fault = ''
        self._types = MessageTypes()
        self._ids: dict[str, dict[int, str]] = {}           # of topics, with their types
        self._definitions: dict[str, tuple[str, str]] = {}  # of types: encoding and text
        try:
            with closing(self._opened()) as database:
                self._list(database)
                self._read_definitions(database)
        except Exception as error:   # of SQLite, and for bytes that nobody thought of
            raise BagError(f'{path}: cannot be read: {short_words(error)}') from error

    def messages(self, topic: str) -> Iterator[BagMessage]:
        """Yield the messages of a topic in the order of their log times."""
        types = self._ids.get(topic, {})
        decoders = {key: self._types.decoder(
            kind, self._definitions.get(kind, ('', ''))[1],
            _KINDS.get(self._definitions.get(kind, ('', ''))[0], 'msg'), 'cdr')
            for key, kind in types.items()}
        for key, log_ns, data in guarded(self, self._rows(tuple(types))):
            if isinstance(log_ns, int) and isinstance(data, bytes):
                yield BagMessage(log_ns, types[key], data, decoders[key])
            else:
                self.fault = self.fault or 'it is damaged: some messages have no time or no bytes'

    def _opened(self) -> sqlite3.Connection:
        place = quote(os.fsencode(self.path))
        return sqlite3.connect(f'file:{place}?mode=ro&immutable=1', uri=True,
                               check_same_thread=False)

    def _rows(self, ids: tuple[int, ...]) -> Iterator[tuple[int, Any, Any]]:
        if ids:
            with closing(self._opened()) as database:
                yield from database.execute(
                    'SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN '
                    f'({", ".join("?" * len(ids))}) ORDER BY timestamp', ids)

    def _list(self, database: sqlite3.Connection) -> None:
        counts = dict(database.execute('SELECT topic_id, COUNT(*) FROM messages GROUP BY 1'))
        for key, name, kind, encoding in database.execute(
                'SELECT id, name, type, serialization_format FROM topics ORDER BY id'):
            if not isinstance(name, str) or not isinstance(kind, str):
                raise ValueError(f'topic {key} has no name or no type')
            topic = self.topics.setdefault(name, BagTopic(name, normal_type(kind)))
            topic.count += counts.get(key, 0)
            if encoding == 'cdr':
                self._ids.setdefault(name, {})[key] = normal_type(kind)
            else:
                topic.fault = f"its messages are '{encoding}', not ROS's"
        (start, end), = database.execute('SELECT MIN(timestamp), MAX(timestamp) FROM messages')
        if isinstance(start, int) and isinstance(end, int):
            self.span = start, end

    def _read_definitions(self, database: sqlite3.Connection) -> None:
        if database.execute('PRAGMA table_info(message_definitions)').fetchall():   # since Iron
            self._definitions = {normal_type(str(kind)): (str(encoding), str(text or ''))
                                 for kind, encoding, text in database.execute(
                'SELECT topic_type, encoding, encoded_message_definition '
                'FROM message_definitions')}


# ROS 1 -------------------------------------------------------------------------------------------

class Ros1File:
    """A bag of ROS 1."""

    def __init__(self, path: Path) -> None:
        """Open a file and list its topics; raises BagError."""
        need_rosbags()
        self.path = path
        self.topics: dict[str, BagTopic] = {}
        self.fault = ''
        self._types = MessageTypes(is_ros1=True)
        with closing(self._opened()) as reader:
            for connection in reader.connections:
                topic = self.topics.setdefault(
                    connection.topic, BagTopic(connection.topic, connection.msgtype))
                topic.count += connection.msgcount
            has_any = any(topic.count for topic in self.topics.values())
            self.span = (reader.start_time, reader.end_time - 1) if has_any else (0, 0)

    def messages(self, topic: str) -> Iterator[BagMessage]:
        """Yield the messages of a topic in the order of their log times."""
        with closing(self._opened()) as reader:
            connections = [each for each in reader.connections if each.topic == topic]
            if not connections:
                return
            decoders: dict[int, Callable[[bytes], Any]] = {}
            for connection, log_ns, data in guarded(self, reader.messages(connections)):
                decode = decoders.get(connection.id)
                if decode is None:
                    decode = decoders[connection.id] = self._types.decoder(
                        connection.msgtype, connection.msgdef.data, 'msg', 'ros1')
                yield BagMessage(log_ns, connection.msgtype, data, decode)

    def _opened(self) -> Any:
        from rosbags import rosbag1

        try:
            reader = rosbag1.Reader(self.path)
            reader.open()
        except Exception as error:   # the library's own, and of bytes nobody thought of
            hint = '; rosbag reindex makes its index' if 'indexed' in str(error) else ''
            raise BagError(
                f'{self.path}: cannot be read: {short_words(error)}{hint}') from error
        return reader


def open_bag_file(path: Path) -> BagFile:
    """Return a file of a recording, by how it begins; raises BagError for another file."""
    kind = bag_kind(path)
    if kind == 'mcap':
        return McapFile(path)
    if kind == 'sqlite':
        return SqliteFile(path)
    if kind == 'ros1':
        return Ros1File(path)
    raise BagError(f'{path}: neither an MCAP, a SQLite file of ROS 2 nor a ROS 1 bag, by how it '
                   'begins')


def bag_kind(path: Path) -> str:
    """Return 'mcap', 'sqlite' or 'ros1' by a file's first bytes; '' for others."""
    start = b''
    with suppress(OSError), open(path, 'rb') as file:
        start = file.read(16)
    kinds: Sequence[tuple[bytes, str]] = (
        (MCAP_MAGIC, 'mcap'), (b'SQLite format 3\0', 'sqlite'), (b'#ROSBAG V', 'ros1'))
    return next((kind for magic, kind in kinds if start.startswith(magic)), '')
