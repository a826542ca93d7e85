"""Text files of data sets: rows of words, with errors that name file and line."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.mapping.map_files import parse_stamp, read_rows


@dataclass(frozen=True)
class Row:
    """The words of one line of a file."""

    path: Path
    number: int
    words: list[str]
    form: str          # of a line, for messages

    def numbers(self, count: int, start: int = 0) -> list[float]:
        """Return the `count` numbers from word `start` to the end."""
        self.check(count + start)
        try:
            return [float(word) for word in self.words[start:]]
        except ValueError as error:
            raise self.error(str(error)) from error

    def stamp_ns(self) -> int:
        """Return the first word as a time."""
        try:
            return parse_stamp(self.words[0])
        except ValueError as error:
            raise self.error(str(error)) from error

    def check(self, count: int) -> None:
        """Raise ToolError unless there are `count` words."""
        if len(self.words) != count:
            raise self.error(f'{len(self.words)} values instead of {count}')

    def error(self, text: str) -> ToolError:
        """Return an error that says where it is."""
        return ToolError(f'{self.path}, line {self.number}: {text}; it should be {self.form}')


def rows(path: Path, form: str) -> Iterator[Row]:
    """Yield the lines of a file but for comments and empty ones."""
    try:
        lines = list(read_rows(path))
    except (OSError, ValueError) as error:
        raise ToolError(f'{path}: cannot be read ({error}); unpack it again') from error
    for number, words in lines:
        yield Row(path, number, words, form)
