"""`xsvggt eval --trajectory`: a true depth gives true poses, whatever the network says of them."""

from dataclasses import replace
import json

import numpy as np
import pytest
from test_evaluation import truth_of

from xsvggt_ros.cli.main import main
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation.eval_streams import prepare, WorldSource
from xsvggt_ros.evaluation.evaluation import score
from xsvggt_ros.evaluation.tracking import track
from xsvggt_ros.world.synthetic_world import SPLITS


@pytest.fixture(scope='module')
def stream():
    """Return 12 frames of a room, 2.4 seconds of its way."""
    return prepare(WorldSource(SPLITS['test'].start, 12, 5.0), 12, 1, 56, 14, lambda: None,
                   tracked=True)


def jittering(stream):
    """Return a prediction with true depths and poses that are off by a quarter of a metre."""
    rng = np.random.default_rng(0)
    poses = stream.world_from_camera.copy()
    poses[:, :3, 3] += rng.normal(0, 0.15, (12, 3))
    return truth_of(stream, world_from_camera=poses, depths=stream.depths,
                    confidences=np.ones_like(stream.depths))


def test_pictures_are_kept_for_tracking_alone(stream):
    assert len(stream.greys) == 12 and stream.greys[0].shape == (240, 320)
    assert stream.first(3).greys == stream.greys[:3]
    without = prepare(WorldSource(SPLITS['test'].start, 2, 5.0), 2, 1, 56, 14, lambda: None)
    assert without.greys == []


@pytest.mark.parametrize('mode', ['tracked', 'optimized'])
def test_true_depth_gives_true_poses(stream, mode):
    predicted = jittering(stream)
    for run in track(predicted, stream, mode, focal_known=True):
        scores = score(run, stream)
        assert scores.rotation_deg < 0.5 and scores.focal_error < 1e-6
        assert scores.rpe_translation < 0.2 * score(predicted, stream).rpe_translation
        assert scores.depth_abs_rel < 0.03
        assert (run.seconds > predicted.seconds).all()


def test_steps_of_live_poses_are_those_of_the_odometry_where_nothing_jumps(stream):
    predicted = jittering(stream)
    final, live = track(predicted, stream, 'optimized', focal_known=True)
    assert final.odom_from_camera is None and live.odom_from_camera.shape == (12, 4, 4)
    assert live.first(3).odom_from_camera.shape == (3, 4, 4)
    # As when a loop is closed: the map takes the camera a metre away, the odometry does not.
    jumped = live.world_from_camera.copy()
    jumped[6:, 0, 3] += 1.0
    scores, before = (score(replace(live, world_from_camera=poses), stream)
                      for poses in (jumped, live.world_from_camera))
    assert scores.rpe_translation == pytest.approx(before.rpe_translation)
    assert scores.ate > before.ate + 0.05
    seen = score(replace(live, world_from_camera=jumped, odom_from_camera=None), stream)
    assert seen.rpe_translation > scores.rpe_translation + 0.05


def test_a_focal_length_that_nobody_knows_is_the_networks_first(stream):
    cameras = stream.intrinsics.copy()
    cameras[:, (0, 1), (0, 1)] *= 1.1
    predicted = replace(jittering(stream), intrinsics=cameras)
    _, live = track(predicted, stream, 'optimized', focal_known=False)
    assert live.intrinsics[0, 0, 0] == pytest.approx(1.1 * stream.intrinsics[0, 0, 0])
    unknown = replace(stream, intrinsics=np.full((12, 3, 3), np.nan))
    with pytest.raises(ToolError, match='--focal unknown'):
        track(predicted, unknown, 'optimized', focal_known=True)


@pytest.mark.slow
def test_the_command_reports_final_and_live_poses_apart(tmp_path, capsys):
    arguments = ['eval', '--streams', '1', '--frames', '4,8', '--json', str(tmp_path / 'a.json')]
    assert main([*arguments, '--trajectory', 'optimized', '--focal', 'unknown']) == 0
    told = json.loads((tmp_path / 'a.json').read_text())
    assert told['trajectory'] == 'optimized' and '--focal unknown' in told['command']
    assert told['live']['ate_ratio'] is not None and 'ate_ratio' in told
    assert [row['frames'] for row in told['rows'] if 'live' in row] == [4, 8]
    assert len(told['rows'][0]['live']['of_streams']) == 1
    assert 'full, optimized, live' in capsys.readouterr().out
    assert main(arguments) == 0
    told = json.loads((tmp_path / 'a.json').read_text())
    assert not {'live', 'trajectory'} & told.keys()
    assert 'live' not in capsys.readouterr().out


def test_a_mode_that_does_not_exist_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(['eval', '--trajectory', 'magic'])
    assert ended.value.code == 2 and 'magic' in capsys.readouterr().err
