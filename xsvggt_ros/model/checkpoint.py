"""Checkpoints: reading and writing weights, and finding out which network they belong to."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
import json
import os
from pathlib import Path
import pickle
import re
from typing import Any

from safetensors import safe_open, SafetensorError
from safetensors.torch import save_file
import torch
from torch import nn, Tensor

from xsvggt_ros.model.config import DPT_LEVELS, ModelConfig
from xsvggt_ros.model.layers import Block
from xsvggt_ros.model.random_weights import random_weight
from xsvggt_ros.model.streamvggt import StreamVGGT
from xsvggt_ros.model.weight_quantization import check_weights, quantise_weights

RANDOM = 'random'
ASSETS = Path(__file__).parents[1] / 'assets'
SHIPPED = {'small': ASSETS / 'small.safetensors'}  # what it is: assets/MODEL_CARD.md
SIZES = {'small': ModelConfig.small, 'full': ModelConfig.full_size}
CONFIG_KEY = 'xsvggt_config'  # metadata entry of a .safetensors file
TRAINING_KEY = 'training'  # another one: in which scenes the weights were trained
LISTED = 5  # keys named per kind of mismatch
UNUSED = 'track_head.'  # point tracking is not part of the streaming network
WRAPPERS = ('model', 'state_dict', 'model_state_dict')  # of training scripts
PREFIX = 'module.'  # left by data-parallel training
PUBLIC_WEIGHTS = (
    "The public StreamVGGT weights are 'checkpoints.pth' (5.0 GB) in the Hugging Face model "
    'repository lch01/StreamVGGT. The code repository of StreamVGGT is under CC BY-NC-SA 4.0, '
    'because the work builds on non-commercial VGGT weights; so take its weights as '
    'non-commercial too, and read the terms there before use. '
    "'small' is the checkpoint that comes with this package.")

Shapes = Mapping[str, tuple[int, ...]]


class CheckpointError(Exception):
    """Weights that cannot be had; the message is for the person who named them."""


@dataclass(frozen=True)
class LoadedModel:
    """A network that is ready to run."""

    model: StreamVGGT
    config: ModelConfig
    description: str  # of the weights, for a person
    random_weights: bool  # nothing that this network says means anything


@dataclass(frozen=True)
class _Source:
    """An open checkpoint; tensors are read when asked for."""

    path: Path
    shapes: Shapes
    read: Callable[[str], Tensor]
    config: str | None = None  # JSON that was stored with the weights
    training: str | None = None  # what the weights say of where they come from


def load_model(source: str, size: str = 'auto', device: torch.device | str = 'cpu',
               dtype: torch.dtype = torch.float32, weights: str = 'float') -> LoadedModel:
    """
    Return the network whose weights are at `source`, on `device`, its aggregator in `dtype`.

    `source` is a .safetensors, .pt or .pth file, the name of one that comes with the package
    (`SHIPPED`), or 'random' for seeded random weights. `size` is
    'small', 'full' or 'auto': what the file says it is, and small for random weights. Weights are
    converted one by one, so that no second copy of the network is ever held. `weights`: how they
    are stored, one of `weight_quantization.WEIGHTS`; if not as floats, scales are folded before
    (`StreamVGGT.fold_scales`). Raises CheckpointError, and ValueError for weights that the device
    cannot have.
    """
    check_weights(weights, device)
    if size != 'auto' and size not in SIZES:
        raise CheckpointError(f'the model size must be auto, {" or ".join(SIZES)}, got {size!r}')
    if source == RANDOM:
        return _random_model('small' if size == 'auto' else size, device, dtype, weights)
    with _open_checkpoint(SHIPPED.get(source, Path(source).expanduser())) as opened:
        config = _find_config(opened) if size == 'auto' else SIZES[size]()
        model = _empty_model(config, dtype)
        _check_keys(opened, model)
        size_text = _size_text(config, model, weights)
        _fill(model, opened.read, device, weights)
    description = f'{opened.path.name} ({size_text})'
    if opened.training:
        description += f', trained in {opened.training}'
    return LoadedModel(model, config, description, False)


def save_checkpoint(model: StreamVGGT, path: str | Path,
                    notes: Mapping[str, str] | None = None) -> None:
    """
    Write the weights to a .safetensors file that also says which network they are.

    `notes` join the file's metadata. The file appears under its name only when it is complete.
    """
    path = Path(path)
    unfinished = path.with_name(path.name + '.part')
    weights = {key: weight.contiguous() for key, weight in model.state_dict().items()}
    try:
        save_file(weights, unfinished, metadata={
            **(notes or {}), CONFIG_KEY: json.dumps(model.config.to_dict())})
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def infer_config(shapes: Shapes) -> ModelConfig:
    """
    Return the network that weights of these keys and shapes belong to.

    Widths, depths and head sizes follow from the shapes. What leaves no trace in them is taken
    from the public network: heads of 64 channels in DINOv2, as many camera heads as aggregator
    heads, the rotary base 100, and the dense heads' layers (see `_dense_layers`). The image size
    follows from the learnt patch positions; with a `conv` patch embedding it means nothing.

    Raises KeyError, IndexError, ValueError or ZeroDivisionError for weights of another network.
    """
    conv = 'aggregator.patch_embed.proj.weight' in shapes
    patch = 'aggregator.patch_embed.' if conv else 'aggregator.patch_embed.patch_embed.'
    dim, _, patch_size, _ = shapes[patch + 'proj.weight']
    depth = _count(shapes, r'aggregator\.global_blocks\.(\d+)\.')
    heads = dim // shapes['aggregator.global_blocks.0.attn.q_norm.weight'][0]
    side, vit = 37, {'type': 'conv'}
    if not conv:
        side = round((shapes['aggregator.patch_embed.pos_embed'][1] - 1) ** 0.5)
        vit = {'type': 'dinov2',
               'depth': _count(shapes, r'aggregator\.patch_embed\.blocks\.(\d+)\.'),
               'num_heads': dim // 64,
               'mlp_ratio': _mlp_ratio(shapes, 'aggregator.patch_embed.blocks.0'),
               'num_register_tokens': shapes['aggregator.patch_embed.register_tokens'][1]}
    return ModelConfig.from_dict({
        'img_size': side * patch_size, 'patch_size': patch_size,
        'embed_dim': dim, 'depth': depth, 'num_heads': heads,
        'mlp_ratio': _mlp_ratio(shapes, 'aggregator.global_blocks.0'),
        'num_register_tokens': shapes['aggregator.register_token'][2],
        'patch_embed': vit,
        'camera_head': {'trunk_depth': _count(shapes, r'camera_head\.trunk\.(\d+)\.'),
                        'num_heads': heads,
                        'mlp_ratio': _mlp_ratio(shapes, 'camera_head.trunk.0')},
        'dpt_head': {'features': shapes['depth_head.scratch.layer1_rn.weight'][0],
                     'out_channels': [shapes[f'depth_head.projects.{level}.weight'][0]
                                      for level in range(DPT_LEVELS)],
                     'intermediate_layer_idx': _dense_layers(depth)}})


def _dense_layers(depth: int) -> list[int]:
    """
    Return the layers that the dense heads read in a network of this depth.

    [4, 11, 17, 23] for the public depth of 24, otherwise evenly spread with the last layer as the
    last: [1, 3, 5, 7] for 8, [0, 1, 2, 3] for 4.
    """
    if depth == 24:
        return [4, 11, 17, 23]
    return [max(0, level * depth // DPT_LEVELS - 1) for level in range(1, DPT_LEVELS + 1)]


def _count(shapes: Shapes, pattern: str) -> int:
    """Return how many modules of a numbered list have keys; `pattern` catches the number."""
    return len({match[1] for match in map(re.compile(pattern).match, shapes) if match})


def _mlp_ratio(shapes: Shapes, block: str) -> float:
    """Return how much wider the hidden layer of a block is than the block."""
    hidden, dim = shapes[block + '.mlp.fc1.weight']
    return hidden / dim


# Opening files -----------------------------------------------------------------------------------

@contextmanager
def _open_checkpoint(path: Path) -> Iterator[_Source]:
    """Open a checkpoint of either format; raise CheckpointError if that cannot be done."""
    if path == Path():
        raise CheckpointError(f'no checkpoint was named. {PUBLIC_WEIGHTS}')
    if not path.exists():
        raise CheckpointError(f'there is no checkpoint {path}. {PUBLIC_WEIGHTS}')
    if not path.is_file():
        raise CheckpointError(f'{path} is not a file; name the checkpoint file itself '
                              '(.safetensors, .pt or .pth)')
    if path.suffix == '.safetensors':
        with _open_safetensors(path) as source:
            yield source
    elif path.suffix in ('.pt', '.pth'):
        yield _open_pickled(path)
    else:
        raise CheckpointError(f"{path}: a checkpoint's name must end in .safetensors, .pt or .pth")


@contextmanager
def _open_safetensors(path: Path) -> Iterator[_Source]:
    """Open a .safetensors file."""
    try:
        opened = safe_open(path, framework='pt')
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, str(error)) from error
    with opened:
        shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}
        notes = opened.metadata() or {}
        yield _Source(path, shapes, opened.get_tensor, notes.get(CONFIG_KEY),
                      notes.get(TRAINING_KEY))


def _open_pickled(path: Path) -> _Source:
    """Open a .pt or .pth file; only tensors are taken from it, no code is run."""
    try:
        content = _load_pickled(path)
    except pickle.UnpicklingError as error:
        # Its text explains how to run code from the file, which is no advice to pass on.
        raise _unreadable(path, 'it holds other things than tensors, or is none') from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _unreadable(path, str(error)) from error
    weights = _unwrap(content)
    shapes = {key: tuple(weight.shape) for key, weight in weights.items()}
    return _Source(path, shapes, weights.pop)  # pop: what was read needs no memory any more


def _load_pickled(path: Path) -> Any:
    """Return what a .pt or .pth file holds, its tensors mapped into memory if possible."""
    with path.open('rb') as file:
        mappable = file.read(2) == b'PK'  # files older than torch 1.6 are no zip archives
    return torch.load(path, map_location='cpu', mmap=mappable, weights_only=True)


def _unwrap(content: Any) -> dict[str, Tensor]:
    """Return the weights inside what training scripts wrap around them."""
    while isinstance(content, Mapping):
        inner = [content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, Mapping):
        return {}
    weights = {key: weight for key, weight in content.items() if isinstance(weight, Tensor)}
    if weights and all(key.startswith(PREFIX) for key in weights):
        weights = {key[len(PREFIX):]: weight for key, weight in weights.items()}
    return weights


def _unreadable(path: Path, reason: str) -> CheckpointError:
    """Return the error for a file that is no checkpoint, or only a part of one."""
    reason = reason.strip().split('\n')[0][:200] or 'it ends too early'
    return CheckpointError(
        f'{path} ({path.stat().st_size} bytes) cannot be read as a checkpoint: {reason}. The file '
        'is damaged, incomplete or something else; download or copy it again and compare its size')


# Building the network ----------------------------------------------------------------------------

def _find_config(source: _Source) -> ModelConfig:
    """
    Return which network a checkpoint is for.

    Stored with the weights by `save_checkpoint`, or in NAME.json beside NAME.pth, or inferred.
    """
    beside = source.path.with_suffix('.json')
    if source.config is None and not beside.is_file():
        try:
            return infer_config(source.shapes)
        except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
            some = ', '.join(list(source.shapes)[:LISTED]) or 'none'
            raise CheckpointError(
                f'{source.path} is not a StreamVGGT checkpoint: its keys and shapes are of '
                f'another network ({len(source.shapes)} tensors: {some}, ...). {PUBLIC_WEIGHTS}'
            ) from error
    where = f'{beside}' if source.config is None else f'metadata {CONFIG_KEY} of {source.path}'
    try:
        return ModelConfig.from_dict(json.loads(source.config or beside.read_text()))
    except (ValueError, OSError) as error:  # JSON errors are ValueErrors
        raise CheckpointError(f'{where} does not describe a network: {error}') from error


def _empty_model(config: ModelConfig, dtype: torch.dtype) -> StreamVGGT:
    """Return a network without memory, whose parameters already have their final precision."""
    with torch.device('meta'):
        model = StreamVGGT(config)
    return model.set_dtype(dtype).eval()


def _fill(model: StreamVGGT, read: Callable[[str], Tensor], device: torch.device | str,
          stored: str) -> None:
    """Give a network without memory its weights, one at a time, and store them as was chosen."""
    blocks = {name: part for name, part in model.named_modules() if isinstance(part, Block)}
    inside = tuple(f'{name}.' for name in blocks)

    def load(part: nn.Module, prefix: str, keys: list[str]) -> None:
        weights: dict[str, Tensor] = {}
        for key in keys:
            # A copy even if nothing is to convert: the tensor read may be a window into the file.
            empty = part.get_parameter(key)
            weights[key] = torch.empty_like(empty, device=device).copy_(read(prefix + key))
        part.load_state_dict(weights, strict=bool(prefix), assign=True)

    load(model, '', [key for key in model.state_dict() if not key.startswith(inside)])
    # Block by block, so that no more than one is held as floats that are to go.
    for name, block in blocks.items():
        load(block, f'{name}.', list(block.state_dict()))
        if stored != 'float':
            block.fold()
            quantise_weights(model, stored, name)
    quantise_weights(model, stored)


def _check_keys(source: _Source, model: StreamVGGT) -> None:
    """Raise CheckpointError unless the file has exactly the network's keys and shapes."""
    expected = {key: tuple(weight.shape) for key, weight in model.state_dict().items()}
    found = {key: shape for key, shape in source.shapes.items() if not key.startswith(UNUSED)}
    differing = [f'{key} is {list(found[key])}, should be {list(shape)}'
                 for key, shape in expected.items() if found.get(key, shape) != shape]
    problems = [_listed('missing', [key for key in expected if key not in found]),
                _listed('unexpected', [key for key in found if key not in expected]),
                _listed('of another shape', differing)]
    if any(problems):
        raise CheckpointError('\n  '.join(
            [f'{source.path} does not fit the network ({_size_text(model.config, model)}):',
             *filter(None, problems),
             'name the checkpoint of this network, or the size that belongs to it; a config that '
             f'cannot be told from the weights goes into {source.path.with_suffix(".json")}']))


def _listed(kind: str, entries: list[str]) -> str:
    """Return one line that counts entries and names the first few."""
    if not entries:
        return ''
    more = ', ...' if len(entries) > LISTED else ''
    return f'{len(entries)} {kind}: {", ".join(entries[:LISTED])}{more}'


def _random_model(size: str, device: torch.device | str, dtype: torch.dtype,
                  weights: str = 'float', seed: int = 0) -> LoadedModel:
    """Return a network of seeded random weights."""
    config = SIZES[size]()
    model = _empty_model(config, dtype)
    shapes = {key: tuple(weight.shape) for key, weight in model.state_dict().items()}
    size_text = _size_text(config, model, weights)
    _fill(model, lambda key: random_weight(key, shapes[key], seed), device, weights)
    return LoadedModel(model, config, f'RANDOM WEIGHTS, results mean nothing '
                       f'({size}: {size_text})', True)


def _size_text(config: ModelConfig, model: StreamVGGT, weights: str = 'float') -> str:
    """Return the size of a network for a person."""
    millions = sum(weight.numel() for weight in model.parameters()) / 1e6
    precision = str(model.dtype).removeprefix('torch.')
    return (f'embed_dim {config.embed_dim}, depth {config.depth}, {millions:.1f} M parameters, '
            f'{precision}' + (f', weights {weights}' if weights != 'float' else ''))
