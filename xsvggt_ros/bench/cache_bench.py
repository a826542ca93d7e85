"""Retention policies and precisions of the KV cache at equal bytes, on one stream."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import math
from pathlib import Path
import sys

import numpy as np
import torch

from xsvggt_ros.bench.cache_timing import CacheTimer, FrameTimes
from xsvggt_ros.console.errors import ChoiceError, ToolError
from xsvggt_ros.console.progress import ProgressBar
from xsvggt_ros.engine.cache_stats import CacheStats
from xsvggt_ros.engine.factory import build_engine, EngineOptions
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.geometry import metrics
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.kernels.packing import SCHEMES
from xsvggt_ros.kv_cache.config import CacheConfig, QUANTIZATIONS
from xsvggt_ros.kv_cache.retention import POLICIES
from xsvggt_ros.model.camera_head import ITERATIONS
from xsvggt_ros.model.checkpoint import LoadedModel
from xsvggt_ros.recordings.frame_source import DEFAULT_SIZE, WORLD_RATE
from xsvggt_ros.recordings.image_folder import ImageFolder
from xsvggt_ros.world.synthetic_world import SyntheticWorld

BUDGET_FRAMES = 4  # that the default budget holds in bf16: first, newest and two to choose
CAMERA_TOKENS = 2048  # that the camera head remembers at most, per layer: the paper's budget


@dataclass(frozen=True)
class CacheSetting:
    """One row of the table; scheme is None where nothing is packed."""

    policy: str
    quantization: str
    scheme: str | None

    def __str__(self) -> str:
        """Return a short name for a person."""
        return ' '.join(filter(None, (self.policy, self.quantization, self.scheme)))

    @property
    def bounded(self) -> bool:
        """Return whether the byte budget applies."""
        return POLICIES[self.policy].bounded


REFERENCE = CacheSetting('full', 'none', None)


@dataclass(frozen=True)
class Stream:
    """Pictures at the network's size, uint8 [H, W, 3] RGB, and what is true of them if known."""

    name: str
    images: list[np.ndarray]
    depths: list[np.ndarray] | None = None  # [H, W], metres along the optical axis
    positions: np.ndarray | None = None  # [n, 3] of the cameras, metres

    @property
    def half(self) -> int:
        """Return the first frame of the second half, when caches are full."""
        return len(self.images) // 2


@dataclass(frozen=True)
class Outcome:
    """What one run predicted, and what it cost."""

    depths: np.ndarray  # of the second half [n, H, W]
    camera_from_world: np.ndarray  # of all frames [n, 4, 4], fp64
    times: list[FrameTimes]  # of the second half
    attention_kept: float  # mean over the second half
    stats: CacheStats  # at the end


@dataclass(frozen=True)
class BenchRow:
    """
    One setting's results; the keys of the JSON rows. None: not known, or without a meaning.

    The reference for drift is the policy 'full' with unquantised fp32 storage. Its budget does
    not end, and tokens are what it holds after the last frame; so with other unbounded rows.
    """

    policy: str
    quantization: str
    scheme: str | None
    tokens: int  # budget per global layer
    bytes: int  # reserved, both caches
    bytes_used: int  # at the end
    depth_drift: float | None  # mean |log depth - log reference|, second half
    pose_drift: float | None  # mean distance of the camera / spread of the reference, second half
    rotation_drift_deg: float | None  # mean, second half
    attention_kept: float  # 0..1, see CacheHealth, mean over the second half
    frames_kept: float  # at the end, mean over the layers
    depth_abs_rel: float | None  # against the truth, second half, one median scale
    ate_ratio: float | None  # against the truth, after Sim(3), per spread of the truth
    ms_frame: float  # these: median over the second half; parts: all global layers
    ms_quantise: float
    ms_attend: float
    ms_score: float
    ms_evict: float


class CacheBench:
    """Runs one stream with one network under different cache settings."""

    def __init__(
        self, loaded: LoadedModel, stream: Stream, tokens: int | None = None,
        device: torch.device | str = 'cpu', dtype: str = 'auto', threads: int = 0,
    ) -> None:
        """
        Settle how many bytes every bounded run gets.

        They are what ``tokens`` per layer take in bf16, two frames at least, with the room for
        the frame being processed and all bookkeeping; None: `BUDGET_FRAMES` frames. The camera
        head remembers the same number of tokens in every run, if possible of all frames, so that
        the rows differ by what the global layers remember. dtype, threads: see `EngineOptions`.
        """
        self.stream = stream
        self.loaded = loaded
        self._device = torch.device(device)
        self._dtype, self._threads = dtype, threads
        self.height, self.width = stream.images[0].shape[:2]
        layout = loaded.model.cache_layout(self.height, self.width).tokens
        self.tokens_per_frame = layout.tokens_per_step
        self.tokens = max(tokens or BUDGET_FRAMES * self.tokens_per_frame,
                          2 * self.tokens_per_frame)
        self.camera_tokens = min(ITERATIONS * len(stream.images), CAMERA_TOKENS)
        paper = CacheConfig(policy='xstream', quantization='none', storage='bf16',
                            max_tokens=self.tokens, memory_budget_mb=None,
                            camera_max_tokens=self.camera_tokens)
        self.byte_budget = self._engine(paper).bytes_needed(self.height, self.width)

    def run_all(
        self, settings: Sequence[CacheSetting], progress: Callable[[int, str], None],
    ) -> list[BenchRow]:
        """
        Return a row for each setting; the first must be the reference.

        progress: told how many frames are done, of all settings, and which setting it is.
        """
        if settings[0] != REFERENCE:
            raise ValueError(f'the first setting must be {REFERENCE}, got {settings[0]}')
        for setting in settings:
            self._check_fits(setting)
        rows, reference = [], None
        for number, setting in enumerate(settings):
            def frame_done(frame: int) -> None:
                progress(number * len(self.stream.images) + frame, str(setting))

            outcome = self.run(setting, frame_done)
            reference = reference or outcome
            rows.append(self._row(setting, outcome, reference))
        return rows

    def run(self, setting: CacheSetting, frame_done: Callable[[int], None]) -> Outcome:
        """Send the stream through an engine of its own."""
        engine = self._engine(self._config(setting))
        engine.prepare(self.height, self.width)
        engine.want_points(False)
        timer = CacheTimer(engine.caches.tokens, self._device)
        depths, poses, times, kept = [], [], [], []
        for number, image in enumerate(self.stream.images):
            def frame() -> tuple[torch.Tensor, torch.Tensor]:
                result = engine.step(image)
                engine.finish_frame()
                return result.depth, result.camera_from_world

            (depth, pose), took = timer.measure(frame)
            poses.append(pose.double().cpu().numpy())
            if number >= self.stream.half:
                depths.append(depth.cpu().numpy())
                times.append(took)
                health = engine.cache_stats().health
                kept.append(health.attention_kept if health is not None else 1.0)
            frame_done(number + 1)
        return Outcome(np.stack(depths), np.stack(poses), times, float(np.mean(kept)),
                       engine.cache_stats())

    def tokens_that_fit(self, setting: CacheSetting) -> int:
        """Return the tokens per layer that the byte budget buys; 0 if not even two frames."""
        return self._engine(self._config(setting)).tokens_that_fit(
            self.height, self.width, self._megabytes)

    # Parts ---------------------------------------------------------------------------------------

    def _engine(self, config: CacheConfig) -> StreamEngine:
        return build_engine(self.loaded, EngineOptions(
            config, self._dtype, image_size=self.width, threads=self._threads), self._device)

    @property
    def _megabytes(self) -> float:
        """Return the byte budget, and half a byte as what is behind whole ones is cut off."""
        return (self.byte_budget + 0.5) / 1e6

    def _config(self, setting: CacheSetting) -> CacheConfig:
        """Return a setting's cache: all of the stream in fp32, or what the byte budget buys."""
        scheme = setting.scheme or CacheConfig().scheme
        if not setting.bounded:
            return CacheConfig(policy=setting.policy, quantization=setting.quantization,
                               scheme=scheme, storage='fp32', max_tokens=None,
                               memory_budget_mb=None, camera_max_tokens=None)
        return CacheConfig(policy=setting.policy, quantization=setting.quantization,
                           scheme=scheme, storage='bf16',
                           memory_budget_mb=self._megabytes,
                           camera_max_tokens=self.camera_tokens)

    def _check_fits(self, setting: CacheSetting) -> None:
        """Raise ToolError if the byte budget is too small for a setting."""
        if setting.bounded and self.tokens_that_fit(setting) == 0:
            raise ToolError(
                f'{setting}: the bytes of {self.tokens} tokens in bf16 do not hold first and '
                f'newest frame, {2 * self.tokens_per_frame} tokens, and the side data of this '
                f'packing; set --tokens to {BUDGET_FRAMES * self.tokens_per_frame} or more, or '
                'leave it out')

    def _row(self, setting: CacheSetting, outcome: Outcome, reference: Outcome) -> BenchRow:
        stats, half = outcome.stats, self.stream.half
        if setting.bounded and stats.bytes_reserved > self.byte_budget:
            raise AssertionError(f'{setting} reserves {stats.bytes_reserved} bytes, more than '
                                 f'the budget of {self.byte_budget}')
        positions = metrics.camera_centres(outcome.camera_from_world)
        expected = metrics.camera_centres(reference.camera_from_world)
        away = np.linalg.norm(positions - expected, axis=1)[half:].mean()
        turned = metrics.angles(outcome.camera_from_world[half:, :3, :3],
                                reference.camera_from_world[half:, :3, :3]).mean()
        depth_error, trajectory_error = self._errors(outcome, positions)
        median = {part: float(np.median([getattr(times, part) for times in outcome.times]))
                  for part in ('frame', 'quantise', 'attend', 'score', 'evict')}
        return BenchRow(
            policy=setting.policy, quantization=setting.quantization, scheme=setting.scheme,
            tokens=stats.tokens_per_layer[0] if stats.budget is None else stats.budget,
            bytes=stats.bytes_reserved, bytes_used=stats.bytes_used,
            depth_drift=_finite(metrics.depth_drift(outcome.depths, reference.depths)),
            pose_drift=_finite(away / max(metrics.spread(expected), 1e-12)),
            rotation_drift_deg=_finite(turned), attention_kept=outcome.attention_kept,
            frames_kept=stats.health.steps if stats.health is not None else 0.0,
            depth_abs_rel=depth_error, ate_ratio=trajectory_error,
            **{f'ms_{part}': round(value, 3) for part, value in median.items()})

    def _errors(
        self, outcome: Outcome, positions: np.ndarray,
    ) -> tuple[float | None, float | None]:
        """Return depth error and trajectory error against the truth, None if there is none."""
        stream = self.stream
        if stream.depths is None or stream.positions is None or self.loaded.random_weights:
            return None, None
        truth = np.stack(stream.depths[stream.half:])
        known = np.isfinite(truth) & (truth > 0)
        return (_finite(metrics.depth_errors(outcome.depths, truth, known)[0]),
                _finite(metrics.position_errors(positions, stream.positions)[1]))


def choose_settings(
    policies: Sequence[str], precisions: Sequence[str], schemes: Sequence[str],
) -> list[CacheSetting]:
    """Return the reference and every policy at every precision; raise ChoiceError."""
    for what, names, known in (('policy', policies, POLICIES),
                               ('precision', precisions, QUANTIZATIONS),
                               ('scheme', schemes, SCHEMES)):
        for name in names:
            if name not in known:
                raise ChoiceError(f"there is no {what} '{name}'; choose from {', '.join(known)}")
    settings = [REFERENCE]
    for policy in policies:
        for precision in precisions:
            for scheme in (None,) if precision == 'none' else schemes:
                settings.append(CacheSetting(policy, precision, scheme))
    return list(dict.fromkeys(settings))


def world_stream(seed: int, frames: int, image_size: int, patch_size: int) -> Stream:
    """Return the beginning of a synthetic world, rendered at the network's size."""
    plan = Resize.plan(DEFAULT_SIZE[1], DEFAULT_SIZE[0], image_size, patch_size)
    world = SyntheticWorld(seed, plan.width, plan.height)
    bar = ProgressBar('rendering', frames, sys.stderr)
    seen = []
    for number in range(frames):
        seen.append(world.frame(number / WORLD_RATE))
        bar.update(number + 1)
    bar.close(frames)
    return Stream(f'synthetic world {seed}', [frame.image for frame in seen],
                  [frame.depth for frame in seen],
                  np.stack([frame.world_from_camera[:3, 3] for frame in seen]))


def folder_stream(path: Path, frames: int, image_size: int, patch_size: int) -> Stream:
    """Return the first images of a folder at the network's size; raise ToolError."""
    folder = ImageFolder(path)
    images = []
    for frame in folder.frames():
        pixels = frame.pixels
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[:, :, None], 3, axis=2)
        resize = Resize.plan(pixels.shape[0], pixels.shape[1], image_size, patch_size)
        images.append(resize(torch.from_numpy(np.ascontiguousarray(pixels))).numpy())
        if len(images) == frames:
            break
    if len(images) < 2:
        raise ToolError(f'{path}: only {len(images)} image can be read; a stream has 2 or more')
    return Stream(path.resolve().name, images)


def _finite(value: float) -> float | None:
    """Return a number that JSON can hold, None for infinite and undefined ones."""
    return float(value) if math.isfinite(value) else None
