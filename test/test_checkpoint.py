"""Checkpoints: what is read, what is inferred, and what a person is told when it fails."""

from dataclasses import replace
import json
from pathlib import Path
import subprocess
import sys

import golden_data
import pytest
from safetensors.torch import save_file
import torch

from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model import checkpoint
from xsvggt_ros.model.checkpoint import (CheckpointError, infer_config, load_model,
                                         save_checkpoint)
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.streamvggt import StreamVGGT

MEBIBYTE = 2 ** 20


@pytest.fixture(scope='module')
def case():
    """Return the smaller golden case."""
    return golden_data.load_case('tiny_h1')


@pytest.fixture
def error_of():
    """Return a function that gives the text of the CheckpointError that loading raises."""
    def load(path, **options):
        with pytest.raises(CheckpointError) as raised:
            load_model(str(path), **options)
        return str(raised.value)

    return load


def assert_same_weights(model: StreamVGGT, weights: dict[str, torch.Tensor]) -> None:
    """Check that a model holds exactly these weights, in memory of its own."""
    loaded = model.state_dict()
    assert set(loaded) == set(weights)
    for key, weight in weights.items():
        assert loaded[key].device.type == 'cpu'
        assert torch.equal(loaded[key], weight.to(loaded[key].dtype)), key


def mostly_golden(config: ModelConfig) -> ModelConfig:
    """Return the config without what a file of weights cannot tell."""
    return replace(config, img_size=37 * config.patch_size)


# Formats -----------------------------------------------------------------------------------------

@pytest.mark.parametrize('wrap', [
    lambda weights: weights,
    lambda weights: {'model': weights, 'epoch': 3},
    lambda weights: {'state_dict': {f'module.{key}': value for key, value in weights.items()}},
])
@pytest.mark.parametrize('zipped', [True, False])
def test_pickled_weights_are_read_whatever_wraps_them(case, tmp_path, wrap, zipped):
    path = tmp_path / 'weights.pth'
    torch.save(wrap(case.weights), path, _use_new_zipfile_serialization=zipped)
    loaded = load_model(str(path))
    assert_same_weights(loaded.model, case.weights)
    assert loaded.config == mostly_golden(ModelConfig.from_dict(case.config))
    assert not loaded.random_weights
    assert 'weights.pth' in loaded.description and 'random' not in loaded.description.lower()


def test_safetensors_are_read_and_the_track_head_is_ignored(case, tmp_path):
    path = tmp_path / 'weights.safetensors'
    save_file({**case.weights, 'track_head.weight': torch.zeros(3)}, path)
    loaded = load_model(str(path))
    assert_same_weights(loaded.model, case.weights)
    path.write_bytes(b'')  # the model owns its weights: the file may go
    assert_same_weights(loaded.model, case.weights)


def test_a_loaded_network_gives_the_golden_outputs(case, tmp_path):
    path = tmp_path / 'weights.pt'
    torch.save(case.weights, path)
    model = load_model(str(path)).model
    assert not model.training
    engine = StreamEngine(model, CacheConfig(policy='full'), image_size=None)
    for frame in range(2):
        result = engine.step(case.rgb(frame))
        golden = case.tensors['full/pose_enc'][frame]
        assert golden_data.excess(result.pose_encoding, golden) < 1


def test_weights_are_converted_on_the_way_in(case, tmp_path):
    path = tmp_path / 'weights.safetensors'
    save_file({key: weight.half() for key, weight in case.weights.items()}, path)
    loaded = load_model(str(path), dtype=torch.bfloat16)
    model = loaded.model
    assert 'bfloat16' in loaded.description
    block = model.aggregator.global_blocks[0]
    assert block.attn.qkv.weight.dtype == torch.bfloat16
    assert block.norm1.weight.dtype == torch.float32
    assert {weight.dtype for weight in model.camera_head.parameters()} == {torch.float32}
    assert_same_weights(model, {key: weight.half() for key, weight in case.weights.items()})


@pytest.mark.parametrize('name', golden_data.CASES)
def test_a_saved_network_comes_back_the_same(name, tmp_path):
    case = golden_data.load_case(name)
    # Layers and image size that nobody could guess from the weights.
    config = ModelConfig.from_dict(case.config)
    config = replace(config, rope_freq=50, dpt_head=replace(config.dpt_head,
                                                            intermediate_layer_idx=(0, 0, 1, 2)))
    model = StreamVGGT(config)
    model.load_state_dict(case.weights)
    path = tmp_path / 'saved.safetensors'
    save_checkpoint(model, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ['saved.safetensors']
    loaded = load_model(str(path))
    assert loaded.config == config
    assert_same_weights(loaded.model, case.weights)


# Which network -----------------------------------------------------------------------------------

@pytest.mark.parametrize('config', [
    ModelConfig.full_size(),
    # The dense heads' layers leave no trace; these are where the public network's would be.
    replace(ModelConfig.small(), img_size=518, dpt_head=replace(
        ModelConfig.small().dpt_head, intermediate_layer_idx=(0, 2, 3, 5))),
    *(ModelConfig.from_dict(golden_data.load_index()['cases'][name]['config'])
      for name in golden_data.CASES)])
def test_config_is_inferred_from_keys_and_shapes(config):
    with torch.device('meta'):
        shapes = {key: tuple(weight.shape)
                  for key, weight in StreamVGGT(config).state_dict().items()}
    if config.patch_embed.type == 'conv':
        config = mostly_golden(config)
    assert infer_config(shapes) == config


def test_full_size_is_inferred_from_the_public_list():
    shapes = {key: tuple(shape) for key, shape in golden_data.load_full_shapes().items()}
    assert infer_config(shapes) == ModelConfig.full_size()


def test_a_config_beside_the_file_counts(case, tmp_path, error_of):
    path, beside = tmp_path / 'weights.pth', tmp_path / 'weights.json'
    torch.save(case.weights, path)
    config = ModelConfig.from_dict({**case.config, 'rope_freq': 10})
    beside.write_text(json.dumps(config.to_dict()))
    assert load_model(str(path)).config == config
    beside.write_text(json.dumps({**config.to_dict(), 'colour': 1}))
    assert 'weights.json' in error_of(path) and 'colour' in error_of(path)
    beside.write_text('{')
    assert 'weights.json' in error_of(path)


# What goes wrong ---------------------------------------------------------------------------------

def test_a_missing_file_says_where_weights_are_to_be_had(tmp_path, error_of):
    text = error_of(tmp_path / 'checkpoints.pth')
    for part in (str(tmp_path / 'checkpoints.pth'), 'lch01/StreamVGGT', 'CC BY-NC-SA 4.0',
                 'non-commercial', "'small'"):
        assert part in text
    assert "'small'" in error_of('')


def test_other_files_are_refused(tmp_path, error_of):
    assert 'is not a file' in error_of(tmp_path)
    (tmp_path / 'weights.onnx').write_bytes(b'x')
    assert 'must end in .safetensors, .pt or .pth' in error_of(tmp_path / 'weights.onnx')
    assert 'auto, small or full' in error_of('random', size='huge')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('damage', [
    lambda whole: b'',
    lambda whole: whole[:100],
    lambda whole: whole[:len(whole) // 2],
    lambda whole: whole[:-1],
    lambda whole: b'<html>Not Found</html>' * 100,
])
def test_a_damaged_file_is_named(case, tmp_path, suffix, damage, error_of):
    path = tmp_path / f'weights{suffix}'
    if suffix == '.pth':
        torch.save(case.weights, path)
    else:
        save_file(case.weights, path)
    path.write_bytes(damage(path.read_bytes()))
    text = error_of(path)
    assert str(path) in text and f'({path.stat().st_size} bytes)' in text
    assert 'download or copy it again' in text
    assert 'weights_only' not in text and '\n' not in text


class Payload:
    """Code that unpickling would run."""

    def __reduce__(self):
        """Ask for a call when this is loaded."""
        return exec, ("raise SystemExit('code from the checkpoint ran')",)


def test_code_in_a_checkpoint_is_not_run(case, tmp_path, error_of):
    path = tmp_path / 'weights.pth'
    torch.save({'model': case.weights, 'optimizer': Payload()}, path)
    assert 'other things than tensors' in error_of(path)


@pytest.mark.parametrize('weights', [{}, {'conv1.weight': torch.zeros(64, 3, 7, 7)}])
def test_another_networks_weights_are_refused(tmp_path, weights, error_of):
    path = tmp_path / 'resnet.pth'
    torch.save(weights, path)
    text = error_of(path)
    assert 'is not a StreamVGGT checkpoint' in text
    assert all(key in text for key in weights)
    torch.save([1, 2], path)
    assert 'is not a StreamVGGT checkpoint' in error_of(path)


def test_a_mismatch_is_a_short_list(case, tmp_path, error_of):
    path = tmp_path / 'weights.safetensors'
    weights = dict(case.weights)
    missing = [key for key in weights if key.startswith('point_head.scratch.refinenet')]
    for key in missing:
        del weights[key]
    weights['extra.weight'] = torch.zeros(2)
    weights['camera_head.embed_pose.weight'] = torch.zeros(128, 7)
    save_file(weights, path)
    lines = error_of(path).split('\n')
    assert len(lines) == 5
    assert str(path) in lines[0] and 'embed_dim 64, depth 4' in lines[0]
    assert lines[1].startswith(f'  {len(missing)} missing: ') and lines[1].endswith(', ...')
    assert sum(key in lines[1] for key in missing) == checkpoint.LISTED
    assert lines[2] == '  1 unexpected: extra.weight'
    assert lines[3] == ('  1 of another shape: camera_head.embed_pose.weight is [128, 7], '
                        'should be [128, 9]')


def test_a_size_that_is_not_the_files_is_refused(case, tmp_path, error_of):
    path = tmp_path / 'weights.pth'
    torch.save(case.weights, path)
    text = error_of(path, size='small')
    assert 'missing' in text and 'of another shape' in text
    assert len(text) < 3000


# Random weights ----------------------------------------------------------------------------------

def test_random_weights_say_so_and_are_always_the_same():
    first, second = load_model('random'), load_model('random', size='small')
    assert first.random_weights
    assert 'RANDOM WEIGHTS' in first.description
    assert first.config == ModelConfig.small()
    assert_same_weights(first.model, second.model.state_dict())
    weights = first.model.state_dict()
    drawn = [weight for key, weight in weights.items() if key.endswith('fc1.weight')]
    assert not torch.equal(drawn[0], drawn[1])  # each key has its own


def test_random_weights_give_sane_outputs():
    engine = StreamEngine(load_model('random').model,
                          CacheConfig(max_tokens=120, camera_max_tokens=16), image_size=None)
    generator = torch.Generator().manual_seed(3)
    depths = []
    for frame in range(25):
        coarse = torch.randint(0, 256, (3, 6, 8), generator=generator).float()
        image = torch.nn.functional.interpolate(coarse[None], (56, 70))[0].byte()
        result = engine.step(image.permute(1, 2, 0).contiguous())
        assert 0.2 < result.depth.min() and result.depth.max() < 5
        assert torch.isfinite(result.points).all() and result.points.abs().max() < 20
        assert result.points[..., 2].median() > 0  # before the camera
        pose = result.pose_encoding
        assert pose[:3].abs().max() < 0.5
        assert pose[6] / pose[3:7].norm() > 0.9  # less than 52 degrees from the identity
        assert ((pose[7:] > 0.5) & (pose[7:] < 1.6)).all()
        depths.append(result.depth)
    assert depths[-1].std() > 1e-3  # the image matters
    assert not torch.allclose(depths[-1], depths[-2], atol=1e-3)


# Memory ------------------------------------------------------------------------------------------

@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_one_tensor_at_a_time_is_read_and_converted(case, tmp_path, suffix, monkeypatch):
    path = tmp_path / f'weights{suffix}'
    if suffix == '.pth':
        torch.save(case.weights, path)
    else:
        save_file(case.weights, path)
    events = []
    fill = checkpoint._fill

    def spied_fill(model, read, *others):
        fill(model, lambda key: events.append(key) or read(key), *others)

    monkeypatch.setattr(checkpoint, '_fill', spied_fill)
    model = load_model(str(path), dtype=torch.bfloat16).model
    assert sorted(events) == sorted(case.weights)  # each once, and only when it is wanted
    assert_same_weights(model, case.weights)


MEASURE = """
import sys
import threading
import time

import torch

from xsvggt_ros.model.checkpoint import load_model
from xsvggt_ros.model.weight_quantization import weight_bytes


def anonymous_memory():
    with open('/proc/self/status') as status:
        return next(int(line.split()[1]) for line in status if line.startswith('RssAnon')) * 1024


def watch():
    while not done.is_set():
        peak.append(anonymous_memory())
        time.sleep(0.001)


load_model('random')  # whatever torch allocates once
done, peak, before = threading.Event(), [], anonymous_memory()
watcher = threading.Thread(target=watch)
watcher.start()
loaded = load_model(sys.argv[1], dtype=getattr(torch, sys.argv[2]), weights=sys.argv[3])
done.set()
watcher.join()
print(max(peak) - before, weight_bytes(loaded.model))
"""


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='memory is read from /proc')
@pytest.mark.parametrize('suffix, dtype, weights', [
    ('.safetensors', 'float32', 'float'), ('.safetensors', 'bfloat16', 'float'),
    ('.pth', 'bfloat16', 'float'), ('.safetensors', 'float32', 'int8')])
def test_no_second_copy_is_held_while_loading(tmp_path, suffix, dtype, weights):
    config = replace(ModelConfig.small(), embed_dim=256, num_heads=4, depth=24)
    config = replace(config, dpt_head=replace(config.dpt_head,
                                              intermediate_layer_idx=(4, 11, 17, 23)))
    model = StreamVGGT(config)  # 45 M parameters, 180 MB
    path = tmp_path / f'weights{suffix}'
    if suffix == '.pth':
        torch.save(model.state_dict(), path)
    else:
        save_checkpoint(model, path)
    root = Path(checkpoint.__file__).parents[2]
    done = subprocess.run([sys.executable, '-c', MEASURE, str(path), dtype, weights], cwd=root,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    peak, needed = (int(number) for number in done.stdout.split())
    assert needed > 40 * MEBIBYTE
    assert peak < 1.15 * needed + 20 * MEBIBYTE, (peak / MEBIBYTE, needed / MEBIBYTE)
