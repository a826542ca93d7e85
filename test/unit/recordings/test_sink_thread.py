"""Results are taken in their order by another thread, and nothing of theirs is lost."""

import threading

import pytest

from xsvggt_ros.recordings.sink_thread import AHEAD, SinkThread


def test_items_are_taken_in_order_by_another_thread():
    taken = []
    sink = SinkThread(lambda item: taken.append((item, threading.current_thread())))
    for number in range(50):
        sink.put(number)
    sink.finish()
    assert [item for item, _ in taken] == list(range(50))
    assert all(thread is not threading.current_thread() for _, thread in taken)
    sink.finish()   # again, and with nothing given
    sink.put(50)    # and on
    sink.finish()
    assert taken[-1][0] == 50


def test_no_more_than_a_few_wait():
    go, given = threading.Event(), []

    def take(item):
        go.wait()

    def give():
        for number in range(100):
            sink.put(number)
            given.append(number)

    sink = SinkThread(take)
    giver = threading.Thread(target=give)
    giver.start()
    while len(given) < AHEAD:
        assert giver.is_alive()
    assert len(given) <= AHEAD + 1   # one of them is in work
    go.set()
    giver.join()
    sink.finish()


def test_an_error_is_raised_once_and_the_others_are_taken():
    taken = []

    def take(item):
        taken.append(item)
        if item == 1:
            raise OSError('full')

    sink = SinkThread(take)
    with pytest.raises(OSError, match='full'):
        for number in range(20):
            sink.put(number)
    sink.finish()
    assert taken == list(range(len(taken))) and len(taken) >= 2
    sink.put(1)
    with pytest.raises(OSError, match='full'):
        sink.finish()


def test_an_interrupt_while_the_last_items_are_taken_loses_none():
    """Nor does who waits afterwards, for a state of the run, wait for ever."""
    taken, release = [], threading.Event()
    sink = SinkThread(lambda item: (release.wait(60), taken.append(item)))
    sink.put(1)
    sink.put(2)
    join, calls = sink._thread.join, []

    def interrupted():
        calls.append(1)
        if len(calls) == 1:
            release.set()
            raise KeyboardInterrupt
        join()

    sink._thread.join = interrupted
    with pytest.raises(KeyboardInterrupt):
        sink.finish()
    assert taken == [1, 2] and len(calls) == 2
    sink.drain()
    sink.finish()


def test_a_thread_that_has_ended_leaves_nothing_to_wait_for():
    sink = SinkThread(lambda item: None)
    sink.put(1)
    thread, waited = sink._thread, sink._queue
    sink.finish()
    waited.join()
    assert not thread.is_alive()
