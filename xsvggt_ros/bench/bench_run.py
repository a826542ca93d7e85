"""Loads what a bench needs, measures, and puts the results where they are wanted."""

import argparse
import logging
import os
from pathlib import Path
import shlex
import sys
import time

import torch

from xsvggt_ros.bench.bench_report import report, to_json
from xsvggt_ros.bench.cache_bench import (
    CacheBench,
    CacheSetting,
    choose_settings,
    folder_stream,
    world_stream,
)
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
from xsvggt_ros.kernels.packing import SCHEMES
from xsvggt_ros.kv_cache.config import CacheConfig, QUANTIZATIONS
from xsvggt_ros.kv_cache.retention import POLICIES

BUSY = 0.5  # processes more than there are cores, on average over a minute


def run_bench_cache(options: argparse.Namespace) -> None:
    """Compare the settings that the options choose; raise ToolError for what is wrong."""
    logging.basicConfig(format='%(message)s')
    settings = _settings(options)
    if options.frames < 2:
        raise ToolError('--frames 1 is no stream; take 2 or more')
    check_writable(options.json)
    device = choose_device(options.device)
    bench = _load(options, device)
    total = len(settings) * len(bench.stream.images)
    bar = ProgressBar('measuring', total, sys.stderr)
    start = time.monotonic()
    loads = []

    def progress(done: int, words: str) -> None:
        bar.update(done, words)
        loads.append(os.getloadavg()[0])

    rows = bench.run_all(settings, progress)
    bar.close(total, f'{len(settings)} runs in {time.monotonic() - start:.0f} s')
    if max(loads) > (os.cpu_count() or 1) + BUSY:
        print(f'the machine was busy with other work too (load {max(loads):.1f} on '
              f'{os.cpu_count()} cores): do not trust the ms, repeat the run', file=sys.stderr)
    print(report(rows, bench, device, options.markdown), flush=True)
    if options.json is not None:
        write_json(options.json,
                   to_json(rows, bench, device, _command(options), package_version()))


def _settings(options: argparse.Namespace) -> list[CacheSetting]:
    schemes = SCHEMES if options.scheme == 'both' else (options.scheme or CacheConfig().scheme,)
    policies = options.policies.split(',') if options.policies else list(POLICIES)
    precisions = options.precisions.split(',') if options.precisions else list(QUANTIZATIONS)
    return choose_settings(policies, precisions, schemes)


def _load(options: argparse.Namespace, device: torch.device) -> CacheBench:
    """Return the bench with its network and its stream."""
    loaded = load_network(options.checkpoint, options.size, device, dtype=options.dtype)
    width = network_image_size(options) or loaded.config.img_size
    patch = loaded.config.patch_size
    check_image_size(width, patch)
    if options.input is None:
        stream = world_stream(options.world, options.frames, width, patch)
    else:
        stream = folder_stream(options.input, options.frames, width, patch)
    return CacheBench(
        loaded, stream, options.tokens, device, options.dtype, options.threads or 0)


def _command(options: argparse.Namespace) -> str:
    """Return the command that repeats the run, with file names in place of paths."""
    words = ['xsvggt', 'bench', 'cache', '--frames', str(options.frames)]
    if options.input is None:
        words += ['--world', str(options.world)]
    else:
        words += ['--input', options.input.resolve().name]
    words += ['--checkpoint', Path(options.checkpoint).name]
    for name in ('size', 'image_size', 'policies', 'precisions', 'scheme', 'tokens', 'device',
                 'dtype', 'threads'):
        value = getattr(options, name)
        if value is not None and value != 'auto':
            words += ['--' + name.replace('_', '-'), str(value)]
    return shlex.join(words)
