"""Processes of this package say what numpy and torch are to read, if nobody has said it."""

import os
import subprocess
import sys

import pytest

SAY = ("print('numpy' in sys.modules, os.environ.get('OPENBLAS_NUM_THREADS'), "
       "os.environ.get('THP_MEM_ALLOC_ENABLE'), flush=True)")
NODE = f"""
import os, sys, types
stub = types.ModuleType('xsvggt_ros.node.run_node')
stub.run = lambda arguments: {SAY} or True
sys.modules[stub.__name__] = stub
from xsvggt_ros.node.stream_node import main
main([])
"""
COMMAND = f"""
import os, sys
class Finder:
    def find_spec(self, name, *_):
        if name == 'numpy':
            {SAY}
            os._exit(0)
sys.meta_path.insert(0, Finder())
import xsvggt_ros.cli.main
import numpy
"""


@pytest.mark.parametrize('code', [NODE, COMMAND], ids=['node', 'command'])
@pytest.mark.parametrize('given, taken', [
    ({}, ['1', '1']), ({'OPENBLAS_NUM_THREADS': '3'}, ['3', '1']),
    ({'THP_MEM_ALLOC_ENABLE': '0'}, ['1', '0'])])
def test_it_is_chosen_before_numpy_comes(code, given, taken):
    names = ('OPENBLAS_NUM_THREADS', 'THP_MEM_ALLOC_ENABLE')
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    run = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True,
                         text=True, check=True)
    assert run.stdout.split() == ['False', *taken]
