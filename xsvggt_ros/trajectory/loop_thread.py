"""The thread that closes loops while frames go on."""

from collections import deque
from collections.abc import Callable
import threading

from xsvggt_ros.trajectory.loop_closer import LoopCloser
from xsvggt_ros.trajectory.places import Snapshot

_BEHIND = 3     # snapshots that wait from which no loops are looked for


class LoopThread:
    """
    Gives a loop closer one snapshot after the other.

    `offer` and `close` are called by one other thread; what the closer publishes, its
    `corrections`, `report` and `keyframes`, may be read by any. Every snapshot is taken; when they
    come too fast, loops are looked for in fewer of them.
    """

    def __init__(self, closer: LoopCloser, on_error: Callable[[Exception], None]) -> None:
        """Start it. on_error: gets what goes wrong with a snapshot, in the thread."""
        self._closer, self._on_error = closer, on_error
        self._condition = threading.Condition()
        self._waiting: deque[Snapshot] = deque()   # the first one is being worked on
        self._closed = False
        # A daemon: it must not hold up the end of the process.
        self._thread = threading.Thread(target=self._run, name='xsvggt_loops', daemon=True)
        self._thread.start()

    def offer(self, snapshot: Snapshot) -> None:
        """Have a new keyframe taken."""
        with self._condition:
            self._waiting.append(snapshot)
            self._condition.notify_all()

    def wait(self) -> None:
        """Wait until all that was offered is done."""
        with self._condition:
            self._condition.wait_for(lambda: not self._waiting)

    def close(self) -> None:
        """End the thread; what waits is let go of."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    self._waiting.clear()
                    self._condition.notify_all()
                    return
                snapshot, count = self._waiting[0], len(self._waiting)
            try:
                self._closer.add(snapshot, search=count <= _BEHIND)
            except Exception as error:
                self._on_error(error)
            finally:
                with self._condition:
                    self._waiting.popleft()
                    self._condition.notify_all()
