"""A checkpoint of LingBot-Map is recognised, checked and loaded by its keys."""

import json
from pathlib import Path

import lingbot_golden
import pytest
from safetensors.torch import save_file
from tiny_stream import make_model
import torch

from xsvggt_ros.model.checkpoint import CheckpointError, infer_config, load_model, save_checkpoint
from xsvggt_ros.model.kinds import kind_of_weights, LINGBOT_MAP, sized, STREAMVGGT
from xsvggt_ros.model.lingbot.config import LingBotConfig
from xsvggt_ros.model.lingbot.network import LingBotMap

CASE = lingbot_golden.load_case('lb_tiny_h1')
SHAPES = Path(lingbot_golden.FOLDER / 'state_dict.json')
LAYERS = {'dpt_head': {'intermediate_layer_idx': [0, 1, 2, 3]}}


def image():
    return CASE.image(0)


def first_depth(model):
    memory = lingbot_golden.make_memory(model, 56, 56, 1, 4)
    with torch.inference_mode():
        return model.first_frame(image(), memory).depth


@pytest.mark.parametrize('suffix', ('.safetensors', '.pt'))
def test_published_weights_are_recognised_by_their_keys(tmp_path, suffix):
    path = tmp_path / f'lingbot-map{suffix}'
    if suffix == '.pt':
        torch.save({'model': CASE.weights}, path)
    else:
        save_file(CASE.weights, path)
    path.with_suffix('.json').write_text(json.dumps(LAYERS))
    loaded = load_model(str(path))
    assert isinstance(loaded.model, LingBotMap) and isinstance(loaded.config, LingBotConfig)
    assert 'LingBot-Map' in loaded.description and 'no point head' in loaded.description
    assert torch.equal(first_depth(loaded.model), first_depth(make_model('lingbot')))


@pytest.mark.slow
def test_what_is_saved_is_what_was_loaded(tmp_path):
    path = tmp_path / 'mine.safetensors'
    save_checkpoint(make_model('lingbot'), path)
    loaded = load_model(str(path))
    state = loaded.model.state_dict()
    assert all(torch.equal(state[key], weight) for key, weight in CASE.weights.items())
    assert torch.equal(first_depth(loaded.model), first_depth(make_model('lingbot')))


@pytest.mark.parametrize('stored', ('int8',))
def test_weights_in_8_bits_are_close(tmp_path, stored):
    path = tmp_path / 'mine.safetensors'
    save_checkpoint(make_model('lingbot'), path)
    exact, packed = first_depth(make_model('lingbot')), first_depth(
        load_model(str(path), weights=stored).model)
    assert 0 < (exact.log() - packed.log()).abs().mean() < 0.05


@pytest.mark.parametrize('change, words', [
    ({'aggregator.camera_token': None}, 'missing'),
    ({'point_head.norm.weight': torch.zeros(128)}, 'unexpected'),
    ({'aggregator.scale_token': torch.zeros(1, 2, 1, 65)}, 'of another shape'),
    ({'aggregator.scale_token': torch.zeros(1, 2, 1, 64, dtype=torch.int32)}, 'floats')])
def test_other_weights_are_refused_with_the_key_that_is_wrong(tmp_path, change, words):
    weights = {**CASE.weights, **change}
    path = tmp_path / 'lingbot-map.pt'
    torch.save({key: weight for key, weight in weights.items() if weight is not None}, path)
    path.with_suffix('.json').write_text(json.dumps(LAYERS))
    with pytest.raises(CheckpointError, match=words) as error:
        load_model(str(path))
    assert next(iter(change)) in str(error.value)


def test_the_full_size_is_the_published_one():
    published = {key: tuple(shape) for key, shape in json.loads(SHAPES.read_text()).items()}
    with torch.device('meta'):
        model = LingBotMap(sized('lingbot'))
    assert {key: tuple(weight.shape) for key, weight in model.state_dict().items()} == published
    assert sum(weight.numel() for weight in model.state_dict().values()) == 1_157_943_540
    assert kind_of_weights(published) is LINGBOT_MAP
    assert LingBotConfig.from_dict(infer_config(published)) == sized('lingbot')
    without = set(published) - {'aggregator.scale_token'}
    assert kind_of_weights(without) is STREAMVGGT


def test_a_head_of_another_width_is_refused():
    config = CASE.config | {'embed_dim': 64, 'num_heads': 2}
    with pytest.raises(ValueError, match='have 64 channels'):
        LingBotConfig.from_dict(config)
