"""From bytes of messages to their fields, by the definitions that the recording itself carries."""

from collections.abc import Callable
from typing import Any

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.optional import need

# Of bags that carry no definitions, beside those of ROS; from the packages' documentation.
_EXTRA = {
    'foxglove_msgs/msg/CompressedVideo':
        'builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n',
    'foxglove_msgs/msg/CompressedImage':
        'builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n',
    'ffmpeg_image_transport_msgs/msg/FFMPEGPacket':
        'std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\n'
        'uint8 flags\nbool is_bigendian\nuint8[] data\n',
}


class BagError(ToolError):
    """A recording, or something in it, that cannot be read; says what and what to do."""


def need_rosbags() -> None:
    """Raise ToolError unless rosbags is installed."""
    need('rosbags.typesys', 'reading a bag', 'rosbags', 'recordings')


def normal_type(name: str) -> str:
    """Return the name of a message type as ROS 2 has it: package/msg/Type."""
    parts = name.split('/')
    return f'{parts[0]}/msg/{parts[1]}' if len(parts) == 2 else name


class MessageTypes:
    """
    Decodes the messages of one file.

    Each file has definitions of its own: two recordings may know one type in two versions.
    """

    def __init__(self, is_ros1: bool = False) -> None:
        """Start without definitions; is_ros1: which ROS those are from that a file lacks."""
        self._is_ros1 = is_ros1
        self._known: dict[tuple[str, str], Any] = {}

    def decoder(
        self, name: str, definition: str, kind: str, encoding: str,
    ) -> Callable[[bytes], Any]:
        """
        Return what makes an object with the message's fields of its bytes.

        name: of the type; definition: its text, of kind 'msg' or 'idl', or ''. encoding: 'cdr'
        or 'ros1'. Raises BagError for a definition that cannot be read or is not known.
        """
        from rosbags.typesys import TypesysError

        name = normal_type(name)
        try:
            store = self._known.get((name, definition))
            if store is None:
                store = self._known[name, definition] = self._store(name, definition, kind)
            store.get_msgdef(name)
        except (TypesysError, KeyError, ValueError) as error:
            raise BagError(f'the definition of {name} cannot be read: {error}') from error
        if encoding == 'ros1':
            return lambda data: store.deserialize_ros1(data, name)
        return lambda data: store.deserialize_cdr(data, name)

    def _store(self, name: str, definition: str, kind: str) -> Any:
        """Return a store that knows `name`, by its definition or by those of ROS."""
        from rosbags.typesys import (
            get_types_from_idl,
            get_types_from_msg,
            get_typestore,
            Stores,
        )

        if not definition:
            store = get_typestore(Stores.ROS1_NOETIC if self._is_ros1 else Stores.LATEST)
            if name in _EXTRA and name not in store.fielddefs:
                store.register(get_types_from_msg(_EXTRA[name], name))
            return store
        store = get_typestore(Stores.EMPTY)
        if kind == 'msg':
            store.register(get_types_from_msg(definition, name))
            return store
        rule = '=' * 80 + '\n'
        parts = definition.split(rule)[1:] if definition.startswith(rule) else [definition]
        for part in parts:
            head, _, rest = part.partition('\n')
            store.register(get_types_from_idl(rest if head.startswith('IDL:') else part))
        return store
