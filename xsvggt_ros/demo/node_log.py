"""What a node says in its log that belongs on the console, too."""

from pathlib import Path
import re

MOST = 20   # messages that are told; the file has all

_LINE = re.compile(r'\[(?P<level>INFO|WARN|ERROR|FATAL)\] \[[\d.]+\] \[[^]]+\]: (?P<words>.*)')
_WORTH_TELLING = ('stream begins', 'calibration:')   # of what is no warning


class NodeLog:
    """Reads a log file as it grows, and tells each warning and error once."""

    def __init__(self, file: Path) -> None:
        """Begin with what is in the file already."""
        self._file = file
        self._read = 0                 # bytes
        self._told: set[str] = set()

    def news(self) -> list[str]:
        """Return the new messages that are worth telling, each in a line."""
        return [words for words in map(self._told_of, self._new_lines()) if words]

    def _new_lines(self) -> list[str]:
        try:
            with open(self._file, 'rb') as file:
                file.seek(self._read)
                whole = file.read().rpartition(b'\n')   # the last line may not be complete yet
        except OSError:
            return []
        self._read += len(whole[0]) + len(whole[1])
        return whole[0].decode('utf-8', 'replace').splitlines()

    def _told_of(self, line: str) -> str:
        found = _LINE.match(line)
        if found is None:
            return ''
        level, words = found['level'], found['words']
        if level == 'INFO' and not words.startswith(_WORTH_TELLING):
            return ''
        kind = re.sub(r'\d+', '0', words)   # the same message with other numbers is the same
        if kind in self._told or len(self._told) > MOST:
            return ''
        self._told.add(kind)
        if len(self._told) > MOST:
            return f'further messages are in {self._file}'
        return f'node: {words}' if level == 'INFO' else f'node, {level}: {words}'
