"""Child processes and signals."""

import os
import signal

import pytest

from xsvggt_ros.console.processes import deferred_interrupts


def test_ctrl_c_waits_until_a_process_is_known():
    started = []
    with pytest.raises(KeyboardInterrupt):
        with deferred_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            started.append('and its number is known')
    assert started
    with pytest.raises(KeyboardInterrupt):  # as before
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()


def test_an_error_meanwhile_is_not_hidden_and_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(OSError, match='no such program'):
        with deferred_interrupts():
            raise OSError('no such program')
    assert signal.getsignal(signal.SIGTERM) == before
    with deferred_interrupts():
        pass
