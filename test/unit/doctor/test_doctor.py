"""The doctor says what is wrong with a machine, what to do, and ends with the worst of it."""

import json
import os
import re
import shlex
from types import SimpleNamespace

import pytest
import torch

from xsvggt_ros.cli.main import build_parser, main
from xsvggt_ros.console import measurement
from xsvggt_ros.doctor import machine, speed
from xsvggt_ros.doctor.finding import Finding, lines_of, worst
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.checkpoint import CheckpointError
from xsvggt_ros.node.settings import DEFAULTS


def test_this_machine_is_looked_at(tmp_path, capsys):
    file = tmp_path / 'found.json'
    code = main(['doctor', '--image', '112x84', '--max-tokens', '200', '--json', str(file),
                 '--device', 'cpu'])
    report = json.loads(file.read_text())
    found = {finding['name']: finding for finding in report['findings']}
    assert {'python', 'processor', 'memory', 'shared memory', 'torch', 'GPU', 'kernels', 'ROS 2',
            'middleware', 'libraries', 'checkpoint', 'network memory', 'speed'} <= set(found)
    assert found['checkpoint']['level'] == 'ok' and 'small' in found['checkpoint']['words']
    assert 'frames/s' in found['speed']['words'] and '112x84 at 112x84' in found['speed']['words']
    assert code == (report['worst'] == 'error')
    words = capsys.readouterr().out
    assert all(finding['words'] in words for finding in report['findings'])


def test_a_checkpoint_that_cannot_be_loaded_is_an_error(tmp_path, capsys):
    bad = tmp_path / 'bad.safetensors'
    bad.write_bytes(b'nothing')
    assert main(['doctor', '--checkpoint', str(bad)]) == 1
    assert 'error    checkpoint' in capsys.readouterr().out


def test_weights_are_those_of_the_node(monkeypatch):
    """A speed in floats says nothing of a node that multiplies in 8 bits."""
    asked = []

    def load_model(checkpoint, size, device, *, weights, precision):
        asked.append((checkpoint, weights, precision))
        raise CheckpointError('it is seen already')

    monkeypatch.setattr(measurement, 'load_model', load_model)
    assert main(['doctor', '--image', '112x84', '--device', 'cpu']) == 1
    node = DEFAULTS.model
    assert asked == [(node.checkpoint, node.weights, node.dtype)]


def test_a_network_that_does_not_fit_is_not_loaded(monkeypatch, capsys):
    monkeypatch.setattr(speed, 'host_memory', lambda: (10 ** 9, 2 * 10 ** 9))
    monkeypatch.setattr(speed, 'load_network', lambda *a, **k: pytest.fail('it was loaded'))
    assert main(['doctor', '--checkpoint', 'random', '--size', 'lingbot', '--device', 'cpu',
                 '--image', '518x294']) == 1
    words = capsys.readouterr().out
    assert 'error    network memory' in words and 'GB on cpu: weights ' in words
    assert '1.00 GB are free' in words and '--dtype bf16' in words


def test_a_size_that_there_is_not_is_named(capsys):
    assert main(['doctor', '--checkpoint', 'random', '--size', 'huge']) == 1
    assert 'must be auto, small, full, lingbot' in capsys.readouterr().out


def test_the_worst_finding_is_the_exit_code(monkeypatch):
    for level, plain, strict in (('ok', 0, 0), ('note', 0, 0), ('warning', 0, 1),
                                 ('error', 1, 1)):
        found = [Finding('a', 'ok', 'good'), Finding('b', level, 'so')]
        monkeypatch.setattr(machine, 'machine_findings', lambda found=found: found)
        assert worst(found) == level
        assert main(['doctor', '--no-network']) == plain
        assert main(['doctor', '--no-network', '--strict']) == strict


def test_advice_stands_below_what_it_is_about():
    lines = lines_of([Finding('torch', 'warning', 'too old', 'install a new one')])
    assert lines[0].startswith('warning  torch  too old') and lines[1].endswith(
        '-> install a new one')


@pytest.mark.parametrize('free, level', [(10 ** 6, 'warning'), (10 ** 9, 'ok')])
def test_little_shared_memory_loses_images(monkeypatch, free, level):
    monkeypatch.setattr(machine.shutil, 'disk_usage', lambda path: SimpleNamespace(free=free))
    assert machine.shared_memory().level == level


def test_a_gpu_that_torch_cannot_use_is_told(monkeypatch):
    monkeypatch.setattr(machine.os.path, 'exists', lambda path: path == '/dev/nvidiactl')
    monkeypatch.setattr(torch.version, 'cuda', None)
    assert machine.torch_build().level == 'warning'
    monkeypatch.setattr(torch.version, 'cuda', '12.6')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert machine.torch_build().level == 'error' and 'driver' in machine.torch_build().advice


def test_a_busy_machine_is_told(monkeypatch):
    monkeypatch.setattr(os, 'getloadavg', lambda: (1000.0, 0.0, 0.0))
    assert machine.processor().level == 'warning'
    monkeypatch.setattr(os, 'getloadavg', lambda: (0.0, 0.0, 0.0))
    assert machine.processor().level == 'ok'


def test_a_profile_that_is_not_there_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, 'find_spec', lambda name: object())
    monkeypatch.setenv('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp')
    monkeypatch.setenv(machine.PROFILE_VARIABLE, str(tmp_path / 'gone.xml'))
    assert machine.middleware().level == 'error'
    monkeypatch.delenv(machine.PROFILE_VARIABLE)
    assert machine.middleware().level == 'warning'
    monkeypatch.setenv('RMW_IMPLEMENTATION', 'rmw_cyclonedds_cpp')
    assert machine.middleware().level == 'ok'


def test_a_ros_without_our_messages_is_an_error_and_no_ros_a_note(monkeypatch):
    def missing():
        raise machine.ToolError('no messages')

    monkeypatch.setattr(machine, 'require_ros', missing)
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    assert machine.ros().level == 'error' and machine.ros().advice == 'no messages'
    monkeypatch.delenv('ROS_DISTRO')
    monkeypatch.setattr(machine, 'find_spec', lambda name: None)
    assert machine.ros().level == 'note' and machine.middleware().level == 'note'


def test_libraries_that_lack_are_named(monkeypatch):
    monkeypatch.setattr(machine, 'find_spec', lambda name: None if name == 'av' else object())
    monkeypatch.setattr(machine, '_imports', lambda name: name != 'yaml')
    found = machine.libraries()
    assert [finding.level for finding in found] == ['ok', 'error', 'note']
    assert 'yaml' in found[1].words and 'av (videos' in found[2].words
    monkeypatch.setattr(machine, 'find_spec', lambda name: None)
    [_, note] = machine.libraries()
    program, command, *packages = shlex.split(note.advice)
    assert (program, command) == ('pip', 'install') and {'av', 'rerun-sdk'} <= set(packages)
    assert all(re.fullmatch(r'[\w-]+', package) for package in packages)   # no commas, say


def test_the_doctor_sizes_the_node_s_cache():
    given = build_parser('doctor').parse_args(['doctor'])
    assert given.max_tokens == CacheConfig().max_tokens
