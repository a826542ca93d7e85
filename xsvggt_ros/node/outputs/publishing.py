"""The thread that publishes an image while the worker's is at the next one."""

from collections import deque
from collections.abc import Callable
import threading
import traceback

Part = Callable[[], None]


class Publishing:
    """
    Does for the worker's thread what it need not wait for, one image at a time.

    The worker hands an image over with `submit`, and what is to follow with `then`: parts are done
    in that order, and those that follow one that failed are left out. `join` waits until all is
    done, and `submit` does so first: there is never more than one image here, and images come out
    in the order in which they went in.

    All is called by the worker's thread, by one that it waits for, or by another when there is no
    worker. What the parts touch is theirs until `join` has returned, then the caller's.
    """

    def __init__(self, overlaps: bool) -> None:
        """Start the thread; without overlap there is none, and parts are done by the caller."""
        self._overlaps = overlaps
        self._condition = threading.Condition()
        self._parts: deque[Part] = deque()  # the first one is being done
        self._closed = False
        self._failed = False
        self._on_error: Callable[[BaseException], None] = lambda error: None
        if overlaps:
            # A daemon: a middleware that blocks must not hold up the end of the process.
            self._thread = threading.Thread(
                target=self._run, name='xsvggt_publishing', daemon=True)
            self._thread.start()

    def submit(self, part: Part, on_error: Callable[[BaseException], None]) -> None:
        """
        Wait for the image before, then do the first part of this one's publication.

        on_error: gets what a part raises, whatever it is, in the thread that does it.
        """
        self.join()
        self._failed, self._on_error = False, on_error
        self.then(part)

    def then(self, part: Part) -> None:
        """Do another part of the same image after those before, unless one of them fails."""
        if not self._overlaps:
            self._do(part)
            return
        with self._condition:
            self._parts.append(part)
            self._condition.notify_all()

    def join(self) -> None:
        """Wait until all is done."""
        with self._condition:
            self._condition.wait_for(lambda: not self._parts)

    def close(self) -> None:
        """End the thread when all is done."""
        self.join()
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
        try:
            part()
        except BaseException as error:  # the thread must live, or nothing is published any more
            self._failed = True
            self._report(error)

    def _report(self, error: BaseException) -> None:
        try:
            self._on_error(error)
        except BaseException:
            traceback.print_exc()  # nobody is left to be told
