"""A progress bar for a terminal; where there is none, a line now and then."""

from collections import deque
import sys
import time
from typing import TextIO

_WIDTH = 30
_LINE_PERIOD = 5.0    # seconds between lines that are not overwritten
_PACE_SECONDS = 30.0  # over which a rate is taken


class ProgressBar:
    """Shows `done` of `total` and a few words; cheap enough to be called all the time."""

    def __init__(self, label: str, total: int | None, stream: TextIO | None = None) -> None:
        self._label = label
        self._total = None if total is None else max(total, 1)
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
        if self._total is None:    # nobody knows how many there are
            text = f'{self._label} {done}  {words}'.rstrip()
        else:
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


class ProgressRate:
    """How quickly something goes on, over its last half minute, and how long it will take."""

    def __init__(self, total: int | None, done: int = 0) -> None:
        """Begin; total: how many there are, None if nobody knows; done: how many before it."""
        self._total = total
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), done)])

    def text(self, done: int) -> str:
        """Return the rate, and the time that is left where it is known."""
        now = time.monotonic()
        if now - self._marks[-1][0] > 1.0 or len(self._marks) == 1:
            self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[0][0] > _PACE_SECONDS:
            self._marks.popleft()
        then, before = self._marks[0]
        rate = (done - before) / (now - then) if now > then else 0.0
        if rate <= 0:
            return ''
        words = f'{rate:.1f} frames/s'
        if self._total is not None and self._total > done:
            words += f', {clock_time((self._total - done) / rate)} left'
        return words


def clock_time(seconds: float) -> str:
    """Return a duration as minutes and seconds, or hours and minutes if it is long."""
    whole = round(seconds)
    if whole >= 3600:
        return f'{whole // 3600} h {whole % 3600 // 60:02d} min'
    return f'{whole // 60}:{whole % 60:02d}'
