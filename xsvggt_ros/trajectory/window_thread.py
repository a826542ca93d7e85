"""The thread that adjusts the window while frames go on."""

from collections.abc import Callable
import threading

from xsvggt_ros.trajectory.adjustment import Solution, solve
from xsvggt_ros.trajectory.local_map import WindowProblem


class WindowThread:
    """
    Solves one window at a time.

    `offer` and `take` are called by one other thread; an offer is declined while one is solved.
    """

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        """Start it. on_error: gets what a solution raises, in the thread; the next one may do."""
        self._on_error = on_error
        self._condition = threading.Condition()
        self._asked: WindowProblem | None = None
        self._solved: tuple[WindowProblem, Solution] | None = None
        self._closed = False
        # A daemon: it must not hold up the end of the process.
        self._thread = threading.Thread(target=self._run, name='xsvggt_window', daemon=True)
        self._thread.start()

    @property
    def is_free(self) -> bool:
        """Return whether nothing is being solved or waits to be taken."""
        with self._condition:
            return self._asked is None and self._solved is None

    def offer(self, problem: WindowProblem) -> bool:
        """Have a window solved; return whether it will be."""
        with self._condition:
            if self._asked is not None or self._solved is not None or self._closed:
                return False
            self._asked = problem
            self._condition.notify_all()
            return True

    def take(self) -> tuple[WindowProblem, Solution] | None:
        """Return what was solved since, and make room for the next; None: nothing."""
        with self._condition:
            solved, self._solved = self._solved, None
            return solved

    def wait(self) -> None:
        """Wait until nothing is being solved."""
        with self._condition:
            self._condition.wait_for(lambda: self._asked is None)

    def close(self) -> None:
        """End the thread."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._asked is not None or self._closed)
                if self._closed:
                    self._asked = None
                    self._condition.notify_all()
                    return
                asked = self._asked
            assert asked is not None
            solved: tuple[WindowProblem, Solution] | None = None
            try:
                solved = asked, solve(asked.problem)
            except Exception as error:
                self._on_error(error)
            finally:
                with self._condition:
                    self._solved, self._asked = solved, None
                    self._condition.notify_all()
