"""The sizes of the network: reading, checking and what they build."""

from copy import deepcopy
import json

import golden_data
import pytest
import torch

from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.streamvggt import StreamVGGT

FULL_SIZE_PARAMETERS = 1_190_596_120  # of the public checkpoint, without its track head


def meta_shapes(config: ModelConfig) -> dict[str, list[int]]:
    """Return the keys and shapes of a network without allocating it."""
    with torch.device('meta'):
        model = StreamVGGT(config)
    return {key: list(weight.shape) for key, weight in model.state_dict().items()}


def altered(path: str, value: object) -> dict:
    """Return a golden config with the entry at a dotted path replaced."""
    config = deepcopy(golden_data.load_index()['cases']['small_h2']['config'])
    *parents, leaf = path.split('.')
    place = config
    for parent in parents:
        place = place[parent]
    place[leaf] = value
    return config


@pytest.mark.parametrize('case', golden_data.CASES)
def test_golden_configs_are_read_and_survive_json(case):
    source = golden_data.load_index()['cases'][case]['config']
    config = ModelConfig.from_dict(source)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    without_seed = {key: value for key, value in source.items() if key != 'seed'}
    assert config.to_dict() == without_seed
    assert hash(config) == hash(ModelConfig.from_dict(without_seed))


@pytest.mark.parametrize('case', golden_data.CASES)
def test_golden_configs_build_the_golden_keys_and_shapes(case):
    expected = golden_data.load_index()['cases'][case]
    assert meta_shapes(ModelConfig.from_dict(expected['config'])) == expected['state_dict_shapes']


def test_full_size_has_the_public_checkpoints_keys_and_shapes():
    config = ModelConfig.full_size()
    shapes = meta_shapes(config)
    assert shapes == golden_data.load_full_shapes()
    assert len(shapes) == 1403
    with torch.device('meta'):
        model = StreamVGGT(config)
    assert sum(weight.numel() for weight in model.parameters()) == FULL_SIZE_PARAMETERS
    assert not list(model.buffers())


@pytest.mark.parametrize('config', [ModelConfig.full_size(), ModelConfig.small()])
def test_named_sizes_survive_a_round_trip(config):
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize('path', ['colour', 'patch_embed.colour', 'camera_head.colour',
                                  'dpt_head.colour'])
def test_an_unknown_key_is_named(path):
    with pytest.raises(ValueError, match=rf'unknown key {path};'):
        ModelConfig.from_dict(altered(path, 1))


@pytest.mark.parametrize('path', ['depth', 'patch_embed', 'patch_embed.type', 'dpt_head.features'])
def test_a_missing_key_is_named(path):
    config = altered(path, 1)
    *parents, leaf = path.split('.')
    del (config[parents[0]] if parents else config)[leaf]
    with pytest.raises(ValueError, match=f'key {path} is missing'):
        ModelConfig.from_dict(config)


@pytest.mark.parametrize('path, value, complaint', [
    ('depth', 0, 'depth must be a whole number of at least 1, got 0'),
    ('embed_dim', 128.0, 'embed_dim must be a whole number'),
    ('embed_dim', True, 'embed_dim must be a whole number'),
    ('embed_dim', 132, 'multiple of 4'),
    ('mlp_ratio', -1, 'mlp_ratio must be a number above zero, got -1'),
    ('mlp_ratio', '2', "mlp_ratio must be a number above zero, got '2'"),
    ('img_size', 75, 'img_size 75 is not a multiple of patch_size 14'),
    ('patch_embed', 'conv', "patch_embed must be a mapping, got 'conv'"),
    ('patch_embed.type', 'vit', "must be 'dinov2' or 'conv', got 'vit'"),
    ('patch_embed.num_heads', 3, 'patch_embed.num_heads 3'),
    ('camera_head.num_heads', 3, 'camera_head.num_heads 3'),
    ('camera_head.trunk_depth', 0, 'camera_head.trunk_depth'),
    ('dpt_head.features', 12, 'dpt_head.features must be a multiple of 8'),
    ('dpt_head.out_channels', [16, 32, 48], 'must have 4 entries'),
    ('dpt_head.out_channels', [16, 32, 48, 50], 'multiples of 4'),
    ('dpt_head.intermediate_layer_idx', [0, 1, 2, 4], 'depth of 4 does not have'),
    ('dpt_head.intermediate_layer_idx', [0, 1, 2, -1], 'intermediate_layer_idx'),
])
def test_a_bad_value_is_named(path, value, complaint):
    with pytest.raises(ValueError) as raised:
        ModelConfig.from_dict(altered(path, value))
    assert complaint in str(raised.value)
