"""The whole network against what the public implementation computed."""

from dataclasses import replace
from functools import cache

import golden_data
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.stream_caches import StreamCaches
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.streamvggt import StreamVGGT

MODES = [(case, mode) for case in golden_data.CASES
         for mode in ('full', 'prune', 'prune_tight', 'prune_pool4')
         if mode in golden_data.load_index()['cases'][case]['modes']]
LAST_SIZE = 'last/'  # outputs of the last frame that are not subsampled

load_case = cache(golden_data.load_case)


def make_model(case: golden_data.GoldenCase) -> StreamVGGT:
    """Return the case's network."""
    model = StreamVGGT(ModelConfig.from_dict(case.config))
    model.load_state_dict(case.weights, strict=True)
    return model


def make_memory(model: StreamVGGT, height: int, width: int,
                dtype: torch.dtype = torch.float32) -> StreamCaches:
    """Return a memory that forgets nothing."""
    layout = model.cache_layout(height, width)
    caches = [build_cache(part, CacheConfig(policy='full'), None, dtype, 'cpu', 'none')
              for part in (layout.tokens, layout.camera)]
    return StreamCaches(tokens=caches[0], camera=caches[1])


def outputs_of(result) -> dict[str, torch.Tensor]:
    """Return an engine's or a network's outputs under their golden names."""
    return {'pose_enc': result.pose_encoding, 'depth': result.depth,
            'depth_conf': result.depth_confidence, 'pts3d': result.points,
            'conf': result.points_confidence}


def cameras_of(result) -> dict[str, torch.Tensor]:
    """Return an engine's cameras under their golden names."""
    return {'extrinsic': result.camera_from_world[:3], 'intrinsic': result.intrinsics}


def ids_of(padded: torch.Tensor) -> list[list[int]]:
    """Return golden kept ids without their padding, one list per layer."""
    return [layer[layer >= 0].tolist() for layer in padded]


@pytest.mark.parametrize('name', golden_data.CASES)
def test_weights_are_the_golden_ones(name):
    case = load_case(name)
    assert golden_data.sha256_of(case.weights) == case.weights_sha256


@pytest.mark.slow
@pytest.mark.parametrize('name, mode', MODES)
def test_stream_is_the_golden_one(name, mode):
    case = load_case(name)
    spec = case.modes[mode]
    budget, stride = spec.get('cache_size'), spec['dense_stride']
    engine = StreamEngine(make_model(case), EngineConfig(CacheConfig(
        policy='full' if mode == 'full' else 'xstream', max_tokens=budget,
        pool_size=spec.get('pool_size', 16), camera_max_tokens=budget)))
    compared = set()
    for frame in range(len(case.frames)):
        result = engine.step(case.rgb(frame))
        for key, value in outputs_of(result).items():
            sampled = value[::stride, ::stride] if value.dim() > 1 else value
            golden = case.tensors.get(f'{mode}/{key}')
            if golden is not None:
                assert golden_data.excess(sampled, golden[frame]) < 1, (frame, key)
                compared.add(key)
        for key, value in cameras_of(result).items():
            golden = case.tensors.get(f'{mode}/{key}')
            if golden is not None:
                assert golden_data.excess(value, golden[frame]) < 1, (frame, key)
                compared.add(key)
        if f'{mode}/kept' in case.tensors:
            kept = [ids.tolist() for ids in engine.kept_token_ids()]
            assert kept == ids_of(case.tensors[f'{mode}/kept'][frame]), frame
        if f'{mode}/kept_camera' in case.tensors:
            kept = [ids.tolist() for ids in engine.caches.camera.kept_token_ids()]
            assert kept == ids_of(case.tensors[f'{mode}/kept_camera'][frame]), frame
    for key, value in outputs_of(result).items():
        golden = case.tensors.get(f'{mode}/{LAST_SIZE}{key}')
        if golden is not None:
            assert golden_data.excess(value, golden) < 1, key
    assert {'pose_enc', 'depth'} <= compared
    assert spec.get('light') or len(compared) == 7


@torch.no_grad()
@pytest.mark.parametrize('name', golden_data.CASES)
def test_tokens_inside_the_network_are_the_golden_ones(name):
    case = load_case(name)
    model, image = make_model(case), case.image(0)
    memory = make_memory(model, *image.shape[-2:])
    patches = []
    model.aggregator.patch_embed.register_forward_hook(
        lambda module, inputs, output: patches.append(output[0]))
    depth = model.config.depth
    for frame in range(2):
        tokens = model.aggregator(case.image(frame), memory.tokens.attend, frame == 0,
                                  range(depth))
        golden = case.tensors[f'dbg/tokens_f{frame}']
        layers = torch.stack([tokens.layers[layer] for layer in range(depth)])
        assert golden_data.excess(layers, golden) < 1
        assert torch.equal(tokens.camera_token, layers[-1, :1])
        poses = model.camera_head(tokens.camera_token, memory.camera)
        assert golden_data.excess(poses, case.tensors[f'dbg/pose_iter_f{frame}']) < 1
        memory.tokens.end_step()
    assert golden_data.excess(patches[0], case.tensors['dbg/patch_tokens_f0']) < 1


def test_fields_of_view_are_rectified_on_the_way_out_only():
    case = load_case('tiny_h1')
    model = make_model(case)
    with torch.no_grad():
        model.camera_head.pose_branch.fc2.bias -= 5
    fed_back = []
    model.camera_head.embed_pose.register_forward_pre_hook(
        lambda module, inputs: fed_back.append(inputs[0]))
    pose = model.first_frame(case.image(0), make_memory(model, 56, 56)).pose_encoding
    assert pose[7:].tolist() == [0, 0]
    assert (pose[:7] < -10).all()
    assert [bool((fed[0, 7:] < -4).all()) for fed in fed_back] == [False, True, True, True]


def test_layout_is_what_the_network_appends():
    layout = make_model(load_case('small_h2')).cache_layout(56, 70)
    tokens, camera = layout.tokens, layout.camera
    assert (tokens.layers, tokens.heads, tokens.head_dim) == (4, 2, 64)
    assert (tokens.tokens_per_step, tokens.special_tokens) == (25, 5)
    assert (camera.layers, camera.heads, camera.head_dim) == (2, 2, 128)
    assert (camera.tokens_per_step, camera.special_tokens) == (1, 1)


def test_layers_out_of_order_and_repeated_reach_their_heads():
    case = load_case('small_h2')
    config = ModelConfig.from_dict(case.config)
    model = StreamVGGT(replace(
        config, dpt_head=replace(config.dpt_head, intermediate_layer_idx=(2, 0, 2, 1))))
    model.load_state_dict(case.weights, strict=True)
    seen = []
    model.depth_head.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[0]))
    prediction = model.first_frame(case.image(0), make_memory(model, 56, 70))
    golden = case.tensors['dbg/tokens_f0']
    for tokens, layer in zip(seen, (2, 0, 2, 1), strict=True):
        assert golden_data.excess(tokens[0], golden[layer, 5:]) < 1
    # The camera head reads the last layer, also where no dense head does.
    assert golden_data.excess(prediction.pose_encoding, case.tensors['full/pose_enc'][0]) < 1


def test_two_streams_of_different_sizes_do_not_disturb_each_other():
    case = load_case('small_h2')
    model, small = make_model(case), case.image(5)[:, :42, :28]
    memory, other = make_memory(model, 56, 70), make_memory(model, 42, 28)
    for frame in range(3):
        step = model.first_frame if frame == 0 else model.step
        prediction = step(case.image(frame), memory)
        memory.tokens.end_step()
        aside = step(small, other)
        other.tokens.end_step()
        golden = case.tensors['full/pose_enc'][frame]
        assert golden_data.excess(prediction.pose_encoding, golden) < 1
        assert aside.depth.shape == (42, 28)


class OpRecorder(TorchDispatchMode):
    """Note the name of every operator that runs."""

    def __init__(self) -> None:
        """Start with nothing noted."""
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Note and run one operator."""
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_a_later_step_waits_for_nothing_and_computes_no_table():
    case = load_case('small_h2')
    model = make_model(case)
    memory = make_memory(model, 56, 70)
    with OpRecorder() as first:
        model.first_frame(case.image(0), memory)
    memory.tokens.end_step()
    with OpRecorder() as later:
        model.step(case.image(1), memory)
    tables = {'sin', 'cos', 'linspace', 'arange', '_upsample_bicubic2d_aa'}
    assert tables <= first.names
    assert not tables & later.names
    assert 'native_layer_norm' in later.names
    # Reading a value on the host is what stalls a GPU.
    assert not {'_local_scalar_dense', 'nonzero', 'is_nonzero', 'equal'} & later.names


def test_tables_are_not_part_of_the_checkpoint():
    case = load_case('small_h2')
    model = make_model(case)
    model.first_frame(case.image(0), make_memory(model, 56, 70))
    assert set(model.state_dict()) == set(case.weights)


def test_running_out_of_memory_in_a_head_leaves_the_camera_memory_alone():
    case = load_case('tiny_h1')
    model = make_model(case)
    memory = make_memory(model, 56, 56)

    def fail(module, inputs):
        raise torch.OutOfMemoryError

    for head in (model.depth_head, model.point_head):
        hook = head.register_forward_pre_hook(fail)
        with pytest.raises(torch.OutOfMemoryError):
            model.first_frame(case.image(0), memory)
        hook.remove()
        assert memory.camera.tokens == 0
    prediction = model.first_frame(case.image(0), memory)
    assert golden_data.excess(prediction.pose_encoding, case.tensors['full/pose_enc'][0]) < 1
    assert memory.camera.tokens == 4


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(dtype):
    # All numbers are rounded by half a unit of their last place at most: so many times that may
    # be off what comes of all of them, whichever way the processor adds.
    few = 4 * torch.finfo(dtype).eps / 2
    case = load_case('small_h2')
    model = make_model(case).set_dtype(dtype)
    assert model.dtype == dtype
    assert model.aggregator.patch_embed.blocks[0].mlp.fc1.weight.dtype == dtype
    for part in (model.depth_head, model.point_head, model.camera_head):
        assert {weight.dtype for weight in part.parameters()} == {torch.float32}
    memory = make_memory(model, 56, 70, dtype)
    stored = []
    attend = memory.tokens.attend

    def spy(layer, *tensors):
        stored.extend(tensor.dtype for tensor in tensors)
        return attend(layer, *tensors)

    memory.tokens.attend = spy
    stride = case.modes['full']['dense_stride']
    for frame in range(3):
        prediction = (model.step if frame else model.first_frame)(case.image(frame), memory)
        memory.tokens.end_step()
        assert {value.dtype for value in outputs_of(prediction).values()} == {torch.float32}
        depth, golden = prediction.depth[::stride, ::stride], case.tensors['full/depth'][frame]
        size = golden.log().square().mean().sqrt()
        assert (depth.log() - golden.log()).abs().mean() < few * size
    assert set(stored) == {torch.float32}  # attention in fewer bits gains nothing on a CPU
    with pytest.raises(ValueError, match='torch.int8'):
        model.set_dtype(torch.int8)


@pytest.mark.wrong_shapes
@pytest.mark.parametrize('shape, complaint', [
    ((3, 56, 71), 'sides are multiples of 14 pixels, got 71x56'),
    ((3, 0, 56), 'multiples of 14'),
    ((1, 3, 56, 56), r'RGB image \[3, height, width\]'),
    ((56, 56, 3), r'RGB image \[3, height, width\]'),
])
def test_an_image_that_does_not_fit_is_refused(shape, complaint):
    model = make_model(load_case('tiny_h1'))
    with pytest.raises(ValueError, match=complaint):
        model.first_frame(torch.zeros(shape), make_memory(model, 56, 56))
    with pytest.raises(ValueError, match='uint8'):
        model.first_frame(torch.zeros(3, 56, 56, dtype=torch.uint8), make_memory(model, 56, 56))
