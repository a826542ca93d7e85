"""LingBot-Map against what its public implementation computed."""

from dataclasses import replace

import golden_data
import lingbot_golden
from lingbot_golden import load_case, make_memory, make_model
import pytest
from safetensors.torch import load_file
import torch

from xsvggt_ros.geometry.se3 import pose_encoding_to_camera
from xsvggt_ros.kv_cache.read_only import ReadOnlyCache
from xsvggt_ros.model.lingbot.network import camera_from_world
from xsvggt_ros.model.lingbot.positions import (
    combined,
    published_order,
    space_table,
    time_table,
)
from xsvggt_ros.model.positions import apply_rope

MODES = [(case, mode) for case in lingbot_golden.CASES
         for mode in lingbot_golden.load_index()['cases'][case]['modes']]
UNITS = load_file(lingbot_golden.FOLDER / 'units.safetensors')


@pytest.mark.parametrize('name', lingbot_golden.CASES)
def test_weights_and_frames_are_the_golden_ones(name):
    case, index = load_case(name), lingbot_golden.load_index()['cases'][name]
    assert golden_data.sha256_of(case.weights) == case.weights_sha256
    digest = lingbot_golden.load_recipe().digest({'frames': case.frames.numpy()})
    assert digest == index['frames_sha256']


@pytest.mark.slow
@pytest.mark.parametrize('folded', (False, True))
@pytest.mark.parametrize('name, mode', MODES)
@torch.inference_mode()
def test_stream_is_the_golden_one(name, mode, folded):
    case = load_case(name)
    spec = case.modes[mode]
    model = make_model(case, time_rope=spec['rope_3d'])
    if folded:
        model.fold_scales()
    model.scale_frames = spec['scale_frames']
    model.camera_head.iterations = spec['camera_iterations']
    memory = make_memory(model, *case.frames.shape[-2:], spec['scale_frames'],
                         spec['sliding_window'])
    first = spec['first_call_frames']
    for frame, prediction, kept in stream(case, model, memory, first, spec['keyframe_interval']):
        compare(case, mode, frame, prediction)
        golden = case.tensors[f'{mode}/kept'][frame, 0]
        assert all(ids.tolist() == golden[golden >= 0].tolist() for ids in kept), frame
        assert len(kept) == model.config.depth
    assert memory.camera.steps == memory.tokens.steps


def stream(case, model, memory, first, interval):
    """Yield frame number, prediction and the tokens that are visible after it, by frame."""
    remembered, tokens = list(range(first)), memory.tokens.layout.tokens_per_step

    def visible():
        frames = torch.tensor(remembered)
        return [frames[ids // tokens] * tokens + ids % tokens
                for ids in memory.tokens.visible_token_ids()]
    images = torch.stack([case.image(frame) for frame in range(first)])
    predictions = model.first_frames(images, memory)
    memory.tokens.end_step()
    for frame, prediction in enumerate(predictions):
        yield frame, prediction, visible()
    for frame in range(first, len(case.frames)):
        is_keyframe = (frame - first) % interval == 0
        caches = memory if is_keyframe else replace(
            memory, tokens=ReadOnlyCache(memory.tokens), camera=ReadOnlyCache(memory.camera))
        prediction = model.step(case.image(frame), caches)
        if is_keyframe:
            memory.tokens.end_step()
            remembered.append(frame)
        yield frame, prediction, visible()


def compare(case, mode, frame, prediction):
    stride = lingbot_golden.load_index()['cases'][case.name]['dense_stride']
    values = {'pose_enc': camera_from_world(prediction.pose_encoding),  # the inverse of it
              'depth': prediction.depth, 'depth_conf': prediction.depth_confidence}
    pose = pose_encoding_to_camera(prediction.pose_encoding, *prediction.depth.shape)
    values['camera_to_world'] = pose[0].inverse()[:3]
    values['intrinsic'] = pose[1]
    for key, value in values.items():
        golden = case.tensors.get(f'{mode}/{key}')
        if golden is not None:
            dense = key.startswith('depth')
            sampled = value[::stride, ::stride] if dense else value
            assert golden_data.excess(sampled, golden[frame]) < 1, (key, frame)
            last = case.tensors.get(f'{mode}/last/{key}')
            if last is not None and frame == len(case.frames) - 1:
                assert golden_data.excess(value, last) < 1, key


@torch.inference_mode()
def test_what_the_network_computes_inside_is_golden():
    case = load_case('lb_tiny_h1')
    model = make_model(case)
    model.scale_frames = 3
    assert golden_data.excess(
        model.aggregator.patch_embed(model.aggregator.frame_tables(56, 56).normalise(
            case.image(0))), case.tensors['dbg/patch_tokens_f0']) < 1
    memory = make_memory(model, 56, 56, 3, 4)
    for frame, _, _ in stream(case, model, memory, 3, 1):
        if frame in (3, 7):
            break
    back = published_order(1, 64, 1).argsort()
    ids = memory.tokens.token_ids[0]
    for frame in (0, 3):
        slots = [int((ids == 22 * frame + token).nonzero()) for token in range(22)]
        own = memory.tokens.store.keys[:, :, slots][..., back].transpose(1, 2)
        assert golden_data.excess(own, case.tensors[f'dbg/k_f{frame}']) < 1


def test_positions_turn_channels_as_published():
    order = published_order(1, 64, 1)
    x, golden = UNITS['rope3d/x'], UNITS['rope3d/y']
    table = combined(space_table(3, 4, 6), time_table(torch.arange(317, 320)))
    ours = apply_rope(x[..., order].double(), table)[..., order.argsort()]
    torch.testing.assert_close(ours.float(), golden, atol=2e-6, rtol=2e-6)


def test_the_inverse_pose_is_the_published_camera():
    encoding = UNITS['pose/pose_enc']
    ours, intrinsics = pose_encoding_to_camera(camera_from_world(encoding), 56, 70)
    assert golden_data.excess(ours.inverse()[:, :3], UNITS['pose/camera_to_world']) < 1
    known = encoding[:, 7:].amin(1) > 0.01
    assert golden_data.excess(intrinsics[known], UNITS['pose/intrinsic'][known]) < 1
    torch.testing.assert_close(camera_from_world(camera_from_world(encoding)), encoding,
                               atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('name', lingbot_golden.CASES)
def test_the_state_dict_is_the_published_one(name):
    case = load_case(name)
    state = make_model(case).state_dict()
    assert state.keys() == case.weights.keys()
    assert all(torch.equal(state[key], case.weights[key]) for key in state)
