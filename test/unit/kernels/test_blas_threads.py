"""Processes of this package give numpy one thread, if nobody has said how many."""

import os
import subprocess
import sys

import pytest

SAY = "print('numpy' in sys.modules, os.environ.get('OPENBLAS_NUM_THREADS'), flush=True)"
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
@pytest.mark.parametrize('given, taken', [(None, '1'), ('3', '3')])
def test_it_is_chosen_before_numpy_comes(code, given, taken):
    environment = {name: value for name, value in os.environ.items()
                   if name != 'OPENBLAS_NUM_THREADS'}
    if given is not None:
        environment['OPENBLAS_NUM_THREADS'] = given
    run = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True,
                         text=True, check=True)
    assert run.stdout.split() == ['False', taken]
