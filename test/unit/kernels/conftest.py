"""With the C++ kernels, each of those that were built in turn, and without them."""

from native_calls import BUILT
import pytest
import torch

from xsvggt_ros.kernels import native


@pytest.fixture(params=BUILT, ids=lambda file: file.stem)
def library(request, monkeypatch):
    """Take each library that runs here in turn, on three threads."""
    loaded = native.load(request.param)
    monkeypatch.setattr(native, 'library', lambda: loaded)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield loaded
    torch.set_num_threads(threads)


@pytest.fixture
def plainly(monkeypatch):
    """Return a function that calls another one without the library."""
    def call(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(native, 'library', lambda: None)
            return function(*arguments)
    return call
