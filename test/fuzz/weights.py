"""Targets: checkpoint files, of which the beginning, the header and the config are damaged."""

import contextlib
import copy
import functools
import io
import json
import random
import struct
import zlib

import torch

from fuzz.source import Source
from fuzz.target import file_with, MEGABYTE, scratch, Target
from xsvggt_ros.model import checkpoint
from xsvggt_ros.model.checkpoint import CheckpointError, CONFIG_KEY, load_model
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.streamvggt import StreamVGGT

CONFIG = {'img_size': 14, 'patch_size': 14, 'embed_dim': 8, 'depth': 1, 'num_heads': 1,
          'mlp_ratio': 1.0, 'num_register_tokens': 1, 'rope_freq': 100.0,
          'patch_embed': {'type': 'conv'},
          'camera_head': {'trunk_depth': 1, 'num_heads': 1, 'mlp_ratio': 1.0},
          'dpt_head': {'features': 8, 'out_channels': [4, 4, 4, 4],
                       'intermediate_layer_idx': [0, 0, 0, 0]}}
VALUES = (0, 1, 2, 3, 4, 7, 8, 14, 16, 24, 100_000, 10 ** 9, 10 ** 30, -1, 0.5, 1.0, 1e308,
          float('nan'), float('inf'), True, None, '', 'conv', 'dinov2', '8', [], {}, [1, 2, 3, 4],
          [8, 8, 8, 8], [0, 0, 0, 10 ** 9], {'type': 'dinov2', 'depth': 100_000})
SELDOM = 512
DTYPES = ('F32', 'F16', 'BF16', 'F64', 'I8', 'U8', 'BOOL', 'I64', 'C64', 'F8_E4M3', 'Q4')


def weights() -> dict[str, torch.Tensor]:
    """Return the weights of the smallest network that CONFIG can describe."""
    with torch.device('meta'):
        model = StreamVGGT(ModelConfig.from_dict(CONFIG))
    return {key: torch.zeros(weight.shape, dtype=torch.float16)
            for key, weight in model.state_dict().items()}


def safetensors_file(header: object, body: bytes = b'') -> bytes:
    """Return a .safetensors file with this header."""
    text = header if isinstance(header, bytes) else header_text(header).encode()
    return struct.pack('<Q', len(text)) + text + body


@functools.cache
def entries() -> tuple[dict, int]:
    """Return what the header of a file says of all weights, and the bytes that follow it."""
    found, end = {}, 0
    for key, weight in weights().items():
        size = 2 * weight.numel()
        found[key] = {'dtype': 'F16', 'shape': list(weight.shape),
                      'data_offsets': [end, end + size]}
        end += size
    return found, end


@functools.cache
def entry_texts() -> dict[str, str]:
    """Return `entries` as JSON, which most inputs leave as they are."""
    return {key: f'{json.dumps(key)}:{json.dumps(entry)}' for key, entry in entries()[0].items()}


def header_text(header: dict) -> str:
    """Return a header as JSON."""
    plain, texts = entries()[0], entry_texts()
    return '{' + ','.join(
        texts[key] if entry is plain.get(key) else f'{json.dumps(key)}:{json.dumps(entry)}'
        for key, entry in header.items()) + '}'


def header_of(config: object) -> tuple[dict, int]:
    """Return the header of a file with all weights, and the bytes that follow it."""
    found, end = entries()
    return {'__metadata__': {CONFIG_KEY: json.dumps(config)}, **found}, end


def damage(header: dict, key: str) -> dict:
    """Return a tensor's entry of a header that may be changed."""
    header[key] = {**header[key]}
    return header[key]


def check_load(name: str, data: bytes) -> bool:
    """
    Open a file and find out its network; only CheckpointError may come out of it.

    One in SELDOM is loaded to the end, which takes a hundred times as long.
    """
    path = file_with(name, data)
    with contextlib.suppress(CheckpointError):
        with checkpoint.open_checkpoint(path) as opened:
            checkpoint._find_config(opened)
        if zlib.crc32(data) % SELDOM == 0:
            loaded = load_model(str(path))
            assert loaded.description and not loaded.random_weights
            assert not any(weight.is_meta for weight in loaded.model.parameters())
        return True
    return False


def read_safetensors(data: bytes) -> bool:
    """Load a file that begins with these bytes."""
    return check_load('a.safetensors', data)


def read_header(data: bytes) -> bool:
    """Load a file that begins with the length of these bytes, which are its header."""
    return check_load('a.safetensors', safetensors_file(data, bytes(64)))


def read_config(data: bytes) -> bool:
    """Load a file that is right but for some values of its config and of its tensors."""
    source = Source(data)
    config = json.loads(json.dumps(CONFIG))
    for _ in range(source.byte() % 4):
        place = config if source.flag(2) else source.one_of(
            tuple(part for part in config.values() if isinstance(part, dict)) or (config,))
        key = source.one_of((*place, 'seed', 'unknown', 'depth', 'mlp_ratio'))
        place[key] = copy.deepcopy(source.one_of(VALUES))
    header, size = header_of(config)
    if source.flag(8):
        header['__metadata__'][CONFIG_KEY] = source.take(40).decode('latin-1')
    if source.flag(16):
        header['__metadata__']['training'] = 'x' * source.whole(0, 100_000)
    for _ in range(source.byte() % 4):
        key = source.one_of(tuple(header)[1:])
        entry = damage(header, key)
        kind = source.byte() % 5
        if kind == 0:
            entry['dtype'] = source.one_of(DTYPES)
        elif kind == 1:
            entry['shape'] = [source.whole(0, 9) for _ in range(source.byte() % 5)]
        elif kind == 2:
            entry['data_offsets'] = [source.whole(0, 2 ** 40), source.whole(0, 2 ** 40)]
        elif kind == 3:
            del header[key]
            header[source.words(12)] = entry
        else:
            entry['dtype'], entry['shape'] = 'F32', [max(0, size // 4)]
    return check_load('b.safetensors', safetensors_file(header, bytes(size)))


def read_inferred(data: bytes) -> bool:
    """Load a file whose keys and shapes are damaged, with a config of its layers alone."""
    layers = scratch() / 'c.json'
    if not layers.is_file():
        layers.write_text('{"dpt_head": {"intermediate_layer_idx": [0, 0, 0, 0]}}')
    source = Source(data)
    header, size = header_of(CONFIG)
    del header['__metadata__']
    for _ in range(source.byte() % 4):
        key = source.one_of(tuple(header))
        entry = header.pop(key)
        shape = list(entry['shape'])
        if shape and source.flag(2):
            shape[source.byte() % len(shape)] = source.one_of((0, 1, 2, 3, 8, 14, 1 << 20))
        else:
            key = source.one_of(('aggregator.patch_embed.patch_embed.proj.weight',
                                 f'aggregator.global_blocks.{10 ** 9}.norm1.weight',
                                 'aggregator.patch_embed.pos_embed', source.words(20), key))
        bytes_ = 2
        for side in shape:
            bytes_ *= side
        if bytes_ <= 2 ** 22:
            header[key] = {'dtype': 'F16', 'shape': shape, 'data_offsets': [size, size + bytes_]}
            size += bytes_
    end = 0
    for key, entry in header.items():
        start, stop = entry['data_offsets']
        if start != end:
            damage(header, key)['data_offsets'] = [end, end + stop - start]
        end += stop - start
    return check_load('c.safetensors', safetensors_file(header, bytes(end)))


def read_pickled(data: bytes) -> bool:
    """Load a .pth file with this content."""
    return check_load('a.pth', data)


def small_pickles() -> list[bytes]:
    """Return archives of the forms that training scripts write, of few tensors."""
    tensors = {'a.weight': torch.zeros(2, 3), 'module.b': torch.zeros(1)}
    seeds = []
    for content in (tensors, {'model': tensors, 'epoch': 3}, {'state_dict': {}}, [1, 2], 'text',
                    {'model': {'state_dict': {'x': torch.zeros(2, dtype=torch.int8)}}},
                    {1: torch.zeros(1)}):
        for settings in ({}, {'_use_new_zipfile_serialization': False}):
            stream = io.BytesIO()
            torch.save(content, stream, **settings)
            seeds.append(stream.getvalue())
    return seeds


def choice_seeds() -> list[bytes]:
    """Return what nothing, or one or two things, are damaged by."""
    return [bytes(40), *(bytes([index % 3]) + random.Random(index).randbytes(39)
                         for index in range(24))]


def safetensors_seeds() -> list[bytes]:
    """Return files of few tensors; those of a whole network are made by `read_config`."""
    one = {'a': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}}
    return [safetensors_file(one, bytes(8)),
            safetensors_file({'__metadata__': {CONFIG_KEY: json.dumps(CONFIG)}, **one}, bytes(8))]


def header_seeds() -> list[bytes]:
    """Return headers of few tensors."""
    return [seed[8:-8] for seed in safetensors_seeds()]


SAFETENSORS_TOKENS = (b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b'"F32"',
                      b'"BF16"', b'"I8"', b'[0,0]', b'[0,8]', b'[]', b'{}', CONFIG_KEY.encode(),
                      b'18446744073709551615', b'\\u0000', b'\\ud800', b'[[[[[[[[', b'"a":{')
PICKLE_TOKENS = (b'PK\x03\x04', b'PK\x05\x06', b'PK\x01\x02', b'\x80\x02', b'ctorch\n', b'q\x00',
                 b'ctorch._utils\n_rebuild_tensor_v2\n', b'ccollections\nOrderedDict\n', b'X',
                 b'cos\nsystem\n', b'Q', b'R', b'(', b't', b'.', b'0', b'}', b']', b'\x8a',
                 b'storage', b'FloatStorage', b'cpu', b'data.pkl', b'version', b'byteorder')

TARGETS = (
    Target('safetensors_file', read_safetensors, safetensors_seeds, SAFETENSORS_TOKENS,
           512 * MEGABYTE),
    Target('safetensors_header', read_header, header_seeds, SAFETENSORS_TOKENS, 512 * MEGABYTE),
    Target('checkpoint_config', read_config, choice_seeds, (), 512 * MEGABYTE),
    Target('checkpoint_keys', read_inferred, choice_seeds, (), 512 * MEGABYTE),
    Target('checkpoint_pickled', read_pickled, small_pickles, PICKLE_TOKENS, 512 * MEGABYTE),
)
