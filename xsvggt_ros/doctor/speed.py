"""How quick the network is here, and what it needs, by a short measurement."""

import argparse
import statistics
import time

import numpy as np
import torch

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.measurement import choose_device, load_network
from xsvggt_ros.doctor.finding import Finding
from xsvggt_ros.doctor.machine import host_memory
from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.factory import build_engine, EngineOptions
from xsvggt_ros.engine.memory_need import memory_need
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.checkpoint import CheckpointError, plan_model
from xsvggt_ros.model.precision import choose_precision

FRAMES = 12
WARM = 3       # frames before those that are timed
MOST_SECONDS = 20.0
SLOW = 2.0     # Hz


def network_findings(options: argparse.Namespace) -> list[Finding]:
    """
    Say what memory the checkpoint needs, load it, and run some frames of noise through it.

    options: checkpoint, size, device, dtype, threads, image (width, height) and max_tokens. What
    does not fit into the free memory is not loaded.
    """
    cache = CacheConfig(max_tokens=options.max_tokens, quantization='int4')
    try:
        device = choose_device(options.device)
        fits = memory_finding(options, cache, device)
        if fits.level == 'error':
            return [fits]
        loaded = load_network(options.checkpoint, options.size, device, dtype=options.dtype)
    except (ToolError, CheckpointError) as error:
        return [Finding('checkpoint', 'error', options.checkpoint, str(error))]
    level = 'warning' if loaded.random_weights else 'ok'
    found = [Finding('checkpoint', level, loaded.description,
                     'random weights only test the plumbing' if loaded.random_weights else ''),
             fits]
    try:
        engine = build_engine(loaded, EngineOptions(
            cache, dtype=options.dtype, threads=options.threads or 0), device)
        seconds = _frame_seconds(engine, *options.image)
    except (ValueError, RuntimeError, MemoryError) as error:
        size = '{}x{}'.format(*options.image)
        return [*found, Finding('speed', 'error', f'{size}: {error}')]
    return [*found, _speed(engine, options, device, seconds)]


def memory_finding(
    options: argparse.Namespace, cache: CacheConfig, device: torch.device,
) -> Finding:
    """Return what memory a network and its stream need, and whether there is as much."""
    network = plan_model(options.checkpoint, options.size)
    dtype, heads = choose_precision(options.dtype, device, network.config)
    width, height = options.image
    try:
        need = memory_need(network, EngineConfig(
            cache, device, dtype, heads, network.config.img_size), height, width)
    except ValueError as error:
        return Finding('network memory', 'error', str(error))
    on_cpu = device.type == 'cpu'
    free = host_memory()[0] if on_cpu else torch.cuda.mem_get_info(device)[0]
    there = _resident() if on_cpu else 0
    words = (f'up to {_gigabytes(need.peak + there)} on {device}: weights '
             f'{_gigabytes(need.weights)}; caches '
             f'{_gigabytes(need.caches)} for {options.max_tokens} tokens; at most '
             f'{_gigabytes(need.working)} for a frame; {_gigabytes(free)} are free')
    if need.peak > free:
        return Finding('network memory', 'error', words,
                       'it is not loaded, as the system would end it: end other programs, lower '
                       '--max-tokens, or read the weights in 16 bits (--dtype bf16)')
    return Finding('network memory', 'ok', words)


def _gigabytes(number: int) -> str:
    return f'{number / 1e9:.2f} GB'


def _speed(
    engine: StreamEngine, options: argparse.Namespace, device: torch.device, seconds: float,
) -> Finding:
    width, height = options.image
    resize = engine.resize
    size = f'{width}x{height}' + (f' at {resize.width}x{resize.height}' if resize else '')
    words = (f'{size} on {device}: {1 / seconds:.1f} frames/s ({1e3 * seconds:.0f} ms), caches of '
             f'{engine.caches.bytes_reserved / 1e6:.0f} MB for {options.max_tokens} tokens, the '
             f'process has {_resident() / 1e6:.0f} MB, and had {_resident("VmHWM") / 1e6:.0f} MB '
             'at most')
    if 1 / seconds < SLOW:
        return Finding('speed', 'warning', words,
                       'slow for a moving camera: a smaller model.image_size, a GPU, or '
                       'xsvggt reconstruct for recordings')
    return Finding('speed', 'ok', words,
                   f'set the camera to {0.8 / seconds:.0f} Hz or less to lose no image')


def _frame_seconds(engine: StreamEngine, width: int, height: int) -> float:
    """Return the median seconds of a frame, caches not yet full."""
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (height, width, 3), np.uint8)
    times: list[float] = []
    end = time.perf_counter() + MOST_SECONDS
    for number in range(WARM + FRAMES):
        start = time.perf_counter()
        result = engine.step(frame)
        engine.finish_frame()
        result.depth.cpu()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        if number >= WARM and time.perf_counter() > end:
            break
    return statistics.median(times[WARM:] or times)


def _resident(which: str = 'VmRSS') -> int:
    """Return the bytes of memory of this process; VmHWM: the most it has had."""
    with open('/proc/self/status', encoding='ascii') as file:
        line = next(line for line in file if line.startswith(which))
    return int(line.split()[1]) * 1024
