"""What the node counts: rates, latencies, and faults worth telling once in a while."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
import threading
import time

import numpy as np

from xsvggt_ros.engine.stream_engine import CacheStats

PERCENTILES = (50, 95, 99)


def percentiles(latencies: Sequence[float]) -> tuple[float, float, float]:
    """Return the seconds that 50, 95 and 99 % of the latencies do not exceed; zeros for none."""
    if not latencies:
        return 0.0, 0.0, 0.0
    return tuple(np.percentile(np.array(latencies), PERCENTILES).tolist())


class Ticket:
    """The images of one set: whoever knows first what became of them counts them, nobody else."""

    def __init__(self, images: int) -> None:
        """Take how many there are."""
        self._images = images
        self._lock = threading.Lock()

    def take(self) -> int:
        """Return how many images are to be counted; 0 if somebody has counted them."""
        with self._lock:
            images, self._images = self._images, 0
        return images


class RateMeter:
    """Events a second over the last seconds."""

    def __init__(self, window: float = 5.0) -> None:
        """Look back ``window`` seconds."""
        self._window = window
        self._times: deque[float] = deque(maxlen=1000)

    def tick(self) -> None:
        """Count an event now."""
        self._times.append(time.monotonic())

    def rate(self) -> float:
        """Return events a second; 0 if there were fewer than two in the window."""
        now = time.monotonic()
        recent = [t for t in list(self._times) if now - t <= self._window]
        if len(recent) < 2:
            return 0.0
        # A stream that has stopped must not keep the rate it had: count the silence too.
        return (len(recent) - 1) / max(recent[-1] - recent[0], (now - recent[0]) * 0.5)

    def age(self) -> float | None:
        """Return the seconds since the last event; None if there was none."""
        return time.monotonic() - self._times[-1] if self._times else None


@dataclass(frozen=True)
class Latency:
    """Seconds that the parts of a frame took."""

    total: float
    decode: float
    upload: float
    inference: float
    pack: float
    publish: float

    def shares(self) -> dict[str, float]:
        """Return what share of the total each part had, 0..1; the rest of it was waiting."""
        parts = {name: seconds / self.total for name, seconds in vars(self).items()
                 if name != 'total'}
        return {'waiting': max(0.0, 1 - sum(parts.values()))} | parts


@dataclass(frozen=True)
class FrameReport:
    """What is worth telling of the last processed frame."""

    latency: Latency
    cache: CacheStats
    confidence_mean: float
    points: int
    predicted_fx: float  # pixels of the source image
    predicted_fy: float


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
class _Told:
    """What is known of a message that was told."""

    when: float  # it was told last
    wait: float  # seconds until it is told again
    seen: float  # when it was reported last


class FaultLog:
    """
    Tell each fault when it is new, and more and more seldom while it lasts.

    A fault that lasts is told again after ``period`` seconds, then after twice as many each time,
    up to LONGEST; one that was away for ``period`` seconds is new. A message with a changing
    number in it is new each time: no more than MOST_NEW of a kind are told in one period.
    """

    MOST_NEW = 5
    LONGEST = 600.0  # seconds

    def __init__(self, tell: Callable[[str], None], period: float = 10.0) -> None:
        """Pass messages on to ``tell``."""
        self._tell = tell
        self._period = period
        self._told: dict[str, dict[str, _Told]] = {}  # kind: message
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
            if sum(now - other.when < self._period for other in told.values()) >= self.MOST_NEW:
                return False
            past = told[key] = _Told(now, self._period, now)
        else:
            past.seen = now
            if now - past.when < past.wait:
                return False
            past.when, past.wait = now, min(2 * past.wait, max(self.LONGEST, self._period))
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
