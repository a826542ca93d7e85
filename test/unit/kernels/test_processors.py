"""
Numbers are right on other processors than this one, as far as this one can play them.

oneDNN, PyTorch and our own kernels each leave out instructions when they are told to. The most
telling tests of numbers run again like that, each time in a process of its own.
"""

import os
from pathlib import Path
import platform
import subprocess
import sys

import pytest
import torch

from xsvggt_ros.kernels import native
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.precision import choose_precision, cpu_multiplies_bf16

UNIT = Path(__file__).parents[1]
FILES = ('model/test_weight_quantization', 'model/test_model_golden', 'engine/test_stream_engine',
         'bench/test_bench', 'kernels/test_native', 'kernels/test_native_heads',
         'kernels/test_rounded', 'kernels/test_processors')
TESTS = ('test_int8_is_the_product_with_the_rounded_weights', 'test_both_forms_of_a_product_are_',
         'test_a_network_of_8_bits_is_close', 'test_half_precision_', 'test_a_packed_stream_is_',
         'test_few_and_many_tokens_', 'test_it_is_the_product_', 'test_a_heavy_token_',
         'test_heads_are_the_same', 'test_attention_by_onednn_', 'test_bf16_',
         'test_a_stream_is_the_same')
# All that x86 had before AVX; before it had bf16, when oneDNN computes that in fp32; and one that
# PyTorch and we know nothing of. Other machines ignore the names of oneDNN's.
PROCESSORS = (
    {'ONEDNN_MAX_CPU_ISA': 'SSE41', 'ATEN_CPU_CAPABILITY': 'default', 'XSVGGT_NATIVE': '0'},
    {'ONEDNN_MAX_CPU_ISA': 'AVX2', 'ATEN_CPU_CAPABILITY': 'avx2'},
    {'ONEDNN_MAX_CPU_ISA': 'AVX512_CORE'})
NAMES = ('ONEDNN_MAX_CPU_ISA', 'ATEN_CPU_CAPABILITY', 'XSVGGT_NATIVE')


@pytest.mark.slow
@pytest.mark.skipif(any(name in os.environ for name in NAMES), reason='this is one of them')
@pytest.mark.parametrize('settings', PROCESSORS, ids=lambda settings: '-'.join(settings.values()))
def test_numbers_are_right_on_other_processors(settings):
    # One thread: what else runs here must not decide how long this takes.
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-k', ' or '.join(TESTS),
         *(f'{name}.py' for name in FILES)], cwd=UNIT,
        env={**os.environ, 'OMP_NUM_THREADS': '1', **settings}, capture_output=True, text=True)
    print(done.stdout[-3000:], done.stderr[-1000:])
    assert done.returncode == 0, settings
    passed = int(done.stdout.rpartition(' passed')[0].split()[-1])
    assert passed > 30


@pytest.mark.slow
@pytest.mark.skipif('ONEDNN_MAX_CPU_ISA' in os.environ, reason='oneDNN is told already')
def test_settings_arrive():
    code = ('import torch; from xsvggt_ros.kernels import native; '
            'from xsvggt_ros.model.precision import cpu_multiplies_bf16; '
            'print(torch.backends.cpu.get_cpu_capability(), native.library() is not None, '
            'cpu_multiplies_bf16())')
    for settings, expected in zip(PROCESSORS, (
            'DEFAULT False False', f'AVX2 {native.library() is not None} False', None)):
        if expected is None or platform.machine() not in ('x86_64', 'AMD64') or (
                torch.backends.cpu.get_cpu_capability() not in ('AVX2', 'AVX512')):
            continue
        printed = subprocess.run([sys.executable, '-c', code], env={**os.environ, **settings},
                                 capture_output=True, text=True, check=True, cwd=UNIT.parents[1])
        assert printed.stdout.strip() == expected, settings


def test_bf16_is_chosen_where_it_is_multiplied():
    """Not where oneDNN is told to leave out what the processor has for it."""
    low = os.environ.get('ONEDNN_MAX_CPU_ISA') in (
        'SSE41', 'AVX', 'AVX2', 'AVX2_VNNI', 'AVX512_CORE', 'AVX512_CORE_VNNI')
    assert not (low and cpu_multiplies_bf16())
    wide, heads = choose_precision('auto', torch.device('cpu'), ModelConfig.full_size())
    assert wide == heads == (torch.bfloat16 if cpu_multiplies_bf16() else torch.float32)
    assert choose_precision('auto', torch.device('cpu'), ModelConfig.small()) == (
        torch.float32, torch.float32)
