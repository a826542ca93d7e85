"""Commands run in the process of the tests, take its signals for good, and draw pictures."""

from pathlib import Path
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


@pytest.fixture
def no_picture(monkeypatch):
    """Leave out the picture of a run, which takes longer than all else of a short one."""
    monkeypatch.setattr('xsvggt_ros.recordings.reconstruct_run._write_picture',
                        lambda recording, folder: Path(folder, 'reconstruction.png'))
