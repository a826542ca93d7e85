"""Copies to the host are there when asked for, and stay for as long as was promised."""

import pytest
import torch

from xsvggt_ros.engine.host_copy import BUFFERS, HostCopy


class Late:
    """A backend whose copies are made when they are waited for, at the latest moment."""

    def __init__(self):
        self.allocated = 0
        self.copies = 0

    def allocate(self, like):
        self.allocated += 1
        return torch.full_like(like, -1)

    def copy(self, pairs):
        assert all(source.is_contiguous() for source, _ in pairs)
        self.copies += 1
        self.transfer = Transfer(pairs)
        return self.transfer


class Transfer:
    def __init__(self, pairs):
        self.pairs = pairs

    def synchronize(self):
        for source, target in self.pairs:
            target.copy_(source)
        self.pairs = []


def frame(value):
    return {'depth': lambda: torch.full((4, 6), float(value)),
            'pose': lambda: torch.full((9,), float(value))}


def test_on_the_host_tensors_pass_through_when_asked_for():
    depth, made = torch.ones(4, 6), []
    pending = HostCopy.of('cpu').start({
        'depth': lambda: made.append('depth') or depth, 'pose': lambda: pytest.fail('unasked')})
    assert 'pose' in pending and 'rgb' not in pending
    assert made == []
    assert pending['depth'] is depth and pending['depth'] is depth
    assert made == ['depth']


def test_on_a_device_all_is_made_at_once():
    made = []
    pending = HostCopy(Late()).start({
        name: lambda name=name: made.append(name) or torch.ones(3) for name in ('b', 'a')})
    assert made == ['b', 'a'] and 'a' in pending and 'c' not in pending
    with pytest.raises(KeyError):
        pending['c']


def test_a_copy_is_there_when_it_was_asked_for():
    backend = Late()
    pending = HostCopy(backend).start(frame(3))
    assert backend.transfer.pairs
    depth = pending['depth']
    assert not backend.transfer.pairs
    assert (depth == 3).all() and (pending['pose'] == 3).all()
    assert pending['depth'] is depth


def test_all_tensors_of_a_frame_go_at_once():
    backend = Late()
    HostCopy(backend).start(frame(0))
    assert backend.copies == 1


def test_memory_is_used_again_in_turn():
    backend = Late()
    copies = HostCopy(backend)
    results = [copies.start(frame(i))['depth'] for i in range(10)]
    assert backend.allocated == 2 * BUFFERS
    assert len({result.data_ptr() for result in results}) == BUFFERS
    assert (results[-2] == 8).all() and (results[-1] == 9).all()


def test_a_copy_outlives_the_start_of_the_next():
    copies = HostCopy(Late())
    first = copies.start(frame(1))['depth']
    assert (copies.start(frame(2))['depth'] == 2).all()
    assert (first == 1).all()


def test_names_come_and_go_and_shapes_change():
    backend = Late()
    copies = HostCopy(backend)
    kept = copies.start(frame(1))['depth']
    for value in (2.0, 3.0):
        assert (copies.start({'pose': lambda: torch.full((9,), value)})['pose'] == value).all()
    assert (kept == 1).all()  # copies under other names take no turn
    larger = copies.start({'depth': lambda: torch.full((8, 8), 4.0)})['depth']
    assert larger.shape == (8, 8) and (larger == 4).all()
    halves = copies.start({'depth': lambda: torch.ones(8, 8, dtype=torch.half)})['depth']
    assert halves.dtype == torch.half


def test_a_transposed_tensor_is_copied_as_it_reads():
    tensor = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(HostCopy(Late()).start({'x': lambda: tensor})['x'], tensor)
