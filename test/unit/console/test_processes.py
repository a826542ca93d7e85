"""Child processes and signals, and how a process ends."""

import os
import signal
import subprocess
import sys

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


# A thread that nobody waits for, always in OpenCV or about to come out of it.
BUSY = """
import sys, threading
import cv2, numpy
from xsvggt_ros.console.processes import leave
begun = threading.Event()
def work():
    orb, image = cv2.ORB_create(), numpy.zeros((480, 640), numpy.uint8)
    while True:
        orb.detectAndCompute(image, None)
        begun.set()
threading.Thread(target=work, daemon=True).start()
begun.wait()
print('done')
leave(130)
"""


def test_a_process_ends_with_its_code_whatever_threads_are_at_work():
    for _ in range(3):   # the interpreter's own end aborts it nearly always, up to Python 3.13
        done = subprocess.run([sys.executable, '-c', BUSY], timeout=600, capture_output=True,
                              text=True)
        assert (done.returncode, done.stdout, done.stderr) == (130, 'done\n', '')
