"""Other paths through a synthetic room are free of its furniture, and judged by the truth."""

import numpy as np
import pytest

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation import localization
from xsvggt_ros.evaluation.eval_streams import EvalStream
from xsvggt_ros.evaluation.localization import _Run, measure, OtherPathSource
from xsvggt_ros.geometry.similarity import apply_to_pose
from xsvggt_ros.trajectory.history import History
from xsvggt_ros.trajectory.pose_graph import similarity_of
from xsvggt_ros.world.synthetic_world import DEMO_SEED, SyntheticWorld


def test_another_path_is_free_and_is_another_one():
    source, other = (OtherPathSource(DEMO_SEED, number, 20, 5.0) for number in (1, 2))
    world = SyntheticWorld(DEMO_SEED, 32, 24)
    poses = [one.frame(3).world_from_camera for one in (source, other)]
    assert np.linalg.norm((poses[0] - poses[1])[:3, 3]) > 0.05
    own = np.array([world.path.world_from_camera(second)[:3, 3] for second in np.arange(0, 60, 1)])
    assert np.linalg.norm(own - poses[0][:3, 3], axis=1).min() > 0.02
    assert world.scene.is_free(np.array(poses)[:, :3, 3]).all()
    again = OtherPathSource(DEMO_SEED, 1, 20, 5.0).frame(3).world_from_camera
    assert np.array_equal(again, poses[0])


def test_a_room_without_a_free_path_is_told(monkeypatch):
    monkeypatch.setattr(localization, '_DRAWN', 1)
    monkeypatch.setattr(localization, '_WIDTH', 9.0)
    with pytest.raises(ToolError, match='no path is free'):
        OtherPathSource(DEMO_SEED, 1, 20, 5.0)


def test_a_start_is_right_when_it_is_where_the_map_has_it():
    rng = np.random.default_rng(0)
    true = np.array([similarity_of(np.r_[rng.normal(0, 0.3, 3), rng.normal(0, 1, 3), 0])
                     for _ in range(12)])
    to_map = similarity_of(np.array([0.3, 0, 1, 4, 5, 6, 0.7]))
    stream = EvalStream('', [], np.empty(0), true, np.empty(0), np.empty(0))
    mapped = _Run(stream, History(), [])
    mapped.history.final = lambda: apply_to_pose(to_map, true)

    def judged(off):
        live = [(number, apply_to_pose(to_map @ off, true[number])) for number in range(4, 12)]
        return measure(1, _Run(stream, History(), live), mapped, 'start')

    right = judged(np.eye(4))
    assert right['right'] and right['position'] < 1e-9 and right['after_seconds'] == 0.8
    aside = judged(similarity_of(np.array([0, 0, 0, 0.5, 0, 0, 0])))
    assert not aside['right'] and aside['rotation_deg'] < 1e-5
    turned = judged(similarity_of(np.array([0, 0, 0.1, 0, 0, 0, 0])))
    assert not turned['right'] and turned['rotation_deg'] == pytest.approx(5.73, abs=0.01)
    assert not measure(1, _Run(stream, History(), []), mapped, 'start')['right']
