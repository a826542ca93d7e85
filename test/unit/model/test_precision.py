"""Precision and threads: one rule for the node and all commands."""

import platform
import subprocess
import sys

import pytest
import torch

from xsvggt_ros.cli.main import main
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kernels import native
from xsvggt_ros.model import precision, threads
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.precision import choose_precision, choose_weights
from xsvggt_ros.node.loading import load_engine
from xsvggt_ros.node.settings import DEFAULTS

CPU, GPU = torch.device('cpu'), torch.device('cuda')
NETWORK = ['--checkpoint', 'random', '--image-size', '56']
COMMANDS = {
    'reconstruct': ['reconstruct', '--world', '1', '--frames', '2', *NETWORK],
    'eval': ['eval', '--streams', '1', '--frames', '2', *NETWORK],
    'bench cache': ['bench', 'cache', '--frames', '2', '--policies', 'xstream', '--precisions',
                    'none', *NETWORK],
    'bench': ['bench', '--frames', '3', '--image', '56x42', '--no-fill']}


@pytest.fixture
def precisions(monkeypatch):
    """Return the precisions of all engines that are made, and of their heads."""
    made = []
    make = StreamEngine.__init__

    def spied(engine, *arguments, **named):
        make(engine, *arguments, **named)
        made.append((engine.config.dtype, engine.config.head_dtype, engine._model.dtype,
                     engine._model.head_dtype))

    monkeypatch.setattr(StreamEngine, '__init__', spied)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield made
    torch.set_num_threads(before)


@pytest.fixture(params=['node', *COMMANDS])
def start(request, tmp_path):
    """Return a function that starts the node's engine, or runs a command."""
    def run(dtype=None, threads=None):
        if request.param == 'node':
            settings = DEFAULTS.changed({
                'model.checkpoint': 'random', 'model.device': 'cpu', 'model.image_size': 56,
                'model.dtype': dtype or 'auto', 'model.threads': threads or 0})
            load_engine(settings.model, settings.cache)
            return
        words = [*COMMANDS[request.param], '--device', 'cpu']
        if request.param == 'reconstruct':
            words += ['--out', str(tmp_path / 'out')]
        words += ['--dtype', dtype] if dtype else []
        words += ['--threads', str(threads)] if threads else []
        assert main(words) == 0

    return run


@pytest.mark.slow
def test_small_networks_are_fp32_on_one_thread(start, precisions, monkeypatch):
    monkeypatch.setattr(threads, 'PYTORCH_CHOICE', 3)
    start()
    assert set(precisions) == {(torch.float32,) * 4}
    assert torch.get_num_threads() == (1 if native.library() is not None else 3)


@pytest.mark.slow
def test_wide_networks_are_what_the_processor_multiplies(start, precisions, monkeypatch):
    monkeypatch.setattr(precision, 'WIDE', 1)
    monkeypatch.setattr(precision, 'cpu_multiplies_bf16', lambda: True)
    monkeypatch.setattr(threads, 'PYTORCH_CHOICE', 1)  # more wait for each other on busy cores
    start()
    assert set(precisions) == {(torch.bfloat16,) * 4}
    assert torch.get_num_threads() == 1


@pytest.mark.slow
def test_both_can_be_chosen(start, precisions):
    start(dtype='bf16', threads=3)
    assert set(precisions) == {(torch.bfloat16,) * 4}
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize('multiplies', [True, False])
def test_the_rule(multiplies, monkeypatch):
    monkeypatch.setattr(precision, 'cpu_multiplies_bf16', lambda: multiplies)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda: multiplies)
    full, small = ModelConfig.full_size(), ModelConfig.small()
    fast = torch.bfloat16 if multiplies else torch.float32
    assert choose_precision('auto', CPU, full) == (fast, fast)
    assert choose_precision('auto', CPU, small) == (torch.float32, torch.float32)
    assert choose_precision('fp32', CPU, full) == (torch.float32, torch.float32)
    assert choose_precision('bf16', CPU, small) == (torch.bfloat16, torch.bfloat16)
    sixteen = torch.bfloat16 if multiplies else torch.float16
    for config in (full, small):
        assert choose_precision('auto', GPU, config) == (sixteen, torch.float32)
        assert choose_precision('fp16', GPU, config) == (torch.float16, torch.float32)


GIVEN_BACK = """
import torch
from xsvggt_ros.doctor.speed import _resident
from xsvggt_ros.model.weight_quantization import give_back_memory
pieces = [torch.ones(16_000) for _ in range(4000)]  # 64 kB each, which come from the heap
del pieces[:-1]
before = _resident()
give_back_memory()
print(before - _resident())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='needs malloc_trim')
def test_memory_between_what_is_used_is_given_back():
    ended = subprocess.run([sys.executable, '-c', GIVEN_BACK], capture_output=True, text=True,
                           check=True)
    assert int(ended.stdout) > 100e6


def test_products_of_8_bits_are_for_wide_networks_where_they_pay(monkeypatch):
    small, full = ModelConfig.small(), ModelConfig.full_size()
    asked = []

    def pays(dtype):
        asked.append(dtype)
        return True

    monkeypatch.setattr(precision.rounded, 'pays', pays)
    monkeypatch.setattr(precision, 'cpu_multiplies_bf16', lambda: True)
    assert choose_weights('auto', 'auto', CPU, full) == 'int8_dynamic'
    monkeypatch.setattr(precision, 'cpu_multiplies_bf16', lambda: False)
    assert choose_weights('auto', 'auto', CPU, full) == 'int8_dynamic'
    assert asked == [torch.bfloat16, torch.float32]  # what they are compared with
    assert choose_weights('auto', 'auto', CPU, small) == 'float'
    assert choose_weights('auto', 'auto', GPU, full) == 'float'
    for named in ('fp32', 'bf16', 'fp16', None):  # a precision was asked for
        assert choose_weights('auto', named, CPU, full) == 'float'
    for named in ('float', 'int8', 'int8_camera', 'fp8', 'int8_dynamic'):
        assert choose_weights(named, 'auto', CPU, small) == named
    monkeypatch.setattr(precision.rounded, 'pays', lambda dtype: False)
    assert choose_weights('auto', 'auto', CPU, full) == 'float'
