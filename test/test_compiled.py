"""Compiled parts of the network: they compute the same, and nobody waits for them."""

import os
import shutil
import threading

import golden_data
import pytest
from test_bench import DEEP
from test_cuda_graph import TapeGraphs
import torch

from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kernels import native
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model import compiled
from xsvggt_ros.model.compiled import cause, Compiler, inductor, Part, PartModule
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.streamvggt import StreamVGGT
from xsvggt_ros.model.weight_quantization import quantise_weights

CASE = golden_data.load_case('tiny_h1')
NAMES = ('pose_encoding', 'depth', 'depth_confidence', 'points', 'points_confidence')


def exported(modules, given_up):
    """Be a backend: the graphs that are compiled elsewhere, run as they are."""
    return [module.exported().module() for module in modules]


class Held:
    """A backend that waits to be let go, or given up."""

    def __init__(self):
        self.go = threading.Event()
        self.was_given_up = False
        self.kinds = []

    def __call__(self, modules, given_up):
        self.kinds.append(modules)
        while not self.go.wait(0.01):
            if given_up():
                self.was_given_up = True
                return []
        return list(modules)  # which do what was copied


@pytest.fixture(autouse=True)
def plainly(monkeypatch):
    """Leave something to be compiled: small networks have kernels of their own on a CPU."""
    monkeypatch.setattr(native, 'library', lambda: None)


@pytest.fixture
def lines():
    return []


def engine(compiler=None, lines=None, weights='float', **settings):
    model = StreamVGGT(ModelConfig.from_dict(CASE.config))
    model.load_state_dict(CASE.weights, strict=True)
    quantise_weights(model.fold_scales(), weights)
    cache = CacheConfig(max_tokens=66, camera_max_tokens=24, policy='xstream')
    return StreamEngine(model, cache, compiler=compiler,
                        report=[].append if lines is None else lines.append, **settings)


def frame(index):
    return CASE.rgb(index % len(CASE.frames))


def assert_same(result, expected):
    for name in NAMES:
        torch.testing.assert_close(getattr(result, name), getattr(expected, name),
                                   atol=2e-5, rtol=2e-5)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Compile on the CPU what is compiled on a GPU."""
    parts = compiled.parts
    monkeypatch.setattr(compiled, 'parts', lambda model, on_cpu: parts(model, False))


def test_compiled_frames_are_the_others_to_rounding(lines):
    check_stream(lines)


@pytest.mark.parametrize('weights', ['float', 'int8'])
def test_what_a_gpu_compiles_is_the_same_to_rounding(weights, as_on_a_gpu, lines):
    check_stream(lines, weights=weights)


def check_stream(lines, **settings):
    compiler = Compiler(exported)
    plain, other = engine(**settings), engine(compiler, lines, **settings)
    for index in range(9):
        assert_same(other.step(frame(index)), plain.step(frame(index)))
        other.finish_compilation()
    for ids, expected in zip(other.kept_token_ids(), plain.kept_token_ids()):
        assert torch.equal(ids, expected)
    assert all(part.is_compiled for part in compiler._parts)
    assert len(lines) == 2 and 'are compiled from now on' in lines[1]
    count = len(compiler._parts)
    assert other.acceleration()['compile'] == f'{count} of {count} parts'
    assert plain.acceleration() == {'kernels': 'portable', 'graphs': 'off', 'compile': 'off'}


@pytest.mark.parametrize('on_cpu, kinds', [(True, 4), (False, 7)])
def test_blocks_of_a_kind_share_what_is_compiled(on_cpu, kinds, lines, monkeypatch):
    parts = compiled.parts
    monkeypatch.setattr(compiled, 'parts', lambda model, _: parts(model, on_cpu))
    backend = Held()
    compiler = Compiler(backend)
    stream = StreamEngine(StreamVGGT(DEEP).fold_scales(), CacheConfig(), compiler=compiler)
    stream.want_points(False)
    stream.step(torch.zeros(56, 56, 3, dtype=torch.uint8))
    stream.finish_frame()
    modules, = backend.kinds
    assert len(modules) == kinds
    assert sum(part.waits for part in compiler._parts) > 48
    assert all(weight.device.type == 'meta'
               for module in modules for weight in module.module.parameters())
    stream.close()


def test_frames_are_served_meanwhile_and_parts_put_in_between_two(lines):
    backend = Held()
    compiler = Compiler(backend)
    plain, other = engine(), engine(compiler, lines)
    for index in range(4):
        assert_same(other.step(frame(index)), plain.step(frame(index)))
        other.finish_frame()
    assert 'compiling' in other.acceleration()['compile'] and len(lines) == 1
    backend.go.set()
    compiler.wait()
    assert_same(other.step(frame(4)), plain.step(frame(4)))  # finishes nothing before this frame
    assert len(lines) == 1 and not any(part.is_compiled for part in compiler._parts)
    other.finish_frame()
    assert len(lines) == 2 and compiler.seconds > 0
    assert_same(other.step(frame(5)), plain.step(frame(5)))
    assert len(backend.kinds) == 1


@pytest.mark.parametrize('error, words', [
    (RuntimeError('InvalidCxxCompiler: No working C++ compiler found in'), 'apt-get install g++'),
    (RuntimeError('fatal error: Python.h: No such file'), 'python3-dev'),
    (RuntimeError('Cannot find a working triton installation.'), 'pip install triton'),
    (ValueError('something else\nand more'), 'ValueError: something else')])
def test_what_cannot_be_compiled_stays_as_it_is(error, words, lines):
    def backend(modules, given_up):
        raise error

    plain, other = engine(), engine(Compiler(backend), lines)
    for index in range(4):
        assert_same(other.step(frame(index)), plain.step(frame(index)))
        other.finish_compilation()
    assert len(lines) == 2 and 'stay as they are' in lines[1] and words in lines[1]
    assert other.acceleration()['compile'].startswith('gave up: ')
    assert '\n' not in cause(error)


def test_another_size_runs_as_it_was_written_until_it_is_compiled(lines):
    backend = Held()
    backend.go.set()
    plain, other = engine(), engine(Compiler(backend), lines)
    sizes = [frame(0), frame(0)[:-14].contiguous(), frame(0)]
    for size in sizes:
        for stream in (plain, other):
            stream.reset()
        for _ in range(3):
            assert_same(other.step(size), plain.step(size))
            other.finish_compilation()
    assert [line for line in lines if line.startswith('sizes have changed')]
    assert len(backend.kinds) == 2  # the first size was not forgotten


def test_a_compiled_part_that_fails_is_given_up(lines):
    def backend(modules, given_up):
        def fail(*tensors):
            raise RuntimeError('no kernel image is available')
        return [fail for _ in modules]

    plain, other = engine(), engine(Compiler(backend), lines)
    for index in range(4):
        assert_same(other.step(frame(index)), plain.step(frame(index)))
        other.finish_compilation()
    assert 'no kernel image' in other.acceleration()['compile']
    assert len(lines) == 3 and 'has failed, and runs as it was written' in lines[2]


def test_who_closes_the_engine_waits_for_nothing(lines):
    backend = Held()
    compiler = Compiler(backend)
    stream = engine(compiler, lines)
    stream.step(frame(0))
    stream.finish_frame()
    parts, job = compiler._parts, compiler._job
    stream.close()
    job.join(10)
    assert backend.was_given_up and not job.is_alive()
    assert not any(part.method in vars(part.module) for part in parts)


def test_graphs_are_captured_of_what_is_compiled(lines):
    backend, graphs = Held(), TapeGraphs()
    plain, other = engine(), engine(Compiler(backend), lines, graphs=graphs)
    for index in range(9):
        assert_same(other.step(frame(index)), plain.step(frame(index)))
    assert graphs.captured == 0  # they wait for the compiler
    other.finish_frame()
    backend.go.set()
    other.finish_compilation()
    for index in range(9, 16):
        assert_same(other.step(frame(index)), plain.step(frame(index)))
    assert graphs.captured == 2 and graphs.replayed > 0
    assert other.acceleration()['graphs'] == 'replayed: backbone, dense heads'


def one_part(lines):
    """Return an engine of which one kind of part is to be compiled by Inductor, and the part."""
    compiler = Compiler(inductor)
    other = engine(compiler, lines)
    for part in compiler._parts:
        part.remove()
    attention = other._model.aggregator.frame_blocks[0].attn
    compiler._parts = [Part('blocks', attention, 'cut')]
    return other, compiler._parts[0]


@pytest.mark.skipif(shutil.which('g++') is None, reason='needs a C++ compiler')
def test_inductor_compiles_in_another_process(lines):
    other, part = one_part(lines)
    plain = engine()
    for index in range(3):
        assert_same(other.step(frame(index)), plain.step(frame(index)))
        other.finish_compilation()
    assert part.is_compiled, lines


def test_a_machine_without_a_compiler_is_told_what_is_missing(lines, monkeypatch, tmp_path):
    monkeypatch.setitem(os.environ, 'CXX', str(tmp_path / 'nothing'))
    other, part = one_part(lines)
    other.step(frame(0))
    other.finish_compilation()
    assert not part.is_compiled
    assert 'no C++ compiler (sudo apt-get install g++)' in lines[1], lines


def test_a_module_in_use_is_left_alone():
    stream = engine()
    head = stream._model.depth_head
    part = Part('dense heads', head, 'decode')
    stream.step(frame(0))
    before = {name: weight.clone() for name, weight in head.named_parameters()}
    module = PartModule(part, part.seen)
    module.exported()
    assert vars(head)['decode'] is part and 'decode' not in vars(module.module)
    assert all(torch.equal(weight, before[name]) for name, weight in head.named_parameters())
