"""`xsvggt reconstruct --trajectory`: final poses in the files, and a map made with them."""

import numpy as np
import pytest

pytest.importorskip('matplotlib')

from test_reconstruct import SMALL  # noqa: E402

from xsvggt_ros.cli.main import main  # noqa: E402
from xsvggt_ros.geometry import metrics  # noqa: E402
from xsvggt_ros.mapping.map_files import read_ply, read_tum  # noqa: E402
from xsvggt_ros.recordings.tracked_frames import TrackedFrames  # noqa: E402
from xsvggt_ros.world.synthetic_world import DEMO_SEED, SyntheticWorld  # noqa: E402

FRAMES = 14
ARGUMENTS = ['reconstruct', '--frames', str(FRAMES), '--rate', '5', '--size', '320x240']


def ratio(folder):
    """Return the position error of a trajectory file over the spread of the true positions."""
    world = SyntheticWorld(DEMO_SEED, 32, 24)
    poses = read_tum(folder / 'trajectory.tum')
    truth = np.array([world.path.world_from_camera(pose.stamp_ns / 1e9)[:3, 3] for pose in poses])
    return metrics.position_errors(np.array([pose.position for pose in poses]), truth)[1]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Return the folder of a run in each of two modes."""
    folder = tmp_path_factory.mktemp('runs')
    for mode in ('network', 'optimized'):
        assert main([*ARGUMENTS, '--trajectory', mode, '--out', str(folder / mode)]) == 0
    return folder


@pytest.mark.slow
def test_poses_are_the_trajectorys_unless_the_networks_are_asked_for(runs):
    optimized, network = ratio(runs / 'optimized'), ratio(runs / 'network')
    assert optimized < 0.1 and optimized < 0.5 * network
    for mode in ('network', 'optimized'):
        cloud = read_ply(runs / mode / 'map.ply')
        assert len(cloud) > 1000 and np.isfinite(cloud['x']).all()
    assert len(read_tum(runs / 'optimized' / 'trajectory.tum')) == FRAMES


@pytest.mark.slow
def test_the_map_is_made_with_the_final_poses(runs):
    """Walls of the room are thin: points of several frames fall into the same voxels."""
    optimized, network = (len(read_ply(runs / mode / 'map.ply'))
                          for mode in ('optimized', 'network'))
    assert optimized < network


@pytest.mark.slow
@pytest.mark.usefixtures('no_picture')
def test_clouds_that_take_too_much_memory_go_into_the_map_early(tmp_path, monkeypatch, capsys):
    held = []
    hold = TrackedFrames.hold

    def watched(self, *arguments):
        hold(self, *arguments)
        held.append(self._bytes)

    monkeypatch.setattr(TrackedFrames, 'hold', watched)
    monkeypatch.setattr(TrackedFrames.__init__, '__defaults__', (6_000_000, None))
    assert main([*ARGUMENTS, '--out', str(tmp_path)]) == 0
    assert max(held) <= 6_000_000 and f'tracks {FRAMES - 1}' in capsys.readouterr().out
    assert len(read_ply(tmp_path / 'map.ply')) > 1000 and ratio(tmp_path) < 0.1


@pytest.mark.usefixtures('no_picture')
def test_an_error_in_the_middle_keeps_final_poses_and_their_map(tmp_path, monkeypatch, capsys):
    track, calls = TrackedFrames.track, []

    def failing(self, *arguments):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError('out of memory')
        return track(self, *arguments)

    monkeypatch.setattr(TrackedFrames, 'track', failing)
    assert main([*SMALL, '--frames', '9', '--out', str(tmp_path)]) == 1
    assert 'saved 3 frames:' in capsys.readouterr().out
    assert len(read_tum(tmp_path / 'trajectory.tum')) == 3
    assert len(read_ply(tmp_path / 'map.ply')) > 0


def test_nothing_was_seen_nothing_is_finished():
    class Untouched:
        poses = []

    TrackedFrames('optimized', True).finish(Untouched(), None)
    assert Untouched.poses == []
