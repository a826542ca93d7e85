"""The checkpoint that ships: what it is, and that it still reads rooms it was never shown."""

import json

import pytest
from safetensors import safe_open
import torch

from xsvggt_ros.cli.main import main
from xsvggt_ros.model.checkpoint import load_model, SHIPPED
from xsvggt_ros.model.config import ModelConfig

LIMIT = 25e6   # bytes


def test_it_is_small_and_says_what_it_is():
    path = SHIPPED['small']
    assert path.stat().st_size < LIMIT
    with safe_open(path, 'pt') as file:
        notes = file.metadata()
        kinds = {file.get_tensor(key).dtype for key in file.keys()}
    assert notes['license'] == 'Apache-2.0' and 'synthetic rooms' in notes['training']
    assert ModelConfig.from_dict(json.loads(notes['xsvggt_config'])) == ModelConfig.small()
    assert kinds == {torch.float16}
    card = path.with_name('MODEL_CARD.md').read_text()
    assert 'Apache-2.0' in card and 'synthetic rooms' in card


def test_its_name_is_enough():
    loaded = load_model('small')
    assert not loaded.random_weights and 'small.safetensors' in loaded.description
    assert 'trained in synthetic rooms' in loaded.description
    assert loaded.model.dtype == torch.float32
    assert all(torch.isfinite(weight).all() for weight in loaded.model.parameters())


@pytest.mark.slow
def test_it_reads_rooms_of_the_test_range_and_uses_its_memory(tmp_path, capsys):
    file = tmp_path / 'eval.json'
    assert main(['eval', '--streams', '3', '--frames', '40', '--remove', 'first,history',
                 '--json', str(file)]) == 0
    table = json.loads(file.read_text())
    assert [stream['name'] for stream in table['streams']] == [
        'world 2000000', 'world 2000001', 'world 2000002']
    # The floors of what was asked for, on streams of 40 frames in place of 100.
    assert table['depth_abs_rel'] < 0.15 and table['depth_delta_1_25'] > 0.8
    assert table['ate_ratio'] < 0.5 and table['rotation_deg'] < 12
    assert table['baseline']['ate_ratio'] > 0.99
    assert table['baseline']['depth_abs_rel'] > 2 * table['depth_abs_rel']
    assert table['baseline']['rotation_deg'] > 2 * table['rotation_deg']
    whole, first, history = table['rows'][:3]
    assert first['rotation_deg'] > 1.3 * whole['rotation_deg']
    assert history['ate_ratio'] > 1.3 * whole['ate_ratio']
    assert history['rotation_deg'] > 2 * whole['rotation_deg']
