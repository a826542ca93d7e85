"""What is left of a reconstruction that ends before its last frame."""

from dataclasses import replace
import json
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image
import pytest

pytest.importorskip('matplotlib')

from test_figure import record  # noqa: E402

from xsvggt_ros.cli.main import main  # noqa: E402
from xsvggt_ros.console.processes import OutOfTime, time_limit  # noqa: E402
from xsvggt_ros.engine.stream_engine import StreamEngine  # noqa: E402
from xsvggt_ros.mapping.map_files import read_ply, read_tum  # noqa: E402
from xsvggt_ros.recordings import (
    figure,  # noqa: E402
    pipeline,  # noqa: E402
    reconstruct_run,  # noqa: E402
)
from xsvggt_ros.recordings.frame_source import WorldSource  # noqa: E402
from xsvggt_ros.recordings.report import RunReport  # noqa: E402

SMALL = ['reconstruct', '--size', '112x84', '--image-size', '56', '--max-tokens', '60']


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, '-u', '-m', 'xsvggt_ros.cli.main', *SMALL, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_names_what_there_is(tmp_path, number):
    out = tmp_path / 'out'
    process = start('--frames', 100_000, '--out', out)
    while '] 0/' in (line := process.stdout.readline()) or not line.startswith('reconstructing'):
        assert line, process.stderr.read()
    process.send_signal(number)
    words, errors = process.communicate(timeout=600)
    assert process.returncode == 130 and errors == ''
    assert 'interrupted' in words
    named = [line for line in words.splitlines() if line.startswith(str(out))]
    assert [name.rpartition('/')[2] for name in named][:3] == [
        'map.ply', 'trajectory.tum', 'cache.csv']
    poses = read_tum(out / 'trajectory.tum')
    report = json.loads((out / 'report.json').read_text())
    assert report['frames'] == len(poses) and report['complete'] is False
    assert f'saved {len(poses)} frames:' in words and len(poses) > 0
    assert len(read_ply(out / 'map.ply')) > 0
    picture = out / 'reconstruction.png'
    if 'reconstruction.png is left out' in words:    # a machine that needs more than 2 s for it
        assert not picture.exists()
    else:
        assert str(picture) in named and Image.open(picture).size == (1920, 1080)


def test_an_end_before_the_first_frame_leaves_what_was_there(tmp_path, monkeypatch, capsys):
    (tmp_path / 'map.ply').write_text('of an earlier run')

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(StreamEngine, 'step', interrupted)
    assert main([*SMALL, '--frames', '3', '--out', str(tmp_path)]) == 130
    assert 'nothing is saved' in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ['map.ply']


@pytest.mark.usefixtures('no_picture')
def test_an_error_in_the_middle_keeps_the_frames_before_it(tmp_path, monkeypatch, capsys):
    step, calls = StreamEngine.step, []

    def failing(engine, *arguments, **named):
        calls.append(arguments)
        if len(calls) == 4:
            raise RuntimeError('out of memory')
        return step(engine, *arguments, **named)

    monkeypatch.setattr(StreamEngine, 'step', failing)
    assert main([*SMALL, '--frames', '9', '--out', str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert 'frame 3: out of memory' in told.err and 'saved 3 frames:' in told.out
    assert len(read_tum(tmp_path / 'trajectory.tum')) == 3


@pytest.mark.usefixtures('no_picture')
def test_what_is_not_finite_gets_into_no_file(tmp_path, monkeypatch, capsys):
    step, calls = StreamEngine.step, []

    def spoiled(engine, *arguments, **named):
        result = step(engine, *arguments, **named)
        calls.append(result)
        return replace(result, depth=result.depth * np.nan) if len(calls) == 4 else result

    monkeypatch.setattr(StreamEngine, 'step', spoiled)
    assert main([*SMALL, '--frames', '9', '--out', str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert 'frame 3: this is no reconstruction: the depth is not finite' in told.err
    assert 'saved 3 frames:' in told.out
    assert all(np.isfinite(read_ply(tmp_path / 'map.ply')[name]).all() for name in 'xyz')


def test_a_picture_that_takes_too_long_is_left_out(tmp_path, monkeypatch, capsys):
    (tmp_path / 'reconstruction.png').write_text('of an earlier run')

    def slow(recording):
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(figure, 'draw_reconstruction', slow)
    monkeypatch.setattr(reconstruct_run, 'PICTURE_PATIENCE', 0.05)
    source = WorldSource(count=5)
    run = pipeline.Pipeline(None, source, record(5))
    reconstruct_run._save_so_far(run, RunReport('a world'), tmp_path)
    assert 'reconstruction.png is left out' in capsys.readouterr().out
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        'cache.csv', 'map.ply', 'report.json', 'trajectory.tum']


def test_a_folder_that_becomes_unwritable_is_one_line(tmp_path, capsys, monkeypatch):
    def full(*arguments):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('xsvggt_ros.recordings.recording.write_tum', full)
    assert main([*SMALL, '--frames', '1', '--out', str(tmp_path)]) == 1
    assert 'No space left on device' in capsys.readouterr().err


def test_the_time_limit_cannot_be_swallowed():
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(OutOfTime), time_limit(0.01):
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                pass
    with time_limit(100):
        pass
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
