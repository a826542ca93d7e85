"""From parameters to an engine that is ready for frames."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from xsvggt_ros.engine.factory import build_engine, choose_graphs, EngineOptions
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kernels import availability
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.checkpoint import CheckpointError, load_model
from xsvggt_ros.model.error_table import ErrorTable
from xsvggt_ros.node.settings import ModelSettings, Settings
from xsvggt_ros.trajectory.landmark_file import LandmarkFileError, read_landmarks
from xsvggt_ros.trajectory.landmark_map import LandmarkMap

# Of what the engine and the network complain about.
GROUPS = {'image_size': 'model.', 'weights': 'model.', 'first_frames': 'model.',
          'tracking_size': 'input.'}


class StartError(RuntimeError):
    """The node cannot be configured; says why and what to do."""


@dataclass(frozen=True)
class LoadedEngine:
    """An engine and what to tell people about it."""

    engine: StreamEngine
    description: str  # of the weights
    random_weights: bool
    device: torch.device
    depth_errors: ErrorTable | None  # what confidences mean, if the weights say so

    @property
    def device_name(self) -> str:
        """Return the GPU's name, or 'cpu'."""
        if self.device.type == 'cuda':
            return torch.cuda.get_device_name(self.device)
        return str(self.device)


def saved_landmarks(settings: Settings) -> LandmarkMap | None:
    """Return the saved map of map.localize_in; None without one. Raises StartError."""
    name = settings.map.localize_in
    if not name:
        return None
    try:
        landmarks = read_landmarks(Path(name).expanduser())
    except (LandmarkFileError, RuntimeError) as error:   # the latter: a home that is none
        raise StartError(f'map.localize_in: {error}') from error
    if settings.scale.mode != 'none' and not landmarks.is_metric:
        raise StartError(
            f'map.localize_in: the map {name} is not in metres, but scale.mode is '
            f'{settings.scale.mode}: set scale.mode to none, or save the map with a scale')
    return landmarks


def load_engine(
    settings: ModelSettings, cache: CacheConfig, tracking_size: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> LoadedEngine:
    """
    Load the network that the parameters ask for; raise StartError if that is impossible.

    tracking_size: width in pixels of images that are not remembered, 0 for that of the others.
    report: is called while frames are processed, with what becomes of CUDA graphs.
    """
    device = choose_device(settings.device)
    check_graphs(settings.graphs, device)
    if not settings.checkpoint:
        raise StartError(
            'model.checkpoint is empty: give the path of a checkpoint (.safetensors, .pt, '
            ".pth), or 'small', which comes with the package")
    try:
        loaded = load_model(
            settings.checkpoint, settings.size, device=device, weights=settings.weights,
            precision=settings.dtype)
        check_kernels(settings.kernels, device, loaded.config.head_dim)
        engine = build_engine(loaded, EngineOptions(
            cache, dtype=settings.dtype, image_size=settings.image_size or None,
            tracking_size=tracking_size or None, kernels=settings.kernels,
            graphs=settings.graphs, camera_iterations=settings.camera_iterations,
            threads=settings.threads, first_frames=settings.first_frames), device, report)
        image_size = settings.image_size or loaded.config.img_size
        check_memory(engine, image_size, device)
        if settings.warmup:
            empty = np.zeros((round(image_size * 3 / 4), image_size, 3), np.uint8)
            for remember in (True, False)[:2 if tracking_size else 1]:
                engine.step(empty, remember=remember)
            engine.reset()
    except CheckpointError as error:
        raise StartError(f'model.checkpoint: {error}') from error
    except ValueError as error:
        group = GROUPS.get(str(error).partition(' ')[0], '')
        raise StartError(f'{group}{error}') from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise StartError(
            f'the network does not fit into the memory of {device}; choose a smaller '
            'checkpoint, model.dtype:=bf16, or model.device:=cpu') from error
    beginning = loaded.model.beginning()
    description = f'{loaded.description}; {beginning}' if beginning else loaded.description
    return LoadedEngine(engine, description, loaded.random_weights, device, loaded.depth_errors)


def check_memory(engine: StreamEngine, image_size: int, device: torch.device) -> None:
    """Raise StartError, with the number that fits, if the device cannot hold the caches."""
    height, width = round(image_size * 3 / 4), image_size  # no image yet: most cameras are 4:3
    needed, free = engine.bytes_needed(height, width), free_memory(device)
    if needed <= free:
        return
    fits = engine.tokens_that_fit(height, width, free / 1e6)
    advice = f'cache.max_tokens:={fits} would fit' if fits else \
        'not even two frames would fit; lower model.image_size'
    raise StartError(
        f'the caches need {needed / 1e6:.0f} MB, but {device} has {free / 1e6:.0f} MB left beside '
        f'the network; {advice}')


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be allocated on a device."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    with open('/proc/meminfo', encoding='ascii') as file:
        available = next(line for line in file if line.startswith('MemAvailable'))
    return int(available.split()[1]) * 1024


def choose_device(name: str) -> torch.device:
    """Return the device of a parameter value; raise StartError if it is not there."""
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ('cpu', 'cuda'):
        raise StartError(f"model.device must be auto, cpu, cuda or cuda:N; got '{name}'")
    if device.type == 'cpu':
        return device
    if not torch.cuda.is_available():
        raise StartError(
            f'model.device is {name}, but torch {torch.__version__} sees no GPU; install a CUDA '
            'build of torch and the driver, or use model.device:=cpu')
    if (device.index or 0) >= torch.cuda.device_count():
        raise StartError(
            f'model.device is {name}, but there are only {torch.cuda.device_count()} GPUs')
    return device


def check_graphs(choice: str, device: torch.device) -> None:
    """Raise StartError if graphs are demanded where there are none."""
    try:
        choose_graphs(choice, device)
    except ValueError as error:
        raise StartError(f'model.{error}: model.graphs:=off') from error


def check_kernels(choice: str, device: torch.device, head_dim: int) -> None:
    """Raise StartError if Triton's kernels are demanded where they do not run."""
    reason = availability.why_not(device, head_dim) if choice == 'triton' else None
    if reason is not None:
        raise StartError(f'model.kernels is triton, but {reason}; use model.kernels:=portable, or '
                         'auto, which takes Triton where it runs')


def is_out_of_memory(error: BaseException) -> bool:
    """
    Return whether an error means that the device's memory is full, or the machine's.

    On a Jetson it may come as an NVML or NvMap assertion instead (pytorch/pytorch#185240).
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        word in text for word in ('out of memory', 'NVML', 'NvMap', "can't allocate memory"))
