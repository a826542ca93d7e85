"""What reading a checkpoint leaves in memory, and what a network that is to run is made of."""

import sys

import golden_data
import pytest
from safetensors.torch import save_file
import torch

from xsvggt_ros.model import checkpoint, weight_files
from xsvggt_ros.model.checkpoint import load_model
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.streamvggt import StreamVGGT

CASE = golden_data.load_case('tiny_h1')
COUNT, SIZE = 16, 1 << 20   # tensors of 4 MiB


def file_pages():
    """Return the bytes of files that are mapped into the process and in memory."""
    with open('/proc/self/status', encoding='ascii') as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith('RssFile'))


@pytest.mark.skipif(sys.platform != 'linux', reason='memory is told by /proc')
@pytest.mark.parametrize('name', ['weights.safetensors', 'weights.pt'])
def test_what_was_read_does_not_stay_in_memory(tmp_path, name):
    weights = {f'w{i}': torch.full((SIZE,), float(i)) for i in range(COUNT)}
    path = tmp_path / name
    (save_file if name.endswith('safetensors') else torch.save)(weights, path)
    with weight_files.open_checkpoint(path) as source:
        before = file_pages()
        grown = []
        for key in weights:
            weight = source.read(key)
            assert torch.equal(weight, weights[key])
            source.release(weight)
            grown.append(file_pages() - before)
    assert max(grown) < 4 * COUNT * SIZE / 3


def test_released_weights_can_be_read_again(tmp_path):
    shared = torch.arange(float(SIZE))
    torch.save({'a': shared, 'b': shared, 'c': shared[:SIZE // 2]}, tmp_path / 'tied.pt')
    with weight_files.open_checkpoint(tmp_path / 'tied.pt') as source:
        for key in ('a', 'b', 'c'):
            weight = source.read(key)
            assert torch.equal(weight, shared[:len(weight)])
            source.release(weight)


@pytest.mark.slow
@pytest.mark.parametrize('weights', ['float', 'int8'])
@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_a_network_that_is_to_run_is_as_if_converted_at_the_end(tmp_path, weights, precision):
    model = StreamVGGT(ModelConfig.from_dict(CASE.config))
    model.load_state_dict(CASE.weights, strict=True)
    checkpoint.save_checkpoint(model, tmp_path / 'tiny.safetensors')
    loaded = load_model(str(tmp_path / 'tiny.safetensors'), weights=weights, precision=precision)
    other = load_model(str(tmp_path / 'tiny.safetensors'), weights=weights).model.fold_scales()
    dtype = {'fp32': torch.float32, 'bf16': torch.bfloat16}[precision]
    other.set_dtype(dtype, dtype)
    assert loaded.description.endswith(f'{dtype}'.removeprefix('torch.') + (
        ', weights int8' if weights == 'int8' else '') + ')')
    expected = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    found = {**dict(loaded.model.named_parameters()), **dict(loaded.model.named_buffers())}
    assert set(found) == set(expected)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)
