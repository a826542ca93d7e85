"""What is made of results, in a thread of its own beside the network's."""

from collections.abc import Callable
import queue
import threading
from typing import Generic, TypeVar

AHEAD = 4   # results that may wait, each with its images

Item = TypeVar('Item')


class SinkThread(Generic[Item]):
    """
    Calls a function with each item, in their order, a few behind whoever gives them.

    What the function raises for one item is raised to whoever gives the next one, once; the items
    after it are taken all the same.
    """

    def __init__(self, take: Callable[[Item], None]) -> None:
        """Begin without a thread; the first item starts it."""
        self._take = take
        self._queue: queue.Queue[Item | None] = queue.Queue(AHEAD)
        self._error: BaseException | None = None
        self._has_failed = False
        self._thread: threading.Thread | None = None

    def put(self, item: Item) -> None:
        """Hand over an item; waits while too many wait."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name='results', daemon=True)
            self._thread.start()
        self._queue.put(item)
        self._raise()

    def drain(self) -> None:
        """Wait until all items are taken."""
        if self._thread is not None:
            self._queue.join()

    @property
    def has_failed(self) -> bool:
        """Return whether something was raised for an item, told already or not."""
        return self._has_failed

    def finish(self) -> None:
        """Wait until all items are taken, and end the thread."""
        if self._thread is not None:
            self._queue.put(None)
            try:
                self._thread.join()
            except BaseException:   # Ctrl-C: what follows counts on it, and few items are left
                self._thread.join()
                raise
            finally:
                self._thread = None
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            try:
                if item is None:
                    return
                self._take(item)
            except BaseException as error:  # handed to the thread that gives the items
                self._error, self._has_failed = self._error or error, True
            finally:
                self._queue.task_done()
