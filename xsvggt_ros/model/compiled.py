"""
Parts of the network, compiled by TorchInductor while frames are served without them.

A part is a method that is a function of tensors and of its module's weights: what a block does
before and after its attention, and the dense heads. All blocks of one kind share one compiled
function, which takes their weights as arguments. Shapes, strides and types are those of the
stream's frames: a part remembers how it was called, is compiled for just that, and put in between
two frames. Called otherwise, it runs as it was written.

The compiler is Python, as the network is, and both would wait for the one interpreter: frames of
`small` took four times as long beside it in a thread. So it works in a process of its own, from
descriptions of the parts without their weights, and leaves libraries to be loaded (AOTInductor).
`torch.compile` would also guard every call, and compile again in the middle of a frame when a
guard fails.

On a CPU the products of wide layers stay with oneDNN, which does them with what comes after in one
call; what is compiled is what lies between queries, keys and values and their product, and the
dense heads. On a GPU all of it is compiled; that has not run yet.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
import copy
from dataclasses import dataclass
from importlib import import_module
import os
from pathlib import Path
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import torch
from torch import nn, Tensor
from torch.func import functional_call

from xsvggt_ros import onednn
from xsvggt_ros.model.dpt_head import DPTHead
from xsvggt_ros.model.layers import Block, TableCache
from xsvggt_ros.model.streamvggt import StreamVGGT

SIZES = 4  # of frames for which a part stays compiled
NICE = 10  # below whom the compiler stands
POLL = 0.1  # seconds
# What an error message contains, and what to do.
CURES = (
    ('C++ compiler', 'there is no C++ compiler (sudo apt-get install g++)'),
    ('InvalidCxxCompiler', 'there is no C++ compiler (sudo apt-get install g++)'),
    ('Python.h', "Python's headers are missing (sudo apt-get install python3-dev)"),
    ('C compiler', 'there is no C compiler (sudo apt-get install gcc)'),
    ('triton', 'Triton is missing or does not work here (python3 -m pip install triton)'),
)


@dataclass(frozen=True)
class Shape:
    """How a tensor lies in memory."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, x: Tensor) -> 'Shape':
        """Describe a tensor."""
        return cls(tuple(x.shape), x.stride(), x.dtype, x.device)

    def takes(self, x: Tensor) -> bool:
        """Return whether a tensor is the same but for its strides."""
        return x.shape == self.size and x.dtype == self.dtype and x.device == self.device

    def laid_out(self, x: Tensor) -> Tensor:
        """Return a tensor that `takes` accepts, with these strides."""
        return x if x.stride() == self.stride else self.empty().copy_(x)

    def empty(self) -> Tensor:
        """Return a new tensor, not filled."""
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=self.device)


@dataclass(frozen=True)
class Call:
    """How a part was called: numbers first, then tensors."""

    numbers: tuple[int, ...]
    inputs: tuple[Shape, ...]

    @classmethod
    def of(cls, arguments: Sequence[Any]) -> 'Call':
        """Describe the arguments of a call."""
        tensors = [x for x in arguments if isinstance(x, Tensor)]
        return cls(tuple(arguments[:len(arguments) - len(tensors)]),
                   tuple(Shape.of(x) for x in tensors))

    def takes(self, arguments: Sequence[Any]) -> bool:
        """Return whether a call with these arguments is such a one, strides left aside."""
        numbers = len(self.numbers)
        return (len(arguments) == numbers + len(self.inputs)
                and tuple(arguments[:numbers]) == self.numbers
                and all(map(Shape.takes, self.inputs, arguments[numbers:])))


class Part:
    """A method of a module, called in its place: compiled or as it was written."""

    def __init__(self, name: str, module: nn.Module, method: str) -> None:
        """Step in the place of the method; name: for people."""
        self.name = name
        self.module = module
        self.method = method
        self.seen: Call | None = None  # the last call that was not compiled
        self.refused: Call | None = None  # such calls are not to be compiled again
        self.error = ''  # why
        self.failed = False  # a compiled function has, since somebody looked
        self._eager = getattr(module, method)
        self._compiled: dict[Call, Callable[..., Any]] = {}
        self._weights: list[Tensor] = []
        self._kinds: list[tuple[torch.dtype, torch.device]] = []  # of the weights
        setattr(module, method, self)

    @property
    def is_compiled(self) -> bool:
        """Return whether there is a compiled function."""
        return bool(self._compiled)

    @property
    def waits(self) -> bool:
        """Return whether it has been called in a way that is still to be compiled."""
        return self.seen is not None and self.seen != self.refused

    def remove(self) -> None:
        """Give the method its place back."""
        vars(self.module).pop(self.method, None)

    def put_in(self, call: Call, compiled: Callable[..., Any]) -> None:
        """Use a compiled function of inputs and weights for such calls, between two frames."""
        self._weights = list(state(self.module).values())
        kinds = [(x.dtype, x.device) for x in self._weights]
        if kinds != self._kinds:
            self._compiled.clear()
        elif len(self._compiled) == SIZES:
            del self._compiled[next(iter(self._compiled))]
        self._kinds = kinds
        self._compiled[call] = compiled
        self.seen = None

    def refuse(self, call: Call, error: str) -> None:
        """Leave such calls as they were written."""
        self.refused, self.error = call, error

    def __call__(self, *arguments: Any) -> Any:
        """Return what the method returns, to rounding."""
        for call, compiled in self._compiled.items():
            if call.takes(arguments) and self._kinds == [
                    (x.dtype, x.device) for x in self._weights]:
                inputs = map(Shape.laid_out, call.inputs, arguments[len(call.numbers):])
                try:
                    return compiled(*inputs, *self._weights)
                except torch.OutOfMemoryError:
                    raise
                except Exception as error:  # nothing was changed: do it again as it was written
                    del self._compiled[call]
                    self.refuse(call, cause(error))
                    self.failed = True
                    break
        self.seen = Call.of(arguments)
        return self._eager(*arguments)

    def signature(self) -> tuple:
        """Return what decides about the code: equal ones share what was compiled."""
        lowered = any((x.dtype, x.device.type) == (torch.bfloat16, 'cpu')
                      for x in state(self.module).values())
        plain = tuple(
            (name, tuple((key, value) for key, value in vars(module).items()
                         if isinstance(value, (int, float, str, tuple, type(None)))
                         and (lowered or key != 'inside')))  # matters to no others
            for name, module in self.module.named_modules())
        weights = tuple((name, Shape.of(x)) for name, x in state(self.module).items())
        return type(self.module), self.method, plain, weights, self.seen


def state(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a module: parameters and buffers."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


class PartModule(nn.Module):
    """A part for a compiler: a module whose inputs are the part's, and then its weights."""

    def __init__(self, part: Part, call: Call) -> None:
        """Copy what there is but the weights: the module itself may be in use."""
        super().__init__()
        weights = state(part.module)
        spared: dict[int, Any] = {
            id(x): nn.Parameter(torch.empty_like(x, device='meta'), requires_grad=False)
            if isinstance(x, nn.Parameter) else torch.empty_like(x, device='meta')
            for x in weights.values()}
        for module in part.module.modules():
            for member in vars(module).values():
                if isinstance(member, TableCache):
                    spared[id(member)] = TableCache()  # the other one changes meanwhile
                elif isinstance(member, Part):
                    spared[id(member)] = member
        self.module = copy.deepcopy(part.module, spared)
        for module in self.module.modules():
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
            for name in [name for name, x in vars(module).items() if isinstance(x, Part)]:
                delattr(module, name)
        self.method = part.method
        self.call = call
        self.names = list(weights)
        self.weights = [Shape.of(x) for x in weights.values()]

    def forward(self, *tensors: Tensor) -> Any:
        """Return what the part's method returns."""
        given = dict(zip(self.names, tensors[len(self.call.inputs):]))
        with _method_as_forward(self.module, self.method):
            return functional_call(self.module, given, (
                *self.call.numbers, *tensors[:len(self.call.inputs)]))

    def exported(self) -> torch.export.ExportedProgram:
        """Return the part as a graph of operators."""
        shapes = (*self.call.inputs, *self.weights)
        with torch.no_grad():
            return torch.export.export(self, tuple(shape.empty().zero_() for shape in shapes))


@contextmanager
def _method_as_forward(module: nn.Module, method: str) -> Iterator[None]:
    module.forward = getattr(module, method)
    try:
        yield
    finally:
        del module.forward


Compiled = Callable[..., Any]  # a function of inputs and weights
# Compiles parts, and gives functions or what was wrong; the second argument tells when to give up.
Backend = Callable[[Sequence[PartModule], Callable[[], bool]], Sequence[Compiled | Exception]]


class CompilerError(RuntimeError):
    """What the other process had to say."""


def inductor(
    modules: Sequence[PartModule], given_up: Callable[[], bool],
) -> list[Compiled | Exception]:
    """
    Compile parts in a process of its own, which is killed if they are given up.

    On a CPU it takes a C++ compiler, on a GPU Triton and a C compiler.
    """
    with tempfile.TemporaryDirectory(prefix='xsvggt_') as name:
        folder = Path(name)
        (folder / 'parts').write_bytes(pickle.dumps((modules, torch.get_num_threads())))
        command = 'import sys; from xsvggt_ros.model.compiled import work; work(sys.argv[1])'
        with open(folder / 'log', 'wb') as log, subprocess.Popen(
                [sys.executable, '-c', command, name], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
                env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}) as child:
            while child.poll() is None:
                if given_up():
                    os.killpg(child.pid, signal.SIGKILL)  # its compilers, too
                time.sleep(POLL)
        return [_result(folder, number, module.call.inputs[0].device)
                for number, module in enumerate(modules)]


def work(name: str) -> None:
    """Be the process that compiles: what `inductor` left in a folder, for it to load."""
    os.nice(NICE)
    folder = Path(name)
    modules, threads = pickle.loads((folder / 'parts').read_bytes())
    torch.set_num_threads(threads)
    for number, module in enumerate(modules):
        try:
            torch._inductor.aoti_compile_and_package(
                module.exported(), package_path=str(folder / f'{number}.pt2'))
        except Exception as error:  # a compiler may fail in any way
            (folder / f'{number}.error').write_text(cause(error))


def _result(folder: Path, number: int, device: torch.device) -> Compiled | Exception:
    """Return the function that was compiled, or why there is none."""
    package, error = folder / f'{number}.pt2', folder / f'{number}.error'
    if error.exists():
        return CompilerError(error.read_text())
    if not package.exists():
        log = (folder / 'log').read_text(errors='replace').strip().splitlines()
        return CompilerError(f'the compiler ended early: {log[-1] if log else "killed"}')
    try:
        # Without its own synchronisation, which CUDA graphs do not take: one thread runs frames.
        return torch._inductor.aoti_load_package(
            str(package), run_single_threaded=True,
            device_index=-1 if device.index is None else device.index)
    except Exception as error:  # whatever it is, frames are served without
        return error


def parts(model: StreamVGGT, on_cpu: bool) -> Iterator[Part]:
    """Take the place of the methods that are worth it there."""
    single = set(model.camera_head.trunk)  # blocks that one token at a time goes through
    for block in (module for module in model.modules() if isinstance(module, Block)):
        if getattr(block.mlp.fc1, 'kernel', None) is not None and block in single:
            continue  # its kernel cannot be exported
        place = 'camera head' if block in single else 'blocks'
        few = block.mlp.fc1.in_features * block.mlp.fc1.out_features < onednn.FEW_WEIGHTS
        if not on_cpu or (block in single and few):
            if block.attn.fused is None or block.attn.q_norm is None:
                yield Part(place, block, 'before')
            yield Part(place, block, 'after')
        elif block.attn.q_norm is not None and block.attn.fused is None:
            yield Part(place, block.attn, 'cut')
    for head in (module for module in model.modules() if isinstance(module, DPTHead)):
        yield Part('dense heads', head, 'decode')


class _Job(threading.Thread):
    """Has one part of each kind compiled; `results` are there when it has ended."""

    def __init__(
        self, kinds: Sequence[list[Part]], backend: Backend, given_up: Callable[[], bool],
    ) -> None:
        super().__init__(name='xsvggt_compile')
        self.seconds = 0.0
        self.kinds = [(same, same[0].seen) for same in kinds]
        self.results: Sequence[Compiled | Exception] = []
        self._modules = [PartModule(same[0], call) for same, call in self.kinds]
        self._backend = backend
        self._given_up = given_up

    def run(self) -> None:
        start = time.monotonic()
        try:
            self.results = self._backend(self._modules, self._is_given_up)
        except Exception as error:  # no process, no folder
            self.results = [error] * len(self.kinds)
        self.seconds = time.monotonic() - start

    def _is_given_up(self) -> bool:
        return self._given_up() or not threading.main_thread().is_alive()  # the program ends


class Compiler:
    """
    Keeps the parts of one network compiled for the stream that it serves.

    The network must not be changed meanwhile.
    """

    def __init__(self, backend: Backend = inductor) -> None:
        """Compile by a backend, once there is a network. Raises ValueError for an old torch."""
        try:
            import_module('torch._inductor.package')  # takes a second, which no frame shall pay
        except ImportError as error:
            raise ValueError(f'torch {torch.__version__} is too old for it ({error}); install '
                             '2.6 or newer') from error
        self.seconds = 0.0  # spent on compiling, so far
        self.kinds = 0  # of parts that were compiled
        self._backend = backend
        self._parts: list[Part] = []
        self._job: _Job | None = None
        self._stopped = False
        self._needless = False  # what would be compiled is quicker as it is

    def attach(self, model: StreamVGGT) -> None:
        """Watch a network, where it will run and in the precision that it will have."""
        on_cpu = model.aggregator.camera_token.device.type == 'cpu'
        self._needless = on_cpu and model.aggregator.global_blocks[0].is_native
        self._parts = [] if self._needless else list(parts(model, on_cpu))

    @property
    def working(self) -> bool:
        """Return whether something is being compiled, or not yet put in."""
        return self._job is not None

    @property
    def description(self) -> str:
        """Return how things stand, in a few words."""
        if self._needless:
            return "nothing to do: the package's own kernels for small networks are quicker"
        if self.working:
            return 'compiling; frames are served without it'
        called = [part for part in self._parts if part.is_compiled or part.seen]
        compiled = sum(part.is_compiled for part in called)
        errors = sorted({part.error for part in self._parts if part.refused})
        if errors and not compiled:
            return f'gave up: {errors[0]}'
        if not compiled:
            return 'begins with the first frame'
        rest = f'; the others not: {errors[0]}' if errors else ''
        return f'{compiled} of {len(called)} parts{rest}'

    def settle(self, report: Callable[[str], None]) -> bool:
        """
        Put in what is ready, and have compiled what is not; call it between two frames.

        It takes no time. report: is told in a line what happens. Returns whether anything was put
        in or taken out: whoever has recorded the network must do it again.
        """
        job = self._job
        if job is not None:
            if job.is_alive():
                return False
            self._job = None
            return self._finish(job, report)
        failed = [part for part in self._parts if part.failed]
        for part in failed:
            part.failed = False
        if failed:
            report(f'{_names([failed])}: a compiled part has failed, and runs as it was written: '
                   + failed[0].error)
        kinds: dict[tuple, list[Part]] = {}
        for part in self._parts:
            if part.waits:
                kinds.setdefault(part.signature(), []).append(part)
        if kinds:
            again = any(part.is_compiled for same in kinds.values() for part in same)
            report(('sizes have changed: ' if again else '')
                   + f'{_names(kinds.values())} are being compiled; frames are served without it')
            job = _Job(list(kinds.values()), self._backend, lambda: self._stopped)
            job.start()
            self._job = job
        return bool(failed)

    def wait(self) -> None:
        """Wait until what is being compiled is ready for `settle`."""
        job = self._job
        if job is not None:
            job.join()

    def stop(self) -> None:
        """Give the network back as it was, and have what is in work given up; from any thread."""
        self._stopped = True
        parts, self._parts = self._parts, []
        for part in parts:
            part.remove()

    def _finish(self, job: _Job, report: Callable[[str], None]) -> bool:
        failures: dict[str, list[list[Part]]] = {}
        done = []
        for (same, call), result in zip(job.kinds, job.results):
            if isinstance(result, Exception):
                for part in same:
                    part.refuse(call, cause(result))
                failures.setdefault(cause(result), []).append(same)
                continue
            for part in same:
                part.put_in(call, result)
            done.append(same)
        self.seconds += job.seconds
        self.kinds += len(done)
        for error, kinds in failures.items():
            report(f'{_names(kinds)} cannot be compiled and stay as they are: {error}')
        if done:
            report(f'{_names(done)} are compiled from now on ({len(done)} kinds of parts in '
                   f'{job.seconds:.0f} s)')
        return bool(done)


def cause(error: BaseException) -> str:
    """Return in a line what is wrong, and what to do about it."""
    if isinstance(error, CompilerError):
        return str(error)
    text = f'{type(error).__name__}: {error}'
    for words, advice in CURES:
        if words in text:
            return advice
    return f'{type(error).__name__}: {(str(error).strip() or "no reason").splitlines()[0]}'


def _names(kinds: Any) -> str:
    """Return the names of parts, each once."""
    return ', '.join(dict.fromkeys(same[0].name for same in kinds))
