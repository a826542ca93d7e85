"""`xsvggt eval`: perfect predictions score perfectly, blind ones do not, and files say so."""

import dataclasses
import json

import numpy as np
from PIL import Image
import pytest
from tiny_stream import make_model
import torch

from xsvggt_ros.cli.main import main
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation import evaluation
from xsvggt_ros.evaluation.datasets.sequence import TrueFrame
from xsvggt_ros.evaluation.eval_streams import prepare, WorldSource
from xsvggt_ros.evaluation.evaluation import (
    baseline,
    error_tenths,
    EvalSetting,
    predict,
    Prediction,
    score,
)
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.model.checkpoint import load_model, LoadedModel, save_checkpoint
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.error_table import ErrorTable, fit_error_table, KEY
from xsvggt_ros.model.random_weights import random_weight
from xsvggt_ros.model.streamvggt import StreamVGGT
from xsvggt_ros.world.synthetic_world import SPLITS

CPU = torch.device('cpu')
KEYS = {'depth_abs_rel', 'depth_delta_1_25', 'ate_ratio', 'rotation_deg', 'seconds_per_frame',
        'cache_bytes'}


@pytest.fixture(scope='module')
def stream():
    """Return 12 frames of a room, 4 seconds of its way."""
    return prepare(WorldSource(SPLITS['test'].start, 12, 3.0), 12, 1, 56, 14, lambda: None)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Return the file of a tiny network that was never trained."""
    small = ModelConfig.small()
    config = dataclasses.replace(
        small, img_size=56, embed_dim=32, depth=4, num_heads=1, dpt_head=dataclasses.replace(
            small.dpt_head, features=16, intermediate_layer_idx=(0, 1, 2, 3)))
    model = StreamVGGT(config)
    model.load_state_dict({key: random_weight(key, tuple(value.shape), 3)
                           for key, value in model.state_dict().items()})
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    save_checkpoint(model, path)
    return path


def truth_of(stream, **changes):
    """Return a prediction that is the truth, in another world and unit."""
    turn = np.eye(4)
    turn[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    turn[:3, 3] = (5, 6, 7)
    poses = turn @ stream.world_from_camera
    poses[:, :3, 3] *= 0.5
    values = {'depths': stream.depths * 0.5, 'world_from_camera': poses,
              'intrinsics': stream.intrinsics, 'seconds': np.full(12, 0.1),
              'cache_bytes': {12: (10, 20)}}
    return Prediction(**values | changes)


def test_the_truth_scores_perfectly_in_any_world_and_unit(stream):
    scores = score(truth_of(stream), stream)
    assert scores.depth_abs_rel == pytest.approx(0, abs=1e-6) and scores.depth_delta_1_25 == 1
    assert scores.depth_scale == pytest.approx(2)
    assert scores.ate == pytest.approx(0, abs=1e-6) and scores.ate_ratio < 1e-6
    assert scores.rotation_deg < 1e-5 and scores.rpe_rotation_deg < 1e-5
    assert scores.rpe_translation < 1e-6 and scores.focal_error < 1e-9
    assert scores.accuracy < 1e-3 and scores.completeness < 1e-3
    assert (scores.cache_bytes, scores.cache_bytes_reserved) == (10, 20)
    assert scores.seconds_per_frame == pytest.approx(0.1)


def test_each_error_is_seen_by_its_score_alone(stream):
    rng = np.random.default_rng(0)
    noisy = score(truth_of(stream, depths=stream.depths
                           * rng.uniform(0.8, 1.25, stream.depths.shape)), stream)
    assert 0.08 < noisy.depth_abs_rel < 0.15 and noisy.ate_ratio < 1e-6
    assert noisy.accuracy > 0.02 and noisy.focal_error < 1e-9
    poses = truth_of(stream).world_from_camera.copy()
    poses[:, :3, 3] += rng.normal(0, 0.05, (12, 3))
    moved = score(truth_of(stream, world_from_camera=poses), stream)
    assert moved.ate > 0.03 and moved.rotation_deg < 1e-5 and moved.depth_abs_rel < 1e-6
    cameras = stream.intrinsics.copy()
    cameras[:, 0, 0] *= 1.2
    assert score(truth_of(stream, intrinsics=cameras), stream).focal_error == pytest.approx(0.1)


def test_one_who_does_not_look_scores_as_one_who_does_not_look(stream):
    scores = score(baseline(stream), stream)
    assert scores.ate_ratio == pytest.approx(1)
    assert scores.rotation_deg > 5 and scores.depth_abs_rel > 0.15
    assert scores.accuracy is None and scores.focal_error is None


def test_what_is_not_known_is_not_scored(stream):
    blind = dataclasses.replace(
        stream, depths=np.zeros_like(stream.depths),
        world_from_camera=np.full_like(stream.world_from_camera, np.nan))
    scores = score(truth_of(stream), blind)
    assert scores.depth_abs_rel is scores.ate is scores.rotation_deg is scores.accuracy is None
    assert scores.focal_error == 0
    some = stream.world_from_camera.copy()
    some[3] = np.nan
    assert score(truth_of(stream), dataclasses.replace(stream, world_from_camera=some)).ate < 1e-6
    both = evaluation.mean([scores, score(truth_of(stream), stream)])
    assert both.ate_ratio < 1e-6 and both.cache_bytes == 10


def test_true_depth_is_sampled_where_the_network_looks():
    rows, columns = np.mgrid[:240, :320].astype(np.float32)
    depth = 1000 + rows * 320 + columns
    camera = np.array([[200.0, 0, 159.5], [0, 210, 119.5], [0, 0, 1]])
    frame = TrueFrame(np.zeros((240, 320, 3), np.uint8), depth, np.eye(4), camera)

    class Two:
        name = 'two'

        def __len__(self):
            return 2

        def frame(self, index):
            return frame

    stream = prepare(Two(), 2, 1, 112, 14, lambda: None)
    # The middle of network pixel (u, v) is the middle of a block of 320 / 112 source pixels.
    u, v = 50, 20
    row, column = np.rint(((v + 0.5) * 240 / 84 - 0.5, (u + 0.5) * 320 / 112 - 0.5))
    assert stream.depths[0, v, u] == 1000 + row * 320 + column
    np.testing.assert_allclose(stream.focal[0], (200 * 0.35, 210 * 0.35))
    np.testing.assert_allclose(stream.intrinsics[0, :2, 2], (55.5, 41.5))
    with pytest.raises(ToolError, match='takes two'):
        prepare(Two(), 2, 2, 112, 14, lambda: None)


@pytest.mark.slow
@pytest.mark.parametrize('removed', [None, 'first', 'history'])
def test_removals_hide_what_they_say(stream, weights, removed):
    loaded = load_model(str(weights))
    full = predict(loaded, EvalSetting('full', 'none'), stream, CPU, 'fp32', lambda: None)
    part = predict(loaded, EvalSetting('full', 'none', removed=removed), stream, CPU,
                   'fp32', lambda: None)
    np.testing.assert_array_equal(part.depths[0], full.depths[0])
    if removed is None:
        np.testing.assert_allclose(part.world_from_camera, full.world_from_camera, atol=1e-6)
        return
    assert np.abs(part.depths[1] - full.depths[1]).max() > 1e-5
    # What a frame sees without history depends on itself alone; without the first one it does not.
    images = [stream.images[0], *stream.images[:0:-1]]
    turned = predict(loaded, EvalSetting('full', 'none', removed=removed),
                     dataclasses.replace(stream, images=images), CPU, 'fp32', lambda: None)
    same = np.abs(turned.depths[-1] - part.depths[1]).max() < 1e-6
    assert same == (removed == 'history')
    hidden = [*stream.images]
    hidden[0] = 255 - hidden[0]
    other = predict(loaded, EvalSetting('full', 'none', removed=removed),
                    dataclasses.replace(stream, images=hidden), CPU, 'fp32', lambda: None)
    np.testing.assert_allclose(other.depths[1:], part.depths[1:], atol=1e-6)


def test_frames_between_keyframes_are_seen_small_and_forgotten(stream, weights):
    loaded = load_model(str(weights))

    def run(**settings):
        return predict(loaded, EvalSetting('full', 'none'), stream, CPU, 'fp32',
                       lambda: None, **settings)

    every, sparse = run(), run(keyframe_stride=2)
    small = run(keyframe_stride=2, tracking_size=14)
    np.testing.assert_array_equal(small.depths[::2], sparse.depths[::2])
    assert small.depths.shape == every.depths.shape
    assert (small.depths[1] != sparse.depths[1]).mean() > 0.9
    assert sparse.cache_bytes == small.cache_bytes != every.cache_bytes


def test_the_first_frames_are_seen_together_where_the_network_can(stream, weights):
    model = make_model('lingbot')
    loaded = LoadedModel(model, model.config, 'tiny', False, None)

    def run(first_frames):
        return predict(loaded, EvalSetting('lingbot', 'int4', tokens=130), stream, CPU, 'fp32',
                       lambda: None, [6], first_frames=first_frames, threads=1)

    together, alone = run(4), run(1)
    assert together.depths.shape == alone.depths.shape == stream.depths.shape
    for index in range(12):
        assert np.abs(together.depths[index] - alone.depths[index]).max() > 1e-6, index
    assert list(together.cache_bytes) == [6, 12] and (together.seconds > 0).all()
    with pytest.raises(ValueError, match='set it to 1'):
        predict(load_model(str(weights)), EvalSetting('full', 'none'), stream, CPU, 'fp32',
                lambda: None, first_frames=4)


@pytest.mark.slow
def test_the_command_writes_a_table_and_json(weights, tmp_path, capsys):
    file = tmp_path / 'new' / 'eval.json'
    arguments = ['eval', '--checkpoint', str(weights), '--world', 'validation', '--streams', '2',
                 '--frames', '6,4', '--policy', 'full,sliding_window',
                 '--quantization', 'none,int4', '--tokens', '51,68', '--remove', 'first',
                 '--json', str(file)]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert 'without first frame' in output and 'constant depth' in output
    assert output.count('sliding_window') == 8 and 'tiny.safetensors' in output
    table = json.loads(file.read_text())
    assert KEYS <= set(table) and KEYS <= set(table['baseline'])
    assert table['baseline']['ate_ratio'] == pytest.approx(1)
    assert [row['frames'] for row in table['rows']] == 7 * [4] + 7 * [6] + [4, 6]
    short, rows = table['rows'][:7], table['rows'][7:14]
    assert table['depth_abs_rel'] == short[0]['depth_abs_rel'] != rows[0]['depth_abs_rel']
    assert short[0]['cache_bytes'] < rows[0]['cache_bytes'] and rows[-1]['removed'] == 'first'
    assert [len(row['of_streams']) for row in rows] == [2] * 7
    assert rows[0]['depth_abs_rel'] == pytest.approx(
        np.mean([one['depth_abs_rel'] for one in rows[0]['of_streams']]))
    windows = [row for row in rows if row['policy'] == 'sliding_window']
    assert [row['tokens'] for row in windows] == [51, 68, 51, 68]
    assert windows[0]['cache_bytes'] < windows[1]['cache_bytes'] < rows[0]['cache_bytes']
    assert '/' not in table['command'] and 'keyframe' not in table['command']
    assert '--world validation' in table['command']
    assert main([*arguments, '--markdown']) == 0
    assert '| full | none | 4 | - |' in capsys.readouterr().out
    alone = tmp_path / 'alone.json'   # a longer stream's beginning is the shorter stream
    assert main([*arguments[:arguments.index('--frames')], '--frames', '4', '--json',
                 str(alone)]) == 0
    assert json.loads(alone.read_text())['depth_abs_rel'] == table['depth_abs_rel']


@pytest.mark.slow
def test_the_command_reads_a_data_set(weights, tmp_path, capsys):
    sequence = tmp_path / 'rgbd_dataset_freiburg3_tiny'
    recording = WorldSource(SPLITS['test'].start, 5, 3.0)
    lists = {'rgb': [], 'depth': [], 'groundtruth': []}
    for name in ('rgb', 'depth'):
        (sequence / name).mkdir(parents=True)
    for index in range(5):
        frame, stamp = recording.frame(index), f'{1000 + index}.000000'
        Image.fromarray(frame.image).save(sequence / f'rgb/{stamp}.png')
        Image.fromarray((frame.depth * 5000).astype(np.uint16)).save(
            sequence / f'depth/{stamp}.png')
        for name in ('rgb', 'depth'):
            lists[name].append(f'{stamp} {name}/{stamp}.png')
        pose = StampedPose.from_matrix(0, frame.world_from_camera)
        numbers = ' '.join(f'{value:.9f}' for value in (*pose.position, *pose.quaternion))
        lists['groundtruth'].append(f'{stamp} {numbers}')
    for name, lines in lists.items():
        (sequence / f'{name}.txt').write_text('\n'.join(lines) + '\n')
    common = ['eval', '--checkpoint', str(weights), '--frames', '5', '--json']
    assert main([*common, str(tmp_path / 'data.json'), '--data', str(sequence)]) == 0
    assert main([*common, str(tmp_path / 'world.json'), '--streams', '1', '--rate', '3']) == 0
    assert main([*common, str(tmp_path / 'int8.json'), '--streams', '1', '--rate', '3',
                 '--weights', 'int8']) == 0
    capsys.readouterr()
    data, world = (json.loads((tmp_path / f'{name}.json').read_text())
                   for name in ('data', 'world'))
    # The same room through files: depth is rounded to 0.2 mm, the pictures are the same.
    for name in ('depth_abs_rel', 'ate_ratio', 'rotation_deg', 'rpe_translation'):
        assert data[name] == pytest.approx(world[name], rel=2e-3), name
    assert data['streams'] == [{'name': 'rgbd_dataset_freiburg3_tiny', 'frames': 5}]
    rounded = json.loads((tmp_path / 'int8.json').read_text())
    assert rounded['weights'] == 'int8' and rounded['weight_bytes'] < world['weight_bytes']
    assert rounded['depth_abs_rel'] == pytest.approx(world['depth_abs_rel'], rel=0.05)
    assert '--weights int8' in rounded['command'] and '--weights' not in world['command']


@pytest.mark.parametrize('arguments, code, words', [
    (['--policy', 'fulll'], 2, "there is no policy 'fulll'"),
    (['--quantization', 'int3'], 2, "there is no quantization 'int3'"),
    (['--remove', 'all'], 2, "there is no removal 'all'"),
    (['--tokens', 'many'], 2, 'whole numbers'),
    (['--frames', '0'], 2, 'whole numbers'),
    (['--checkpoint', 'nothing.pth'], 1, 'nothing.pth'),
    (['--image-size', '100'], 1, 'multiple of 14'),
    (['--tracking-size', '14'], 1, '--keyframe-stride 2 or more'),
    (['--keyframe-stride', '2', '--tracking-size', '20'], 1, 'multiple of 14'),
    (['--keyframe-stride', '2', '--remove', 'first'], 2, 'leave --keyframe-stride out'),
    (['--weights', 'fp8', '--device', 'cpu'], 1, '--weights fp8 needs a GPU'),
    (['--data', 'nowhere'], 1, 'nowhere'),
])
def test_what_is_wrong_is_named(weights, arguments, code, words, capsys):
    assert main(['eval', '--checkpoint', str(weights), *arguments]) == code
    assert words in capsys.readouterr().err


def test_errors_that_are_known_beforehand_are_told(stream):
    rng = np.random.default_rng(0)
    confidence = np.exp(rng.uniform(0, 3, stream.depths.shape)).astype(np.float32)
    error = 0.1 / confidence * rng.normal(size=confidence.shape)
    table = fit_error_table(confidence, np.abs(error))
    seen = truth_of(stream, depths=0.5 * stream.depths * (1 + error),
                    depth_errors=table.relative_errors(torch.from_numpy(confidence)).numpy())
    tenths = error_tenths([(seen, stream)])
    assert len(tenths) == 10 and tenths[0][0] < 0.3 * tenths[-1][0]
    for expected, true in tenths:
        assert true == pytest.approx(expected, rel=0.2)
    blind = dataclasses.replace(stream, depths=np.zeros_like(stream.depths))
    assert error_tenths([(seen, blind), (baseline(stream), stream)]) == []


def test_a_checkpoint_that_knows_its_errors_is_measured_by_them(weights, tmp_path, capsys):
    model = load_model(str(weights)).model
    file, path = tmp_path / 'eval.json', tmp_path / 'knows.safetensors'
    save_checkpoint(model, path, {KEY: ErrorTable((1.0, 2.0), (0.3, 0.1)).to_json()})
    assert main(['eval', '--checkpoint', str(path), '--frames', '4', '--streams', '1',
                 '--image-size', '56', '--json', str(file)]) == 0
    assert 'expected by confidence and true' in ' '.join(capsys.readouterr().out.split())
    results = json.loads(file.read_text())
    assert len(results['depth_error_tenths']) == 10
    assert results['rows'][0]['depth_error_tenths'] == results['depth_error_tenths']
    assert 'depth_error_tenths' not in results['rows'][-1]    # constant depth knows nothing
