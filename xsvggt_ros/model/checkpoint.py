"""Checkpoints: reading and writing weights, and finding out which network they belong to."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
import json
import os
from pathlib import Path
import re
from typing import Any

from safetensors.torch import save_file
import torch

from xsvggt_ros.model import public_weights
from xsvggt_ros.model.config import DPT_LEVELS, ModelConfig
from xsvggt_ros.model.error_table import ErrorTable
from xsvggt_ros.model.kinds import kind_of_weights, sized, SIZES
from xsvggt_ros.model.network import StreamNetwork
from xsvggt_ros.model.random_weights import random_weight
from xsvggt_ros.model.weight_files import (
    CheckpointError,
    CONFIG_KEY,
    named_file,
    open_checkpoint,
    parse_json,
    read_json,
    Shapes,
    short,
    Source,
)
from xsvggt_ros.model.weight_loading import size_text, WeightLoading
from xsvggt_ros.model.weight_quantization import check_weights

RANDOM = 'random'
ASSETS = Path(__file__).parents[1] / 'assets'
SHIPPED = {'small': ASSETS / 'small.safetensors'}  # what it is: assets/MODEL_CARD.md
MAX_LISTED = 5  # keys named per kind of mismatch
UNUSED = 'track_head.'  # point tracking is not part of the streaming network
PUBLIC_DEPTH, PUBLIC_LAYERS = 24, [4, 11, 17, 23]  # which of them the dense heads read


@dataclass(frozen=True)
class LoadedModel:
    """A network that is ready to run."""

    model: StreamNetwork
    config: ModelConfig
    description: str  # of the weights, for a person
    random_weights: bool  # nothing that this network says means anything
    depth_errors: ErrorTable | None = None  # what its confidences mean, if that was measured
    weights: str = 'float'  # how they are stored, one of `weight_quantization.STORED`


def load_model(source: str, size: str = 'auto', device: torch.device | str = 'cpu',
               dtype: torch.dtype = torch.float32, weights: str = 'float',
               precision: str | None = None) -> LoadedModel:
    """
    Return the network whose weights are at `source`, on `device`, its aggregator in `dtype`.

    `source` is a .safetensors, .pt or .pth file, the name of one that comes with the package
    (`SHIPPED`) or was fetched (`public_weights`), or 'random' for seeded random weights. `size` is
    one of `SIZES` or 'auto': what the file says it is, and small for random weights. Weights are
    converted one by one, so that no second copy of the network is ever held. `weights`: how they
    are stored, see `precision.choose_weights`; if not as floats, scales are folded before
    (`StreamNetwork.fold_scales`). `precision`: a choice of `precision.choose_precision`, by which
    heads and aggregator are then kept, scales folded, in place of `dtype`. Raises
    CheckpointError, and ValueError for weights that the device cannot have.
    """
    check_weights(weights, device)
    _check_size(size)
    loading = WeightLoading(torch.device(device), dtype, weights, precision)
    if source == RANDOM:
        return _random_model('small' if size == 'auto' else size, loading)
    with open_checkpoint(_file_of(source)) as opened:
        config = _find_config(opened) if size == 'auto' else sized(size)
        model = loading.empty_model(config)
        _check_keys(opened, model)
        described = loading.describe(model)
        loading.fill(model, opened.read, opened.release)
    description = f'{opened.path.name} ({described})'
    if opened.training:
        description += f', trained in {short(opened.training)}'
    return LoadedModel(model, config, description, False, _error_table(opened),
                       loading.stored(config))


def _error_table(source: Source) -> ErrorTable | None:
    """Return what a checkpoint says of its confidences; raise CheckpointError."""
    if source.depth_errors is None:
        return None
    try:
        return ErrorTable.from_json(parse_json(source.depth_errors))
    except ValueError as error:
        raise CheckpointError(f'{source.path}: its table of depth errors cannot be used: '
                              f'{short(error)}') from error


def plan_model(source: str, size: str = 'auto') -> StreamNetwork:
    """
    Return the network whose weights are at `source` without them: it lies on the device 'meta'.

    source, size: as `load_model` takes them. Raises CheckpointError.
    """
    _check_size(size)
    loading = WeightLoading(torch.device('meta'), torch.float32, 'float', None)
    if size == 'auto' and source != RANDOM:
        with open_checkpoint(_file_of(source)) as opened:
            return loading.empty_model(_find_config(opened))
    return loading.empty_model(sized('small' if size == 'auto' else size))


def _check_size(size: str) -> None:
    if size != 'auto' and size not in SIZES:
        raise CheckpointError(f'the model size must be auto, {", ".join(SIZES)}, got {size!r}')


def _file_of(source: str) -> Path:
    """Return the file that a person means; raise CheckpointError if it was not fetched yet."""
    if source in public_weights.ALL and not Path(source).exists():
        path = public_weights.fetched_file(source)
        if not path.is_file():
            raise CheckpointError(public_weights.how_to_fetch(source))
        return path
    return SHIPPED.get(source) or named_file(source)


def save_checkpoint(model: StreamNetwork, path: str | Path,
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


def infer_config(shapes: Shapes) -> dict[str, Any]:
    """
    Return what keys and shapes of weights tell of their network, for `ModelConfig.from_dict`.

    Widths, depths and head sizes follow from the shapes. What leaves no trace in them is taken
    from the public network: heads of 64 channels in DINOv2, as many camera heads as aggregator
    heads, the rotary base 100, and the layers that the dense heads read, which are left out for
    other depths than the public one. The image size follows from the learnt patch positions; with
    a `conv` patch embedding it means nothing.

    Raises KeyError, IndexError, ValueError or ZeroDivisionError for weights of another network.
    """
    conv = 'aggregator.patch_embed.proj.weight' in shapes
    patch = 'aggregator.patch_embed.' if conv else 'aggregator.patch_embed.patch_embed.'
    dim, _, patch_size, _ = shapes[patch + 'proj.weight']
    depth = _count(shapes, r'aggregator\.global_blocks\.(\d+)\.')
    heads = dim // shapes['aggregator.global_blocks.0.attn.q_norm.weight'][0]
    side = 37
    vit: dict[str, Any] = {'type': 'conv'}
    if not conv:
        side = round((shapes['aggregator.patch_embed.pos_embed'][1] - 1) ** 0.5)
        vit = {'type': 'dinov2',
               'depth': _count(shapes, r'aggregator\.patch_embed\.blocks\.(\d+)\.'),
               'num_heads': max(1, dim // 64),
               'mlp_ratio': _mlp_ratio(shapes, 'aggregator.patch_embed.blocks.0'),
               'num_register_tokens': shapes['aggregator.patch_embed.register_tokens'][1]}
    dense = {'features': shapes['depth_head.scratch.layer1_rn.weight'][0],
             'out_channels': [shapes[f'depth_head.projects.{level}.weight'][0]
                              for level in range(DPT_LEVELS)]}
    if depth == PUBLIC_DEPTH:
        dense['intermediate_layer_idx'] = PUBLIC_LAYERS
    return {
        'img_size': side * patch_size, 'patch_size': patch_size,
        'embed_dim': dim, 'depth': depth, 'num_heads': heads,
        'mlp_ratio': _mlp_ratio(shapes, 'aggregator.global_blocks.0'),
        'num_register_tokens': shapes['aggregator.register_token'][2],
        'patch_embed': vit,
        'camera_head': {'trunk_depth': _count(shapes, r'camera_head\.trunk\.(\d+)\.'),
                        'num_heads': heads,
                        'mlp_ratio': _mlp_ratio(shapes, 'camera_head.trunk.0')},
        'dpt_head': dense}


def _count(shapes: Shapes, pattern: str) -> int:
    """Return how many modules of a numbered list have keys; `pattern` catches the number."""
    return len({match[1] for match in map(re.compile(pattern).match, shapes) if match})


def _mlp_ratio(shapes: Shapes, block: str) -> float:
    """Return how much wider the hidden layer of a block is than the block."""
    hidden, dim = shapes[block + '.mlp.fc1.weight']
    return hidden / dim


# Building the network ----------------------------------------------------------------------------

# What weights tell of a config, and what is told there; other numbers leave no trace in weights.
TOLD = ('patch_size', 'embed_dim', 'depth', 'num_heads', 'mlp_ratio', 'num_register_tokens',
        'patch_embed.type', 'patch_embed.depth', 'patch_embed.mlp_ratio',
        'patch_embed.num_register_tokens', 'camera_head.trunk_depth', 'camera_head.mlp_ratio',
        'dpt_head.features', 'dpt_head.out_channels')


def _find_config(source: Source) -> ModelConfig:
    """
    Return which network a checkpoint is for.

    What the weights do not tell is stored with them by `save_checkpoint`, or stands beside them,
    see `_config_beside`. What they tell must be the same there.
    """
    beside = None
    try:
        told, kind = infer_config(source.shapes), kind_of_weights(source.shapes).config
        if source.config is None:
            beside = _config_beside(source.path, told['depth'] != PUBLIC_DEPTH)
            if beside is None and told['depth'] == PUBLIC_DEPTH:
                return kind.from_dict(told)
    except (KeyError, IndexError, ValueError, ZeroDivisionError, TypeError) as error:
        raise _other_network(source) from error
    if source.config is None and beside is None:
        raise _unknown_layers(source.path, told['depth'])
    where = beside or f'the metadata {CONFIG_KEY} of {source.path}'
    try:
        given = read_json(beside) if beside else parse_json(source.config or '')
        config = kind.from_dict(_merged(told, given))
    except (ValueError, OSError, OverflowError) as error:  # JSON errors are ValueErrors
        raise CheckpointError(f'{where} does not describe a network: {short(error)}') from error
    differing = _differing(config.to_dict(), told)
    if differing:
        raise CheckpointError(f'{where} does not belong to the weights of {source.path}: '
                              + ', '.join(differing[:MAX_LISTED]))
    return config


def _config_beside(path: Path, needed: bool) -> Path | None:
    """
    Return the file beside weights that says what they do not tell, None without one.

    NAME.json; or config.json where it is needed or has our entries only, as many programs put a
    file of that name beside weights.
    """
    beside, common = path.with_suffix('.json'), path.with_name('config.json')
    if beside.is_file():
        return beside
    if not common.is_file() or needed:
        return common if common.is_file() else None
    try:
        given = read_json(common)
    except (ValueError, OSError):
        return None
    ours = {field.name for field in fields(ModelConfig)}
    return common if isinstance(given, Mapping) and ours.issuperset(given) else None


def _other_network(source: Source) -> CheckpointError:
    some = ', '.join(short(key, 60) for key in list(source.shapes)[:MAX_LISTED]) or 'none'
    return CheckpointError(
        f'{source.path} is no checkpoint of {public_weights.networks()}: its keys and shapes are '
        f'of another network ({len(source.shapes)} tensors: {some}, ...). '
        f'{public_weights.where_to_get_weights()}')


def _unknown_layers(path: Path, depth: int) -> CheckpointError:
    return CheckpointError(
        f'{path} has a depth of {depth}, and which {DPT_LEVELS} of these layers the dense heads '
        'read cannot be told from weights (other layers give other depths, without an error). '
        f'Write {path.with_suffix(".json")}, or config.json beside it, with '
        '{"dpt_head": {"intermediate_layer_idx": [A, B, C, D]}}, counted from 0, as the network '
        'was trained; other entries of its config may stand there too')


def _merged(told: Mapping[str, Any], given: Any) -> Any:
    """Return a config that says what is given, and otherwise what weights tell."""
    if not isinstance(given, Mapping):
        return given  # which is an error that `ModelConfig` explains
    parts = {key: _merged(told[key], value)
             if isinstance(told.get(key), Mapping) else value for key, value in given.items()}
    return {**told, **parts}


def _differing(config: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    """Return in words where a config contradicts what weights tell."""
    words = []
    for name in TOLD:
        group, _, own = name.rpartition('.')
        ours, theirs = ((entry[group] if group else entry).get(own) for entry in (config, told))
        same = abs(ours - theirs) < 1e-3 if own == 'mlp_ratio' and ours and theirs \
            else ours == theirs
        if not same:
            words.append(f'{name} is {short(ours, 40)} there and {short(theirs, 40)} in the file')
    return words


def _check_keys(source: Source, model: StreamNetwork) -> None:
    """Raise CheckpointError unless the file has exactly the network's keys and shapes."""
    expected = {key: tuple(weight.shape) for key, weight in model.state_dict().items()}
    found = {key: shape for key, shape in source.shapes.items() if not key.startswith(UNUSED)}
    odd = [f'{key} is {source.odd[key]}' for key in expected if key in source.odd]
    if odd:
        raise CheckpointError(
            f'{source.path}: weights must be floats of 16, 32 or 64 bits, and '
            f'{_listed("are not", odd)}; convert them, or take the checkpoint they were made from')
    differing = [f'{key} is {list(found[key])}, should be {list(shape)}'
                 for key, shape in expected.items() if found.get(key, shape) != shape]
    problems = [_listed('missing', [key for key in expected if key not in found]),
                _listed('unexpected', [key for key in found if key not in expected]),
                _listed('of another shape', differing)]
    if any(problems):
        raise CheckpointError('\n  '.join(
            [f'{source.path} does not fit the network ({size_text(model, model.dtype)}):',
             *filter(None, problems),
             'name the checkpoint of this network, or the size that belongs to it; a config that '
             f'cannot be told from the weights goes into {source.path.with_suffix(".json")}']))


def _listed(kind: str, entries: list[str]) -> str:
    """Return one line that counts entries and names the first few."""
    if not entries:
        return ''
    more = ', ...' if len(entries) > MAX_LISTED else ''
    return f'{len(entries)} {kind}: {", ".join(short(e, 120) for e in entries[:MAX_LISTED])}{more}'


def _random_model(size: str, loading: WeightLoading) -> LoadedModel:
    """Return a network of seeded random weights."""
    config = sized(size)
    model = loading.empty_model(config)
    shapes = {key: tuple(weight.shape) for key, weight in model.state_dict().items()}
    described = loading.describe(model)
    loading.fill(model, lambda key: random_weight(key, shapes[key], 0))
    return LoadedModel(model, config, f'RANDOM WEIGHTS, results mean nothing '
                       f'({size}: {described})', True, weights=loading.stored(config))
