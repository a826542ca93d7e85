"""A run that was interrupted goes on as if it had not been: the same files, bit for bit."""

import json
import os
import signal

import numpy as np
import pytest
from recording_maker import make_frames, write_folder

from xsvggt_ros.cli.main import main
from xsvggt_ros.console.processes import ChildProcess
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.mapping.map_files import read_ply
from xsvggt_ros.recordings import pipeline
from xsvggt_ros.recordings.pipeline import Pipeline
from xsvggt_ros.recordings.resume import STATE_FILE
from xsvggt_ros.recordings.sink_thread import SinkThread
from xsvggt_ros.recordings.tracked_frames import TrackedFrames

pytestmark = pytest.mark.usefixtures('no_picture')

COUNT = 8
SMALL = ['--image-size', '56', '--max-tokens', '60', '--export', 'ply,tum,colmap,depth,grid,mcap']


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('in') / 'images', *make_frames(COUNT))


def interrupt(monkeypatch, frame):
    """Let Ctrl-C come while the network has this frame, once."""
    predict, calls = StreamEngine._predict, []

    def interrupted(engine, *arguments):
        calls.append(1)
        if len(calls) == frame + 1:
            predict(engine, *arguments)   # what it has written into the caches is there
            raise KeyboardInterrupt
        return predict(engine, *arguments)

    monkeypatch.setattr(StreamEngine, '_predict', interrupted)


def messages(path):
    reader = pytest.importorskip('mcap.reader')
    with open(path, 'rb') as stream:
        return sorted((channel.topic, message.log_time, message.data) for _, channel, message in
                      reader.make_reader(stream).iter_messages())


@pytest.mark.slow
@pytest.mark.parametrize('mode, held', [
    ('network', None), ('optimized', None), ('optimized', 100_000)])
def test_what_was_interrupted_twice_is_as_if_it_had_not_been(
        tmp_path, images, monkeypatch, capsys, mode, held):
    """With little memory for frames that wait, exports have had some of them already."""
    if held is not None:
        monkeypatch.setattr(TrackedFrames.__init__, '__defaults__', (held, None))
    whole, out = tmp_path / 'whole', tmp_path / 'out'
    command = ['reconstruct', str(images), '--trajectory', mode, *SMALL, '--out']
    assert main([*command, str(whole)]) == 0
    for after in (3, 2):
        with monkeypatch.context() as patched:
            interrupt(patched, after)
            resume = ['--resume'] if (out / STATE_FILE).exists() else []
            assert main([*command, str(out), *resume]) == 130
        assert 'with --resume goes on from here' in capsys.readouterr().out
    assert json.loads((out / 'report.json').read_text())['frames'] == 5
    assert main([*command, str(out), '--resume']) == 0
    assert 'going on after 5 frames' in capsys.readouterr().out
    assert not (out / STATE_FILE).exists()
    report, other = (json.loads((folder / 'report.json').read_text()) for folder in (out, whole))
    assert report['complete'] and report['frames'] == COUNT
    assert (out / 'trajectory.tum').read_bytes() == (whole / 'trajectory.tum').read_bytes()
    for name in ('map.pgm', 'map.yaml', 'colmap/sparse/0/points3D.bin'):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert np.array_equal(read_ply(out / 'map.ply'), read_ply(whole / 'map.ply'))
    assert sorted(os.listdir(out / 'depth')) == sorted(os.listdir(whole / 'depth'))
    assert report['poses_from'] == other['poses_from']
    assert messages(out / 'recording.mcap') == messages(whole / 'recording.mcap')


def interrupt_the_end(monkeypatch, phase):
    """Let Ctrl-C come when the network has seen all: once, in a phase of what is left to do."""
    finish, give, calls = SinkThread.finish, Pipeline.give, []

    def finished(sink):
        finish(sink)
        calls.append(sink)
        if len(calls) == {'located': 1, 'written': 2}.get(phase):
            raise KeyboardInterrupt

    def given(run, output):
        if phase == 'given' and output.number == 2:
            signal.raise_signal(signal.SIGINT)
        give(run, output)

    monkeypatch.setattr(SinkThread, 'finish', finished)
    monkeypatch.setattr(Pipeline, 'give', given)


@pytest.mark.slow
@pytest.mark.parametrize('phase, mode', [
    ('located', 'network'), ('located', 'optimized'), ('given', 'optimized'),
    ('written', 'optimized')])
def test_a_run_that_was_interrupted_after_its_last_image_goes_on(
        tmp_path, images, monkeypatch, capsys, phase, mode):
    whole, out = tmp_path / 'whole', tmp_path / 'out'
    command = ['reconstruct', str(images), '--trajectory', mode, *SMALL, '--out']
    assert main([*command, str(whole)]) == 0
    with monkeypatch.context() as patched:
        interrupt_the_end(patched, phase)
        assert main([*command, str(out)]) == 130
    told = capsys.readouterr().out
    assert f'saved {COUNT} frames' in told and 'with --resume goes on from here' in told
    saved = read_ply(out / 'map.ply')
    assert main([*command, str(out), '--resume']) == 0
    assert f'going on after {COUNT} frames' in capsys.readouterr().out
    assert json.loads((out / 'report.json').read_text())['complete']
    for name in ('trajectory.tum', 'map.pgm', 'colmap/sparse/0/points3D.bin'):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert sorted(os.listdir(out / 'depth')) == sorted(os.listdir(whole / 'depth'))
    for points in (saved, read_ply(out / 'map.ply')):
        assert np.array_equal(points, read_ply(whole / 'map.ply'))
    assert messages(out / 'recording.mcap') == messages(whole / 'recording.mcap')


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_from_its_last_state(tmp_path, images, monkeypatch, capsys):
    """States are saved now and then, too."""
    monkeypatch.setattr(pipeline, 'SAVE_PERIOD', 0.0)
    command = ['reconstruct', str(images), *SMALL, '--out', str(tmp_path)]

    class Killed(BaseException):
        pass

    step, calls = StreamEngine.step, []

    def killed(engine, *arguments, **named):
        calls.append(1)
        if len(calls) == 5:
            raise Killed
        return step(engine, *arguments, **named)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(StreamEngine, 'step', killed)
        main(command)
    assert main([*command, '--resume']) == 0
    assert 'going on after 4 frames' in capsys.readouterr().out
    assert json.loads((tmp_path / 'report.json').read_text())['frames'] == COUNT


def test_what_cannot_be_resumed_is_one_line(tmp_path, images, monkeypatch, capsys):
    command = ['reconstruct', str(images), *SMALL, '--out', str(tmp_path), '--resume']
    assert main(command) == 1
    assert 'has no run that was interrupted' in capsys.readouterr().err
    with monkeypatch.context() as patched:
        interrupt(patched, 3)
        assert main(command[:-1]) == 130
    capsys.readouterr()
    assert main([*command, '--quantization', 'none']) == 1
    assert 'begun with other options: --quantization was int4, now none' in capsys.readouterr().err
    other = write_folder(tmp_path / 'other', *make_frames(COUNT, (56, 42)))
    assert main(['reconstruct', str(other), *command[2:]]) == 1
    assert 'INPUT was' in capsys.readouterr().err
    whole = (tmp_path / STATE_FILE).read_bytes()
    for spoiled in (whole[:len(whole) // 2], b'', b'PK'):
        (tmp_path / STATE_FILE).write_bytes(spoiled)
        assert main(command) == 1
        assert 'cannot be read' in capsys.readouterr().err


@pytest.mark.parametrize('call, arguments', [
    (os.system, lambda file: (f'touch {file}',)),
    (ChildProcess, lambda file: ('help', 'xsvggt_ros.cli.main', ['--help'], file))])
def test_a_state_runs_no_code(tmp_path, images, capsys, call, arguments):
    """Nor does it start what this package could start."""
    import torch

    class Evil:
        def __reduce__(self):
            return call, arguments(tmp_path / 'done')

    torch.save({'version': 1, 'settings': {}, 'state': Evil()}, tmp_path / STATE_FILE)
    assert main(['reconstruct', str(images), '--resume', '--out', str(tmp_path)]) == 1
    held = f"it holds '{call.__module__}.{call.__qualname__}', which no state has"
    assert held in capsys.readouterr().err
    assert not (tmp_path / 'done').exists()


def test_a_state_of_another_version_is_refused(tmp_path, images, capsys):
    import torch

    torch.save({'version': 7, 'settings': {}, 'state': {}}, tmp_path / STATE_FILE)
    assert main(['reconstruct', str(images), '--resume', '--out', str(tmp_path)]) == 1
    words = capsys.readouterr().err
    assert 'it is of version 7, not 8' in words and 'leave --resume out' in words


def test_a_run_that_begins_anew_forgets_the_one_before(tmp_path, images, monkeypatch, capsys):
    command = ['reconstruct', str(images), *SMALL, '--out', str(tmp_path)]
    with monkeypatch.context() as patched:
        interrupt(patched, 3)
        assert main(command) == 130
    assert (tmp_path / STATE_FILE).exists()
    with monkeypatch.context() as patched:
        interrupt(patched, 0)   # before its first frame is done: there is nothing to go on from
        assert main(command) == 130
    assert main([*command, '--resume']) == 1
    assert 'has no run that was interrupted' in capsys.readouterr().err
