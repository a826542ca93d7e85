"""`xsvggt bench`: builds what is to be measured, measures, and tells."""

import argparse
from importlib import import_module
import os
import sys
from typing import Any

import numpy as np
import torch

from xsvggt_ros.bench import frame_bench
from xsvggt_ros.bench.bench_run import BUSY
from xsvggt_ros.console.environment import package_version
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.measurement import (
    check_tracking_size,
    check_writable,
    choose_device,
    warn_missing_kernels,
    write_json,
)
from xsvggt_ros.console.progress import ProgressBar
from xsvggt_ros.engine.factory import build_engine, EngineOptions
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.checkpoint import CheckpointError, load_model, LoadedModel
from xsvggt_ros.model.precision import choose_weights
from xsvggt_ros.model.weight_quantization import check_weights, quantise_weights, weight_bytes

SIZES = {'small': ('small', (112, 84)), 'full': ('random', (224, 168))}  # checkpoint, image
# Settings that are written with what was measured, and the options they are from.
_SETTINGS = {
    'policy': 'policy', 'quantization': 'quantization', 'max_tokens': 'max_tokens',
    'camera_max_tokens': 'camera_tokens', 'camera_iterations': 'camera_iterations',
    'keyframe_stride': 'keyframe_stride', 'first_frames': 'first_frames',
    'tracking_size': 'tracking_size', 'points': 'points', 'filled': 'fill'}


def run_bench(options: argparse.Namespace) -> None:
    """Measure frames as the options say; raise ToolError for what is wrong."""
    check_writable(options.json)
    if options.frames < 3:
        raise ToolError('--frames: 3 at least, of which the last two count')
    first, last = frame_bench.Windows.of(options.frames).steady
    if options.keyframe_stride > last - first:
        raise ToolError(f'--keyframe-stride {options.keyframe_stride}: only {last - first} frames '
                        'are measured; raise --frames')
    device = choose_device(options.device)
    width, height = options.image or SIZES[options.size][1]
    loaded = _load(options, device)
    patch = loaded.config.patch_size
    if width % patch or height % patch:
        raise ToolError(f'--image: both sides must be multiples of {patch}, got {width}x{height}')
    check_tracking_size(options.tracking_size, width, options.keyframe_stride, patch)
    compared: list[frame_bench.Steps] = []
    if options.compare:
        compared = [_compared(options.compare, loaded, options, (width, height), device)]
    loaded.model.fold_scales()
    stored = choose_weights(options.weights, options.dtype, device, loaded.config)
    quantise_weights(loaded.model, stored)
    engine, precision = _engine(loaded, options, device)
    runs: list[frame_bench.Steps] = [
        frame_bench.Keyframes(engine, options.keyframe_stride), *compared]
    images = frame_bench.pictures(height, width)
    content = _measure(runs, engine, loaded, images, options, device)
    content = {'version': package_version(), 'size': options.size, 'model': loaded.description,
               'image': f'{width}x{height}', 'frames': options.frames, **precision,
               'weights': stored, 'weight_bytes': weight_bytes(loaded.model),
               **{name: getattr(options, option) for name, option in _SETTINGS.items()},
               **content, **engine.acceleration(), 'hardware': frame_bench.hardware(device)}
    print(_table(content), flush=True)
    if options.json is not None:
        write_json(options.json, content)


def _load(options: argparse.Namespace, device: torch.device) -> LoadedModel:
    """Return the network that the options name; raise ToolError."""
    # What is compared takes floats.
    stored = 'float' if options.compare else options.weights
    try:
        loaded = load_model(options.checkpoint or SIZES[options.size][0],
                            options.size if options.checkpoint is None else 'auto', device,
                            weights=stored, precision=None if options.compare else options.dtype)
        check_weights(options.weights, device)
        warn_missing_kernels(device)
    except (CheckpointError, RuntimeError) as error:
        raise ToolError(str(error)) from error
    except ValueError as error:
        raise ToolError(f'--{error}') from error
    return loaded


def _engine(
    loaded: LoadedModel, options: argparse.Namespace, device: torch.device,
) -> tuple[StreamEngine, dict[str, str]]:
    try:
        cache = CacheConfig(policy=options.policy, quantization=options.quantization,
                            max_tokens=options.max_tokens,
                            camera_max_tokens=options.camera_tokens)
    except ValueError as error:
        raise ToolError(f'--{error}') from error
    try:
        engine = build_engine(
            loaded, EngineOptions(
                cache, options.dtype, options.head_dtype, 0, options.tracking_size,
                options.kernels, options.graphs, options.camera_iterations,
                options.threads or 0, options.first_frames), device,
            lambda line: print(line, file=sys.stderr))
    except ValueError as error:
        raise ToolError(f'--{error}') from error
    engine.want_points(options.points)
    return engine, {'dtype': str(engine.config.dtype).removeprefix('torch.'),
                    'head_dtype': str(engine.config.head_dtype).removeprefix('torch.')}


def _compared(
    name: str, loaded: LoadedModel, options: argparse.Namespace, size: tuple[int, int],
    device: torch.device,
) -> frame_bench.Steps:
    """Return what MODULE:FACTORY makes of the settings."""
    module, _, factory = name.partition(':')
    sys.path.insert(0, os.getcwd())
    try:
        make = getattr(import_module(module), factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise ToolError(f'--compare {name}: {error}; write MODULE:FACTORY') from error
    return make({'loaded': loaded, 'width': size[0], 'height': size[1], 'device': device,
                 'policy': options.policy, 'max_tokens': options.max_tokens,
                 'quantization': options.quantization, 'fill': options.fill})


def _measure(
    runs: list[frame_bench.Steps], engine: StreamEngine, loaded: LoadedModel, images: list,
    options: argparse.Namespace, device: torch.device,
) -> dict[str, Any]:
    if options.fill:
        frame_bench.fill_caches(engine, images[0])
    bar = ProgressBar('measuring', options.frames, sys.stderr)
    loads = []

    def progress(done: int) -> None:
        bar.update(done)
        loads.append(os.getloadavg()[0])

    results, frames, spent, grown = frame_bench.run_frames(
        runs, images, options.frames, device, progress)
    bar.close(options.frames)
    windows = frame_bench.Windows.of(options.frames)
    peak = frame_bench.peak_bytes(device)
    # One frame to create what only a counted frame needs. All of these are remembered.
    count = [frame_bench.count_operators(engine, images[0]) for _ in range(2)][-1]
    stages = frame_bench.measure_stages(engine, loaded.model, images, device)
    first, last = (frames[0][slice(*window)].mean() for window in (windows.first, windows.last))
    content = {
        'latency_ms': frame_bench.summary(frames[0][windows.steady[0]:]),
        'result_ms': frame_bench.summary(results[0][windows.steady[0]:]),
        'latency_first_ms': round(float(first), 3), 'latency_last_ms': round(float(last), 3),
        'cpu_seconds': round(float(spent[0][windows.steady[0]:].mean()), 6),
        'windows': {'steady': windows.steady, 'first': windows.first, 'last': windows.last},
        'ops_per_frame': count.operators, 'syncs_per_frame': count.waits,
        'allocator_growth_bytes': grown['tensors'], 'process_growth_bytes': grown['process'],
        'peak_bytes': peak, 'cache_share': frame_bench.cache_share(stages),
        'stages_ms': stages, 'load_average': round(max(loads), 2)}
    if options.keyframe_stride > 1:
        between = np.arange(*windows.steady) % options.keyframe_stride > 0
        steady = frames[0][windows.steady[0]:]
        content['keyframes_ms'], content['between_ms'] = (
            frame_bench.summary(steady[which]) for which in (~between, between))
    if len(runs) > 1:
        other = frames[1][windows.steady[0]:]
        ratios = other / frames[0][windows.steady[0]:]
        content['compare'] = {
            'with': options.compare, 'latency_ms': frame_bench.summary(other),
            'ratio': round(float(np.median(ratios)), 3),
            'cpu_seconds': round(float(spent[1][windows.steady[0]:].mean()), 6)}
    return content


def _table(content: dict[str, Any]) -> str:
    """Return the results for a person."""
    machine, stages = content['hardware'], content['stages_ms']
    windows, latency = content['windows'], content['latency_ms']
    lines = [
        f"{content['model']}, {content['image']}, {content['dtype']} (heads "
        f"{content['head_dtype']}), weights {content['weights']}, "
        f"{content['policy']}, {content['quantization']}, "
        f"{content['max_tokens']} tokens",
        f"{machine['device']}, threads: {machine['threads']}, torch {machine['torch']}, "
        f"load {content['load_average']} on {machine['cores']} cores", '',
        'frame       ' + ', '.join(f'{name} {ms:.2f}' for name, ms in latency.items()) + ' ms, '
        f"{1e3 / latency['mean']:.1f} a second; {content['result_ms']['p50']:.2f} ms until the "
        'result is there',
        f"flatness    frames {windows['first'][0]}-{windows['first'][1]}: "
        f"{content['latency_first_ms']:.2f} ms, {windows['last'][0]}-{windows['last'][1]}: "
        f"{content['latency_last_ms']:.2f} ms; p99/p50 {latency['p99'] / latency['p50']:.2f}",
        f"processor   {1e3 * content['cpu_seconds']:.2f} ms a frame, all threads together",
        f"host        {content['ops_per_frame']} operators and {content['syncs_per_frame']} waits "
        'a frame',
        f"memory      peak {content['peak_bytes'] / 1e6:.0f} MB; grown by "
        f"{content['allocator_growth_bytes']} bytes of tensors, "
        f"{content['process_growth_bytes'] / 1e6:.1f} MB of the process",
        f"cache       {100 * content['cache_share']:.2f} % of a frame to store, score and evict",
        'stages      ' + ', '.join(f'{name} {ms:.2f}' for name, ms in stages.items()) + ' ms']
    choices = [f'{name} {content[name]}' for name in ('kernels', 'graphs')
               if content[name] not in ('portable', 'off')]
    if choices:
        lines.insert(2, ', '.join(choices))
    if 'between_ms' in content:
        width = content['tracking_size'] or content['image'].partition('x')[0]
        lines.append(f"keyframes   one in {content['keyframe_stride']}: p50 "
                     f"{content['keyframes_ms']['p50']:.2f} ms; between, {width} wide: "
                     f"{content['between_ms']['p50']:.2f} ms; host, cache and stages are a "
                     "keyframe's")
    if 'compare' in content:
        other = content['compare']
        lines.append(f"compared    {other['with']}: p50 {other['latency_ms']['p50']:.2f} ms, "
                     f"{other['ratio']:.2f} times as long (median of the frames' ratios), "
                     f"{1e3 * other['cpu_seconds']:.2f} ms of the processor")
    if content['load_average'] > machine['cores'] + BUSY:
        lines.append('the machine was busy with other work too: trust ratios, not ms')
    return '\n'.join(lines)
