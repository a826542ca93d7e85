"""The thread that owns the engine, and the one-slot mailbox that feeds it."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
import threading
import time
import traceback
from typing import Any

# What a callback, a command or a transition may raise, with or without sense. Signals end the
# process by KeyboardInterrupt, which is none of these.
ANYTHING = (Exception, SystemExit, GeneratorExit)
PAUSE = 0.01  # seconds before a thread that failed begins again: it must not take a core by that
WAIT_PERIOD = 0.1  # seconds between two checks whether the image being processed is done


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


class CommandError(RuntimeError):
    """A command ended with what must not reach who asked for it: an exit of the interpreter."""


@dataclass(frozen=True)
class Work:
    """What a worker is doing."""

    what: str  # in words
    since: float  # seconds of the steady clock

    @property
    def seconds(self) -> float:
        """Return for how long it has been at it."""
        return time.monotonic() - self.since


class Worker:
    """
    Call ``process`` with the newest item, again and again, in a thread of its own.

    ``process`` and the commands are the only ones to touch what the thread owns. An exception of
    ``process`` goes to ``on_error``. Whatever else would end the thread - what ``on_error``
    raises, or what is no Exception - goes to ``on_crash``, and the thread begins again.
    """

    def __init__(
        self, process: Callable[[Any], None], on_error: Callable[[Exception], None],
        on_end: Callable[[], None] = lambda: None,
        on_crash: Callable[[BaseException], None] = traceback.print_exception,
    ) -> None:
        """Start the thread; ``on_end`` is the last that it calls."""
        self._process = process
        self._on_error = on_error
        self._on_end = on_end
        self._on_crash = on_crash
        self._work: Work | None = None
        self.mailbox = LatestMailbox()
        # A daemon: a network that computes for seconds must not hold up the end of the process.
        self._thread = threading.Thread(target=self._run, name='xsvggt_worker', daemon=True)
        self._thread.start()

    @property
    def work(self) -> Work | None:
        """Return what it is doing, None while it waits; from any thread."""
        return self._work

    @property
    def has_ended(self) -> bool:
        """Return whether its thread is over, which it is some time after `stop`."""
        return not self._thread.is_alive()

    def run(self, command: Callable[[], Any], timeout: float) -> Any:
        """Run a command between two items and return its value; wait at most timeout seconds."""
        return self.mailbox.put_command(command).result(timeout)

    def stop(self, timeout: float) -> bool:
        """End the thread after the item in work; return False if that outlasts timeout seconds."""
        self.mailbox.close()
        self._thread.join(timeout)
        return self.has_ended

    # The thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                self._serve()
                break
            except BaseException as error:
                self._survive(error)
        self._work = Work('the end of the last image', time.monotonic())
        try:
            self._on_end()
        except BaseException as error:
            self._survive(error)
        self._work = None

    def _serve(self) -> None:
        """Do what comes until the mailbox is closed."""
        while True:
            self._work = None
            item, commands = self.mailbox.take()
            if item is None and not commands:
                return
            for command, future in commands:
                self._work = Work('a service', time.monotonic())
                _answer(command, future)
            if item is not None:
                self._work = Work('an image', time.monotonic())
                try:
                    self._process(item)
                except Exception as error:
                    self._on_error(error)

    def _survive(self, error: BaseException) -> None:
        try:
            self._on_crash(error)
        except BaseException:
            traceback.print_exc()  # nobody is left to be told
        time.sleep(PAUSE)


class WorkerSlot:
    """
    The one worker that may use the engine; there is never a second one.

    One that was stopped, and has not ended because an image takes longer than anybody would wait,
    keeps the slot. All is called by the executor's thread.
    """

    def __init__(self, while_waiting: Callable[[], None]) -> None:
        """Begin empty; ``while_waiting`` is called again and again while somebody waits."""
        self.current: Worker | None = None
        self._stopped: Worker | None = None  # was told to end, and has not yet
        self._while_waiting = while_waiting

    @property
    def work(self) -> Work | None:
        """Return what is being done, by this or by the last worker."""
        worker = self.current or self._stopped
        return None if worker is None else worker.work

    def stop(self, timeout: float) -> bool:
        """Tell the worker to end; return whether it has, within timeout seconds."""
        if self.current is not None:
            self.current, self._stopped = None, self.current
        return self.is_free(timeout)

    def is_free(self, timeout: float) -> bool:
        """Wait at most timeout seconds for a stopped worker; return whether it has ended."""
        end = time.monotonic() + timeout
        while self._stopped is not None:
            left = end - time.monotonic()
            if self._stopped.stop(min(max(0.0, left), WAIT_PERIOD)):
                self._stopped = None
            elif left <= 0:
                return False
            else:
                self._while_waiting()
        return True


def _answer(command: Callable[[], Any], future: Future) -> None:
    """Run a command; whoever asked gets its value or its exception."""
    try:
        value = command()
    except Exception as error:
        future.set_exception(error)
    except BaseException as error:
        # It would end the thread that asks for the result.
        future.set_exception(CommandError(f'{type(error).__name__}: {error}'))
    else:
        future.set_result(value)
