"""Coverage and normalised error: right where errors are as was said, and telling where not."""

from dataclasses import replace
import json

import numpy as np
import pytest

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation import trajectory_covariance
from xsvggt_ros.evaluation.consistency import (
    consistency,
    least_eigenvalue,
    OdometryRun,
    run_odometry,
)
from xsvggt_ros.evaluation.eval_streams import prepare, WorldSource
from xsvggt_ros.evaluation.evaluation import Prediction
from xsvggt_ros.trajectory.projection import motion
from xsvggt_ros.world.synthetic_world import SPLITS

SIGMA = np.array([0.002] * 3 + [0.01] * 3)


def walk(sigma=SIGMA, count=400, unit=1.0):
    """Return a run whose steps are off by chance as its covariances say, and the true one."""
    rng = np.random.default_rng(0)
    truth, poses = [np.eye(4)], [np.eye(4)]
    for _ in range(count - 1):
        step = motion(np.array([0.0, 0.1, 0.02, 0.1, 0.0, 0.2]))
        truth.append(truth[-1] @ step)
        poses.append(poses[-1] @ step @ motion(rng.normal(0, sigma)))
    poses = np.array(poses)
    poses[:, :3, 3] *= unit
    lengths = np.array([1, 1, 1, unit, unit, unit])
    steps = np.tile(np.diag(SIGMA ** 2) * lengths * lengths[:, None], (count, 1, 1))
    return OdometryRun(poses, steps, steps, ['tracks'] * count), np.array(truth)


@pytest.fixture(scope='module')
def stream():
    """Return a short stream, prepared for tracking."""
    return prepare(WorldSource(SPLITS['test'].start, 12, 5.0), 12, 1, 112, 14, lambda: None,
                   tracked=True)


def prediction(stream):
    count = len(stream.images)
    return Prediction(stream.depths, stream.world_from_camera, stream.intrinsics,
                      np.zeros(count), {count: (0, 0)}, np.ones_like(stream.depths))


@pytest.mark.parametrize('unit', [1.0, 0.1])
def test_errors_as_they_were_predicted_are_consistent(unit):
    run, truth = walk(unit=unit)
    found = consistency(run, truth, 5)
    assert found.motions == 395
    assert 0.75 < found.nees < 1.3 and 0.75 < found.rotation_nees < 1.3
    assert found.coverage > 0.9 and found.rotation_coverage > 0.9
    assert found.predicted == pytest.approx(found.error, rel=0.2)


def test_errors_three_times_as_large_are_not():
    found = consistency(*walk(3 * SIGMA), 5)
    assert found.nees > 6 and found.coverage < 0.6 and found.error > 2 * found.predicted


def test_frames_without_a_true_pose_are_left_out():
    run, truth = walk()
    truth[::2] = np.nan
    assert consistency(run, truth, 4).motions == 198
    assert consistency(run, truth, 5) is None
    assert consistency(run, truth, 1000) is None


def test_a_covariance_that_is_none_is_found():
    run, _ = walk()
    assert least_eigenvalue(run) == pytest.approx((0.002 / 0.01) ** 2)
    bad = run.steps.copy()
    bad[7, 2, 2] = np.nan
    assert np.isnan(least_eigenvalue(replace(run, steps=bad)))
    bad[7, 2, 2] = -1e-6
    assert least_eigenvalue(replace(run, covariances=bad)) < 0


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['tracked', 'optimized'])
def test_the_odometry_of_a_stream_has_covariances_that_grow(stream, mode):
    run = run_odometry(prediction(stream), stream, mode, focal_known=True)
    assert least_eigenvalue(run) > 0 and set(run.sources[1:]) == {'tracks'}
    sizes = run.covariances[:, 3:, 3:].trace(axis1=1, axis2=2)
    assert (np.diff(sizes) > 0).all() and sizes[-1] < 0.1
    assert consistency(run, stream.world_from_camera, 5).coverage > 0.8


@pytest.mark.slow
def test_a_focal_length_that_is_not_known_is_asked_for(stream):
    unknown = replace(stream, intrinsics=np.full((12, 3, 3), np.nan))
    with pytest.raises(ToolError, match='--focal unknown'):
        run_odometry(prediction(stream), unknown, 'optimized', focal_known=True)


def test_the_command_writes_what_it_prints(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trajectory_covariance, '_FRAMES', 8)
    path = tmp_path / 'a.json'
    assert trajectory_covariance.main(['--streams', '1', '--json', str(path)]) == 0
    told = json.loads(path.read_text())
    assert told['positive_definite'] and told['streams'] == 1 and told['split'] == 'test'
    assert told['over'].keys() == {'1 s'}   # none is 5 s long
    assert told['of_streams'][0]['over']['5 s'] is None
    assert format(told['over']['1 s']['coverage'], '.3f') in capsys.readouterr().out


def test_sequences_need_a_rate(tmp_path, capsys):
    assert trajectory_covariance.main(['--data', str(tmp_path), '--json',
                                       str(tmp_path / 'a.json')]) == 2
    assert '--rate' in capsys.readouterr().err
