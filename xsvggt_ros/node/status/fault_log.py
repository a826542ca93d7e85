"""Faults worth reporting once in a while."""

from collections.abc import Callable
from dataclasses import dataclass
import time


@dataclass
class Fault:
    """Something wrong, with how often and how long ago it happened last."""

    message: str
    count: int
    last: float

    @property
    def age(self) -> float:
        """Return the seconds since it happened last."""
        return time.monotonic() - self.last


@dataclass
class _Reported:
    """What is known of a message that was told."""

    when: float  # it was told last
    wait: float  # seconds until it is told again
    seen: float  # when it was reported last


class FaultLog:
    """
    Tell each fault when it is new, and more and more seldom while it lasts.

    A fault that lasts is told again after ``period`` seconds, then after twice as many each time,
    up to MAX_WAIT; one that was away for ``period`` seconds is new. A message with a changing
    number in it is new each time: no more than MAX_NEW of a kind are told in one period.
    """

    MAX_NEW = 5
    MAX_WAIT = 600.0  # seconds

    def __init__(self, tell: Callable[[str], object], period: float = 10.0) -> None:
        """Pass messages on to ``tell``."""
        self._tell = tell
        self._period = period
        self._told: dict[str, dict[str, _Reported]] = {}  # kind: message
        self._faults: dict[str, Fault] = {}
        self._last: dict[str, Fault] = {}

    def report(
        self, kind: str, message: str, key: str | None = None, details: str = '',
    ) -> bool:
        """
        Count a fault of this kind, and tell it if it is time; return whether it was told.

        key: what makes two messages the same one, if they have numbers in them. details: lines
        that are told with the message, but are no part of it.
        """
        key = message if key is None else key
        now = time.monotonic()
        fault = self._faults.get(kind)
        count = fault.count + 1 if fault is not None and fault.message == message else 1
        self._faults[kind] = self._last[kind] = Fault(message, count, now)
        told = {name: past for name, past in self._told.get(kind, {}).items()
                if now - past.seen < self._period}
        self._told[kind] = told
        past = told.get(key)
        if past is None:
            if sum(now - other.when < self._period for other in told.values()) >= self.MAX_NEW:
                return False
            past = told[key] = _Reported(now, self._period, now)
        else:
            past.seen = now
            if now - past.when < past.wait:
                return False
            past.when, past.wait = now, min(2 * past.wait, max(self.MAX_WAIT, self._period))
        times = f' ({count} times)' if count > 1 else ''
        self._tell(message + times + (f'\n{details}' if details else ''))
        return True

    def clear(self, kind: str) -> None:
        """Forget a kind of fault: it is mended."""
        self._faults.pop(kind, None)

    def get(self, kind: str) -> Fault | None:
        """Return the last fault of this kind, None if it is mended."""
        return self._faults.get(kind)

    def last(self, kind: str) -> Fault | None:
        """Return the last fault of this kind, mended or not."""
        return self._last.get(kind)
