"""How a latency target is kept: late images are left out, and a slow network remembers less."""

from collections import deque
import threading

import numpy as np

from xsvggt_ros.engine.stream_engine import CacheStats

WINDOW = 20  # frames that a change of the history is decided by
# Frames before a changed limit takes effect: the network may have begun with the next one
# already, and the one after that is followed by the eviction.
SETTLE = 2
SHRINK, GROW = 0.8, 1.05  # factors of the history
EASY = 0.8  # share of the deadline below which there is room for a longer history


class Deadline:
    """
    Decide which images are too late to begin with, and how long the history may be.

    Times are in seconds, deadlines in milliseconds as the parameter has them; 0 is none. They are
    given with every call, so that they may change at any time. `fault` says why the deadline is
    missed when nothing more can be done about it, and is empty otherwise. The thread that
    publishes calls `update`, the worker's all else.
    """

    def __init__(self) -> None:
        """Begin without a limit."""
        self._lock = threading.Lock()
        self.begin()

    def begin(self) -> None:
        """Begin without a limit, with nothing measured."""
        self.fault = ''
        self.limit: int | None = None  # tokens per layer to attend to, for the engine; None: all
        self._deadline_ms = 0.0
        self._recent: deque[float] = deque(maxlen=WINDOW)  # what a frame takes
        self._window: deque[float] = deque(maxlen=WINDOW)  # the same, with the present history
        self._unsettled = 0  # frames
        self._just_skipped = False

    def forget(self) -> None:
        """Begin a new stream; the limit stays, because the network is as slow as it was."""
        with self._lock:
            self._recent.clear()
            self._just_skipped = False
            self._judge_anew()

    def is_too_late(self, waited: float, deadline_ms: float) -> bool:
        """
        Return whether to skip an image that has waited so long, in favour of the next one.

        Never two in a row, and none if processing takes too long even without waiting: skipping
        would only cost images.
        """
        late = False
        with self._lock:
            if deadline_ms > 0 and self._recent and not self._just_skipped:
                expected = float(np.median(self._recent))
                late = expected <= 1e-3 * deadline_ms < waited + expected
            self._just_skipped = late
        return late

    def update(self, seconds: float, deadline_ms: float, cache: CacheStats) -> None:
        """Take what a frame took without waiting, and adapt `limit`; cache: after that frame."""
        with self._lock:
            self._recent.append(seconds)
            if deadline_ms != self._deadline_ms:
                self._deadline_ms = deadline_ms
                self._judge_anew()
            if deadline_ms <= 0:
                self.limit = None
            elif self._unsettled > 0:
                self._unsettled -= 1
            else:
                self._window.append(seconds)
                if len(self._window) == WINDOW:
                    self._judge(float(np.percentile(self._window, 95)), cache)

    def _judge_anew(self) -> None:
        self.fault = ''
        self._window.clear()
        self._unsettled = 0

    def _judge(self, p95: float, cache: CacheStats) -> None:
        deadline = 1e-3 * self._deadline_ms
        self.fault = ''
        if p95 > deadline:
            self._shrink(p95, cache)
        elif p95 < EASY * deadline and self.limit is not None:
            self._grow(self.limit, cache)

    def _shrink(self, p95: float, cache: CacheStats) -> None:
        missed = f'deadline_ms {self._deadline_ms:g} is missed (p95 {1e3 * p95:.0f} ms)'
        if cache.budget is None or cache.limit is None:
            self.fault = (
                f'{missed}, and policy full cannot shorten the history: choose another '
                'cache.policy, lower model.image_size or raise deadline_ms')
            return
        shortest = 2 * cache.tokens_per_frame
        # Of what there is: a limit above that would change nothing.
        history = min(cache.limit, max(cache.tokens_per_layer))
        if history <= shortest:
            self.fault = (f'{missed} with the shortest history: lower model.image_size or raise '
                          'deadline_ms')
            return
        self._change(max(shortest, int(SHRINK * history)))

    def _grow(self, limit: int, cache: CacheStats) -> None:
        if cache.budget is None or max(cache.tokens_per_layer) < (cache.limit or cache.budget):
            return  # it is still filling up, and will be slower
        # Not from cache.limit, which is rounded as the policy wants it and might never grow.
        longer = int(np.ceil(GROW * limit))
        self._change(longer if longer < cache.budget else None)

    def _change(self, limit: int | None) -> None:
        self.limit = limit
        self._window.clear()
        self._unsettled = SETTLE
