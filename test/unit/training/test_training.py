"""Training learns, stops, goes on and repeats itself; all of it on tiny rooms."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from training.clips import draw_clips, draw_views, load_clips
from training.losses import losses, total, true_points
from training.rooms import open_rooms, PATH_VIEWS, RANDOM_VIEWS, VIEWS
from training.train_small import main, Plan, train, Trainer
from xsvggt_ros.geometry.se3 import invert_transform, matrix_to_quaternion
from xsvggt_ros.model.causal import ClipPrediction
from xsvggt_ros.model.checkpoint import load_model
from xsvggt_ros.world.synthetic_world import SPLITS, SyntheticWorld

pytestmark = pytest.mark.slow   # all of them need rooms, which take 4 s

SIZE = (56, 42)
PLAN = Plan(steps=4, rooms=2, validation_rooms=1, width=56, height=42, frames_per_step=8,
            short_clips=(2, 4), long_clips=(4,), warm_up=2, validate_every=2)
CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Return a training folder with its rooms rendered."""
    folder = tmp_path_factory.mktemp('training')
    open_rooms(folder / 'rooms', SPLITS['train'][:PLAN.rooms], SIZE)
    open_rooms(folder / 'rooms_validation', SPLITS['validation'][:1], SIZE)
    return folder


@pytest.fixture(scope='module')
def rooms(folder):
    return open_rooms(folder / 'rooms', SPLITS['train'][:PLAN.rooms], SIZE)


def test_rooms_hold_true_views(rooms):
    assert len(rooms) == 2 and rooms.images.shape == (2, VIEWS, 42, 56, 3)
    world = SyntheticWorld(SPLITS['train'][1], *SIZE, clean=True)
    fields = 2 * np.arctan(np.array([42, 56]) / 2 / world.intrinsics.fx)
    np.testing.assert_allclose(rooms.fields_of_view[1], np.tile(fields, (VIEWS, 1)), rtol=1e-6)
    for view in (0, RANDOM_VIEWS):
        image, depth = world._renderer.render(rooms.world_from_camera[1, view].astype(float))
        # The stored picture is averaged from a larger one, with a quarter of a pixel's shift.
        assert np.abs(image.astype(int) - rooms.images[1, view]).mean() < 20
        assert np.median(np.abs(np.log(depth / rooms.depths[1, view]))) < 0.02
    steps = np.diff(rooms.world_from_camera[0, RANDOM_VIEWS:, :3, 3], axis=0)
    assert len(steps) == PATH_VIEWS - 1 and np.linalg.norm(steps, axis=1).max() < 0.4


def test_rooms_are_rendered_once_and_can_be_added_to(folder, rooms, capsys):
    capsys.readouterr()
    open_rooms(folder / 'rooms', SPLITS['train'][:2], SIZE)
    assert 'rendering' not in capsys.readouterr().out
    more = open_rooms(folder / 'rooms', SPLITS['train'][:3], SIZE)
    np.testing.assert_array_equal(more.images[:2], rooms.images)
    assert len(more) == 3 and more.images[2].any()
    assert '1/1' in capsys.readouterr().out
    with pytest.raises(ValueError, match='holds other rooms'):
        open_rooms(folder / 'rooms', [7, 8], SIZE)
    with pytest.raises(ValueError, match='not of this image size'):
        open_rooms(folder / 'rooms', SPLITS['train'][:2], (28, 28))


def test_clips_follow_a_way_or_jump_and_start_at_the_first_camera(rooms):
    rng = np.random.default_rng(0)
    for frames in (2, 6, 16):
        views = draw_views(rng, frames, along_path=True)
        assert len(set(np.diff(views))) == 1 and abs(np.diff(views)[0]) <= 3
        assert views.min() >= RANDOM_VIEWS and views.max() < VIEWS
        assert len(set(draw_views(rng, frames, along_path=False))) == frames
    clips = draw_clips(rooms, rng, 3, 4, path_share=0.5)
    assert clips.images.shape == (3, 4, 3, 42, 56) and 0 <= clips.images.min()
    assert clips.images.max() <= 1 and clips.depth.min() > 0
    assert torch.allclose(clips.camera_from_first[:, 0], torch.eye(4).expand(3, 4, 4), atol=1e-5)
    again = draw_clips(rooms, np.random.default_rng(5), 2, 2, 0.5)
    same = draw_clips(rooms, np.random.default_rng(5), 2, 2, 0.5)
    assert torch.equal(again.images, same.images)


def test_true_points_of_two_frames_meet(rooms):
    clips = load_clips(rooms, np.array([0]), RANDOM_VIEWS + np.array([[0, 1]]))
    points = true_points(clips, [0, 1])[0]   # both in the first camera's frame
    room_from_first = clips.room_from_camera[0, 0]
    inside = points @ room_from_first[:3, :3].T + room_from_first[:3, 3]
    size = torch.tensor(SyntheticWorld(SPLITS['train'][0], *SIZE).scene.size)
    assert (inside > -0.1).all() and (inside < size + 0.1).all()
    camera = clips.camera_from_first[0, 1]
    local = points[1] @ camera[:3, :3].T + camera[:3, 3]
    assert torch.allclose(local[..., 2], clips.depth[0, 1], rtol=1e-3, atol=1e-3)


def perfect(clips):
    """Return what a network would say that knows everything."""
    encoding = torch.zeros(4, *clips.images.shape[:2], 9)
    encoding[..., :3] = clips.camera_from_first[..., :3, 3]
    encoding[..., 3:7] = -matrix_to_quaternion(clips.camera_from_first[..., :3, :3])
    encoding[..., 7:] = clips.fields_of_view
    frames = list(range(clips.images.shape[1]))
    ones = torch.ones_like(clips.depth)
    return ClipPrediction(encoding, clips.depth.clone(), ones, true_points(clips, frames), ones,
                          [], torch.zeros(0)), frames


def room_of(clips):
    pose = clips.room_from_camera
    centre = torch.tensor((3.8, 3.05, 1.25))
    return torch.cat([pose[..., :3, 3] - centre, pose[..., :3, :3].flatten(-2)], dim=-1)


def test_losses_are_zero_for_the_truth_and_for_nothing_else(rooms):
    clips = load_clips(rooms, np.array([0, 1]), np.array([[0, 1, 2], [40, 41, 42]]))
    predicted, frames = perfect(clips)
    terms = losses(predicted, clips, frames, room_of(clips))
    for name, term in terms.items():   # a quaternion and its negative are one rotation
        assert float(term) == pytest.approx(0, abs=1e-4), name
    predicted.depth *= 1.1
    predicted.points += 0.5
    predicted.poses[..., 0] += 0.3
    predicted.poses[..., 4] += 0.2
    predicted.poses[..., 7] += 0.2
    terms = losses(predicted, clips, frames, room_of(clips) + 1)
    assert float(terms['depth']) == pytest.approx(np.log(1.1), rel=1e-4)
    assert float(terms['edges']) == pytest.approx(0, abs=1e-5)
    assert float(terms['translation']) == pytest.approx(0.1, rel=1e-3)
    assert float(terms['field_of_view']) == pytest.approx(0.1, rel=1e-3)
    assert all(float(terms[name]) > 0.05 for name in ('points', 'rotation', 'room'))


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(folder, config, tmp_path):
    for name in ('rooms', 'rooms_validation'):
        for out in ('one', 'two'):
            (tmp_path / out).mkdir(exist_ok=True)
            (tmp_path / out / name).symlink_to(folder / name)
    whole = train(PLAN, config, tmp_path / 'one', CPU, 1)
    train(PLAN, config, tmp_path / 'two', CPU, 1, stop_at=2)
    resumed = train(PLAN, config, tmp_path / 'two', CPU, 1)
    assert whole.step == resumed.step == 4
    for key, weight in whole.averaged().state_dict().items():
        assert torch.equal(weight, resumed.averaged().state_dict()[key]), key
    report = json.loads((tmp_path / 'two/curves.json').read_text())
    assert [point['step'] for point in report['curves']] == [2, 4] and report['frames'] == 32
    assert report['plan']['seed'] == 0 and report['curves'][-1]['depth_abs_rel'] > 0
    assert (tmp_path / 'two/curves.png').stat().st_size > 5000
    shipped = load_model(str(tmp_path / 'two/small.safetensors'))
    assert shipped.config == config and not shipped.random_weights
    with pytest.raises(ValueError, match='another plan'):
        train(dataclasses.replace(PLAN, seed=1), config, tmp_path / 'two', CPU, 1)


def test_it_learns(rooms, config):
    plan = dataclasses.replace(PLAN, steps=400, frames_per_step=16, short_clips=(2,), warm_up=10)
    trainer = Trainer(plan, config, CPU)
    clips = draw_clips(rooms, np.random.default_rng(1), 8, 2, 0.0, augment=False)
    moved = invert_transform(clips.camera_from_first)[:, 1, :3, 3].norm(dim=-1).mean()
    assert moved > 0.5
    terms = [trainer.train_step(*trainer.draw(rooms, step)) for step in range(120)]
    first, last = ({name: np.mean([one[name] for one in part]) for name in terms[0]}
                   for part in (terms[:10], terms[-10:]))
    assert last['depth'] < 0.6 * first['depth'] and last['field_of_view'] < 0.3
    assert last['room'] < 0.8 * first['room']
    assert total({name: torch.tensor(value) for name, value in last.items()}) < (
        0.75 * total({name: torch.tensor(value) for name, value in first.items()}))


def test_the_command_trains(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('training.train_small.Plan', lambda **changes: dataclasses.replace(
        PLAN, validation_rooms=1, **changes))
    for name in ('rooms', 'rooms_validation'):
        (tmp_path / name).symlink_to(folder / name)
    monkeypatch.setattr('sys.argv', ['training', '--out', str(tmp_path), '--steps', '2',
                                     '--rooms', '2', '--processes', '1', '--device', 'cpu'])
    main()
    assert 'depth_abs_rel' in capsys.readouterr().out
    assert (tmp_path / 'small.safetensors').stat().st_size < 25e6
