"""Inputs near valid ones: the one mutator that all engines share."""

from collections.abc import Sequence
import random

NUMBERS = (b'0', b'-1', b'1e400', b'nan', b'-inf', b'.inf', b'1.305e+09', b'9' * 25, b'9' * 400,
           b'2147483648', b'9223372036854775808', b'0x10', b'1_000', b'0.5', b'True', b'null')
MARKS = (b'\0', b'\n', b'\r\n', b' ', b'\t', b'#', b'"', b"'", b'[', b']', b'{', b'}', b':', b',',
         b'-', b'&a', b'*a', b'!!', b'%', b'\xef\xbb\xbf', b'\xff', b'\xc2\xb2', b'../')
LONGEST = 8192  # bytes of an input


def mutate(data: bytes, rng: random.Random, tokens: Sequence[bytes] = (),
           others: Sequence[bytes] = ()) -> bytes:
    """
    Return an input that differs from `data` by one to a few steps.

    rng decides all. tokens: pieces that mean something to the reader; others: inputs from which
    pieces may come.
    """
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3, 6))):
        data = rng.choice(_STEPS)(data, rng, tokens, others)
    return data[:LONGEST]


def _place(data: bytes, rng: random.Random) -> int:
    return rng.randrange(len(data) + 1)


def _flip(data: bytes, rng: random.Random, *_: Sequence[bytes]) -> bytes:
    if not data:
        return b'\x01'
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1:]


def _overwrite(data: bytes, rng: random.Random, *_: Sequence[bytes]) -> bytes:
    place, count = _place(data, rng), rng.choice((1, 1, 2, 4, 8))
    value = rng.choice((b'\0', b'\xff', b'\x7f', b'\x80', bytes([rng.randrange(256)]))) * count
    return data[:place] + value + data[place + count:]


def _remove(data: bytes, rng: random.Random, *_: Sequence[bytes]) -> bytes:
    place = _place(data, rng)
    return data[:place] + data[place + 1 + rng.randrange(1 + rng.choice((1, 8, 64))):]


def _cut(data: bytes, rng: random.Random, *_: Sequence[bytes]) -> bytes:
    return data[:_place(data, rng)]


def _insert(data: bytes, rng: random.Random, tokens: Sequence[bytes],
            _others: Sequence[bytes]) -> bytes:
    pieces = rng.choice((NUMBERS, MARKS, tokens or MARKS, tokens or MARKS))
    place = _place(data, rng)
    return data[:place] + rng.choice(pieces) + data[place:]


def _repeat(data: bytes, rng: random.Random, *_: Sequence[bytes]) -> bytes:
    start = _place(data, rng)
    piece = data[start:start + 1 + rng.randrange(64)]
    place = _place(data, rng)
    return data[:place] + piece * rng.choice((1, 2, 5, 50)) + data[place:]


def _replace_number(data: bytes, rng: random.Random, *_: Sequence[bytes]) -> bytes:
    """Put another number in the place of one that is written in the text."""
    place = _place(data, rng)
    digits = b'0123456789.'
    while place < len(data) and data[place] not in digits:
        place += 1
    end = place
    while end < len(data) and data[end] in digits:
        end += 1
    return data[:place] + rng.choice(NUMBERS) + data[end:]


def _replace_word(data: bytes, rng: random.Random, tokens: Sequence[bytes],
                  _others: Sequence[bytes]) -> bytes:
    """Put a token in the place of a word."""
    words = data.split(b' ')
    words[rng.randrange(len(words))] = rng.choice(tokens or NUMBERS)
    return b' '.join(words)


def _swap_lines(data: bytes, rng: random.Random, *_: Sequence[bytes]) -> bytes:
    lines = data.split(b'\n')
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return b'\n'.join(lines)


def _splice(data: bytes, rng: random.Random, _tokens: Sequence[bytes],
            others: Sequence[bytes]) -> bytes:
    if not others:
        return data
    other = rng.choice(others)
    return data[:_place(data, rng)] + other[_place(other, rng):]


_STEPS = (_flip, _overwrite, _remove, _cut, _insert, _insert, _repeat, _replace_number,
          _replace_number, _replace_word, _swap_lines, _splice)
