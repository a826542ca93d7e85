"""How quick the network is here, and what it needs, by a short measurement."""

import argparse
import statistics
import time

import numpy as np
import torch

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.measurement import choose_device, load_network
from xsvggt_ros.doctor.finding import Finding
from xsvggt_ros.engine.factory import build_engine, EngineOptions
from xsvggt_ros.kv_cache.config import CacheConfig

FRAMES = 12
WARM = 3       # frames before those that are timed
MOST_SECONDS = 20.0
SLOW = 2.0     # Hz


def network_findings(options: argparse.Namespace) -> list[Finding]:
    """
    Load the checkpoint and run some frames of noise through it.

    options: checkpoint, device, dtype, threads, image (width, height) and max_tokens.
    """
    try:
        device = choose_device(options.device)
        loaded = load_network(options.checkpoint, 'auto', device, dtype=options.dtype)
    except ToolError as error:
        return [Finding('checkpoint', 'error', options.checkpoint, str(error))]
    level = 'warning' if loaded.random_weights else 'ok'
    found = [Finding('checkpoint', level, loaded.description,
                     'random weights only test the plumbing' if loaded.random_weights else '')]
    try:
        engine = build_engine(loaded, EngineOptions(
            CacheConfig(max_tokens=options.max_tokens, quantization='int4'), dtype=options.dtype,
            threads=options.threads or 0), device)
        width, height = options.image
        needed = engine.bytes_needed(height, width)
        seconds = _frame_seconds(engine, width, height)
    except (ValueError, RuntimeError, MemoryError) as error:
        size = '{}x{}'.format(*options.image)
        return [*found, Finding('speed', 'error', f'{size}: {error}')]
    resize = engine.resize
    size = f'{width}x{height}' + (f' at {resize.width}x{resize.height}' if resize else '')
    words = (f'{size} on {device}: {1 / seconds:.1f} frames/s ({1e3 * seconds:.0f} ms), caches of '
             f'{needed / 1e6:.0f} MB for {options.max_tokens} tokens, the process has '
             f'{_resident() / 1e6:.0f} MB')
    if 1 / seconds < SLOW:
        advice = ('slow for a moving camera: a smaller model.image_size, a GPU, or '
                  'xsvggt reconstruct for recordings')
        return [*found, Finding('speed', 'warning', words, advice)]
    return [*found, Finding('speed', 'ok', words,
                            f'set the camera to {0.8 / seconds:.0f} Hz or less to lose no image')]


def _frame_seconds(engine: object, width: int, height: int) -> float:
    """Return the median seconds of a frame, caches not yet full."""
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (height, width, 3), np.uint8)
    times: list[float] = []
    end = time.perf_counter() + MOST_SECONDS
    for number in range(WARM + FRAMES):
        start = time.perf_counter()
        result = engine.step(frame)   # type: ignore[attr-defined]
        engine.finish_frame()         # type: ignore[attr-defined]
        result.depth.cpu()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        if number >= WARM and time.perf_counter() > end:
            break
    return statistics.median(times[WARM:] or times)


def _resident() -> int:
    """Return the bytes of memory of this process."""
    with open('/proc/self/status', encoding='ascii') as file:
        line = next(line for line in file if line.startswith('VmRSS'))
    return int(line.split()[1]) * 1024
