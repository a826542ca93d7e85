"""A recording whose first frames the network sees together."""

import json

import pytest

pytest.importorskip('matplotlib')

from tiny_stream import make_model  # noqa: E402

from xsvggt_ros.cli.main import main  # noqa: E402
from xsvggt_ros.engine.factory import build_engine, EngineOptions  # noqa: E402
from xsvggt_ros.engine.stream_engine import StreamEngine  # noqa: E402
from xsvggt_ros.mapping.map_files import read_tum  # noqa: E402
from xsvggt_ros.model.checkpoint import load_model, save_checkpoint  # noqa: E402
from xsvggt_ros.recordings.frame_source import WorldSource  # noqa: E402
from xsvggt_ros.recordings.pipeline import Pipeline  # noqa: E402
from xsvggt_ros.recordings.recording import Recording  # noqa: E402


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'lingbot.safetensors'
    save_checkpoint(make_model('lingbot'), path)
    return path


def reconstruct(weights, out, frames, first):
    return main(['reconstruct', '--size', '112x84', '--image-size', '56', '--max-tokens', '110',
                 '--policy', 'lingbot', '--checkpoint', str(weights), '--trajectory', 'network',
                 '--frames', str(frames), '--first-frames', str(first), '--out', str(out)])


@pytest.mark.slow
@pytest.mark.parametrize('frames, begun', [(6, [4]), (3, [3])])
def test_every_frame_has_its_pose(weights, tmp_path, monkeypatch, frames, begun):
    """Also where there are fewer than were to be seen together."""
    groups, begin = [], StreamEngine.begin
    monkeypatch.setattr(StreamEngine, 'begin', lambda engine, images, cameras: groups.append(
        len(images)) or begin(engine, images, cameras))
    assert reconstruct(weights, tmp_path, frames, 4) == 0
    assert groups == begun
    poses = read_tum(tmp_path / 'trajectory.tum')
    assert len(poses) == frames and len({pose.position for pose in poses}) == frames
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['complete'] and report['frames'] == frames
    rows = (tmp_path / 'cache.csv').read_text().splitlines()[1:]
    assert [int(row.split(',')[1]) for row in rows] == list(range(frames))


def test_a_network_that_cannot_is_one_line(tmp_path, capsys):
    assert reconstruct('small', tmp_path, 2, 8) == 1
    assert 'first_frames is 8' in capsys.readouterr().err


def test_a_run_that_is_stopped_while_it_collects_has_no_state_yet(weights):
    engine = build_engine(load_model(weights), EngineOptions(first_frames=4, image_size=56,
                                                             threads=1), 'cpu')
    source = WorldSource(count=9)
    run = Pipeline(engine, source, Recording())
    frames = source.frames()
    for _ in range(3):
        stats = run.reconstruct(next(frames))
        assert stats.frames == 0 and run.frames == 0
    assert run.state() is None
    run.finish()
    assert run.frames == 3 and len(run.recording.poses) == 3
