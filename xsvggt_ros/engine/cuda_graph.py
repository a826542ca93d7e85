"""
Replay of the part of a frame whose shapes no longer change.

A full cache evicts as many tokens as a frame brings, so that every frame then runs the same
kernels on the same memory. A CUDA graph launches them all at once, instead of one by one from
Python. Frames are served eagerly until the graph is there, and whenever it does not fit.

What may be captured: functions of tensors that read and write tensors only, in memory that stays
where it is, without a host synchronisation. They are called once more for the capture, when they
run in Python but not on the device: they must not count anything in Python. The blocks of the
network over the token cache, and the dense heads, are such; `KVCache.end_step` (a frame number in
Python) and the camera head (four steps a frame, and a cache that takes hundreds of frames to
fill) are not, and stay eager. Nothing here has run on a GPU yet.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
import time
from typing import Protocol

import torch
from torch import Tensor

from xsvggt_ros.kv_cache.cache import KVCache

Tensors = tuple[Tensor, ...]
Function = Callable[..., Tensors]
WARM_UP = 3  # frames: libraries choose kernels, load them, and allocate workspaces


@dataclass(frozen=True)
class CapturedCall:
    """A captured call: ``replay`` does it again, from and into the memory it was captured with."""

    replay: Callable[[], None]
    outputs: Tensors


class GraphBackend(Protocol):
    """What runs and captures calls; `CudaGraphs` is one."""

    def warm(self, call: Callable[[], Tensors]) -> Tensors:
        """Run a call eagerly where `capture` will be, and return its result."""

    def capture(self, call: Callable[[], Tensors]) -> CapturedCall:
        """Capture a call without running it; raises RuntimeError if that cannot be done."""


class CudaGraphs:
    """CUDA graphs, warmed up and captured on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        """Make the stream."""
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def warm(self, call: Callable[[], Tensors]) -> Tensors:
        """
        Run a call on the stream of captures, between what comes before and after it.

        Memory it gives back is used again on that stream only, after the next wait for the
        current one.
        """
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = call()
        current.wait_stream(self._stream)
        return outputs

    def capture(self, call: Callable[[], Tensors]) -> CapturedCall:
        """
        Capture a call. It waits for the device once.

        Other threads may use the device meanwhile ('thread_local'): those that publish ask for
        events and free memory. 'relaxed' would let this thread's own mistakes pass.
        """
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream(self._device)
        try:
            with torch.cuda.device(self._device), torch.cuda.graph(
                    graph, stream=self._stream, capture_error_mode='thread_local'):
                outputs = call()
        finally:
            torch.cuda.set_stream(current)  # torch 2.13 stays on the other after a failure
        return CapturedCall(graph.replay, outputs)


class SteadyStep:
    """
    A function of tensors that is replayed from a graph once its circumstances are steady.

    Call it with the function's arguments and, first, what else its shapes depend on: when that
    and the shapes of the arguments have been the same for some calls, `settle` captures it, and
    later calls are replays for as long as nothing changes.
    """

    def __init__(
        self, name: str, function: Function, backend: GraphBackend,
        report: Callable[[str], None], lend: bool = False, warm_up: int = WARM_UP,
    ) -> None:
        """
        Take a function and what captures it; ``report`` is told, in a line, what happens.

        name: of the function, in those lines. lend: return the replay's own outputs, which the
        next call overwrites; otherwise copies.
        """
        self._name = name
        self._function = function
        self._backend = backend
        self._report = report
        self._lend = lend
        self._warm_up = warm_up
        self._refused = False
        self._captured: CapturedCall | None = None
        self._inputs: Tensors = ()
        self._key: Hashable | None = None
        self._warm = 0

    @property
    def refused(self) -> bool:
        """Return whether it could not be captured."""
        return self._refused

    @property
    def replays(self) -> bool:
        """Return whether a graph is there to be replayed."""
        return self._captured is not None

    def __call__(self, circumstances: Hashable | None, *inputs: Tensor) -> Tensors:
        """
        Return what the function returns for the inputs, by a replay if there is one that fits.

        circumstances: None as long as they change with every call.
        """
        if circumstances is None or self._refused:
            self.invalidate('the cache is growing')
            return self._function(*inputs)
        key = (circumstances, *((x.shape, x.stride(), x.dtype, x.device) for x in inputs))
        if key != self._key:
            self.invalidate('sizes have changed')
            self._key = key
        if self._captured is None:
            outputs = self._backend.warm(lambda: self._function(*inputs))
            self._warm += 1
            if self._warm == self._warm_up:
                self._inputs = tuple(x.clone(memory_format=torch.preserve_format) for x in inputs)
            return outputs
        for buffer, x in zip(self._inputs, inputs):
            buffer.copy_(x)
        self._captured.replay()
        outputs = self._captured.outputs
        return outputs if self._lend else tuple(x.clone() for x in outputs)

    def settle(self) -> None:
        """
        Capture, if it is time to; call it between frames, when a result is on its way.

        It runs in the caller's thread: the function works with Python objects that a frame being
        served would change under it, and both would want the interpreter. A capture costs about
        one eager frame, once. Where it fails, the function stays eager for good.
        """
        if self._captured is not None or self._refused or self._warm < self._warm_up:
            return
        start = time.perf_counter()
        try:
            self._captured = self._backend.capture(lambda: self._function(*self._inputs))
        except RuntimeError as error:  # out of memory is one, too
            self._refused = True
            self._forget()
            self._report(f'no CUDA graph of {self._name}, which stays eager: {_first_line(error)}')
            return
        self._report(f'{self._name} is replayed from a CUDA graph from now on '
                     f'(captured in {1e3 * (time.perf_counter() - start):.0f} ms)')

    def invalidate(self, reason: str) -> None:
        """
        Drop the graph and begin anew; a must when memory that it uses moves or is freed.

        reason: why, for the report.
        """
        if self._captured is not None:
            self._report(f'the CUDA graph of {self._name} is dropped: {reason}')
        self._forget()

    def _forget(self) -> None:
        self._captured = None
        self._inputs = ()
        self._key = None
        self._warm = 0


class SteadyFrame:
    """
    The parts of a frame that are replayed, by name; one for each memory of a stream.

    Give it to `StreamVGGT.step` in place of plain calls. The function that comes first under a
    name is the one that is captured: later ones must do the same.
    """

    def __init__(
        self, tokens: KVCache, backend: GraphBackend, report: Callable[[str], None],
    ) -> None:
        """Watch a token cache: the parts are steady when it is."""
        self._tokens = tokens
        self._backend = backend
        self._report = report
        self._parts: dict[str, SteadyStep] = {}

    def __call__(self, name: str, function: Function, *inputs: Tensor) -> Tensors:
        """Run a part of a frame; what it returns holds until the next frame's part."""
        if name not in self._parts:
            self._parts[name] = SteadyStep(
                name, function, self._backend, self._report, lend=name == 'backbone')
        return self._parts[name](steady_state(self._tokens), *inputs)

    @property
    def description(self) -> str:
        """Return how things stand, in a few words; from any thread."""
        parts = list(self._parts.items())
        kinds = {'replayed': [name for name, part in parts if part.replays],
                 'refused': [name for name, part in parts if part.refused]}
        words = [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]
        return '; '.join(words) or 'begin when the cache is full'

    def settle(self) -> None:
        """Capture what is ready, between two frames; see `SteadyStep.settle`."""
        for part in self._parts.values():
            part.settle()

    def invalidate(self, reason: str) -> None:
        """Drop all graphs, as when the stream is reset."""
        for part in self._parts.values():
            part.invalidate(reason)


def steady_state(cache: KVCache) -> int | None:
    """
    Return the tokens that a step finds in the cache, None while that changes step by step.

    Steady is what has just evicted as many tokens as a step brings.
    """
    return cache.tokens if cache.evicted_last == cache.layout.tokens_per_step else None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
