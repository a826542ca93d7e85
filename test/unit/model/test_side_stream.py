"""The order in which two parts of a frame are begun and waited for."""

from contextlib import contextmanager

import torch

from xsvggt_ros.model import side_stream
from xsvggt_ros.model.side_stream import side_by_side


def test_on_a_cpu_one_comes_after_the_other():
    calls = []
    result = side_by_side(lambda: calls.append('first') or 1, lambda: calls.append('second') or 2,
                          torch.device('cpu'))
    assert result == (1, 2) and calls == ['first', 'second']


class Stream:
    """A stream that writes down what is asked of it."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def record_event(self):
        self.log.append(f'{self.name} notes')
        return 'event'

    def wait_event(self, event):
        self.log.append(f'{self.name} waits for the note')

    def wait_stream(self, other):
        self.log.append(f'{self.name} waits for {other.name}')


def test_on_a_gpu_the_second_starts_where_the_first_does(monkeypatch):
    log = []
    main, side = Stream('main', log), Stream('side', log)
    streams = [main]

    @contextmanager
    def on(stream):
        streams.append(stream)
        yield
        streams.pop()

    monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: main)
    monkeypatch.setattr(torch.cuda, 'stream', on)
    monkeypatch.setattr(side_stream, '_side_stream', lambda device: side)

    def part(name):
        log.append(f'{name} on {streams[-1].name}')
        return name

    result = side_by_side(lambda: part('dense'), lambda: part('camera'), torch.device('cuda'))
    assert result == ('dense', 'camera')
    assert log == ['main notes', 'dense on main', 'side waits for the note', 'camera on side',
                   'main waits for side']
