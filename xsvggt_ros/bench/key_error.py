"""How exact packed keys and values are, on a network's own, as long as the stream runs."""

import argparse
from dataclasses import dataclass
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xsvggt_ros.console.arguments import network_image_size
from xsvggt_ros.console.environment import package_version
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.measurement import (
    check_image_size,
    check_writable,
    choose_device,
    load_network,
    write_json,
)
from xsvggt_ros.console.progress import ProgressBar
from xsvggt_ros.console.tables import markdown_table, text_table
from xsvggt_ros.engine.factory import build_engine, EngineOptions
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.kv_cache.cache import KVCache
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.kv_cache.packed_store import PackedStore
from xsvggt_ros.recordings.frame_source import DEFAULT_SIZE, WORLD_RATE
from xsvggt_ros.world.synthetic_world import SyntheticWorld

COLUMNS = ('frame', 'keys', 'worst layer', 'values', 'worst layer', 'bits a value')


@dataclass(frozen=True)
class FrameError:
    """Relative RMS errors of everything that is remembered after a frame."""

    keys: list[float]  # of each layer
    values: list[float]
    bits: float  # that a remembered key or value takes, side data included


class CacheProbe:
    """Remembers a cache's keys and values as they came, to compare them with its own."""

    def __init__(self, cache: KVCache) -> None:
        """Listen to a packed cache, this one and no other, from its first step on."""
        if not isinstance(cache.store, PackedStore):
            raise ToolError('--quantization none: floats are stored as they are')
        self._cache, self._store = cache, cache.store
        self._attend = cache.attend
        # Of each step that has a token left, by layer: keys and values [2, heads, tokens, dim].
        self._given: dict[int, list[Tensor]] = {}
        setattr(cache, 'attend', self._listen)  # noqa: B010 (a method for another)

    def _listen(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = self._attend(layer, query, key, value)
        if layer == 0:
            self._given[self._cache.steps] = []
        self._given[self._cache.steps].append(torch.stack([key, value]).float())
        return out

    @torch.inference_mode()
    def errors(self) -> FrameError:
        """Return how far off all remembered tokens are, after a step has ended."""
        cache = self._cache
        step = cache.layout.tokens_per_step
        kinds: tuple[list[float], list[float]] = [], []
        needed = set()
        for layer, ids in enumerate(cache.token_ids):
            used = int((ids >= 0).nonzero().max()) + 1
            slots = (ids[:used] >= 0).nonzero()[:, 0]
            steps, index = ids[slots] // step, ids[slots] % step
            needed |= set(steps.tolist())
            given = torch.empty(2, cache.layout.heads, len(slots), cache.layout.head_dim)
            for number in steps.unique().tolist():
                own = steps == number
                given[:, :, own] = self._given[number][layer][:, :, index[own]].cpu()
            off, size = torch.zeros(2), given.square().sum((1, 2, 3))
            for heads, *decoded in self._store.decoded(layer, used):
                for kind, part in enumerate(decoded):
                    off[kind] += (part[:, slots].cpu() - given[kind, heads]).square().sum()
            for kind, error in enumerate((off / size).sqrt().tolist()):
                kinds[kind].append(error)
        self._given = {number: given for number, given in self._given.items() if number in needed}
        numbers = 2 * cache.layout.layers * cache.layout.heads * cache.layout.head_dim
        return FrameError(*kinds, 8 * cache.bytes_used / (numbers * cache.tokens))


def measure(
    engine: StreamEngine, world: SyntheticWorld, frames: int, every: int, bar: ProgressBar,
) -> dict[int, FrameError]:
    """Return the errors after frames 1, 2, ... (each ``every``-th, the first and the last)."""
    errors = {}
    probe = None
    for number in range(1, frames + 1):
        image = world.frame((number - 1) / WORLD_RATE).image
        if probe is None:
            engine.prepare(*image.shape[:2])
            probe = CacheProbe(engine.caches.tokens)
        engine.step(image)
        engine.finish_frame()
        if number in (1, 10, frames) or number % every == 0:
            errors[number] = probe.errors()
        bar.update(number)
    bar.close(frames)
    return errors


def run_bench_keys(options: argparse.Namespace) -> None:
    """Measure what the options choose; raise ToolError for what is wrong."""
    check_writable(options.json)
    device = choose_device(options.device)
    loaded = load_network(options.checkpoint, options.size, device, dtype=options.dtype)
    width = network_image_size(options) or loaded.config.img_size
    check_image_size(width, loaded.config.patch_size)
    plan = Resize.plan(DEFAULT_SIZE[1], DEFAULT_SIZE[0], width, loaded.config.patch_size)
    cache = CacheConfig(max_tokens=options.tokens, quantization=options.quantization,
                        scheme=options.scheme or CacheConfig().scheme)
    engine = build_engine(loaded, EngineOptions(
        cache, options.dtype, image_size=width, threads=options.threads or 0), device)
    engine.want_points(False)
    errors = measure(engine, SyntheticWorld(options.world, plan.width, plan.height),
                     options.frames, options.every, ProgressBar('measuring', options.frames,
                                                                sys.stderr))
    content = to_json(errors) | {
        'version': package_version(), 'model': loaded.description, 'world': options.world,
        'image': f'{plan.width}x{plan.height}', 'quantization': cache.quantization,
        'scheme': cache.scheme, 'tokens': engine.cache_stats().budget}
    table = markdown_table if options.markdown else text_table
    shown = [number for number in errors if number in (1, 10, 30, 100, 300, 1000, options.frames)]
    print(table(COLUMNS, [_cells(number, errors[number]) for number in shown]), flush=True)
    if options.json is not None:
        write_json(options.json, content)


def to_json(errors: dict[int, FrameError]) -> dict[str, Any]:
    """Return the errors as JSON has them: by frame, mean and worst of the layers."""
    def curve(name: str) -> list[dict[str, float]]:
        return [{'mean': float(np.mean(layers)), 'worst': max(layers)}
                for layers in (getattr(error, name) for error in errors.values())]

    return {'frames': list(errors), 'key_error': curve('keys'), 'value_error': curve('values'),
            'bits': [error.bits for error in errors.values()]}


def _cells(number: int, error: FrameError) -> list[str]:
    return [str(number), f'{np.mean(error.keys):.3f}', f'{max(error.keys):.3f}',
            f'{np.mean(error.values):.3f}', f'{max(error.values):.3f}', f'{error.bits:.2f}']
