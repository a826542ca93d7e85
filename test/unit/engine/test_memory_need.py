"""What is said of memory before anything is loaded holds afterwards."""

import subprocess
import sys

import pytest
import torch

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.memory_need import memory_need
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.checkpoint import CheckpointError, plan_model
from xsvggt_ros.model.weight_quantization import weight_bytes

# Loads a small network and runs frames, in a process whose memory is nobody else's.
RUN = """
import sys
import numpy as np, torch
from xsvggt_ros.doctor.speed import _resident
from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.factory import build_engine, EngineOptions
from xsvggt_ros.engine.memory_need import memory_need
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.checkpoint import load_model, plan_model
cache = CacheConfig(max_tokens=3000, quantization=sys.argv[1])
before = _resident()
need = memory_need(plan_model('small'), EngineConfig(cache, image_size=448), 336, 448)
engine = build_engine(load_model('small'), EngineOptions(cache, image_size=448), 'cpu')
for _ in range(7):
    engine.step(np.zeros((336, 448, 3), np.uint8))
    engine.finish_frame()
assert engine.caches.bytes_reserved == need.caches, (engine.caches.bytes_reserved, need)
print(before + need.peak, _resident('VmHWM'))
"""


@pytest.mark.slow
@pytest.mark.parametrize('quantization', ['none', 'int4'])
def test_a_process_takes_no_more_than_was_said(quantization):
    ended = subprocess.run(
        [sys.executable, '-c', RUN, quantization], capture_output=True, text=True, check=True)
    said, taken = map(int, ended.stdout.split())
    assert taken <= said < 2 * taken


@pytest.mark.parametrize('size, parameters', [('full', 1_190_596_120), ('lingbot', 1_157_943_540)])
def test_the_full_networks_are_known_without_their_weights(size, parameters):
    network = plan_model('random', size)
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    config = EngineConfig(CacheConfig(max_tokens=7032, quantization='int4'), 'cpu',
                          torch.bfloat16, torch.bfloat16, 518)
    need = memory_need(network, config, 294, 518)
    assert need.weights == pytest.approx(2 * parameters, rel=0.01)
    assert need.weights == weight_bytes(network)
    assert 0.15e9 < need.caches < 0.7e9 and 0.1e9 < need.working < 1e9
    assert need.peak < 4 * parameters  # they are never there in fp32


def test_a_checkpoint_that_is_not_there_has_no_plan(tmp_path):
    with pytest.raises(CheckpointError):
        plan_model(str(tmp_path / 'none.safetensors'))
