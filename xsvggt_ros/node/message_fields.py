"""
Fields of messages get the plain Python types that they are declared with.

rclpy does not check them unless ROS_PYTHON_CHECK_FIELDS is 1, and what it does not expect it turns
into nonsense in silence: an int or a numpy scalar in a float field is published as (nearly) zero,
a numpy.bool_ always as False.
"""

from array import array
from collections.abc import Callable
from functools import cache
import operator
import re
from typing import Any, TypeVar

import numpy as np

Message = TypeVar('Message')
Cast = Callable[[Any], Any]

_INTEGERS = [f'{sign}int{bits}' for sign in ('', 'u') for bits in (8, 16, 32, 64)]
_SCALARS: dict[str, Cast] = {
    'float': float, 'double': float, 'boolean': bool, 'string': str, 'octet': bytes,
    **dict.fromkeys(_INTEGERS, operator.index)}   # a float here is a mistake: TypeError
_NUMPY = {'float': 'float32', 'double': 'float64', **{name: name for name in _INTEGERS}}
_ARRAY = re.compile(r'(\w+)\[(\d+)\]')
_SEQUENCE = re.compile(r'sequence<(\w+)(?:, \d+)?>')


def fill(message: Message, /, **values: object) -> Message:
    """
    Set fields of a message and return it.

    Numbers, truth values and strings of any library become Python's own, arrays of numbers numpy
    arrays or `array.array` of the declared type; sub-messages, and lists of them, are taken as
    they are. Raises TypeError and ValueError for what does not fit, KeyError for no field.
    """
    kind: Any = type(message)
    casts = _casts(kind)
    for name, value in values.items():
        setattr(message, name, casts[name](value))
    return message


def fill_xyz(message: Message, values: np.ndarray | tuple[float, ...]) -> Message:
    """Set x, y, z, and w of four values, of a message and return it."""
    return fill(message, **dict(zip('xyzw', values)))


@cache
def _casts(kind: Any) -> dict[str, Cast]:
    return {name: _cast(declared)
            for name, declared in kind.get_fields_and_field_types().items()}


def _cast(declared: str) -> Cast:
    """Return what makes a value one of a type as rosidl names it."""
    if declared in _SCALARS:
        return _SCALARS[declared]
    fixed = _ARRAY.fullmatch(declared)
    if fixed and fixed[1] in _NUMPY:
        return lambda values: np.array(values, _NUMPY[fixed[1]]).reshape(int(fixed[2]))
    sequence = _SEQUENCE.fullmatch(declared)
    if sequence and sequence[1] in _NUMPY:
        return lambda values: _as_array(values, np.dtype(_NUMPY[sequence[1]]))
    return lambda value: value


def _as_array(values: Any, dtype: np.dtype) -> array:
    """Return numbers as an `array.array`; one of the right type as it is, without a copy."""
    if isinstance(values, array) and values.typecode == dtype.char:
        return values
    numbers = array(dtype.char)
    if isinstance(values, (bytes, bytearray, memoryview)):
        numbers.frombytes(values)
    elif np.size(values):
        numbers.frombytes(memoryview(np.ascontiguousarray(values, dtype).ravel().data).cast('B'))
    return numbers
