"""From bytes of messages to their fields, by the definitions that the recording itself carries."""

from collections.abc import Callable
import functools
from typing import Any

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.optional import need
from xsvggt_ros.recordings.inputs.bag_fields import definition_fault

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


def short_words(error: Exception) -> str:
    """Return what a library says of damaged bytes, in one line."""
    return ' '.join(str(error).split())[:200] or type(error).__name__


def normal_type(name: str) -> str:
    """Return the name of a message type as ROS 2 has it: package/msg/Type."""
    parts = name.split('/')
    return f'{parts[0]}/msg/{parts[1]}' if len(parts) == 2 else name


def refusing(why: str) -> Callable[[bytes], Any]:
    """Return what raises BagError for each message."""
    def refuse(_: bytes) -> Any:
        raise BagError(why)

    return refuse


class MessageTypes:
    """
    Decodes the messages of one file, by its own definitions.

    Two files of a recording may know one type in two versions.
    """

    def __init__(self, is_ros1: bool = False) -> None:
        """Remember which ROS the definitions are from that the file lacks."""
        self._is_ros1 = is_ros1

    def decoder(
        self, name: str, definition: str, kind: str, encoding: str,
    ) -> Callable[[bytes], Any]:
        """
        Return what makes an object with the message's fields of its bytes.

        name: of the type; definition: its text, of kind 'msg' or 'idl', or ''. encoding: 'cdr'
        or 'ros1'. A definition that cannot be read, is not known, or has not what is read of such
        messages costs each of them: a BagError that says why. For damaged bytes the library
        raises what it likes.
        """
        name = normal_type(name)
        try:
            store = _store(name, definition, kind, self._is_ros1)
        except BagError as error:
            return refusing(str(error))
        except Exception as error:   # of the library, for a text that nobody thought of
            return refusing(f'the definition of {name} in the file cannot be read: '
                            f'{short_words(error)}')
        if encoding == 'ros1':
            return lambda data: store.deserialize_ros1(data, name)
        return lambda data: store.deserialize_cdr(data, name)


@functools.lru_cache(maxsize=64)   # the parts of a recording mostly have the same
def _store(name: str, definition: str, kind: str, is_ros1: bool) -> Any:
    """Return a store that can read `name`; raises BagError, and what the library likes."""
    store = _defined(name, definition, kind, is_ros1)
    fault = definition_fault(store.fielddefs, name)
    if fault:
        raise BagError(f'the definition of {name} in the file cannot be used: {fault}')
    store.get_msgdef(name)
    return store


def _defined(name: str, definition: str, kind: str, is_ros1: bool) -> Any:
    """Return a store that knows `name`, by its definition or by those of ROS."""
    from rosbags.typesys import (
        get_types_from_idl,
        get_types_from_msg,
        get_typestore,
        Stores,
    )

    if not definition:
        store = get_typestore(Stores.ROS1_NOETIC if is_ros1 else Stores.LATEST)
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
