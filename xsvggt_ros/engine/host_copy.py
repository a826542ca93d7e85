"""Results on their way from the device to the host, while both go on working."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

BUFFERS = 2  # sets in turn: one may still be read from while the next one is written
Maker = Callable[[], Tensor]


class Done(Protocol):
    """What a copy is waited for with; `torch.cuda.Event` is one."""

    def synchronize(self) -> None:
        """Wait for the end of the copy."""


class CopyBackend(Protocol):
    """What copies to the host; `CudaCopies` is one."""

    def allocate(self, like: Tensor) -> Tensor:
        """Return a tensor on the host of the same shape and type."""

    def copy(self, pairs: list[tuple[Tensor, Tensor]]) -> Done:
        """Begin to copy from the first to the second of each pair, after all work so far."""


class CudaCopies:
    """Copies on a stream of their own, into pinned memory; has not run on a GPU yet."""

    def __init__(self, device: torch.device) -> None:
        """Make the stream."""
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def allocate(self, like: Tensor) -> Tensor:
        """Return pinned memory; to pin it is slow (it may take milliseconds)."""
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)

    def copy(self, pairs: list[tuple[Tensor, Tensor]]) -> Done:
        """Begin to copy once the current stream has come here."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for source, target in pairs:
                target.copy_(source, non_blocking=True)
                # Who frees the source meanwhile must not have its memory written to.
                source.record_stream(self._stream)
            # Whoever waits sleeps: the processor has other threads to run.
            event = torch.cuda.Event(blocking=True)
            event.record(self._stream)
        return event


class PendingCopy:
    """Tensors on their way to the host: ask for one by its name, and it is there."""

    def __init__(
        self, tensors: dict[str, Tensor], done: Done | None,
        makers: Mapping[str, Maker] = MappingProxyType({}),
    ) -> None:
        """
        Take tensors on the host, and what their copies are waited for with.

        done: None where nothing is copied. makers: of tensors that are made when asked for.
        """
        self._tensors = tensors
        self._done = done
        self._makers = makers

    def __contains__(self, name: str) -> bool:
        """Return whether there is a tensor of this name."""
        return name in self._tensors or name in self._makers

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor on the host, when it is there."""
        if name not in self._tensors:
            self._tensors[name] = self._makers[name]()
        if self._done is not None:
            self._done.synchronize()
        return self._tensors[name]


class HostCopy:
    """
    Copy named tensors to the host, into memory that is allocated once for each name and shape.

    What is on the host already is passed on as it is. Copies stay as they are until ``BUFFERS``
    more have begun under the same name: read or copy them before.
    """

    def __init__(self, backend: CopyBackend | None) -> None:
        """Take what copies; None where tensors are on the host anyway."""
        self._backend = backend
        self._buffers: dict[str, list[Tensor]] = {}
        self._turn: dict[str, int] = {}

    @classmethod
    def of(cls, device: torch.device | str) -> 'HostCopy':
        """Return what suits the tensors of a device."""
        device = torch.device(device)
        return cls(CudaCopies(device) if device.type == 'cuda' else None)

    def start(self, makers: Mapping[str, Maker]) -> PendingCopy:
        """
        Begin to copy what the functions return, all at once; neither device nor caller waits.

        On a device they are called now, so that their work comes before what it is given next.
        On the host each is called by who first asks for its tensor, in whatever thread that is.
        """
        if self._backend is None:
            return PendingCopy({}, None, dict(makers))
        # Laid out on the current stream, so that each is one plain transfer.
        sources = {name: make().contiguous() for name, make in makers.items()}
        targets = {name: self._buffer(self._backend, name, source)
                   for name, source in sources.items()}
        done = self._backend.copy([(sources[name], targets[name]) for name in sources])
        return PendingCopy(targets, done)

    def _buffer(self, backend: CopyBackend, name: str, like: Tensor) -> Tensor:
        buffers = self._buffers.get(name)
        if buffers is None or (buffers[0].shape, buffers[0].dtype) != (like.shape, like.dtype):
            buffers = [backend.allocate(like) for _ in range(BUFFERS)]
            self._buffers[name] = buffers
        self._turn[name] = (self._turn.get(name, -1) + 1) % BUFFERS
        return buffers[self._turn[name]]
