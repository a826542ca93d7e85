"""A node that cannot start says why in one line, and ends if it was told so."""

from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest
from stream_harness import DEADLINE, NodeProcess, ROOT

from xsvggt_ros.soak.node_process import mapped_files


def ended(tmp_path, **parameters):
    """Return exit code and output of a node that ends by itself."""
    node = NodeProcess(tmp_path / 'node.log', **parameters)
    try:
        return node.process.wait(DEADLINE), node.output()
    finally:
        node.process.kill()


@pytest.mark.parametrize('parameters, words', [
    ({'cache__policy': 'best'}, ('cache.policy', 'sliding_window', "'best'")),
    ({'model__image_size': 'wide'}, ('model.image_size', 'int', "'wide'")),
    ({'model__checkpoint': '/nowhere/weights.pth'}, ('model.checkpoint', '/nowhere/weights.pth')),
    ({'scale__mode': 'baseline'}, ('scale.mode', 'image_topics')),
    ({'model__first_frames': 8}, ('model.first_frames is 8', 'set it to 1')),
], ids=lambda value: next(iter(value), '') if isinstance(value, dict) else '')
def test_a_node_that_cannot_start_ends_with_one_line(tmp_path, parameters, words):
    code, output = ended(tmp_path, exit_on_failure=True, **parameters)
    line, = [line for line in output.splitlines() if '[ERROR]' in line]
    assert code == 1 and all(word in line for word in words)
    assert 'Traceback' not in output and 'stays unconfigured' not in output


@pytest.mark.parametrize('arguments, words', [
    (['--log-level', 'verbose'], ('--log-level verbose',)),
    (['--params-file', '/nowhere.yaml'], ('--params-file /nowhere.yaml',)),
    (['-p', 'model.image_size'], ('-p model.image_size',)),
])
def test_arguments_that_ros_cannot_read_are_no_traceback(arguments, words):
    run = subprocess.run(
        [sys.executable, '-m', 'xsvggt_ros.node.stream_node', '--ros-args', *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)
    assert run.returncode == 1 and 'Traceback' not in run.stderr
    line = run.stderr.splitlines()[-1]
    assert 'cannot start ROS 2' in line and all(word in line for word in words)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_node_that_ends_leaves_nothing_in_shared_memory(tmp_path, number):
    node = NodeProcess(tmp_path / 'node.log')
    try:
        deadline = time.monotonic() + DEADLINE
        while 'waiting for images' not in node.output() and time.monotonic() < deadline:
            time.sleep(0.05)
        # Ports are shared with other processes.
        own = {file for file in mapped_files(node.process.pid)
               if file.name.startswith('fastdds_') and 'port' not in file.name}
        node.process.send_signal(number)
        assert node.process.wait(DEADLINE) == 0, node.output()
    finally:
        node.process.kill()
    if not own:
        pytest.skip('this middleware has no shared memory')
    left = {file for file in own if file.exists()}
    for process in Path('/proc').glob('[0-9]*') if left else ():
        left -= mapped_files(process.name)  # of one that talked to the node and lives
    assert not left, node.output()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_node_that_is_ended_while_it_imports_torch_leaves_nothing(tmp_path, monkeypatch, number):
    (tmp_path / 'torch.py').write_text('import time\nprint("importing", flush=True)\n'
                                       'while True:\n    time.sleep(0.1)\n')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    node = NodeProcess(tmp_path / 'node.log')
    try:
        deadline = time.monotonic() + DEADLINE
        while 'importing' not in node.output() and time.monotonic() < deadline:
            time.sleep(0.05)
        own = {file for file in node.shared_memory() if 'port' not in file.name}
        node.process.send_signal(number)
        assert node.process.wait(DEADLINE) == 0
    finally:
        node.process.kill()
    assert node.output() == 'importing\n'
    if not own:
        pytest.skip('this middleware has no shared memory')
    assert not [file for file in own if file.exists()]


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_node_is_made_waits_until_it_can_be_destroyed(number):
    program = f"""
import os, re, sys, threading, types
from rclpy.node import Node

class XsvggtNode(Node):
    def __init__(self):
        super().__init__('made')
        os.kill(os.getpid(), {int(number)})
        print(*set(re.findall(r'/dev/shm/fastdds_\\w+', open('/proc/self/maps').read())))

    def start(self):
        raise SystemExit('it goes on')

    def stop(self):
        return True

lifecycle = types.ModuleType('xsvggt_ros.node.lifecycle')
lifecycle.XsvggtNode = XsvggtNode
sys.modules[lifecycle.__name__] = lifecycle
from xsvggt_ros.node.stream_node import main
main([])
"""
    run = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=ROOT)
    assert (run.returncode, run.stderr) == (0, '')
    assert not [name for name in run.stdout.split() if 'port' not in name and Path(name).exists()]


def test_a_node_that_cannot_be_activated_has_said_what_it_has_loaded(tmp_path):
    node = NodeProcess(tmp_path / 'node.log', **{
        'qos_overrides./cam/image_raw.subscription.depth': -5})
    try:
        deadline = time.monotonic() + DEADLINE
        while 'small.safetensors' not in node.output() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert 'no subscription to images is possible' in node.output()
        assert node.output().count('small.safetensors') == 1
    finally:
        node.process.kill()


def test_a_node_without_torch_says_so(tmp_path, monkeypatch):
    (tmp_path / 'torch.py').write_text('raise ImportError("no such library")\n')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    code, output = ended(tmp_path)
    assert code == 1 and output.splitlines()[-1] == 'ImportError: no such library'


def run_main(run, *more):
    """Return how main() ends with so many lines for the body of `run`, and others before it."""
    code = '\n'.join((
        'import atexit, builtins, os, signal, sys, types', 'def run(args):',
        *(f'    {line}' for line in run),
        'module = types.ModuleType("xsvggt_ros.node.run_node")', 'module.run = run',
        'sys.modules[module.__name__] = module',
        'from xsvggt_ros.node.stream_node import main', *more, 'main()'))
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)


def test_ctrl_c_within_what_a_library_executes_is_no_death_by_signal():
    # CPython remembers an interrupt that left a text given to exec(), also if it was caught.
    run = run_main(('try:', '    exec("raise KeyboardInterrupt")', 'except KeyboardInterrupt:',
                    '    return True'))
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize('late', [
    # What torch does then calls Python code, in which the node's own handler would raise.
    ('atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))',),
    # When CPython has let go of the handlers.
    ('class Late:', '    def __del__(self, kill=os.kill, pid=os.getpid()):',
     '        kill(pid, 2)', 'builtins.late = Late()')], ids=['atexit', 'later'])
def test_ctrl_c_at_the_end_of_the_interpreter_is_quiet(late):
    run = run_main(('def end(*_):', '    raise KeyboardInterrupt',
                    'signal.signal(signal.SIGINT, end)', 'return True'), *late)
    assert (run.returncode, run.stderr) == (0, '')


def test_a_run_that_was_cut_short_ends_at_once():
    # Its threads may be at work, and abort the process when the interpreter ends beside them.
    run = run_main(('raise KeyboardInterrupt',), 'atexit.register(print, "the end")')
    assert (run.returncode, run.stdout, run.stderr) == (0, '', '')


def test_a_node_that_starts_imports_nothing_that_it_needs_later_or_never():
    program = ('import sys, xsvggt_ros.node.stream_node\n'
               'assert not {"torch", "rclpy"} & sys.modules.keys()  # Ctrl-C is quiet before\n'
               'from xsvggt_ros.node.run_node import deferred_registrations\n'
               'assert "torch" not in sys.modules   # it comes when others can find the node\n'
               'with deferred_registrations():\n'
               '    import xsvggt_ros.node.lifecycle\n'
               'assert "torch" in sys.modules and "xsvggt_ros.trajectory.loop_closer" in '
               'sys.modules\n'
               'print(*sys.modules)\n')
    modules = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                             check=True).stdout.split()
    late = {'scipy', 'matplotlib', 'PIL', 'av', 'mcap', 'rosbags', 'rerun', 'zstandard', 'triton',
            'numba', 'embreex', 'ray', 'training', 'torch._prims', 'torch._refs',
            'xsvggt_ros.evaluation', 'xsvggt_ros.bench', 'xsvggt_ros.recordings',
            'xsvggt_ros.world', 'xsvggt_ros.console', 'xsvggt_ros.demo'}
    assert not late & set(modules)
