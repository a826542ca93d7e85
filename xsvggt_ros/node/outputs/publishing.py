"""The thread that publishes an image while the worker's is at the next one."""

from collections import deque
from collections.abc import Callable
import threading
import time
import traceback

Part = Callable[[], None]


class Publishing:
    """
    Does for the worker's thread what it need not wait for, one image at a time.

    The worker hands an image over with `begin`, and what is to follow with `go_on`: parts are done
    in that order, and those that follow one that failed are left out. `settle` waits until all is
    done, and `begin` does so first: there is never more than one image here, and images come out
    in the order in which they went in.

    All is called by the worker's thread, or by another when there is no worker. What the parts
    touch is theirs until `settle` has returned, and the caller's from then on.
    """

    def __init__(self, overlaps: bool) -> None:
        """Start the thread; without overlap there is none, and parts are done by the caller."""
        self._overlaps = overlaps
        self._condition = threading.Condition()
        self._parts: deque[Part] = deque()  # the first one is being done
        self._closed = False
        self._failed = False
        self._since: float | None = None
        self._on_error: Callable[[BaseException], None] = lambda error: None
        if overlaps:
            # A daemon: a middleware that blocks must not hold up the end of the process.
            self._thread = threading.Thread(
                target=self._run, name='xsvggt_publishing', daemon=True)
            self._thread.start()

    @property
    def is_settled(self) -> bool:
        """Return whether all is done."""
        return not self._parts

    @property
    def since(self) -> float | None:
        """Return when the part in work was begun, on the steady clock; None: there is none."""
        return self._since

    def begin(self, part: Part, on_error: Callable[[BaseException], None]) -> None:
        """
        Wait for the image before, then do the first part of this one's publication.

        on_error: gets what a part raises, whatever it is, in the thread that does it.
        """
        self.settle()
        self._failed, self._on_error = False, on_error
        self.go_on(part)

    def go_on(self, part: Part) -> None:
        """Do another part of the same image after those before, unless one of them fails."""
        if not self._overlaps:
            self._do(part)
            return
        with self._condition:
            self._parts.append(part)
            self._condition.notify_all()

    def settle(self) -> None:
        """Wait until all is done."""
        with self._condition:
            self._condition.wait_for(lambda: not self._parts)

    def close(self) -> None:
        """End the thread when all is done."""
        self.settle()
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        if self._overlaps:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._parts or self._closed)
                if not self._parts:
                    return
                part = self._parts[0]
            try:
                self._do(part)
            finally:
                # What a part holds, tensors of a frame, must not live until the next one.
                del part
                with self._condition:
                    self._parts.popleft()
                    self._condition.notify_all()

    def _do(self, part: Part) -> None:
        if self._failed:
            return
        self._since = time.monotonic()
        try:
            part()
        except BaseException as error:  # the thread must live, or nothing is published any more
            self._failed = True
            self._tell(error)
        finally:
            self._since = None

    def _tell(self, error: BaseException) -> None:
        try:
            self._on_error(error)
        except BaseException:
            traceback.print_exc()  # nobody is left to be told
