"""The thread that owns the engine, and the one-slot mailbox that feeds it."""

from collections.abc import Callable
from concurrent.futures import Future
import threading
from typing import Any


class LatestMailbox:
    """Hold the newest item only, and count what it replaced."""

    def __init__(self) -> None:
        """Begin empty and open."""
        self._condition = threading.Condition()
        self._item: Any = None
        self._weight = 0
        self._commands: list[tuple[Callable[[], Any], Future]] = []
        self._closed = False
        self.received = 0
        self.dropped = 0

    def put(self, item: Any, weight: int = 1) -> None:
        """Offer an item, which counts as so many; an older one still waiting is dropped."""
        with self._condition:
            self.received += weight
            if self._closed:
                self.dropped += weight
                return
            if self._item is not None:
                self.dropped += self._weight
            self._item, self._weight = item, weight
            self._condition.notify()

    def put_command(self, command: Callable[[], Any]) -> Future:
        """Have a command run between two items; commands are never dropped."""
        future: Future = Future()
        with self._condition:
            if self._closed:
                future.set_exception(RuntimeError('the stream is not active'))
            else:
                self._commands.append((command, future))
                self._condition.notify()
        return future

    def take(self) -> tuple[Any, list[tuple[Callable[[], Any], Future]]]:
        """Wait for work; return (item or None, commands). (None, []) means closed."""
        with self._condition:
            self._condition.wait_for(
                lambda: self._closed or self._item is not None or self._commands)
            item, self._item = self._item, None
            commands, self._commands = self._commands, []
            return item, commands

    def close(self) -> None:
        """Drop what waits and let `take` return."""
        with self._condition:
            self._closed = True
            if self._item is not None:
                self.dropped += self._weight
            self._item = None
            for _, future in self._commands:
                future.set_exception(RuntimeError('the stream is not active any more'))
            self._commands = []
            self._condition.notify_all()


class Worker:
    """
    Call ``process`` with the newest item, again and again, in a thread of its own.

    ``process`` and the commands are the only ones to touch what the thread owns. An exception of
    ``process`` goes to ``on_error``, and the thread goes on.
    """

    def __init__(
        self, process: Callable[[Any], None], on_error: Callable[[Exception], None],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the thread; ``on_end`` is the last that it calls."""
        self._process = process
        self._on_error = on_error
        self._on_end = on_end
        self.mailbox = LatestMailbox()
        # A daemon: a network that computes for seconds must not hold up the end of the process.
        self._thread = threading.Thread(target=self._run, name='xsvggt_worker', daemon=True)
        self._thread.start()

    def run(self, command: Callable[[], Any], timeout: float) -> Any:
        """Run a command between two items and return its value; wait at most timeout seconds."""
        return self.mailbox.put_command(command).result(timeout)

    def stop(self, timeout: float) -> bool:
        """End the thread after the item in work; return False if that outlasts timeout seconds."""
        self.mailbox.close()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            item, commands = self.mailbox.take()
            if item is None and not commands:
                self._on_end()
                return
            for command, future in commands:
                try:
                    future.set_result(command())
                except Exception as error:  # the caller gets it
                    future.set_exception(error)
            if item is not None:
                try:
                    self._process(item)
                except Exception as error:
                    self._on_error(error)
