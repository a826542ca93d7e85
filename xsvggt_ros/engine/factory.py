"""Builds an engine of what people choose: for the node, the commands and the examples."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.cuda_graph import CudaGraphs
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.camera_head import ITERATIONS
from xsvggt_ros.model.checkpoint import LoadedModel
from xsvggt_ros.model.precision import make_ready, PRECISIONS

GRAPHS = ('off', 'auto', 'on')
DEFAULT_CACHE = CacheConfig(quantization='int4')


@dataclass(frozen=True)
class EngineOptions:
    """
    What people choose; the defaults are the node's, and commands that differ say so.

    dtype, head_dtype: a name in `precision.PRECISIONS`, or 'auto': `precision.choose_precision`.
    image_size: None for the width that the weights were trained with, 0 for frames as they are.
    graphs: one of `GRAPHS`: replay from CUDA graphs never, where there is a GPU, or in any case.
    threads: on a CPU, 0 for `threads.use_threads` to choose. The rest: see `EngineConfig` and, for
    camera_iterations, `CameraHead`.
    """

    cache: CacheConfig = field(default_factory=lambda: DEFAULT_CACHE)
    dtype: str = 'auto'
    head_dtype: str = 'auto'
    image_size: int | None = None
    tracking_size: int | None = None
    kernels: str = 'portable'
    graphs: str = 'off'
    camera_iterations: int = ITERATIONS
    threads: int = 0
    first_frames: int = 1


def build_engine(
    loaded: LoadedModel, options: EngineOptions, device: torch.device | str,
    report: Callable[[str], None] = lambda line: None,
) -> StreamEngine:
    """
    Return an engine with a network that is on the device; report: see `StreamEngine`.

    The network gets its precision and folded scales, the process its threads. Raises ValueError
    for what does not suit; its message begins with the name of the option.
    """
    device = torch.device(device)
    graphs = choose_graphs(options.graphs, device)
    loaded.model.camera_head.iterations = options.camera_iterations
    dtype, heads = make_ready(loaded.model, device, options.dtype, options.threads)
    image_size = loaded.config.img_size if options.image_size is None else options.image_size
    return StreamEngine(loaded.model, EngineConfig(
        options.cache, device, dtype, PRECISIONS.get(options.head_dtype, heads),
        image_size or None, options.tracking_size, options.kernels, loaded.depth_errors,
        options.first_frames), graphs, report)


def choose_graphs(choice: str, device: torch.device) -> CudaGraphs | None:
    """Return what captures graphs; raise ValueError if they are demanded where there are none."""
    if choice not in GRAPHS:
        raise ValueError(f"graphs must be one of {', '.join(GRAPHS)}; got '{choice}'")
    if choice == 'off' or (choice == 'auto' and device.type != 'cuda'):
        return None
    if device.type != 'cuda':
        raise ValueError(
            f'graphs is {choice}, but CUDA graphs need a GPU, and the network runs on {device}; '
            'use off, or auto, which takes them where there is a GPU')
    return CudaGraphs(device)
