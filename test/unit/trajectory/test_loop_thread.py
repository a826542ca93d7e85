"""The thread that closes loops takes all keyframes, in order, and outlives what goes wrong."""

import threading

from loop_scene import Room, round_way, snapshots
import pytest

from xsvggt_ros.trajectory.config import TrajectoryConfig
from xsvggt_ros.trajectory.loop_closer import LoopCloser
from xsvggt_ros.trajectory.loop_thread import LoopThread


class Recorder:
    """A closer that notes what it is given, once it is let."""

    def __init__(self):
        self.go, self.taken = threading.Event(), []

    def add(self, snapshot, search):
        self.go.wait()
        self.taken.append((snapshot, search))
        if snapshot == 'bad':
            raise ValueError('not today')


@pytest.fixture
def waiting():
    recorder, errors = Recorder(), []
    thread = LoopThread(recorder, errors.append)
    yield recorder, errors, thread
    recorder.go.set()
    thread.close()


def test_all_are_taken_in_order_and_not_all_are_searched_when_they_come_too_fast(waiting):
    recorder, errors, thread = waiting
    for number in range(8):
        thread.offer(number)
    recorder.go.set()
    thread.wait()
    assert [one for one, _ in recorder.taken] == list(range(8)) and not errors
    searched = [search for _, search in recorder.taken]
    assert not any(searched[1:5]) and all(searched[5:])


def test_what_fails_is_told_and_the_next_is_taken(waiting):
    recorder, errors, thread = waiting
    recorder.go.set()
    for snapshot in ('good', 'bad', 'good'):
        thread.offer(snapshot)
    thread.wait()
    assert len(recorder.taken) == 3 and 'not today' in str(errors[0])


def test_it_ends_though_much_waits(waiting):
    recorder, _, thread = waiting
    for number in range(50):
        thread.offer(number)
    recorder.go.set()
    thread.close()
    assert not thread._thread.is_alive()


def test_a_real_closer_comes_to_the_same_as_without_a_thread():
    true = round_way(32)
    closers = LoopCloser(TrajectoryConfig()), LoopCloser(TrajectoryConfig())
    thread = LoopThread(closers[1], pytest.fail)
    for snapshot in snapshots(Room(), true, true):
        closers[0].add(snapshot)
        thread.offer(snapshot)
        thread.wait()
    thread.close()
    assert closers[0].report == closers[1].report and closers[0].report.found > 0
    assert len(closers[1].keyframes) == 32
