"""The window's thread: one at a time, errors reported, an end at any moment."""

from dataclasses import replace
import threading

import numpy as np
import pytest
from scenes import make_problem

from xsvggt_ros.trajectory.adjustment import solve
from xsvggt_ros.trajectory.local_map import WindowProblem
from xsvggt_ros.trajectory.window_thread import WindowThread


def asked(**changes):
    problem = replace(make_problem(np.random.default_rng(0), noise=0.3), **changes)
    return WindowProblem(problem, np.arange(5), np.arange(60), 4, 0.0, False)


def test_what_is_offered_is_solved_and_taken_once():
    errors = []
    thread = WindowThread(errors.append)
    assert thread.is_free and thread.take() is None
    problem = asked()
    assert thread.offer(problem)
    thread.wait()
    assert not thread.is_free and not thread.offer(asked())   # until it is taken
    taken, solution = thread.take()
    assert taken is problem and thread.take() is None and thread.is_free
    np.testing.assert_array_equal(solution.poses, solve(problem.problem).poses)
    thread.close()
    assert not errors and not thread.offer(asked())


@pytest.mark.wrong_shapes
def test_an_error_is_reported_and_the_next_window_is_solved():
    errors = []
    thread = WindowThread(errors.append)
    assert thread.offer(asked(pixels=np.zeros((3, 2))))   # not as many as observations
    thread.wait()
    assert isinstance(errors[0], ValueError) and thread.take() is None
    assert thread.offer(asked())
    thread.wait()
    assert thread.take() is not None
    thread.close()


def test_closing_waits_for_what_is_being_solved(monkeypatch):
    begun, may_end = threading.Event(), threading.Event()

    def slow(window):
        begun.set()
        may_end.wait()
        return solve(window.problem)

    monkeypatch.setattr(WindowProblem, 'solve', slow)
    thread = WindowThread(lambda error: None)
    assert thread.offer(asked())
    begun.wait()
    assert not thread.offer(asked())
    closing = threading.Thread(target=thread.close)
    closing.start()
    may_end.set()
    closing.join()
    assert not thread._thread.is_alive()
