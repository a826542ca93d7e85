"""Training in the wide world: losses, the store of rooms, the run."""

import dataclasses
import json
import types

import numpy as np
from PIL import Image
import pytest
import torch

pytest.importorskip('embreex')
pytest.importorskip('numba')

from training.calibrate import main as calibrate  # noqa: E402
from training.clips import Clips  # noqa: E402
from training.losses import true_points  # noqa: E402
from training.train_wide import main, Run, Sources, WidePlan, WideTrainer  # noqa: E402
from training.wide_losses import likelihood, SPREAD, wide_losses, wide_total  # noqa: E402
from training.wide_pool import (  # noqa: E402
    FRAMES,
    height_of,
    is_old,
    mirrored,
    render_room,
    Ring,
    RoomPool,
)
from training.wide_world.world import WideClip  # noqa: E402
from xsvggt_ros.geometry.se3 import matrix_to_quaternion  # noqa: E402
from xsvggt_ros.model.causal import ClipPrediction  # noqa: E402
from xsvggt_ros.model.checkpoint import load_model, save_checkpoint  # noqa: E402
from xsvggt_ros.model.error_table import KEY as ERROR_TABLE_KEY  # noqa: E402
from xsvggt_ros.model.streamvggt import StreamVGGT  # noqa: E402

pytestmark = pytest.mark.slow

CPU = torch.device('cpu')
PLAN = WidePlan(steps=4, frames_per_step=8, rooms_per_step=0.5, slots=8, warm_up=2,
                validate_every=2, validation_rooms=1, real_frames=4)


def made_room(number):
    """Return what a room could hold, without rendering it."""
    rng, height = np.random.default_rng(number), height_of(number)
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, 0, 3] = 0.05 * np.arange(FRAMES)
    depth = 2 + rng.uniform(size=(FRAMES, height, 112))
    return {'images': rng.integers(0, 255, (FRAMES, height, 112, 3), np.uint8), 'depths': depth,
            'world_from_camera': poses, 'fields_of_view': np.array([(0.9, 1.2), (0.8, 1.0)])}


@pytest.fixture
def made(monkeypatch):
    """Have rooms made in this process, at once; return the numbers of those that were."""
    numbers = []

    class Pool:
        def __init__(self, *_):
            pass

        def submit(self, function, folder, slots, number):
            from concurrent.futures import Future
            numbers.append(number)
            Ring.open(folder, slots).write(number, made_room(number))
            done = Future()
            done.set_result(None)
            return done

        def shutdown(self, **_):
            pass

    def render(folder, slots, number, slot=None):
        Ring.open(folder, slots).write(number, made_room(number), slot)

    monkeypatch.setattr('training.wide_pool.ProcessPoolExecutor', Pool)
    monkeypatch.setattr('training.validation.render_room', render)
    monkeypatch.setattr('training.train_wide._WARM', 3)
    return numbers


@pytest.fixture
def clips(tmp_path):
    ring = Ring.open(tmp_path / 'ring', 4)
    for number in (1, 2):
        ring.write(number, made_room(number))
    return ring.clips(np.array([1, 2]), np.array([[0, 1, 2, 5]] * 2))


def perfect(clips, factor=1.0):
    """Return what a network would say that knows everything but the world's size."""
    encoding = torch.zeros(4, *clips.images.shape[:2], 9)
    encoding[..., :3] = factor * clips.camera_from_first[..., :3, 3]
    encoding[..., 3:7] = matrix_to_quaternion(clips.camera_from_first[..., :3, :3])
    encoding[..., 7:] = clips.fields_of_view
    frames = list(range(clips.images.shape[1]))
    ones = torch.ones_like(clips.depth)
    return ClipPrediction(encoding, factor * clips.depth, ones,
                          factor * true_points(clips, frames), ones, [],
                          torch.zeros(0)), frames


def test_the_truth_at_any_scale_costs_nothing(clips):
    for factor in (1.0, 0.4, 7.0):
        predicted, frames = perfect(clips, factor)
        terms = wide_losses(predicted, clips, frames)
        for name, term in terms.items():
            expected = abs(np.log(factor)) if name == 'metric' else 0.0
            assert float(term) == pytest.approx(expected, abs=2e-4), name


def test_each_error_has_its_term(clips):
    predicted, frames = perfect(clips)
    predicted.depth[:, :, :40] *= 1.3
    predicted.points += 0.4
    predicted.poses[:, :, 2, 0] += 0.3
    predicted.poses[:, :, 3, 3] += 0.3
    predicted.poses[..., 7] += 0.2
    terms = wide_losses(predicted, clips, frames)
    for name, term in terms.items():
        assert float(term) > 0.005, name
    assert float(terms['field_of_view']) == pytest.approx(0.1, rel=1e-3)
    # A motion between frames is not wrong because all poses are off by the same.
    predicted, frames = perfect(clips)
    shifted = predicted.poses.clone()
    shifted[..., 0] += 0.5
    predicted.poses = shifted
    terms = wide_losses(predicted, clips, frames)
    assert float(terms['moved']) == pytest.approx(0, abs=1e-4)
    assert float(terms['translation']) > 0.05


def test_of_two_quaternions_of_a_rotation_one_is_asked_for(clips):
    predicted, frames = perfect(clips)
    right = float(wide_losses(predicted, clips, frames)['rotation'])
    predicted.poses[..., 3:7] *= -1
    assert float(wide_losses(predicted, clips, frames)['rotation']) > right + 0.05


def test_the_best_confidence_is_the_inverse_of_the_error():
    generator = torch.Generator().manual_seed(0)
    for spread in (0.02, 0.1):
        error = -spread * torch.rand(20000, generator=generator).log()    # of a Laplace
        confidences = torch.linspace(1, 40, 400)
        costs = torch.stack([likelihood(error, c * torch.ones(())) for c in confidences])
        best = float(confidences[costs.argmin()])
        assert SPREAD / best == pytest.approx(spread, rel=0.1)


def test_a_mirrored_clip_is_of_a_mirrored_room(clips):
    turned = torch.linspace(0, 0.4, 4).cos(), torch.linspace(0, 0.4, 4).sin()
    for row, column, value in ((0, 0, turned[0]), (0, 2, turned[1]),
                               (2, 0, -turned[1]), (2, 2, turned[0])):
        clips.camera_from_first[:, :, row, column] = value
    both = np.array([True, True])
    other = mirrored(clips, both)
    assert torch.equal(other.images, clips.images.flip(-1))
    seen = true_points(clips, [0, 1, 2, 3]).flip(-2) * torch.tensor([-1.0, 1, 1])
    # Not closer than a pixel: the network's pixels are where their upper left corners are.
    pixel = 2 * np.tan(0.6) / 112 * clips.depth.flip(-1)
    assert torch.all((true_points(other, [0, 1, 2, 3]) - seen).norm(dim=-1) < 1.1 * pixel)
    assert torch.allclose(other.camera_from_first[..., :3, :3].det(), torch.ones(2, 4))
    again = mirrored(other, both)
    assert all(torch.equal(getattr(again, name), getattr(clips, name))
               for name in clips.__dataclass_fields__)
    one = mirrored(clips, np.array([False, True]))
    assert torch.equal(one.images[0], clips.images[0])
    assert torch.equal(one.camera_from_first[1], other.camera_from_first[1])


def test_the_store_renews_itself_and_is_not_rendered_twice(tmp_path, made):
    (tmp_path / 'rooms').mkdir()
    pool = RoomPool(tmp_path / 'rooms', None, 10, 1)
    assert pool.prepare(3) == 3 and made == list(range(7))
    assert pool.prepare(9) == 9 and made == list(range(13))
    assert not pool.ring.holds(2) and pool.ring.holds(12) and is_old(12)
    clips = pool.draw(np.random.default_rng(0), 9, 2, 4, 0.5)
    assert clips.images.shape[:2] == (2, 4) and clips.images.shape[3] == clips.depth.shape[2]
    again = pool.draw(np.random.default_rng(0), 9, 2, 4, 0.5)
    assert torch.equal(clips.images, again.images)
    resumed = RoomPool(tmp_path / 'rooms', None, 10, 1)
    assert resumed.prepare(9) == 9 and made == list(range(13))
    long = pool.draw(np.random.default_rng(1), 9, 2, 48, 1.0)
    assert long.images.shape[1] == 48
    with pytest.raises(ValueError, match='no .jpg'):
        (tmp_path / 'empty').mkdir()
        RoomPool(tmp_path / 'other', tmp_path / 'empty', 10, 1)


def test_on_a_gpu_clips_are_of_rooms_that_are_there(tmp_path, monkeypatch):
    jobs = {}

    class Pool:
        """Renders a room when somebody waits for it."""

        def __init__(self, *_):
            pass

        def submit(self, function, folder, slots, number):
            def result():
                Ring.open(folder, slots).write(number, made_room(number))
                jobs[number] = True
            jobs[number] = False
            return types.SimpleNamespace(done=lambda: jobs[number], result=result)

    monkeypatch.setattr('training.wide_pool.ProcessPoolExecutor', Pool)
    (tmp_path / 'rooms').mkdir()
    pool = RoomPool(tmp_path / 'rooms', None, 20, 1)    # a window of 16
    # A training that goes on in a new folder: nothing of its window is there.
    end = pool.prepare(1000, False, 3)
    assert end == 984 + 3 and [number for number in jobs if jobs[number]] == [984, 985, 986]
    seen = []
    monkeypatch.setattr(pool.ring.__class__, 'clips', lambda self, rooms, frames: seen.extend(
        rooms.tolist()) or self.clips_of_slots(rooms % 20, frames, 84))
    for step in range(30):
        pool.draw(np.random.default_rng(step), end, 2, 4, 0.5)
    assert set(seen) == {984, 985, 986}
    # Rendering lags behind: 984 to 991 have no place in the window any more.
    end = pool.prepare(1008, False, 3)
    assert end == 992 + 3 and pool._there(end).tolist() == [992, 993, 994]


def test_rooms_are_rendered_by_processes(tmp_path):
    pool = RoomPool(tmp_path, None, 6, 1)
    try:
        assert pool.prepare(2) == 2
    finally:
        pool.close()
    assert pool.ring.holds(0) and pool.ring.holds(1)
    for number in (0, 1):    # one of the synthetic world, one of the wide one
        clips = pool.ring.clips(np.array([number]), np.arange(FRAMES)[None])
        assert clips.depth.min() > 0.05 and clips.images.std() > 0.02
        assert torch.allclose(clips.camera_from_first[:, 0], torch.eye(4), atol=1e-5)


def test_a_room_that_cannot_be_drawn_is_replaced(tmp_path, monkeypatch, capsys):
    class Room:
        def __init__(self, number, textures):
            self.number = number
            if number < limit:
                raise ValueError('no way is free')

        def clip(self, frames, size):
            values = made_room(1)
            return WideClip(values['images'][:frames], values['depths'][:frames],
                            values['world_from_camera'][:frames], np.array([0.9, 1.2]))

    monkeypatch.setattr('training.wide_pool.WideRoom', Room)
    monkeypatch.setattr('training.wide_pool._saved_textures', lambda path: None)
    limit = 1000
    Ring.open(tmp_path, 4)
    render_room(tmp_path, 4, 1)
    assert Ring.open(tmp_path, 4).holds(1) and 'no way is free' in capsys.readouterr().err
    limit = 1 << 60
    with pytest.raises(ValueError, match='no way is free'):
        render_room(tmp_path, 4, 2)


def trained(config, tmp_path, name, plan=PLAN, stop_at=None):
    torch.manual_seed(0)
    run = Run(WideTrainer(plan, StreamVGGT(config), CPU), Sources(tmp_path / name))
    run.train(stop_at)
    return run.trainer


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(tmp_path, config, made, capsys):
    whole = trained(config, tmp_path, 'one')
    trained(config, tmp_path, 'two', stop_at=2)
    resumed = trained(config, tmp_path, 'two')
    assert 'going on after step 2' in capsys.readouterr().out
    assert whole.step == resumed.step == 4 and whole.progress() == 1
    for key, weight in whole.average.items():
        assert torch.equal(weight, resumed.average[key]), key
    report = json.loads((tmp_path / 'two/wide_curves.json').read_text())
    assert [point['step'] for point in report['curves']] == [0, 2, 4]
    assert report['curves'][-1]['wide_depth_abs_rel'] > 0 and 'waited' in report['curves'][-1]
    assert Image.open(tmp_path / 'two/wide_curves.png').width > 1000
    shipped = load_model(str(tmp_path / 'two/wide.safetensors'))
    assert shipped.config == config and not shipped.random_weights
    other = dataclasses.replace(config, depth=5)
    with pytest.raises(ValueError, match='another network'):
        Run(WideTrainer(PLAN, StreamVGGT(other), CPU), Sources(tmp_path / 'two'))


def test_rates_clips_and_cache_follow_the_plan(tmp_path, config, made):
    trainer = WideTrainer(dataclasses.replace(PLAN, steps=100), StreamVGGT(config), CPU)
    (tmp_path / 'rooms').mkdir()
    pool = RoomPool(tmp_path / 'rooms', None, 8, 1)
    rates, drawn = [], []
    for step in (0, 10, 83, 92, 99):
        trainer.step = step
        rates.append(trainer.rate())
    assert rates[0] == 0.5 and rates[1] == rates[2] == 1 and rates[3] == pytest.approx(0.5)
    assert rates[4] < 0.07
    for step in range(12):
        drawn.append(trainer.draw(pool, step, 0.0, True)[0].images.shape[1])
        late = [trainer.draw(pool, number, 0.9, True) for number in range(step, step + 1)]
        drawn += [0] * (late[0][2] is not None and late[0][0].images.shape[1] < 8)
    assert max(drawn) <= 12 and 0 not in drawn
    bounds = {trainer.draw(pool, step, 0.9, True)[2] for step in range(12, 24)}
    assert None in bounds and max(one or 0 for one in bounds) >= 3
    timed = WideTrainer(dataclasses.replace(PLAN, minutes=2.0), StreamVGGT(config), CPU)
    timed.seconds = 60.0
    assert timed.progress() == 0.5
    later = WideTrainer(dataclasses.replace(PLAN, steps=100, begin=0.6), StreamVGGT(config), CPU)
    assert later.progress() == pytest.approx(0.6) and later.progress(50) == pytest.approx(0.8)
    later.step = 80    # at .92 of the whole: half of the last .16 is left
    assert later.rate() == pytest.approx(0.5)


def test_it_learns(clips, config):
    torch.manual_seed(0)
    plan = dataclasses.replace(PLAN, warm_up=5, steps=10000, learning_rate=3e-3, muon_rate=2e-2)
    trainer = WideTrainer(plan, StreamVGGT(config), CPU)
    costs = []
    short = Clips(*(getattr(clips, name)[:, :2] for name in Clips.__dataclass_fields__))
    for _ in range(30):
        terms = trainer.train_step(short, [1])
        costs.append(float(wide_total({name: torch.tensor(value)
                                       for name, value in terms.items()})))
    assert np.mean(costs[-5:]) < 0.7 * np.mean(costs[:5])


def test_the_command_trains(tmp_path, config, made, monkeypatch, capsys):
    torch.manual_seed(0)
    save_checkpoint(StreamVGGT(config), tmp_path / 'first.safetensors', {})
    monkeypatch.setattr('training.train_wide.WidePlan', lambda **changes: dataclasses.replace(
        PLAN, **{**changes, 'slots': 8}))
    arguments = ['train_wide', '--out', str(tmp_path / 'out'), '--device', 'cpu', '--start',
                 str(tmp_path / 'first.safetensors'), '--minutes', '60', '--stop-at', '2',
                 '--frames-per-step', '8']
    monkeypatch.setattr('sys.argv', arguments)
    main()
    said = capsys.readouterr().out
    assert 'stopped after step 2' in said and 'wide_depth_abs_rel' in said
    monkeypatch.setattr('sys.argv', [*arguments, '--real', str(tmp_path / 'nowhere')])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 1


@pytest.mark.parametrize('measured', [True, False])
def test_confidences_begin_anew_unless_they_were_measured(measured, tmp_path, config, made,
                                                         monkeypatch):
    torch.manual_seed(0)
    notes = {ERROR_TABLE_KEY: '[[1.0, 0.3], [2.0, 0.1]]'} if measured else {}
    first = StreamVGGT(config)
    save_checkpoint(first, tmp_path / 'first.safetensors', notes)
    monkeypatch.setattr('training.train_wide.WidePlan', lambda **changes: dataclasses.replace(
        PLAN, **{**changes, 'slots': 8}))
    monkeypatch.setattr('sys.argv', [
        'train_wide', '--out', str(tmp_path / 'out'), '--device', 'cpu', '--start',
        str(tmp_path / 'first.safetensors'), '--begin', '0.5', '--stop-at', '0'])
    main()
    trained = load_model(str(tmp_path / 'out/wide.safetensors')).model
    for head, old in ((trained.depth_head, first.depth_head),
                      (trained.point_head, first.point_head)):
        before, after = (one.scratch.output_convolutions[1].weight[-1] for one in (old, head))
        assert torch.allclose(after, before, atol=1e-3) == measured
        assert bool(after.any()) == measured


def test_a_checkpoint_is_calibrated(tmp_path, config, made, monkeypatch, capsys):
    torch.manual_seed(0)
    path = tmp_path / 'first.safetensors'
    save_checkpoint(StreamVGGT(config).half(), path, {'license': 'Apache-2.0'})
    before = load_model(str(path)).model.state_dict()
    monkeypatch.setattr('sys.argv', ['calibrate', str(path), '--out', str(tmp_path / 'out'),
                                     '--rooms', '2'])
    calibrate()
    assert 'other rooms: true over expected' in capsys.readouterr().out
    loaded = load_model(str(path))
    assert loaded.depth_errors is not None and 0 < loaded.depth_errors.errors[0] < 5
    for key, weight in loaded.model.state_dict().items():
        assert torch.equal(weight, before[key]), key
    monkeypatch.setattr('sys.argv', ['calibrate', str(tmp_path / 'nowhere.safetensors')])
    with pytest.raises(SystemExit) as error:
        calibrate()
    assert error.value.code == 1
