"""torch is imported without what only compilers need, and they get it when they come."""

import subprocess
import sys

import pytest

BEGIN = """
import sys
from xsvggt_ros.node.deferred_imports import deferred_registrations
with deferred_registrations():
    import torch
assert not {'torch._meta_registrations', 'torch._prims', 'torch._refs'} & sys.modules.keys()
"""
SIZES = """
from torch._subclasses.fake_tensor import FakeTensorMode
with FakeTensorMode():
    image = torch.empty(1, 1, 4, 4)
    assert torch.linalg.eigh(image)[0].shape == (1, 1, 4)
    assert torch.nn.functional.interpolate(image, size=(8, 8), mode='bicubic').shape[2:] == (8, 8)
"""
COMPILER = """
compiled = torch.compile(lambda x: torch.linalg.eigh(x)[0].sum() + x.cos().sum(), backend='eager')
assert abs(compiled(torch.eye(3)) - (3 + 6 + 3 * 0.5403023)) < 1e-5
"""
EXPORTER = """
exported = torch.export.export(torch.nn.Upsample(scale_factor=2, mode='bicubic'),
                               (torch.zeros(1, 1, 4, 4),))
assert exported.module()(torch.ones(1, 1, 4, 4)).shape == (1, 1, 8, 8)
"""
DIRECTLY = """
from torch._meta_registrations import register_meta
assert torch._meta_registrations.register_meta is register_meta
"""
RANDOM = """
assert 0 <= torch.rand(1, generator=torch.Generator().manual_seed(1)) < 1
assert isinstance(torch.default_generator, torch.Generator) and not hasattr(torch, 'generator')
"""
BY_NAME = """
assert torch._decomp.meta_table and torch._prims and torch._refs
"""
NETWORK = """
import numpy as np
from xsvggt_ros.engine.factory import build_engine, EngineOptions
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.checkpoint import load_model, plan_model
loaded = load_model('small')
assert plan_model('small').config == loaded.model.config
engine = build_engine(loaded, EngineOptions(CacheConfig(max_tokens=530), dtype='auto'), 'cpu')
for shade in range(30, 45):
    engine.accept([engine.step(np.full((84, 112, 3), shade, np.uint8))])
    engine.finish_frame()
assert 'torch._prims' not in sys.modules
"""
DERIVATIVES = """
assert torch.func.vmap(torch.sin)(torch.zeros(3)).tolist() == [0, 0, 0]
assert torch.func.jacrev(lambda x: x ** 2)(torch.tensor(3.0)) == 6
"""
AT_ONCE = """
from xsvggt_ros.node.deferred_imports import run_deferred
assert run_deferred() and not run_deferred() and '_prims' in vars(torch)
assert vars(torch)['Generator'] is torch._C.Generator and torch.__getattr__.__module__ == 'torch'
assert torch._meta_registrations.__file__ and torch._decomp.__name__ == 'torch._decomp'
"""
THREADS = """
from threading import Thread
made = []
threads = [Thread(target=lambda: made.append(torch.Generator())) for _ in range(8)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
assert len(made) == 8
"""
IN_TIME = """
import sys
from xsvggt_ros.node.deferred_imports import deferred_registrations
import torch
before = list(sys.meta_path)
with deferred_registrations():
    import torch
assert sys.meta_path == before and sys.modules['torch._meta_registrations'].__file__
"""
ASKED = """
import sys
from xsvggt_ros.node.deferred_imports import deferred_registrations
with deferred_registrations():
    import torch._meta_registrations as asked   # as another version of torch might
    assert callable(asked.register_meta)
assert sys.modules['torch._meta_registrations'].register_meta is asked.register_meta
"""


@pytest.mark.parametrize('code', [
    BEGIN + SIZES, BEGIN + COMPILER, BEGIN + EXPORTER, BEGIN + DIRECTLY, BEGIN + RANDOM,
    BEGIN + BY_NAME, BEGIN + NETWORK, BEGIN + DERIVATIVES, BEGIN + AT_ONCE, BEGIN + THREADS,
    *(f'{BEGIN}\nimport {name}\nassert {name}.__spec__.origin{COMPILER}' for name in (
        'torch._decomp', 'torch._decomp.decompositions', 'torch._prims', 'torch._refs')),
    IN_TIME, ASKED],
    ids=['sizes', 'compiler', 'exporter', 'directly', 'random', 'by name', 'network',
         'derivatives', 'at once', 'threads', '_decomp', 'decompositions', '_prims', '_refs',
         'in time', 'asked for'])
def test_what_is_deferred_comes_when_it_is_needed(code):
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
