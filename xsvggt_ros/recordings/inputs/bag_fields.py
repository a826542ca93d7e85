"""What is read of a bag's messages, and whether the definitions that a file carries have it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

# A field is one of the kinds below, a message with fields of its own, or a list of such messages.
# 'k|K': any of these names.
Wanted = Mapping[str, Any]

_BASE, _NAME, _ARRAY, _SEQUENCE = 1, 2, 3, 4   # rosbags' Nodetype
_MOST_LISTED = 4096   # texts or messages of a list whose length the definition fixes
_BYTES_AT_LEAST = {'int16': 2, 'uint16': 2, 'int32': 4, 'uint32': 4, 'float32': 4, 'string': 4,
                   'int64': 8, 'uint64': 8, 'float64': 8}   # others: 1


class _Kind(NamedTuple):
    """A kind of field: its name, the base types that have it; length: of a list, None for any."""

    words: str
    types: frozenset[str]
    is_list: bool = False
    length: int | None = None


_UNSIGNED = frozenset({'bool', 'char', 'uint8', 'uint16', 'uint32'})
_NUMBERS = _UNSIGNED | {'byte', 'int8', 'int16', 'int32', 'int64', 'uint64', 'float32', 'float64'}
_SIZE = _Kind('a whole number that is never negative, of at most 32 bits', _UNSIGNED)
_COUNT = _Kind('a whole number of at most 32 bits', _UNSIGNED | {'int8', 'int16', 'int32'})
_NUMBER = _Kind('a number', _NUMBERS)
_TEXT = _Kind('a text', frozenset({'string'}))
_BYTES = _Kind('a list of bytes', frozenset({'byte', 'char', 'int8', 'uint8'}), True)
_LIST = _Kind('a list of numbers', _NUMBERS, True)
_COVARIANCE = _Kind('a list of 36 numbers', _NUMBERS, True, 36)

_TIME = {'sec': _COUNT, 'nanosec': _COUNT}
_STAMPED = {'header': {'stamp': _TIME}}
_IN_FRAME = {'header': {'stamp': _TIME, 'frame_id': _TEXT}}
_VECTOR = {'x': _NUMBER, 'y': _NUMBER, 'z': _NUMBER}
_QUATERNION = {**_VECTOR, 'w': _NUMBER}
_TF = {'transforms': [{**_IN_FRAME, 'child_frame_id': _TEXT, 'transform': {
    'translation': _VECTOR, 'rotation': _QUATERNION}}]}
_RAW = {'height': _SIZE, 'width': _SIZE, 'encoding': _TEXT, 'step': _SIZE, 'data': _BYTES}
_PICTURE = {'format': _TEXT, 'data': _BYTES}
_WANTED: Mapping[str, Wanted] = {
    'sensor_msgs/msg/Image': {**_STAMPED, **_RAW, 'is_bigendian': _SIZE},
    'foxglove_msgs/msg/RawImage': {'timestamp': _TIME, **_RAW},
    'sensor_msgs/msg/CompressedImage': {**_STAMPED, **_PICTURE},
    'foxglove_msgs/msg/CompressedImage': {'timestamp': _TIME, **_PICTURE},
    'foxglove_msgs/msg/CompressedVideo': {'timestamp': _TIME, **_PICTURE},
    'ffmpeg_image_transport_msgs/msg/FFMPEGPacket': {
        **_STAMPED, 'encoding': _TEXT, 'data': _BYTES},
    'sensor_msgs/msg/CameraInfo': {
        'width': _SIZE, 'height': _SIZE, 'distortion_model': _TEXT,
        **{f'{letter}|{letter.upper()}': _LIST for letter in 'kdrp'},
        'binning_x': _SIZE, 'binning_y': _SIZE,
        'roi': dict.fromkeys(('x_offset', 'y_offset', 'width', 'height'), _SIZE)},
    'nav_msgs/msg/Odometry': {
        **_IN_FRAME, 'child_frame_id': _TEXT,
        'pose': {'pose': {'position': _VECTOR, 'orientation': _QUATERNION},
                 'covariance': _COVARIANCE}},
}


def definition_fault(types: Mapping[str, Any], name: str) -> str:
    """
    Return why messages of a type cannot be read with these definitions, '' if they can.

    types: rosbags' fielddefs: for each name its constants and its fields. name: of the type.
    """
    try:
        _least_bytes(types, name, ())
    except _FaultError as error:
        return str(error)
    wanted = _TF if name.endswith('/TFMessage') else _WANTED.get(name, {})
    return _missing(types, name, wanted, '')


# What no message can have ------------------------------------------------------------------------

class _FaultError(Exception):
    """A definition of which no message can be read."""


def _least_bytes(types: Mapping[str, Any], name: str, around: tuple[str, ...]) -> int:
    """Return the fewest bytes that a message has; raises _FaultError for what has no end."""
    if name not in types:
        raise _FaultError(f'{name} is not defined' + f', which {around[-1]} has' * bool(around))
    if name in around:
        raise _FaultError(f'{name} is a part of itself')
    total = 0
    for field, (node, content) in types[name][1]:
        if field == 'structure_needs_at_least_one_member':   # ROS 1 does not send it
            continue
        count = 1
        if node in (_ARRAY, _SEQUENCE):
            (node, content), count = content[0], content[1] if node == _ARRAY else 0
            is_short = node == _BASE and content[0] != 'string'
            if count < 0 or count > _MOST_LISTED and not is_short:
                raise _FaultError(f'{name} has a list {field} of {count}')
            total += 4 * (not count)
        least = (_BYTES_AT_LEAST.get(content[0], 1) if node == _BASE
                 else _least_bytes(types, content, (*around, name)))
        if not least:
            raise _FaultError(f'{name} has in {field} the type {content}, which is empty')
        total += count * least
    return total


# What is read ------------------------------------------------------------------------------------

def _missing(types: Mapping[str, Any], name: str, wanted: Wanted, place: str) -> str:
    """Return what a type lacks or has otherwise; place: of its fields in the message."""
    fields = dict(types[name][1])
    for names, kind in wanted.items():
        found = next((each for each in names.split('|') if each in fields), None)
        if found is None:
            return f"it has no field {place}{names.split('|')[0]}"
        fault = _mismatch(types, fields[found], kind, place + found)
        if fault:
            return fault
    return ''


def _mismatch(types: Mapping[str, Any], field: Any, kind: Any, place: str) -> str:
    """Return how a field is not of the kind that is read."""
    node, content = field
    if isinstance(kind, _Kind):
        if _has(kind, node, content):
            return ''
        return f'its field {place} is {_type_name(node, content)}, not {kind.words}'
    if isinstance(kind, list):
        if node not in (_ARRAY, _SEQUENCE) or content[0][0] != _NAME:
            return f'its field {place} is {_type_name(node, content)}, not a list of messages'
        return _missing(types, content[0][1], kind[0], f'{place}[].')
    if node != _NAME:
        return f'its field {place} is {_type_name(node, content)}, not a message'
    return _missing(types, content, kind, f'{place}.')


def _has(kind: _Kind, node: int, content: Any) -> bool:
    if not kind.is_list:
        return node == _BASE and content[0] in kind.types
    return (node in (_ARRAY, _SEQUENCE) and content[0][0] == _BASE
            and content[0][1][0] in kind.types
            and kind.length in (None, content[1] if node == _ARRAY else None))


def _type_name(node: int, content: Any) -> str:
    """Return a field's type as definitions write it."""
    if node == _BASE:
        return str(content[0])
    if node == _NAME:
        return str(content)
    return f"{_type_name(*content[0])}[{content[1] if node == _ARRAY else ''}]"
