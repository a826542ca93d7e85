"""The parts without a memory make up the network, and ONNX computes what they do."""

from dataclasses import replace
import json

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from xsvggt_ros.cli.main import main
from xsvggt_ros.engine.stream_caches import StreamCaches
from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.checkpoint import load_model
from xsvggt_ros.model.config import ModelConfig, PatchEmbedConfig
from xsvggt_ros.model.export import export_parts, parts
from xsvggt_ros.model.random_weights import random_weight
from xsvggt_ros.model.streamvggt import StreamVGGT

HEIGHT, WIDTH = 42, 56
# onnxruntime adds up in another order, through a dozen layers.
TOLERANCE = {'rtol': 1e-4, 'atol': 1e-4}


@pytest.fixture(scope='module')
def model():
    return make_model()


def make_model():
    """Return a small network with the patch embedding of the full one."""
    model = StreamVGGT(replace(ModelConfig.small(), depth=4, patch_embed=PatchEmbedConfig(
        type='dinov2', depth=2, num_heads=2), dpt_head=replace(
            ModelConfig.small().dpt_head, intermediate_layer_idx=(0, 1, 2, 3))))
    model.load_state_dict({key: random_weight(key, tuple(weight.shape), seed=0)
                           for key, weight in model.state_dict().items()})
    return model.eval()


def memory_of(model):
    layout, config = model.cache_layout(HEIGHT, WIDTH), CacheConfig(policy='full')
    return StreamCaches(*(build_cache(part, config, None, torch.float32, 'cpu', 'none')
                          for part in (layout.tokens, layout.camera)))


@torch.no_grad()
def reconstructed(model, image, memory, run):
    """Return what the parts say about a frame that is not the first; run(name, *tensors)."""
    aggregator, config = model.aggregator, model.config
    patches, = run('patches', image)
    x = torch.cat([aggregator.camera_token[0, 1], aggregator.register_token[0, 1], patches])
    layers = []
    for layer in range(config.depth):
        inside, query, key, value = run(f'before_{layer:02d}', x)
        read = memory.tokens.attend(layer, query, key, value)
        x, = run(f'after_{layer:02d}', inside, read)
        if layer in config.dpt_head.intermediate_layer_idx:
            layers.append(torch.cat([inside, x], dim=-1)[None, config.special_tokens:])
    camera_token = torch.cat([inside[:1], x[:1]], dim=-1)
    return (*run('depth_head', *layers), *run('point_head', *layers),
            model.camera_head(camera_token, memory.camera)[-1])


def expected(model, frames):
    memory = memory_of(model)
    for index, image in enumerate(frames):
        result = (model.step if index else model.first_frame)(image, memory)
        memory.tokens.end_step()
    return (result.depth, result.depth_confidence, result.points, result.points_confidence,
            result.pose_encoding)


def second_frame(model, frames, run):
    memory = memory_of(model)
    model.first_frame(frames[0], memory)
    memory.tokens.end_step()
    return reconstructed(model, frames[1], memory, run)


@pytest.fixture(scope='module')
def frames():
    return torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def test_the_parts_are_the_network(model, frames):
    modules = {part.name: part.module for part in parts(model, HEIGHT, WIDTH)}

    def run(name, *tensors):
        outputs = modules[name](*tensors)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    torch.testing.assert_close(
        second_frame(model, frames, run), expected(model, frames), rtol=1e-5, atol=1e-5)


def test_inputs_have_the_shapes_that_run(model):
    for part in parts(model, HEIGHT, WIDTH):
        with torch.no_grad():
            outputs = part.module(*part.inputs.values())
        assert len(part.outputs) == (len(outputs) if isinstance(outputs, tuple) else 1)


@pytest.mark.slow
def test_the_parts_can_be_followed(model):
    for part in parts(model, HEIGHT, WIDTH):
        with torch.no_grad():
            inputs = tuple(part.inputs.values())
            outputs = part.module(*inputs)  # tables are made before
            program = torch.export.export(part.module.eval(), inputs, strict=False).module()
            torch.testing.assert_close(program(*inputs), outputs, rtol=1e-4, atol=1e-5)


def test_a_size_that_is_no_whole_patches_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match='multiples of'):
        export_parts(model, 50, WIDTH, tmp_path)


def test_a_lowered_network_is_refused(tmp_path):
    lowered = load_model('random', size='small').model.set_dtype(torch.bfloat16)
    with pytest.raises(ValueError, match='fp32'):
        export_parts(lowered, HEIGHT, WIDTH, tmp_path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    pytest.importorskip('onnxscript', reason='python3 -m pip install onnx onnxscript')
    folder = tmp_path_factory.mktemp('onnx')
    export_parts(make_model(), HEIGHT, WIDTH, folder)
    return folder


def test_onnx_computes_the_same(model, frames, folder):
    runtime = pytest.importorskip('onnxruntime')
    sessions = {}

    def run(name, *tensors):
        if name not in sessions:
            sessions[name] = runtime.InferenceSession(
                str(folder / f'{name}.onnx'), providers=['CPUExecutionProvider'])
        names = [entry.name for entry in sessions[name].get_inputs()]
        assert len(names) == len(tensors)
        outputs = sessions[name].run(None, {
            name: tensor.numpy() for name, tensor in zip(names, tensors)})
        return tuple(map(torch.from_numpy, outputs))

    torch.testing.assert_close(
        second_frame(model, frames, run), expected(model, frames), **TOLERANCE)


def test_a_part_holds_its_own_weights_only(model, folder):
    onnx = pytest.importorskip('onnx')

    def weights(name):
        graph = onnx.load(folder / f'{name}.onnx').graph
        return sum(onnx.numpy_helper.to_array(entry).size for entry in graph.initializer)

    dim = model.config.embed_dim
    assert weights('before_00') < (12 + 3 + 1) * dim ** 2  # a block, and queries, keys, values
    assert weights('after_00') < (1 + 8 + 1) * dim ** 2  # a projection and an MLP


def test_parts_are_described(model, folder):
    about = json.loads((folder / 'parts.json').read_text())
    assert about['config'] == json.loads(json.dumps(model.config.to_dict()))
    assert {entry['name'] for entry in about['parts']} == {
        path.stem for path in folder.glob('*.onnx')}
    assert len(about['parts']) == 2 * model.config.depth + 3


def test_the_command_names_what_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr('xsvggt_ros.cli.export.find_spec', lambda name: None)
    assert main(['export', '--image', '56x42', '--out', str(tmp_path)]) == 1
    assert 'pip install onnx onnxscript' in capsys.readouterr().err


def test_the_command_refuses_a_wrong_size(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr('xsvggt_ros.cli.export.find_spec', lambda name: True)
    assert main(['export', '--image', '50x42', '--out', str(tmp_path)]) == 1
    assert 'multiples of 14' in capsys.readouterr().err


def test_attention_of_the_example_is_the_caches(model):
    """The queries, keys and values of a part are what a cache takes."""
    part = next(part for part in parts(model, HEIGHT, WIDTH) if part.name == 'before_00')
    with torch.no_grad():
        _, query, key, value = part.module(*part.inputs.values())
    read = memory_of(model).tokens.attend(0, query, key, value)
    torch.testing.assert_close(
        read, scaled_dot_product_attention(query[None], key[None], value[None])[0])
