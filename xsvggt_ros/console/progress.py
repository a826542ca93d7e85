"""A progress bar for a terminal; where there is none, a line now and then."""

import sys
import time
from typing import TextIO

_WIDTH = 30
_LINE_PERIOD = 5.0    # seconds between lines that are not overwritten


class ProgressBar:
    """Shows `done` of `total` and a few words; cheap enough to be called all the time."""

    def __init__(self, label: str, total: int, stream: TextIO | None = None) -> None:
        self._label, self._total = label, max(total, 1)
        self._stream = stream or sys.stdout
        self._overwrites = self._stream.isatty()
        self._shown = ''
        self._next_time = 0.0

    def update(self, done: int, words: str = '') -> None:
        """Show the state, if it changed and the last one was shown long enough."""
        now = time.monotonic()
        if now >= self._next_time:
            self._show(done, words)
            self._next_time = now + (0.1 if self._overwrites else _LINE_PERIOD)

    def close(self, done: int, words: str = '') -> None:
        """Show the last state and end the line."""
        self._show(done, words)
        if self._overwrites:
            print(file=self._stream, flush=True)

    def note(self, words: str) -> None:
        """Print a line above the state."""
        if self._overwrites and self._shown:
            print('\r' + ' ' * len(self._shown) + '\r', end='', file=self._stream)
            self._shown, self._next_time = '', 0.0
        print(words, file=self._stream, flush=True)

    def _show(self, done: int, words: str) -> None:
        filled = round(_WIDTH * min(done / self._total, 1.0))
        bar = '#' * filled + '.' * (_WIDTH - filled)
        text = f'{self._label} [{bar}] {done}/{self._total}  {words}'.rstrip()
        if text == self._shown:
            return
        if self._overwrites:
            print('\r' + text.ljust(len(self._shown)), end='', file=self._stream, flush=True)
        else:
            print(text, file=self._stream, flush=True)
        self._shown = text
