"""What is no checkpoint: refused in one line that says what to do."""

import gzip
import json

from checkpoint_files import pickled, save, zipped
import numpy as np
import pytest
from safetensors.torch import save_file
import torch

from xsvggt_ros.model import checkpoint
from xsvggt_ros.model.checkpoint import load_model


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
