"""The mailbox keeps the newest only, and the worker survives what its work throws."""

import threading

import pytest

from xsvggt_ros.node.status.stream_statistics import Ticket
from xsvggt_ros.node.worker import CommandError, LatestMailbox, Worker


class Gate:
    """A process function that waits, so that a test decides when work is done."""

    def __init__(self):
        self.seen = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Semaphore(0)

    def __call__(self, item):
        self.entered.release()
        assert self.open.acquire(timeout=10)
        self.seen.append(item)
        if item == 'bad':
            raise ValueError('bad item')


@pytest.fixture
def gate():
    return Gate()


def test_only_the_newest_waits_and_the_rest_is_counted(gate):
    worker = Worker(gate, pytest.fail)
    worker.mailbox.put(0)
    assert gate.entered.acquire(timeout=10)
    for item in (1, 2, 3):
        worker.mailbox.put(item)
    gate.open.release(2)
    assert gate.entered.acquire(timeout=10)
    assert worker.stop(10)
    assert gate.seen == [0, 3]
    assert (worker.mailbox.received, worker.mailbox.dropped) == (4, 2)


def test_an_exception_is_handed_on_and_work_goes_on(gate):
    errors = []
    worker = Worker(gate, errors.append)
    gate.open.release(2)
    worker.mailbox.put('bad')
    assert gate.entered.acquire(timeout=10)
    assert worker.run(lambda: 'between', 10) == 'between'
    worker.mailbox.put('good')
    assert gate.entered.acquire(timeout=10)
    assert worker.stop(10)
    assert gate.seen == ['bad', 'good']
    assert [str(error) for error in errors] == ['bad item']


def test_commands_run_in_the_worker_and_their_errors_come_back(gate):
    worker = Worker(gate, pytest.fail)
    assert worker.run(threading.get_ident, 10) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        worker.run(lambda: 1 / 0, 10)
    assert worker.stop(10)


def test_stop_says_when_work_outlasts_it(gate):
    worker = Worker(gate, pytest.fail)
    worker.mailbox.put(0)
    assert gate.entered.acquire(timeout=10)
    assert not worker.stop(0.01)
    gate.open.release()
    assert worker.stop(10)


def test_a_closed_mailbox_drops_and_refuses():
    mailbox = LatestMailbox()
    mailbox.put(1)
    waiting = mailbox.put_command(lambda: None)
    mailbox.close()
    mailbox.put(2)
    assert (mailbox.received, mailbox.dropped) == (2, 2)
    assert mailbox.take() == (None, [])
    for future in (waiting, mailbox.put_command(lambda: None)):
        with pytest.raises(RuntimeError, match='active'):
            future.result(0)


def test_the_end_comes_after_the_item_in_work_and_is_waited_for(gate):
    ended = []
    worker = Worker(gate, pytest.fail, lambda: ended.append(list(gate.seen)))
    worker.mailbox.put(0)
    assert gate.entered.acquire(timeout=10)
    assert not worker.stop(0.01) and not ended
    gate.open.release()
    assert worker.stop(10)
    assert ended == [[0]]


# What would end the thread -----------------------------------------------------------------------

def fail(error):
    raise error


@pytest.mark.parametrize('error', [
    SystemExit(3), GeneratorExit(), KeyboardInterrupt(), MemoryError()], ids=repr)
def test_whatever_ends_the_thread_is_told_and_it_begins_again(error):
    crashes, seen = [], []

    def process(item):
        seen.append(item)
        if item == 'bad':
            raise error

    worker = Worker(process, fail, on_crash=crashes.append)
    for times in (1, 2):
        worker.mailbox.put('bad')
        while len(crashes) < times:
            assert worker.run(lambda: 'alive', 10) == 'alive'
    worker.mailbox.put('good')
    assert worker.run(lambda: 'alive', 10) == 'alive'
    assert worker.stop(10)
    assert crashes == [error] * 2
    assert seen == ['bad', 'bad', 'good']


def test_a_handler_of_crashes_that_fails_ends_nothing_either(capfd):
    crashes = []

    def on_crash(error):
        crashes.append(error)
        fail(RuntimeError('second'))

    worker = Worker(lambda item: fail(ValueError('first')), fail, on_crash=on_crash)
    worker.mailbox.put(1)
    while not crashes:
        worker.run(lambda: None, 10)
    assert worker.run(lambda: 'alive', 10) == 'alive'
    assert worker.stop(10)
    told = capfd.readouterr().err
    assert 'first' in told and 'second' in told


def test_a_command_cannot_end_its_thread_nor_the_one_that_asks():
    crashes = []
    worker = Worker(fail, fail, on_crash=crashes.append)
    for error in (SystemExit(3), GeneratorExit()):
        with pytest.raises(CommandError, match=type(error).__name__):
            worker.run(lambda: fail(error), 10)
    assert worker.stop(10) and not crashes


def test_the_end_may_fail_and_the_thread_is_over_all_the_same():
    crashes = []
    worker = Worker(fail, fail, lambda: fail(SystemExit(1)), crashes.append)
    assert worker.stop(10) and worker.has_ended
    assert len(crashes) == 1


def test_what_is_in_work_is_known_to_others(gate):
    worker = Worker(gate, pytest.fail)
    worker.mailbox.put(0)
    assert gate.entered.acquire(timeout=10)
    assert worker.work.what == 'an image' and worker.work.seconds >= 0
    gate.open.release()
    assert worker.run(lambda: worker.work.what, 10) == 'a service'
    assert worker.stop(10) and worker.work is None


def test_images_are_counted_by_the_first_who_asks():
    ticket = Ticket(3)
    counted = []
    threads = [threading.Thread(target=lambda: counted.append(ticket.take())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counted) == [0] * 19 + [3]
