"""The thread that adjusts the window while frames go on."""

from collections.abc import Callable
import threading

from xsvggt_ros.trajectory.adjustment import Solution
from xsvggt_ros.trajectory.background import Background
from xsvggt_ros.trajectory.local_map import WindowProblem


class WindowThread(Background[WindowProblem]):
    """
    Solves one window at a time.

    `offer` and `take` are called by one other thread; an offer is declined while one is solved.
    """

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        """Start it. on_error: gets what a solution raises, in the thread; the next one may do."""
        self._lock = threading.Lock()
        self._solved: tuple[WindowProblem, Solution] | None = None
        super().__init__('xsvggt_window', self._solve, on_error)

    @property
    def is_free(self) -> bool:
        """Return whether nothing is being solved or waits to be taken."""
        # In this order: what is solved is there before the task is gone.
        return not self.pending and self._solved is None

    def offer(self, problem: WindowProblem) -> bool:
        """Have a window solved; return whether it will be."""
        return self.is_free and super().offer(problem)

    def take(self) -> tuple[WindowProblem, Solution] | None:
        """Return what was solved since, and make room for the next; None: nothing."""
        with self._lock:
            solved, self._solved = self._solved, None
            return solved

    def _solve(self, problem: WindowProblem) -> None:
        solved = problem, problem.solve()
        with self._lock:
            self._solved = solved
