"""Many recordings: nothing is lost, nothing is done twice, failures are told and tried again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
from PIL import Image
import pytest

from xsvggt_ros.cli.batch import run_command_line
from xsvggt_ros.cli.main import build_parser, main
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.mapping.map_files import read_tum
from xsvggt_ros.recordings.batch.plan import find_recordings, make_tasks
from xsvggt_ros.recordings.batch.runner import batch_folder, BatchRunner

pytestmark = pytest.mark.slow
SMALL = ['--image-size', '56', '--max-tokens', '60']
HERE = [*SMALL, '--on', 'processes']


def write_images(folder, count=2, size=(56, 42)):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{number:03d}.png')
    return folder


# Which recordings --------------------------------------------------------------------------------

def test_recordings_are_found_by_globs_trees_and_manifests(tmp_path):
    first, second = write_images(tmp_path / 'in' / 'a'), write_images(tmp_path / 'in' / 'b' / 'c')
    video = tmp_path / 'in' / 'b' / 'd.mp4'
    video.write_bytes(b'')
    (tmp_path / 'in' / 'notes.md').write_text('no recording')
    assert find_recordings([str(tmp_path / 'in')]) == [first, second, video]
    assert find_recordings([str(tmp_path / 'in' / '*')]) == [first, second, video]
    assert find_recordings([str(tmp_path / 'in' / '**' / '*.mp4'), str(first)]) == [video, first]
    manifest = tmp_path / 'some.txt'
    manifest.write_text('# some\nin/b/c\n\nin/a\n')
    assert find_recordings([str(manifest)]) == [second, first]
    with pytest.raises(ToolError, match='no recording there'):
        find_recordings([str(tmp_path / '*.bag')])
    manifest.write_text('in/a\nin/nothing\n')
    with pytest.raises(ToolError, match="some.txt, line 2: 'in/nothing' is no recording"):
        find_recordings([str(manifest)])


def test_a_folder_of_bags_is_several_recordings_and_parts_of_one_are_one(tmp_path):
    for name in ('all/kitchen.mcap', 'all/hall.mcap', 'all/part/a_0.mcap', 'all/part/a_1.mcap',
                 'all/made/x.db3', 'all/made/y.db3', 'all/made/metadata.yaml',
                 'all/old/b_2024-01-02-03-04-05_0.bag', 'all/old/b_2024-01-02-03-09-05_1.bag'):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b'')
    found = [path.relative_to(tmp_path / 'all') for path in find_recordings([str(tmp_path)])]
    assert sorted(map(str, found)) == ['hall.mcap', 'kitchen.mcap', 'made', 'old', 'part']


def test_names_tell_recordings_apart(tmp_path):
    paths = [tmp_path / name for name in ('x/a.mcap', 'y/a.mcap', 'y/a.mp4', 'y/b.bag', 'y/v1.2')]
    names = [task.out.name for task in make_tasks(paths, tmp_path / 'out')]
    assert names == ['x__a', 'y__a.mcap', 'y__a.mp4', 'y__b', 'y__v1.2']
    assert make_tasks(paths[:1], tmp_path)[0].out.name == 'a'


def test_what_is_the_same_for_all_is_handed_on():
    words = ['batch', 'x', '--export', 'colmap', '--frames', '7', '--rate', '2.5', '--topic', '/a',
             '--workers', '3', '--threads', '1', '--policy', 'xstream']
    line = run_command_line(build_parser('batch').parse_args(words))
    again = build_parser('reconstruct').parse_args(['reconstruct', 'in', *line])
    assert (again.export, again.frames, again.rate, again.input_topic) == ('colmap', 7, 2.5, '/a')
    assert (again.threads, again.policy, again.scale) == (1, 'xstream', 'auto')


# Runs --------------------------------------------------------------------------------------------

def test_a_batch_is_done_once_and_failures_are_tried_again(tmp_path, capsys):
    write_images(tmp_path / 'in' / 'a')
    write_images(tmp_path / 'in' / 'b', 3)
    bad = tmp_path / 'in' / 'c.mp4'
    bad.write_bytes(b'no video')
    out, table = tmp_path / 'out', tmp_path / 'all.json'
    command = ['batch', str(tmp_path / 'in' / '*'), '--out', str(out), '--workers', '2',
               '--json', str(table), *HERE]
    assert main(command) == 1
    report = json.loads(table.read_text())
    assert (report['done'], report['skipped'], report['failed'], report['frames']) == (2, 0, 1, 5)
    failed = report['recordings'][2]
    assert failed['state'] == 'failed' and 'cannot be read as a video' in failed['reason']
    assert json.loads((out / 'c.failed.json').read_text())['reason'] == failed['reason']
    assert (out / 'c.failed.log').exists() and not (out / 'c').exists()
    assert len(read_tum(out / 'b' / 'trajectory.tum')) == 3
    assert sorted(entry.name for entry in out.iterdir()) == [
        '.batch.lock', 'a', 'b', 'c.failed.json', 'c.failed.log']
    told = capsys.readouterr().out
    assert '2 done, 0 done before, 1 failed; 5 frames' in told
    assert str(out / 'c.failed.log') in told and '--retry' not in told

    before = (out / 'a' / 'report.json').stat().st_mtime_ns
    assert main(command) == 1
    report = json.loads(table.read_text())
    assert (report['done'], report['skipped'], report['failed'], report['frames']) == (0, 2, 1, 5)
    assert '--retry tries again' in report['recordings'][2]['reason']
    *_, told = capsys.readouterr().out.splitlines()   # the table cuts long reasons off
    assert told.startswith('1 failed in an earlier run') and '--retry tries again' in told
    assert (out / 'a' / 'report.json').stat().st_mtime_ns == before

    bad.unlink()
    write_images(bad)   # a folder of images in its place
    (out / 'a' / 'map.ply').unlink()   # somebody tidied up: it is not complete any more
    assert main([*command, '--retry']) == 0
    report = json.loads(table.read_text())
    assert (report['done'], report['skipped'], report['failed']) == (2, 1, 0)
    assert (out / 'a' / 'map.ply').exists() and not (out / 'c.failed.json').exists()


def test_another_export_is_done_anew(tmp_path):
    write_images(tmp_path / 'a')
    command = ['batch', str(tmp_path / 'a'), '--out', str(tmp_path / 'out'), *HERE]
    assert main(command) == 0
    assert main([*command, '--export', 'depth']) == 0
    assert len(list((tmp_path / 'out' / 'a' / 'depth').glob('*.png'))) == 2


@pytest.mark.parametrize('number, code', [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_batch_that_is_killed_goes_on_where_it_was(tmp_path, number, code):
    for name in 'abc':
        write_images(tmp_path / 'in' / name, 2 if name == 'a' else 400)
    out, table = tmp_path / 'out', tmp_path / 'all.json'
    command = [sys.executable, '-m', 'xsvggt_ros.cli.main', 'batch', str(tmp_path / 'in'),
               '--out', str(out), '--workers', '1', '--json', str(table), *HERE]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while not (line := process.stdout.readline()).startswith('a: 2 frames'):
        assert line, 'it ended too early'
    while not list(out.glob('.b.*.partial')):
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=600)
    assert process.returncode == code
    assert table.exists() == (number == signal.SIGINT)
    if table.exists():
        report = json.loads(table.read_text())
        assert [(entry['state'], entry['reason'], entry['frames'])
                for entry in report['recordings']] == [
            ('done', '', 2), ('left', 'interrupted', 0), ('left', 'not begun', 0)]
        assert (report['done'], report['failed'], report['left']) == (1, 0, 2)
    assert (out / 'a' / 'report.json').exists() and not (out / 'b').exists()
    # Its process sees that it is alone, and ends; nothing is written under the recording's name.
    # (One that has only just begun has the batch's own command line, and its lock.)
    while _writes_to(out):
        time.sleep(0.05)
    assert not (out / 'b').exists()
    assert main([*command[3:], '--frames', '2']) == 0
    assert [len(read_tum(out / name / 'trajectory.tum')) for name in 'abc'] == [2, 2, 2]
    assert not list(out.glob('.*.partial'))


def test_an_interrupt_that_another_thread_receives_ends_a_batch(tmp_path):
    """The kernel chooses the thread; the batch must not wait until a recording is done."""
    stopped = threading.Event()

    class Interrupted:
        heard = False

        def run(self, arguments, log):
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            self.heard = stopped.wait(60)
            return 0 if not self.heard else -9

        def stop(self):
            stopped.set()

    executor = Interrupted()
    tasks = make_tasks([write_images(tmp_path / 'a')], tmp_path / 'out')
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            BatchRunner(executor, [], [], retry=False).run(tasks, 1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert executor.heard and not list((tmp_path / 'out').iterdir())


def _writes_to(folder):
    """Return whether any process has this folder on its command line."""
    for entry in os.listdir('/proc'):
        try:
            with open(f'/proc/{entry}/cmdline', 'rb') as file:
                if entry.isdigit() and str(folder).encode() in file.read():
                    return True
        except OSError:
            continue
    return False


def test_one_folder_belongs_to_one_batch(tmp_path):
    with batch_folder(tmp_path), pytest.raises(ToolError, match='another batch is at work there'):
        with batch_folder(tmp_path):
            pass
    (tmp_path / '.a.123.partial').mkdir()
    (tmp_path / '.mine').mkdir()
    with batch_folder(tmp_path):
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ['.batch.lock', '.mine']


# Ray ---------------------------------------------------------------------------------------------

def test_ray_is_asked_for_where_it_is_not_installed(tmp_path, capsys, monkeypatch):
    write_images(tmp_path / 'a')
    monkeypatch.setitem(sys.modules, 'ray', None)
    command = ['batch', str(tmp_path / 'a'), '--out', str(tmp_path / 'out'), *SMALL]
    assert main([*command, '--on', 'ray']) == 1
    assert 'xsvggt batch on Ray needs ray: pip install ray' in capsys.readouterr().err
    assert main([*command, '--address', 'auto', '--on', 'processes']) == 1
    assert '--address is of a Ray cluster' in capsys.readouterr().err


def test_a_task_that_ray_loses_has_failed(tmp_path):
    """The machine of a task may go: what it wrote stays under its temporary name, and goes."""
    class Lost:
        def run(self, arguments, log):
            log.write_text('xsvggt batch: Ray lost the task: the node died\n')
            return 1

        def stop(self):
            pass

    task, = make_tasks([write_images(tmp_path / 'a')], tmp_path / 'out')
    (tmp_path / 'out').mkdir()
    outcome, = BatchRunner(Lost(), [], ['ply', 'tum'], False).run([task], 1)
    assert (outcome.state, outcome.reason) == ('failed', 'Ray lost the task: the node died')
    assert task.failure.exists() and not task.out.exists() and not task.partial.exists()


def test_forty_recordings_on_ray_killed_twice_lose_nothing_and_are_done_once(tmp_path):
    pytest.importorskip('ray', reason='ray is 240 MB')
    for number in range(40):
        write_images(tmp_path / 'in' / f'r{number:02d}', 2 + number % 2)
    out, table = tmp_path / 'out', tmp_path / 'all.json'
    command = [sys.executable, '-m', 'xsvggt_ros.cli.main', 'batch', str(tmp_path / 'in' / '*'),
               '--out', str(out), '--workers', '2', '--on', 'ray', '--json', str(table), *SMALL]
    done = {}
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True)
        told = 0
        while told < 8:
            line = process.stdout.readline()
            assert line, 'it ended too early'
            told += ' frames in ' in line
        process.kill()
        process.communicate(timeout=600)
        while _writes_to(out):
            time.sleep(0.1)
        for entry in out.glob('r??'):   # complete, or not there
            report = json.loads((entry / 'report.json').read_text())
            assert report['complete'] and len(read_tum(entry / 'trajectory.tum')) > 1
            changed = (entry / 'report.json').stat().st_mtime_ns
            assert done.setdefault(entry.name, changed) == changed
        assert not table.exists()
    before = dict(done)
    assert 16 <= len(before) < 40
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
    report = json.loads(table.read_text())
    assert (report['done'], report['skipped'], report['failed']) == (
        40 - len(before), len(before), 0)
    assert report['frames'] == 20 * 2 + 20 * 3
    assert [entry['frames'] for entry in report['recordings']] == [2, 3] * 20
    for name, changed in before.items():
        assert (out / name / 'report.json').stat().st_mtime_ns == changed
    assert len(list(out.glob('r??'))) == 40 and not list(out.glob('.*.partial'))
