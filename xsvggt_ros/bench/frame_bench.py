"""How long a frame takes, stage by stage, what it asks of the machine, and whether that grows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import gc
import os
from pathlib import Path
import platform
import resource
import subprocess
import time
from typing import Any, Protocol

import numpy as np
import torch

from xsvggt_ros.bench.cache_timing import CacheTimer, Clock, Moment
from xsvggt_ros.bench.operator_count import OperatorCount
from xsvggt_ros.console.environment import device_name
from xsvggt_ros.engine import stream_engine
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kv_cache.dense_store import DenseStore
from xsvggt_ros.kv_cache.packed_store import PackedStore
from xsvggt_ros.model.network import StreamNetwork

PICTURES = 32      # different ones, shown in turn
WARM_UP = 100      # frames before anything counts, a third of all at most
WINDOW = 100       # frames whose means are compared, at the beginning and at the end
STAGE_FRAMES = 20  # measured stage by stage, after the others
STAGES = ('preprocess', 'patch_embed', 'aggregator', 'depth_head', 'point_head', 'camera_head')


class Steps(Protocol):
    """What is measured: an engine, or what `--compare` names."""

    def step(self, frame: np.ndarray) -> Any:
        """Reconstruct a frame, uint8 [H, W, 3] RGB."""


class Keyframes:
    """An engine that remembers every n-th frame only, and begins with several if it is to."""

    def __init__(self, engine: StreamEngine, stride: int) -> None:
        """Take an engine whose stream has not begun."""
        self._engine = engine
        self._stride = stride
        self._first: list[np.ndarray] = []

    def step(self, frame: np.ndarray) -> Any:
        """Reconstruct a frame; None for one that waits for others, to begin with them."""
        engine, config = self._engine, self._engine.config
        if engine.frames or config.first_frames == 1:
            return engine.step(frame, remember=config.is_keyframe(engine.frames, self._stride))
        self._first.append(frame)
        if len(self._first) < config.first_frames:
            return None
        first, self._first = self._first, []
        return engine.begin(first, [None] * len(first))[-1]

    def finish_frame(self) -> None:
        """Do what the engine has left for after the result."""
        self._engine.finish_frame()


@dataclass(frozen=True)
class Windows:
    """Which frames count, as half-open ranges."""

    steady: tuple[int, int]
    first: tuple[int, int]
    last: tuple[int, int]

    @classmethod
    def of(cls, frames: int) -> 'Windows':
        """Return the windows for so many frames."""
        warm = min(WARM_UP, frames // 3)
        size = max(1, min(WINDOW, (frames - warm) // 2))
        return cls((warm, frames), (warm, warm + size), (frames - size, frames))


def pictures(height: int, width: int, count: int = PICTURES) -> list[np.ndarray]:
    """Return smooth noise that drifts, uint8 [height, width, 3] each, the same every time."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 12, 16, generator=generator)
    made = []
    for number in range(count):
        part = torch.roll(coarse, number, dims=3)
        fine = torch.nn.functional.interpolate(part, (height, width), mode='bilinear')
        made.append((fine[0] * 255).byte().permute(1, 2, 0).contiguous().numpy())
    return made


@torch.inference_mode()
def fill_caches(engine: StreamEngine, image: np.ndarray) -> None:
    """
    Give a new engine a frame, and its caches random tokens until they are full.

    Every later frame is then one of the steady state, which a stream reaches after hundreds of
    frames: the camera head's cache after 512. A cache without a budget is left as it is.
    """
    first = engine.config.first_frames
    engine.begin([image] * first, [None] * first)
    engine.finish_frame()
    generator = torch.Generator().manual_seed(0)
    for cache in (engine.caches.tokens, engine.caches.camera):
        layout, store = cache.layout, cache.store
        shape = (layout.heads, layout.tokens_per_step, layout.head_dim)
        assert isinstance(store, DenseStore | PackedStore)
        like = store.keys if isinstance(store, DenseStore) else store.scratch
        while cache.budget is not None and not (
                cache.evicted_last and cache.tokens == cache.budget):
            token = [torch.randn(shape, generator=generator).to(like) for _ in range(3)]
            for layer in range(layout.layers):
                cache.attend(layer, *token)
            cache.end_step()


def run_frames(
    runs: Sequence[Steps], images: Sequence[np.ndarray], frames: int, device: torch.device,
    frame_done: Callable[[int], None],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, int]]:
    """
    Send frames through all runs, one after the other in each frame.

    Returns ms until the result is on the host, ms of the whole frame and seconds of processor time
    of it, all threads together, [runs, frames] each, and bytes that memory grew over the frames
    that count.
    """
    results, wholes, spent = (np.zeros((len(runs), frames)) for _ in range(3))
    steady = Windows.of(frames).steady[0]
    before: dict[str, int] = {}
    gc.collect()
    gc.freeze()  # as the node does: what stays is not looked through again and again
    for number in range(frames):
        if number == steady:
            gc.unfreeze()  # for all tensors to be found
            before = memory_in_use(device)
            gc.freeze()
        image = images[number % len(images)]
        for run, steps in enumerate(runs):
            start, processor = time.perf_counter(), time.process_time()
            publish(steps.step(image))
            results[run, number] = 1e3 * (time.perf_counter() - start)
            getattr(steps, 'finish_frame', int)()
            if device.type == 'cuda':
                torch.cuda.synchronize(device)
            wholes[run, number] = 1e3 * (time.perf_counter() - start)
            spent[run, number] = time.process_time() - processor
        frame_done(number + 1)
    gc.unfreeze()
    after = memory_in_use(device)
    return results, wholes, spent, {name: after[name] - before[name] for name in after}


def publish(result: Any) -> None:
    """Bring the pose to the host, as whoever publishes it must: the one wait of a frame."""
    pose = getattr(result, 'pose_encoding', None)
    if pose is not None:
        pose.to('cpu')


def memory_in_use(device: torch.device) -> dict[str, int]:
    """Return bytes: of tensors, as the allocator or Python knows them, and of the process."""
    gc.collect()
    if device.type == 'cuda':
        tensors = torch.cuda.memory_allocated(device)
    else:
        tensors = sum({thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes()
                       for thing in gc.get_objects() if type(thing) is torch.Tensor}.values())
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return {'tensors': tensors, 'process': pages * os.sysconf('SC_PAGE_SIZE')}


def peak_bytes(device: torch.device) -> int:
    """Return the most that was allocated on a GPU, or the most this process had on a CPU."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def summary(ms: np.ndarray) -> dict[str, float]:
    """Return mean and percentiles of times."""
    p50, p95, p99 = np.percentile(ms, (50, 95, 99))
    return {name: round(float(value), 3) for name, value in (
        ('mean', ms.mean()), ('p50', p50), ('p95', p95), ('p99', p99))}


def count_operators(engine: StreamEngine, image: np.ndarray) -> OperatorCount:
    """Return what one frame asks of the device, to its very end."""
    with OperatorCount() as count:
        publish(engine.step(image))
        engine.finish_frame()
    return count


class StageTimer:
    """Wraps the parts of one engine for as long as it is entered."""

    def __init__(self, engine: StreamEngine, model: StreamNetwork, device: torch.device) -> None:
        """Take an engine that has had a frame, and its network."""
        self._clock = Clock(device)
        self._cache = CacheTimer(engine.caches.tokens, device)
        self._engine = engine
        heads = {name: getattr(model, name) for name in STAGES if hasattr(model, name)}
        self._parts = {'patch_embed': model.aggregator.patch_embed, **heads}
        self._spans: dict[str, list[tuple[Moment, Moment]]] = {}
        self._begun: dict[str, Moment] = {}

    def __enter__(self) -> 'StageTimer':
        """Listen to the parts of the network."""
        self._hooks = []
        for name, part in self._parts.items():
            self._hooks += [part.register_forward_pre_hook(self._begin(name)),
                            part.register_forward_hook(self._end(name))]
        self._input = stream_engine.to_network_input
        stream_engine.to_network_input = self._timed_input
        return self

    def __exit__(self, *_: Any) -> None:
        """Let go of them."""
        stream_engine.to_network_input = self._input
        for hook in self._hooks:
            hook.remove()

    def measure(self, image: np.ndarray) -> dict[str, float]:
        """Return the ms of one frame's stages; together they are the frame."""
        self._spans = {name: [] for name in STAGES}
        start = self._clock.now()

        def frame() -> None:
            publish(self._engine.step(image))
            self._engine.finish_frame()

        _, cache = self._cache.measure(frame)
        if self._spans['preprocess']:
            self._spans['preprocess'] = [(start, self._spans['preprocess'][0][1])]
        ms = {name: sum(self._clock.between(*span) for span in spans)
              for name, spans in self._spans.items()}
        ms['cache_insert'] = cache.quantise
        ms['cache_score_evict'] = cache.score + cache.evict
        # Within the aggregator are the patches, and what a frame's tokens are written to.
        ms['aggregator'] -= ms['patch_embed'] + (1 + self._cache.floats) * cache.quantise
        ms['other'] = cache.frame - sum(ms.values())
        return ms | {'frame': cache.frame}

    def _timed_input(self, image: torch.Tensor) -> torch.Tensor:
        start = self._clock.now()
        out = self._input(image)
        self._spans['preprocess'].append((start, self._clock.now()))
        return out

    def _begin(self, name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self._begun[name] = self._clock.now()
        return hook

    def _end(self, name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self._spans[name].append((self._begun[name], self._clock.now()))
        return hook


def measure_stages(
    engine: StreamEngine, model: StreamNetwork, images: Sequence[np.ndarray], device: torch.device,
) -> dict[str, float]:
    """Return the mean ms of each stage."""
    with StageTimer(engine, model, device) as timer:
        frames = [timer.measure(images[i % len(images)]) for i in range(STAGE_FRAMES)]
    return {name: round(float(np.mean([frame[name] for frame in frames])), 3)
            for name in frames[0]}


def cache_share(stages: dict[str, float]) -> float:
    """Return the share of a frame that goes into storing, scoring and evicting tokens."""
    return round((stages['cache_insert'] + stages['cache_score_evict']) / stages['frame'], 5)


def hardware(device: torch.device) -> dict[str, Any]:
    """Return what the numbers belong to."""
    driver = None
    if device.type == 'cuda':
        command = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
        try:
            driver = subprocess.run(command, capture_output=True, text=True, timeout=10,
                                    check=True).stdout.split('\n')[0].strip()
        except (OSError, subprocess.SubprocessError):
            pass  # a Jetson has none
    return {'device': device_name(device), 'cpu': device_name(torch.device('cpu')),
            'cores': os.cpu_count(), 'threads': torch.get_num_threads(), 'driver': driver,
            'cuda': torch.version.cuda if device.type == 'cuda' else None,
            'torch': torch.__version__, 'python': platform.python_version()}
