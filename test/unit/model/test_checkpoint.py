"""Checkpoints: what is read, what is inferred, and what a person is told when it fails."""

from dataclasses import replace
import json
import math
from pathlib import Path
import subprocess
import sys

from checkpoint_files import save
import golden_data
import pytest
from safetensors import safe_open
from safetensors.torch import save_file
import torch

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model import checkpoint
from xsvggt_ros.model.checkpoint import infer_config, load_model, save_checkpoint
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.streamvggt import StreamVGGT

MEBIBYTE = 2 ** 20


def layers_of(config):
    """Return what weights of another depth than the public one do not tell."""
    return {'dpt_head': {'intermediate_layer_idx': config['dpt_head']['intermediate_layer_idx']}}


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
    path.with_suffix('.json').write_text(json.dumps(layers_of(case.config)))
    loaded = load_model(str(path))
    assert_same_weights(loaded.model, case.weights)
    assert loaded.config == mostly_golden(ModelConfig.from_dict(case.config))
    assert not loaded.random_weights
    assert 'weights.pth' in loaded.description and 'random' not in loaded.description.lower()


def test_safetensors_are_read_and_the_track_head_is_ignored(case, tmp_path):
    path = tmp_path / 'weights.safetensors'
    # Of what is not used nothing is looked at.
    save({**case.weights, 'track_head.weight': torch.zeros(3, dtype=torch.int8)}, path,
         case.config)
    loaded = load_model(str(path))
    assert_same_weights(loaded.model, case.weights)
    path.write_bytes(b'')  # the model owns its weights: the file may go
    assert_same_weights(loaded.model, case.weights)


def test_a_loaded_network_gives_the_golden_outputs(case, tmp_path):
    path = tmp_path / 'weights.pt'
    save(case.weights, path, layers_of(case.config))
    model = load_model(str(path)).model
    assert not model.training
    engine = StreamEngine(model, EngineConfig(CacheConfig(policy='full'), image_size=None))
    for frame in range(2):
        result = engine.step(case.rgb(frame))
        golden = case.tensors['full/pose_enc'][frame]
        assert golden_data.excess(result.pose_encoding, golden) < 1


def test_weights_are_converted_on_the_way_in(case, tmp_path):
    path = tmp_path / 'weights.safetensors'
    save({key: weight.half() for key, weight in case.weights.items()}, path, case.config)
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
    ModelConfig.full_size(), replace(ModelConfig.small(), img_size=518),
    *(ModelConfig.from_dict(golden_data.load_index()['cases'][name]['config'])
      for name in golden_data.CASES)])
def test_config_is_inferred_from_keys_and_shapes(config):
    with torch.device('meta'):
        shapes = {key: tuple(weight.shape)
                  for key, weight in StreamVGGT(config).state_dict().items()}
    if config.patch_embed.type == 'conv':
        config = mostly_golden(config)
    told = infer_config(shapes)
    # The layers that the dense heads read leave no trace; the public ones are known.
    assert ('intermediate_layer_idx' in told['dpt_head']) == (config.depth == 24)
    told['dpt_head'].update(layers_of(config.to_dict())['dpt_head'])
    assert ModelConfig.from_dict(told) == config


def test_full_size_is_inferred_from_the_public_list():
    shapes = {key: tuple(shape) for key, shape in golden_data.load_full_shapes().items()}
    assert ModelConfig.from_dict(infer_config(shapes)) == ModelConfig.full_size()


@pytest.mark.slow
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('beside', ['weights.json', 'config.json'])
def test_layers_of_another_depth_are_asked_for(case, tmp_path, suffix, beside, error_of):
    path = tmp_path / f'weights{suffix}'
    save(case.weights, path)
    text = error_of(path)
    for part in (str(path), 'depth of 4', str(tmp_path / 'weights.json'), 'config.json',
                 '{"dpt_head": {"intermediate_layer_idx": [A, B, C, D]}}'):
        assert part in text
    for layers in ([0, 1, 2, 3], [0, 0, 1, 3]):
        given = {'dpt_head': {'intermediate_layer_idx': layers}}
        (tmp_path / beside).write_text(json.dumps(given))
        assert load_model(str(path)).config.dpt_head.intermediate_layer_idx == tuple(layers)
    (tmp_path / beside).write_text('{"dpt_head": {"intermediate_layer_idx": [0, 1, 2, 4]}}')
    assert beside in error_of(path) and 'count from 0' in error_of(path)


@pytest.mark.slow
def test_another_programs_config_is_left_alone(tmp_path):
    config = replace(ModelConfig.small(), depth=24, dpt_head=replace(
        ModelConfig.small().dpt_head, intermediate_layer_idx=(4, 11, 17, 23)))
    path = tmp_path / 'weights.safetensors'
    save_checkpoint(StreamVGGT(config), path)
    with safe_open(path, 'pt') as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}
    save(weights, path)  # without metadata
    common = tmp_path / 'config.json'
    for content in ('{"architectures": ["Other"], "depth": 3}', '[' * 5000, '{', '[]'):
        common.write_text(content)
        assert load_model(str(path)).config == replace(config, img_size=518)
    common.write_text('{"img_size": 112}')  # which is ours
    assert load_model(str(path)).config == config


def test_a_config_beside_the_file_counts(case, tmp_path, error_of):
    path, beside = tmp_path / 'weights.pth', tmp_path / 'weights.json'
    torch.save(case.weights, path)
    config = ModelConfig.from_dict({**case.config, 'rope_freq': 10})
    beside.write_text(json.dumps(config.to_dict()))
    assert load_model(str(path)).config == config
    beside.write_text(json.dumps({**config.to_dict(), 'colour': 1}))
    assert 'weights.json' in error_of(path) and 'colour' in error_of(path)
    for content in ('{', '[' * 100_000, '[]', '3', '\0', '{"depth": ' + '9' * 5000 + '}'):
        beside.write_text(content)
        assert 'weights.json' in error_of(path) and len(error_of(path)) < 600
    beside.write_bytes(b'\xef\xbb\xbf' + json.dumps(config.to_dict()).encode())
    assert load_model(str(path)).config == config
    beside.write_bytes(b'\xff\xfe{}')
    assert 'weights.json' in error_of(path)


def edited(config, name, value):
    """Return a config in which one number is another."""
    config = json.loads(json.dumps(config))
    group, _, own = name.rpartition('.')
    (config[group] if group else config)[own] = value
    return config


@pytest.mark.parametrize('name, value', [
    ('depth', 5), ('depth', 100_000), ('depth', 10 ** 30), ('embed_dim', 1 << 40),
    ('embed_dim', 128), ('num_heads', 2), ('num_heads', 1 << 60), ('patch_size', 7),
    ('num_register_tokens', 10 ** 9), ('mlp_ratio', 1e300), ('mlp_ratio', math.inf),
    ('mlp_ratio', 2.0), ('img_size', 14 * 10 ** 9), ('rope_freq', math.inf),
    ('rope_freq', math.nan), ('camera_head.trunk_depth', 100_000),
    ('camera_head.num_heads', 10 ** 9), ('camera_head.mlp_ratio', 1e9),
    ('dpt_head.features', 1 << 40), ('dpt_head.out_channels', [1 << 40] * 4),
    ('dpt_head.out_channels', 4 * ['4' * 10_000]), ('patch_embed.type', 'x' * 10 ** 6),
    ('patch_embed', {'type': 'dinov2', 'depth': 100_000}), ('camera_head', 'y' * 10 ** 6)])
@pytest.mark.parametrize('where', ['metadata', 'beside'])
def test_no_number_of_a_config_is_believed(case, tmp_path, name, value, where, error_of,
                                           monkeypatch):
    """All are compared with the weights, or bounded, before anything is built."""
    monkeypatch.setattr(checkpoint.WeightLoading, 'empty_model', None)
    config = json.dumps(edited(case.config, name, value))
    path = tmp_path / 'weights.safetensors'
    save_file(case.weights, path, {'xsvggt_config': config} if where == 'metadata' else None)
    if where == 'beside':
        path.with_suffix('.json').write_text(config)
    text = error_of(path)
    assert 'weights.safetensors' in text or 'weights.json' in text
    assert name.rpartition('.')[2] in text and '\n' not in text and len(text) < 600


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


@pytest.mark.slow
def test_random_weights_give_sane_outputs():
    engine = StreamEngine(load_model('random').model, EngineConfig(
        CacheConfig(max_tokens=120, camera_max_tokens=16)))
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
    save(case.weights, path, case.config)
    events = []
    fill = checkpoint.WeightLoading.fill

    def spied_fill(loading, model, read, *others):
        fill(loading, model, lambda key: events.append(key) or read(key), *others)

    monkeypatch.setattr(checkpoint.WeightLoading, 'fill', spied_fill)
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


@pytest.mark.slow
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
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    peak, needed = (int(number) for number in done.stdout.split())
    assert needed > 40 * MEBIBYTE
    assert peak < 1.15 * needed + 40 * MEBIBYTE, (peak / MEBIBYTE, needed / MEBIBYTE)
