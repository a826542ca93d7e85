"""A thread of tasks: in order, all counted while they wait, and let go of at the end."""

import threading

import pytest

from xsvggt_ros.trajectory.background import Background


class Work:
    """Work that notes its tasks; each one ends when it is let."""

    def __init__(self):
        self.begun, self.go, self.done = threading.Event(), threading.Event(), []

    def __call__(self, task):
        self.begun.set()
        self.go.wait()
        if isinstance(task, BaseException):
            raise task
        self.done.append(task)


@pytest.fixture
def working():
    work, errors = Work(), []
    background = Background('tasks', work, errors.append)
    yield work, errors, background
    work.go.set()
    background.close()


def test_the_task_that_is_worked_on_is_pending_too(working):
    work, _, background = working
    assert background.pending == 0
    assert background.offer('first') and background.offer('second')
    work.begun.wait()
    assert background.pending == 2
    work.go.set()
    background.wait()
    assert background.pending == 0 and work.done == ['first', 'second']


def test_without_tasks_there_is_nothing_to_wait_for(working):
    work, errors, background = working
    background.wait()
    assert not work.begun.is_set() and not errors


def test_errors_are_told_as_they_were_raised_and_leave_nothing_pending(working):
    work, errors, background = working
    work.go.set()
    raised = [ValueError('one'), OSError('two')]
    for task in (raised[0], 'good', raised[1]):
        background.offer(task)
    background.wait()
    assert errors == raised and work.done == ['good'] and background.pending == 0


def test_an_error_that_cannot_be_told_is_logged_and_the_next_task_is_done(caplog):
    done = []

    def refuse(error):
        raise OSError('nobody listens')

    background = Background('tasks', lambda task: done.append(1 // task), refuse)
    for task in (0, 1):
        background.offer(task)
    waiting = threading.Thread(target=background.wait, daemon=True)
    waiting.start()
    waiting.join(timeout=60)
    assert not waiting.is_alive() and done == [1] and background.pending == 0
    background.close()
    record, = caplog.records
    assert record.getMessage().startswith('tasks: ')
    assert 'nobody listens' in caplog.text and 'ZeroDivisionError' in caplog.text


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_what_is_no_error_ends_the_thread_and_nobody_waits_for_it(working):
    work, errors, background = working
    for task in (SystemExit(1), 'never'):
        background.offer(task)
    work.go.set()
    background._thread.join()
    assert background.pending == 0 and not background.offer('late')
    background.wait()
    assert not errors and not work.done


def test_what_waits_at_the_end_is_let_go_of(working):
    work, _, background = working
    for task in range(5):
        background.offer(task)
    work.begun.wait()
    closing = threading.Thread(target=background.close)
    closing.start()
    with background._condition:
        background._condition.wait_for(lambda: background._closed)
    work.go.set()
    closing.join()
    assert work.done == [0] and background.pending == 0
    background.wait()   # nobody is left to do it, and nothing is left to do


def test_after_the_end_no_task_is_taken(working):
    work, _, background = working
    background.close()
    assert not background.offer('late') and background.pending == 0 and not work.done
    background.close()


def test_its_thread_has_the_name_and_does_not_hold_up_the_process(working):
    thread, = (one for one in threading.enumerate() if one.name == 'tasks')
    assert thread.daemon and thread is not threading.current_thread()
