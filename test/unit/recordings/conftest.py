"""Commands run in the process of the tests, and take its signals for good."""

import signal

import pytest


@pytest.fixture(autouse=True)
def same_signals():
    """Give this process its handlers back: children inherit what is ignored."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    kept = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, kept):
        signal.signal(number, handler)
