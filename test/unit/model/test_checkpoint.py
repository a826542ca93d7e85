"""Checkpoints: what is read, what is inferred, and what a person is told when it fails."""

from dataclasses import replace
import gzip
import json
import math
from pathlib import Path
import pickle
import subprocess
import sys
import zipfile

import golden_data
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file
import torch

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model import checkpoint
from xsvggt_ros.model.checkpoint import CheckpointError, infer_config, load_model, save_checkpoint
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


def save(weights, path, config=None):
    """Write weights as their suffix says, and a config beside them."""
    if path.suffix == '.safetensors':
        save_file(weights, path)
    else:
        torch.save(weights, path)
    if config is not None:
        path.with_suffix('.json').write_text(json.dumps(config))


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
    assert 'auto, small, full, lingbot' in error_of('random', size='huge')


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
    save(case.weights, path)
    path.write_bytes(damage(path.read_bytes()))
    text = error_of(path)
    assert str(path) in text and f'({path.stat().st_size} bytes)' in text
    assert 'download or copy it again' in text
    assert 'weights_only' not in text and '\n' not in text


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('dtype', [torch.int8, torch.uint8, torch.bool, torch.int64,
                                   torch.complex64, torch.float8_e4m3fn])
def test_weights_that_are_no_floats_are_refused(case, tmp_path, suffix, dtype, error_of):
    key = 'aggregator.global_blocks.0.attn.qkv.weight'
    path = tmp_path / f'weights{suffix}'
    save({**case.weights, key: case.weights[key].to(dtype)}, path, case.config)
    text = error_of(path)
    assert str(path) in text and '1 are not: ' + key in text and 'floats' in text
    assert '\n' not in text


@pytest.mark.parametrize('change', [
    lambda x: x.to_sparse(), lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
    lambda x: x.to('meta')])
def test_tensors_without_plain_numbers_are_refused(case, tmp_path, change, error_of):
    key = 'aggregator.camera_token'
    path = tmp_path / 'weights.pth'
    save({**case.weights, key: change(case.weights[key].detach())}, path, case.config)
    assert key in error_of(path)


def pickled(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


def zipped(names):
    def write(path):
        with zipfile.ZipFile(path, 'w') as archive:
            for name in names:
                archive.writestr(name, b'x')
    return write


@pytest.mark.parametrize('write, kind', [
    (lambda path: path.write_bytes(b'.'), ''),  # a pickle that leaves nothing
    (lambda path: path.write_bytes(b'\x80\x02.'), ''),
    (lambda path: path.write_bytes(b'\x80\x02]q\x00(K\x01e.' * 3), ''),
    (lambda path: path.write_bytes(bytes(range(256)) * 40), ''),
    (lambda path: path.write_bytes(b'\0' * 5000), ''),
    (lambda path: path.write_bytes(b''), 'empty'),
    (lambda path: path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\n'),
     'git lfs pull'),
    (lambda path: path.write_text('<!DOCTYPE html><html></html>'), 'a web page'),
    (lambda path: path.write_text('{"error": "Entry not found"}'), 'JSON'),
    (lambda path: path.write_bytes(gzip.compress(b'x' * 100)), 'gzip'),
    (lambda path: save_file({'x': torch.zeros(1)}, path), 'safetensors'),
    (lambda path: np.savez(path.open('wb'), a=np.zeros(3)), 'NumPy'),
    (lambda path: np.save(path.open('wb'), np.zeros(3)), 'NumPy'),
    (lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path), 'TorchScript'),
    (zipped(['word/document.xml']), 'zip archive of other things'),
    (zipped(['x/data.pkl', 'x/version']), ''),
    (lambda path: pickled({'a': 1}, path), ''),
    (lambda path: pickled([1, 2, {'x': b'y'}], path), ''),
])
def test_what_is_no_checkpoint_is_one_clear_line(tmp_path, write, kind, error_of):
    path = tmp_path / 'weights.pth'
    write(path)
    text = error_of(path)
    assert str(path) in text and kind in text and '\n' not in text and len(text) < 1200
    assert 'StreamVGGT' in text or 'download or copy it again' in text
    assert 'weights_only' not in text and 'IndexError' not in text


def test_pickles_of_nonsense_end_in_a_line(case, tmp_path, error_of):
    """Whatever byte is another one: read, or refused in one line."""
    path = tmp_path / 'weights.pth'
    torch.save({'aggregator.camera_token': torch.zeros(2)}, path,
               _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(3):
            place, value = (int(torch.randint(0, most, (1,), generator=generator))
                            for most in (len(whole), 256))
            content[place] = value
        path.write_bytes(content)
        assert '\n' not in error_of(path)


def test_weights_that_hold_themselves_are_refused(tmp_path, error_of):
    content = {1: torch.zeros(2)}
    content['model'] = content
    path = tmp_path / 'weights.pth'
    torch.save(content, path)
    assert 'is no checkpoint of StreamVGGT or LingBot-Map' in error_of(path)


def test_long_notes_and_names_are_cut(case, tmp_path, error_of):
    path = tmp_path / 'weights.safetensors'
    notes = {'xsvggt_config': json.dumps(case.config),
             'training': 'rooms\n\x1b[31m' + 'and rooms ' * 200_000}
    save_file(case.weights, path, notes)
    description = load_model(str(path)).description
    assert 'trained in rooms' in description and len(description) < 500
    assert description.isprintable()
    save_file({**case.weights, 'x' * 10 ** 6: torch.zeros(1)}, path, notes)
    assert '1 unexpected: xxx' in error_of(path) and len(error_of(path)) < 800
    save_file({'y' * 10 ** 6: torch.zeros(1)}, path, notes)
    assert len(error_of(path)) < 1500


def test_a_name_that_no_file_can_have_is_an_error(error_of):
    for name in ('~nobody-of-this-name/x.pth', 'x' * 5000 + '.pth', 'a\0b.pth'):
        assert len(error_of(name)) < 1200


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
    assert 'is no checkpoint of StreamVGGT or LingBot-Map' in text
    assert all(key in text for key in weights)
    torch.save([1, 2], path)
    assert 'is no checkpoint of StreamVGGT or LingBot-Map' in error_of(path)


def test_a_mismatch_is_a_short_list(case, tmp_path, error_of):
    path = tmp_path / 'weights.safetensors'
    weights = dict(case.weights)
    missing = [key for key in weights if key.startswith('point_head.scratch.refinenet')]
    for key in missing:
        del weights[key]
    weights['extra.weight'] = torch.zeros(2)
    weights['camera_head.embed_pose.weight'] = torch.zeros(128, 7)
    save(weights, path, case.config)
    lines = error_of(path).split('\n')
    assert len(lines) == 5
    assert str(path) in lines[0] and 'embed_dim 64, depth 4' in lines[0]
    assert lines[1].startswith(f'  {len(missing)} missing: ') and lines[1].endswith(', ...')
    assert sum(key in lines[1] for key in missing) == checkpoint.MAX_LISTED
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
