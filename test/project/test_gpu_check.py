"""`ci/gpu_check.py`: its plan, and what it makes of parts that fail or take too long."""

from argparse import ArgumentParser, Namespace
import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / 'ci'))

import gpu_check  # noqa: E402
from gpu_check import Check, JSON_FILE, Part  # noqa: E402
import gpu_numerics  # noqa: E402
import gpu_parts  # noqa: E402

from xsvggt_ros.cli import bench  # noqa: E402
from xsvggt_ros.kernels.availability import why_not  # noqa: E402

WRITES = 'import json, sys; json.dump({}, open(sys.argv[1], "w"));'


def stand_in(name, program='', results=None, **settings):
    """Return a part that writes results and then does something."""
    code = WRITES.format(repr(results)) + program if results else 'import sys;' + program
    return Part(name, [sys.executable, '-c', code, JSON_FILE],
                **{'limit': 600.0, 'least': 0.0, **settings})


def report_of(out):
    return json.loads((out / 'gpu_check.json').read_text())


def states(out):
    return {row['name']: row['state'] for row in report_of(out)['parts']}


def test_parts_run_in_their_order_and_a_failing_one_stops_no_other(tmp_path):
    seen = 'import json; seen = json.load(open({!r}))["parts"]; {}'
    out = tmp_path / 'out'
    at_third = seen.format(str(out / 'gpu_check.json'),
                           'print([row["state"] for row in seen]); sys.exit(0)')
    check = Check(out, [
        stand_in('device', results={'device': 'A GPU', 'torch': '9.0', 'driver': '1'}),
        stand_in('fails', 'print("half of it"); sys.exit("the numbers differ")', {'measured': 1}),
        stand_in('looks', at_third),
        stand_in('cannot', 'print("pytest is not installed"); sys.exit(3)'),
        stand_in('left out', skip='numba is not installed'),
        stand_in('last', results=[1, 2])], 3600, {'minutes': 60})
    assert check.run() == 1
    report = report_of(out)
    assert report['device'] == 'A GPU' and report['versions']['torch'] == '9.0'
    assert report['exit_code'] == 1 and report['minutes'] == 60
    assert states(out) == {'device': 'done', 'fails': 'failed', 'looks': 'done',
                           'cannot': 'skipped', 'left out': 'skipped', 'last': 'done'}
    rows = {row['name']: row for row in report['parts']}
    assert rows['fails']['reason'] == 'the numbers differ'
    assert rows['fails']['results'] == {'measured': 1}
    assert rows['cannot']['reason'] == 'pytest is not installed'
    assert rows['left out']['reason'] == 'numba is not installed'
    assert rows['last']['results'] == [1, 2] and rows['last']['command'][0] == 'python'
    # Whoever looks while a part runs finds what came before.
    log = (out / 'gpu_check.log').read_text()
    assert "['done', 'failed', 'waiting', 'waiting', 'waiting', 'waiting']" in log
    assert 'half of it' in log and not (out / 'gpu_check.part').exists()


def test_a_part_that_takes_too_long_is_ended_with_its_children(tmp_path):
    begun = tmp_path / 'begun'
    sleeps = '[sys.executable, "-c", "import time; time.sleep(3600)"]'
    endless = (f'import os, subprocess, time; child = subprocess.Popen({sleeps});'
               f'open({str(begun) + ".new"!r}, "w").write(str(child.pid));'
               f'os.rename({str(begun) + ".new"!r}, {str(begun)!r}); child.wait()')

    def clock():
        """Let time pass once the part has done what it can."""
        return 100.0 if begun.exists() else 0.0

    check = Check(tmp_path, [
        stand_in('endless', endless, {'measured': 1}, limit=50.0), stand_in('next'),
        stand_in('training', limit=600.0, least=300.0)], 300, {}, clock=clock)
    assert check.run() == 1
    assert states(tmp_path) == {'endless': 'out of time', 'next': 'done',
                                'training': 'out of time'}
    row, _, training = report_of(tmp_path)['parts']
    assert row['results'] == {'measured': 1} and row['reason'] == 'stopped after 50 s'
    assert training['reason'] == 'not begun: too little time was left'
    state = Path(f'/proc/{begun.read_text()}/status')
    assert not state.exists() or 'zombie' in state.read_text()


def test_without_a_device_nothing_else_is_tried(tmp_path):
    check = Check(tmp_path, [
        stand_in('device', 'print("torch sees no CUDA device"); sys.exit(2)', {'torch': '2'},
                 vital=True), stand_in('next')], 3600, {})
    assert check.run() == 2
    report = report_of(tmp_path)
    assert report['exit_code'] == 2 and report['versions']['torch'] == '2'
    assert states(tmp_path) == {'device': 'failed', 'next': 'skipped'}
    assert report['parts'][1]['reason'] == 'device: torch sees no CUDA device'


def test_ctrl_c_ends_the_part_and_leaves_a_report(tmp_path):
    interrupts = f'import os, signal, time; os.kill({os.getpid()}, signal.SIGINT); time.sleep(99)'
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = Check(tmp_path, [stand_in('first'), stand_in('second', interrupts, [1]),
                                stand_in('third')], 3600, {}).run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 1
    assert states(tmp_path) == {'first': 'done', 'second': 'failed', 'third': 'skipped'}
    assert [row['reason'] for row in report_of(tmp_path)['parts']][1:] == ['interrupted'] * 2


def test_the_dry_run_is_the_plan_for_cuda_in_small(tmp_path, monkeypatch, capsys):
    plan = gpu_check.plan_for_dry_run()
    names = [part.name for part in gpu_check.plan_for_cuda(tmp_path, None, None)]
    assert [part.name for part in plan if not part.name.startswith('bench')] == [
        name for name in names if not name.startswith('bench')]
    assert {part.name: part.skip for part in plan if not part.command} == {
        'kernel_tests': 'needs a CUDA device', 'training': 'needs a CUDA device'}
    small = [stand_in(part.name, skip=part.skip) for part in plan]
    monkeypatch.setattr(gpu_check, 'plan_for_dry_run', lambda: small)
    assert gpu_check.main(['--out', str(tmp_path / 'out'), '--dry-run']) == 0
    report = report_of(tmp_path / 'out')
    assert report['dry_run'] and [row['name'] for row in report['parts']] == [
        part.name for part in plan]
    assert 'kernel_tests: skipped: needs a CUDA device' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        gpu_check.main(['--out', str(tmp_path), '--training', str(tmp_path / 'nowhere')])
    assert 'there is no such folder' in capsys.readouterr().err


def test_all_commands_of_the_plan_can_be_understood(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(gpu_parts, 'PARTS', {
        name: lambda options: found.append(options) or 0 for name in gpu_parts.PARTS})
    parser = ArgumentParser()
    bench.add_arguments(parser)
    plan = gpu_check.plan_for_cuda(tmp_path, tmp_path, tmp_path)
    for part in plan:
        words = [{'{seconds}': '300'}.get(word, word) for word in part.command]
        assert words.count(JSON_FILE) == 1
        if words[1] == '-m':
            options = parser.parse_args(words[3:])
            assert words[2] == bench.__name__ and options.device == 'cuda'
        else:
            assert (ROOT / words[1]).is_file() and gpu_parts.main(words[2:]) == 0
    assert all((ROOT / file).is_file() for options in found
               for file in getattr(options, 'files', ()))
    assert found[-1].training == found[-1].textures == tmp_path and found[-1].seconds == 300
    # Even if each part takes all it may, little of the time is missing.
    assert sum(part.limit for part in plan[:-1]) < 1.6 * 60 * gpu_check.MINUTES


@pytest.mark.slow
def test_each_test_is_written_down_when_it_is_known(tmp_path):
    tests = tmp_path / 'test_some.py'
    tests.write_text('import os, pytest\ndef test_good(): pass\n'
                     'def test_bad(): assert 1 == 2, "no\\nat all"\n'
                     '@pytest.mark.skip(reason="no GPU")\ndef test_not(): pass\n'
                     'def test_last(): os._exit(9)\n')
    file = tmp_path / 'results.json'
    command = [sys.executable, ROOT / 'ci' / 'gpu_parts.py', 'tests', '--json', file, tests]
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 9
    results = json.loads(file.read_text())
    assert results['passed'] == 1 and 'test_bad' in results['failed'][0]['test']
    assert results['failed'][0]['reason'] == 'AssertionError: no'
    assert results['skipped'][0]['reason'] == 'Skipped: no GPU'


@pytest.mark.slow
def test_kernels_are_compared_and_timed(tmp_path, monkeypatch):
    pytest.importorskip('triton')
    if why_not('cpu', gpu_numerics.HEAD_DIM):
        pytest.skip('Triton does not interpret here')
    rows = list(gpu_numerics.compare_kernels(torch.device('cpu'), tiny=True))
    assert {row['kernel'] for row in rows} == {'insert', 'decode', 'attend', 'split_qkv',
                                               'int8_product'}
    assert all(row['equal'] and row['triton_ms']['p50'] > 0 for row in rows)
    wrong = {**rows[0], 'error': 0.5, 'equal': False}
    monkeypatch.setattr(gpu_numerics, 'compare_kernels', lambda *_: iter([rows[1], wrong]))
    options = Namespace(json=tmp_path / 'results.json', device='cpu', tiny=True)
    with pytest.raises(gpu_parts.Failed, match='what PyTorch does: insert .56x42, float32.: 0.5'):
        gpu_parts.kernels_part(options)
    assert len(json.loads(options.json.read_text())['kernels']) == 2


@pytest.mark.slow
def test_the_network_is_compared_with_golden_data_and_cpu(tmp_path, monkeypatch):
    (case, mode), *others = gpu_numerics.golden_modes(['tiny_h1'])
    assert [mode, *(other for _, other in others)] == ['full', 'prune']
    row = gpu_numerics.compare_with_cpu(case, 'prune', torch.device('cpu'))
    assert row['excess_over_golden'] < 1 and row['excess_over_cpu'] == 0 and row['kept_as_on_cpu']
    assert 1e-4 < row['depth_difference_bf16'] < 0.1
    case.tensors['full/pose_enc'] += 1
    off = gpu_numerics.compare_with_cpu(case, 'full', torch.device('cpu'))
    assert off['excess_over_golden'] > 100 and off['excess_over_cpu'] == 0
    monkeypatch.setattr(gpu_numerics, 'compare_with_cpu', lambda case, mode, device: {
        **row, 'mode': mode, 'kept_as_on_cpu': mode == 'full'})
    options = Namespace(json=tmp_path / 'results.json', device='cpu', cases=['tiny_h1'])
    with pytest.raises(gpu_parts.Failed, match='CPU: tiny_h1 prune'):
        gpu_parts.golden_part(options)


@pytest.fixture
def trained(tmp_path):
    """Return a folder that a training has left."""
    folder = tmp_path / 'given'
    (folder / 'validation').mkdir(parents=True)
    (folder / 'rooms').mkdir()
    for name in ('wide_state.pt', 'validation/images.npy', 'rooms/textures.npz',
                 'rooms/images.npy'):
        (folder / name).write_bytes(name.encode())
    (folder / 'wide_curves.json').write_text(json.dumps({
        'plan': {'steps': 6000, 'minutes': None, 'seed': 3, 'slots': 20, 'learning_rate': 3e-4,
                 'frames_per_step': 64}, 'steps': 700, 'hours': 1.5, 'curves': [{'step': 500}]}))
    return folder


def training_options(tmp_path, **given):
    return Namespace(json=tmp_path / 'results.json', device='cuda', seconds=300.0,
                     out=tmp_path / 'out', **{'textures': None, 'training': None, **given})


def test_training_goes_on_from_a_copy_and_brings_back_what_it_made(
        tmp_path, trained, monkeypatch):
    left = {path: path.read_bytes() for path in trained.rglob('*') if path.is_file()}
    commands = []

    def train(command, seconds):
        commands.append(command)
        folder = Path(command[command.index('--out') + 1])
        assert (folder / 'wide_state.pt').exists() and seconds == 260
        assert (folder / 'validation/images.npy').exists()
        assert (folder / 'rooms/textures.npz').exists()
        assert not (folder / 'rooms/images.npy').exists()
        report = json.loads((folder / 'wide_curves.json').read_text())
        report['plan']['frames_per_step'] = 768
        report.update(steps=750, hours=1.6, curves=[{'step': 500}, {'step': 750}])
        (folder / 'wide_curves.json').write_text(json.dumps(report))
        (folder / 'wide_state.pt').write_bytes(b'newer')
        return 0

    monkeypatch.setattr(gpu_parts, 'run_until', train)
    options = training_options(tmp_path, training=trained)
    assert gpu_parts.training_part(options) == 0
    words = ' '.join(commands[0])
    assert re.search(r'-m training\.train_wide --device cuda --out \S+ --steps 6000 --seed 3 '
                     r'--slots 20 --rate 0\.5', words)
    results = json.loads(options.json.read_text())
    assert (results['steps_before'], results['steps'], results['frames']) == (700, 50, 50 * 768)
    assert results['frames_a_second'] == pytest.approx(50 * 768 / 360, abs=0.1)
    assert results['newest_errors'] == {'step': 750}
    assert (options.out / 'wide_state.pt').read_bytes() == b'newer'
    assert {path: path.read_bytes() for path in left} == left
    monkeypatch.setattr(gpu_parts, 'run_until', lambda *_: 0)
    with pytest.raises(gpu_parts.Failed, match='no training step'):
        gpu_parts.training_part(options)
    with pytest.raises(gpu_parts.Failed, match='no wide_state.pt'):
        gpu_parts.training_part(training_options(tmp_path, training=tmp_path))


def test_training_is_stopped_so_that_it_saves(tmp_path, monkeypatch):
    ready, saved = tmp_path / 'ready', tmp_path / 'saved'

    class Process(subprocess.Popen):
        def wait(self, timeout=None):
            """Let the time be over once the program listens."""
            if timeout is not None and timeout == 260:
                while not ready.exists():
                    assert self.poll() is None
                raise subprocess.TimeoutExpired('program', timeout)
            return super().wait(timeout)

    monkeypatch.setattr(gpu_parts.subprocess, 'Popen', Process)
    program = f'trap "touch {saved}; exit 0" TERM; touch {ready}; while :; do sleep 0.1; done'
    assert gpu_parts.run_until(['sh', '-c', program], 260) == 0
    assert saved.exists()
