"""When a step is captured, replayed and given up; on a CPU, with a backend that replays a tape."""

from contextlib import contextmanager, nullcontext

import golden_data
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.cuda_graph import (
    CapturedCall,
    CudaGraphs,
    steady_state,
    SteadyStep,
    WARM_UP,
)
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kernels import native
from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.streamvggt import StreamVGGT

aten = torch.ops.aten
# What makes the host wait for a device, for a number or a shape.
WAITS = {aten.item, aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal}


@pytest.fixture(autouse=True)
def plainly(monkeypatch):
    """Ask PyTorch for everything: a tape has only that."""
    monkeypatch.setattr(native, 'library', lambda: None)


def storages(values):
    return {x.untyped_storage().data_ptr() for x in torch.utils._pytree.tree_leaves(values)
            if isinstance(x, torch.Tensor)}


class Tape(TorchDispatchMode):
    """
    All operations of a call, to be done again on the same memory, as a CUDA graph does.

    What Python has decided - numbers, shapes, which tensor is read - is on the tape for good.
    """

    def __init__(self):
        super().__init__()
        self.operations = []
        self._before = {}  # memory that was written to, and what was in it, by address

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.overloadpacket in WAITS:
            raise RuntimeError('the host waits for the device while it is captured')
        self._save(operation, args, kwargs or {})
        result = operation(*args, **(kwargs or {}))
        writes = any(argument.alias_info is not None and argument.alias_info.is_write
                     for argument in operation._schema.arguments)
        if writes or not storages(result) <= storages((args, kwargs)):
            self.operations.append((operation, args, kwargs or {}, None if writes else result))
        return result

    def _save(self, operation, args, kwargs):
        for index, argument in enumerate(operation._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[index] if index < len(args) else kwargs.get(argument.name)
                for tensor in torch.utils._pytree.tree_leaves(value):
                    if isinstance(tensor, torch.Tensor):
                        memory = tensor.untyped_storage()
                        self._before.setdefault(memory.data_ptr(), (memory, memory.clone()))

    def undo(self):
        """Leave all memory as it was: a graph is captured without anything being done."""
        for memory, content in self._before.values():
            memory.copy_(content)
        self._before.clear()

    def replay(self):
        for operation, args, kwargs, result in self.operations:
            again = operation(*args, **kwargs)
            if result is not None:
                for old, new in zip(torch.utils._pytree.tree_leaves(result),
                                    torch.utils._pytree.tree_leaves(again)):
                    old.copy_(new)


class TapeGraphs:
    """
    A backend of tapes.

    Other than a CUDA graph, a tape is recorded while the call runs, which is undone.
    """

    def __init__(self, error=None):
        self.error = error
        self.warmed = self.captured = self.replayed = 0

    def warm(self, call):
        self.warmed += 1
        return call()

    def capture(self, call):
        if self.error is not None:
            raise self.error
        self.captured += 1
        with Tape() as tape:
            outputs = call()
        tape.undo()

        def replay():
            self.replayed += 1
            tape.replay()

        return CapturedCall(replay, outputs)


class Counter:
    """Counts calls and returns (sum of a state and the input,); adds the input to the state."""

    def __init__(self):
        self.calls = 0
        self.state = torch.zeros(3)

    def __call__(self, x):
        self.calls += 1
        self.state += x
        return (2 * self.state,)


@pytest.fixture
def lines():
    return []


@pytest.fixture
def graphs():
    return TapeGraphs()


def steady_step(function, graphs, lines, **settings):
    return SteadyStep('the sum', function, graphs, lines.append, **settings)


def serve(step, circumstances, *numbers):
    """Call a step as a stream does, and return the first output of each call."""
    results = []
    for number in numbers:
        results.append(step(circumstances, torch.full((3,), float(number)))[0])
        step.settle()
    return [result[0].item() for result in results]


def test_results_are_the_same_before_and_after_the_capture(graphs, lines):
    function = Counter()
    step = steady_step(function, graphs, lines)
    assert serve(step, 7, 1, 2, 3) == [2, 6, 12]
    assert serve(step, 7, 4, 5) == [20, 30]
    assert step.replays and graphs.replayed == 2
    assert function.calls == WARM_UP + 1  # Python has not been asked since
    assert len(lines) == 1 and lines[0].startswith('the sum is replayed from a CUDA graph')


def test_nothing_is_captured_while_the_cache_grows(graphs, lines):
    step = steady_step(Counter(), graphs, lines)
    serve(step, None, *range(10))
    assert graphs.captured == graphs.warmed == 0 and not lines


def test_capture_waits_for_enough_equal_frames(graphs, lines):
    step = steady_step(Counter(), graphs, lines)
    for tokens in range(10):
        serve(step, tokens, 1)
    assert graphs.captured == 0
    serve(step, 9, *[1] * (WARM_UP - 1))
    assert graphs.captured == 1


def test_capture_is_at_the_end_of_a_frame_only(graphs, lines):
    step = steady_step(Counter(), graphs, lines)
    for _ in range(2 * WARM_UP):
        step(0, torch.ones(3))
    assert graphs.captured == 0 and not step.replays
    step.settle()
    assert step.replays


@pytest.mark.parametrize('circumstances, shape, dtype', [
    (8, 3, torch.float32), (7, 1, torch.float32), (7, 3, torch.float64), (None, 3, torch.float32)])
def test_another_size_falls_back_and_is_captured_anew(
        graphs, lines, circumstances, shape, dtype):
    step = steady_step(Counter(), graphs, lines)
    serve(step, 7, *[1] * WARM_UP)
    assert step.replays
    result, = step(circumstances, torch.ones(shape, dtype=dtype))
    assert not step.replays and result.shape == (3,) and graphs.replayed == 0
    assert lines[-1].startswith('the CUDA graph of the sum is dropped: ')
    serve(step, 7, *[1] * WARM_UP)
    assert step.replays and graphs.captured == 2


def test_a_refused_capture_leaves_the_eager_way(lines):
    graphs = TapeGraphs(RuntimeError('operation not permitted when stream is capturing\n\nmore'))
    function = Counter()
    step = steady_step(function, graphs, lines)
    assert serve(step, 7, *range(1, 8)) == [2, 6, 12, 20, 30, 42, 56]
    assert not step.replays and function.calls == 7
    assert lines == ['no CUDA graph of the sum, which stays eager: operation not permitted when '
                     'stream is capturing']


def test_a_reset_drops_the_graph(graphs, lines):
    step = steady_step(Counter(), graphs, lines)
    serve(step, 7, *[1] * WARM_UP)
    step.invalidate('the stream was reset')
    assert lines[-1] == 'the CUDA graph of the sum is dropped: the stream was reset'
    serve(step, 7, 1)
    assert graphs.replayed == 0
    step.invalidate('again')
    assert len(lines) == 2  # there was nothing to drop


def test_an_error_of_the_function_is_passed_on(graphs, lines):
    step = steady_step(lambda x: x.no_such_thing, graphs, lines)
    with pytest.raises(AttributeError):
        step(7, torch.ones(3))


@pytest.mark.parametrize('lend', [False, True])
def test_results_are_copies_unless_they_are_lent(graphs, lines, lend):
    step = steady_step(Counter(), graphs, lines, lend=lend)
    serve(step, 7, *[1] * WARM_UP)
    first, = step(7, torch.ones(3))
    kept = first.clone()
    step(7, torch.ones(3))
    assert torch.equal(first, kept) != lend


def test_the_callers_input_may_be_reused(graphs, lines):
    step = steady_step(lambda x: (x + 1,), graphs, lines)
    serve(step, 7, *[1] * WARM_UP)
    x = torch.ones(3)
    result, = step(7, x)
    x.fill_(9)
    step.settle()
    assert result[0] == 2


@pytest.mark.parametrize('fails', [False, True])
def test_cuda_is_back_on_its_stream_after_a_capture(fails, monkeypatch):
    on = ['main']

    class Stream:
        def __init__(self, device):
            pass

    @contextmanager
    def graph(graph, stream, capture_error_mode):
        assert capture_error_mode == 'thread_local'
        on[0] = stream
        yield
        if fails:  # as in torch: what ends the capture raises before the stream is put back
            raise RuntimeError('operation failed due to a previous error during capture')
        on[0] = 'main'

    for name, stand_in in {
            'Stream': Stream, 'CUDAGraph': lambda: type('Graph', (), {'replay': 'replay'}),
            'graph': graph, 'device': lambda device: nullcontext(),
            'current_stream': lambda device: on[0],
            'set_stream': lambda stream: on.__setitem__(0, stream)}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    graphs = CudaGraphs(torch.device('cuda'))
    if fails:
        with pytest.raises(RuntimeError, match='previous error'):
            graphs.capture(lambda: ())
    else:
        assert graphs.capture(lambda: ('output',)) == CapturedCall('replay', ('output',))
    assert on == ['main']


@pytest.mark.parametrize('policy, budget', [('xstream', 100), ('frame_coverage', 96)])
def test_a_cache_is_steady_once_it_evicts_what_comes_in(policy, budget):
    layout = CacheLayout(layers=2, heads=1, head_dim=32, tokens_per_step=16, special_tokens=2)
    cache = build_cache(layout, CacheConfig(policy=policy), budget, torch.float32, 'cpu', 'none')
    states = []
    for _ in range(9):
        states.append(steady_state(cache))
        for layer in range(2):
            x = torch.randn(1, 16, 32)
            cache.attend(layer, x, x, x)
        cache.end_step()
    first = -(-budget // 16) + 1
    assert states == [None] * first + [budget] * (9 - first)
    cache.reset()
    assert steady_state(cache) is None


CASE = golden_data.load_case('tiny_h1')


def engine(graphs=None, report=lambda line: None, **cache):
    model = StreamVGGT(ModelConfig.from_dict(CASE.config))
    model.load_state_dict(CASE.weights, strict=True)
    cache = {'max_tokens': 66, 'camera_max_tokens': 24} | cache
    return StreamEngine(model, EngineConfig(CacheConfig(**cache)), graphs=graphs, report=report)


def stream(count):
    """Return frames that are all unlike each other."""
    generator = torch.Generator().manual_seed(0)
    frames = [CASE.rgb(i % len(CASE.frames)) for i in range(count)]
    return [(frame.float() + 40 * torch.randn(frame.shape, generator=generator))
            .clamp(0, 255).byte() for frame in frames]


# What a graph would get wrong a tape gets wrong, too: a frame number, a slot or a length that
# Python has decided, and a tensor that has been replaced by a new one.
@pytest.mark.slow
@pytest.mark.parametrize('cache', [
    {'policy': 'xstream', 'quantization': 'none'},
    {'policy': 'xstream', 'quantization': 'none', 'storage': 'bf16'},
    {'policy': 'xstream_per_head', 'quantization': 'int4'},
    {'policy': 'value_aware', 'quantization': 'int8'},
    {'policy': 'sliding_window', 'quantization': 'int4', 'scheme': 'kcvt'},
    {'policy': 'random', 'quantization': 'int4'},
    {'policy': 'frame_coverage', 'quantization': 'int4'},
], ids=lambda cache: '-'.join(cache.values()))
def test_replayed_frames_are_the_eager_ones(cache, graphs, lines):
    eager, replayed = engine(**cache), engine(graphs, lines.append, **cache)
    for index, frame in enumerate(stream(14)):
        expected, result = eager.step(frame), replayed.step(frame)
        for name in ('pose_encoding', 'depth', 'depth_confidence', 'points', 'points_confidence'):
            assert torch.equal(getattr(result, name), getattr(expected, name)), (index, name)
        for ids, other in zip(replayed.kept_token_ids(), eager.kept_token_ids()):
            assert torch.equal(ids, other), index
    assert graphs.captured == 2 and graphs.replayed >= 2 * 5  # backbone and dense heads
    assert len(lines) == 2 and eager.cache_stats() == replayed.cache_stats()


def test_a_wait_in_the_step_is_refused_and_served_eagerly(graphs, lines):
    eager, refused = engine(policy='xstream'), engine(graphs, lines.append, policy='xstream')
    refused._model.depth_head.register_forward_hook(
        lambda module, args, output: None if output.sum().item() else output)
    for frame in stream(9):
        assert torch.equal(refused.step(frame).depth, eager.step(frame).depth)
    assert graphs.captured == 2 and 'no CUDA graph of dense heads, which stays eager' in lines[1]
    assert 'the host waits' in lines[1] and len(lines) == 2


@pytest.mark.slow
def test_a_stream_that_begins_again_is_captured_again(graphs, lines):
    eager, replayed = engine(policy='xstream'), engine(graphs, lines.append, policy='xstream')
    for again in range(2):
        for frame in stream(9):
            assert torch.equal(replayed.step(frame).points, eager.step(frame).points)
        assert graphs.captured == 2 * (again + 1)
        for stream_engine in (eager, replayed):
            stream_engine.finish_frame()
            stream_engine.reset()
    assert [line for line in lines if 'the stream was reset' in line]


def test_results_of_earlier_frames_stay(graphs):
    replayed = engine(graphs, policy='xstream')
    results, copies = [], []
    for frame in stream(12):
        results.append(replayed.step(frame))
        copies.append(results[-1].depth.clone())
    assert graphs.replayed > 0
    assert all(torch.equal(result.depth, copy) for result, copy in zip(results, copies))
