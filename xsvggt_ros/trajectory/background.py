"""A thread that does one thing after the other while frames go on."""

from collections import deque
from collections.abc import Callable
import logging
import threading
from typing import Generic, TypeVar

Task = TypeVar('Task')
_log = logging.getLogger(__name__)


class Background(Generic[Task]):
    """
    Works on tasks in their order.

    All methods are called by one other thread, `pending` by any.
    """

    def __init__(self, name: str, work: Callable[[Task], None],
                 on_error: Callable[[Exception], None]) -> None:
        """
        Start it.

        work, on_error: do a task, and get what it raises, in the thread. What `on_error` raises
        is logged, and the next task is done.
        """
        self._work, self._on_error = work, on_error
        self._condition = threading.Condition()
        self._tasks: deque[Task] = deque()   # the first one is being worked on
        self._closed = False
        # A daemon: it must not hold up the end of the process.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Return how many tasks wait, with the one that is being worked on."""
        with self._condition:
            return len(self._tasks)

    def offer(self, task: Task) -> bool:
        """Have a task done; return False if the thread was ended."""
        with self._condition:
            if self._closed:
                return False
            self._tasks.append(task)
            self._condition.notify_all()
            return True

    def wait(self) -> None:
        """Wait until all that was offered is done, or let go of because the thread has ended."""
        with self._condition:
            self._condition.wait_for(lambda: not self._tasks)

    def close(self) -> None:
        """End the thread; what waits is let go of."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                with self._condition:
                    self._condition.wait_for(lambda: self._tasks or self._closed)
                    if self._closed:
                        return
                    task = self._tasks[0]
                self._do(task)
                with self._condition:
                    self._tasks.popleft()
                    self._condition.notify_all()
        finally:   # also by what is no Exception: nobody may wait for what nobody does
            with self._condition:
                self._closed = True
                self._tasks.clear()
                self._condition.notify_all()

    def _do(self, task: Task) -> None:
        try:
            self._work(task)
        except Exception as error:
            try:
                self._on_error(error)
            except Exception:
                _log.exception('%s: an error could not be told of', self._thread.name)
