"""Bytes as a source of choices, so that a target can build messages and folders from them."""

import struct

EXTREMES = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 5e-324, 1e30, 1.7e308, -1.7e308,
            float('inf'), float('-inf'), float('nan'), 2.0 ** 31, 2.0 ** 63)


class Source:
    """Takes values from bytes, front to back; when they are used up every value is zero."""

    def __init__(self, data: bytes) -> None:
        """Begin at the first byte."""
        self._data = data
        self._place = 0

    @property
    def left(self) -> int:
        """Return the number of bytes that were not taken."""
        return max(0, len(self._data) - self._place)

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer at the end."""
        taken = self._data[self._place:self._place + count]
        self._place += count
        return taken

    def rest(self) -> bytes:
        """Return all bytes that are left."""
        return self.take(self.left)

    def byte(self) -> int:
        """Return 0 to 255."""
        return self.take(1)[0] if self.left else 0

    def flag(self, one_in: int = 2) -> bool:
        """Return whether something that is so once in `one_in` times is so; not if used up."""
        return self.byte() % one_in == one_in - 1

    def whole(self, lowest: int, highest: int) -> int:
        """Return a whole number between two, both included."""
        size = ((highest - lowest).bit_length() + 7) // 8
        return lowest + int.from_bytes(self.take(size), 'little') % (highest - lowest + 1)

    def one_of(self, choices: tuple) -> object:
        """Return one of some choices."""
        return choices[self.whole(0, len(choices) - 1)]

    def number(self, likely: tuple[float, ...] = (0.0,)) -> float:
        """Return any float: a likely one, an extreme one, a small one or any bits."""
        kind = self.byte() % 8
        if kind < 5:
            return float(self.one_of(likely))
        if kind == 5:
            return float(self.one_of(EXTREMES))
        if kind == 6:
            return self.whole(-32768, 32767) / 64
        return struct.unpack('<d', self.take(8).ljust(8, b'\0'))[0]

    def words(self, most: int) -> str:
        """Return a text of at most `most` characters, any that UTF-8 can write."""
        return self.take(self.whole(0, most)).decode('utf-8', 'replace')
