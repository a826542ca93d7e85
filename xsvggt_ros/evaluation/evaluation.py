"""One network, one cache setting, one stream: what was predicted, and how far it is off."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.factory import build_engine, EngineOptions
from xsvggt_ros.engine.first_frames import grouped
from xsvggt_ros.engine.stream_engine import FrameResult, StreamEngine
from xsvggt_ros.evaluation.eval_streams import EvalStream
from xsvggt_ros.geometry import metrics
from xsvggt_ros.geometry.se3 import invert_transform, pose_encoding_to_camera
from xsvggt_ros.images.preprocess import to_network_input
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.checkpoint import LoadedModel
from xsvggt_ros.model.error_table import calibration
from xsvggt_ros.model.layers import self_attention

REMOVALS = ('first', 'history')
_CLOUD_POINTS = 4000   # of a stream, for accuracy and completeness


@dataclass(frozen=True)
class EvalSetting:
    """
    One row of the table.

    removed: 'first' hides the first frame from all later ones, 'history' all earlier frames, to
    see what the network reads in its memory; policy and quantization mean nothing then.
    """

    policy: str
    quantization: str
    tokens: int | None = None   # budget per layer; None: no limit is needed, or the default
    removed: str | None = None

    def __str__(self) -> str:
        """Return what a person calls it."""
        if self.removed:
            return f'without {self.removed}' + (' frame' if self.removed == 'first' else '')
        return f'{self.policy} {self.quantization}'


@dataclass(frozen=True)
class Scores:
    """
    How far one stream, or the mean of several, is from the truth; None: not known.

    The keys of the JSON rows; definitions and sources stand in `metrics`.
    """

    depth_abs_rel: float | None     # after one scale for the stream
    depth_delta_1_25: float | None  # share of pixels
    depth_scale: float | None       # that was taken out: true metres per unit of the network
    ate: float | None               # RMSE after Sim(3), metres
    ate_ratio: float | None         # over the RMS spread of the true positions
    rotation_deg: float | None      # mean, after the best rotation
    # RMSE from frame to frame, metres and degrees; of live poses in the odometry frame.
    rpe_translation: float | None
    rpe_rotation_deg: float | None
    accuracy: float | None          # of points, metres, after the trajectory's Sim(3)
    completeness: float | None
    focal_error: float | None       # mean |f - true f| / true f of fx and fy
    seconds_per_frame: float        # mean, the first frame left out
    cache_bytes: int                # keys and values that are remembered at the end
    cache_bytes_reserved: int       # that are allocated for them, bookkeeping and scratch included


@dataclass(frozen=True)
class Prediction:
    """What a run said about a stream."""

    depths: np.ndarray              # [N, H, W]
    world_from_camera: np.ndarray   # [N, 4, 4] float64
    intrinsics: np.ndarray          # [N, 3, 3]
    seconds: np.ndarray             # [N]
    # After so many frames: keys and values remembered, and what is allocated for them.
    cache_bytes: dict[int, tuple[int, int]]
    confidences: np.ndarray | None = None   # [N, H, W], of the depths
    depth_errors: np.ndarray | None = None  # [N, H, W], see `FrameResult.depth_error`
    # [N, 4, 4] of live poses: in the odometry frame, where nothing jumps when a loop is closed.
    odom_from_camera: np.ndarray | None = None

    def error_of(self, index: int) -> Callable[[], np.ndarray] | None:
        """Return what says by which share a frame's depths are expected to be off, [H, W]."""
        errors = self.depth_errors
        return None if errors is None else lambda: errors[index]

    def first(self, frames: int) -> 'Prediction':
        """Return what was said about the first frames; it knew nothing of later ones."""
        arrays: dict[str, Any] = {name: value[:frames] for name, value in vars(self).items()
                                  if isinstance(value, np.ndarray)}
        return replace(self, **arrays)


def predict(loaded: LoadedModel, setting: EvalSetting, stream: EvalStream, device: torch.device,
            dtype: str, frame_done: Callable[[], None],
            lengths: Sequence[int] = (), keyframe_stride: int = 1,
            tracking_size: int | None = None, threads: int = 0,
            first_frames: int = 1) -> Prediction:
    """
    Send a stream through a network with a fresh memory.

    The cache's bytes are noted after the last frame and when the stream is as long as `lengths`
    say. Every `keyframe_stride`-th frame is remembered; the network sees the others at the width
    `tracking_size`. dtype, threads, first_frames: see `EngineOptions`.
    """
    engine: StreamEngine | _ForgetfulEngine
    if setting.removed:
        engine = _ForgetfulEngine(loaded, setting.removed, device)
    else:
        engine = build_engine(loaded, EngineOptions(
            _cache_config(setting), dtype, image_size=stream.images[0].shape[1],
            tracking_size=tracking_size, threads=threads,
            camera_iterations=loaded.model.camera_head.iterations, first_frames=first_frames),
            device)
        engine.want_points(False)
    confidences, poses, cameras, times, cache_bytes = [], [], [], [], {}
    depths: list[np.ndarray] = []
    errors: list[np.ndarray] = []
    for images in grouped(stream.images, engine.config.first_frames):
        start = time.perf_counter()
        results: Sequence[FrameResult | _ForgetfulResult]
        if len(images) > 1 and isinstance(engine, StreamEngine):
            results = engine.begin(images, [None] * len(images))
        else:
            results = [engine.step(
                images[0], remember=engine.config.is_keyframe(len(depths), keyframe_stride))]
        engine.finish_frame()
        # Copying the pose to the host waits for the device.
        poses += [result.camera_from_world.double().cpu() for result in results]
        times += [(time.perf_counter() - start) / len(results)] * len(results)
        for result in results:
            depths.append(result.depth.cpu().numpy())
            confidences.append(result.depth_confidence.cpu().numpy())
            if loaded.depth_errors is not None:
                errors.append(loaded.depth_errors.relative_errors(
                    result.depth_confidence).cpu().numpy())
            cameras.append(result.intrinsics.cpu().numpy())
            if len(depths) in (*lengths, len(stream.images)):
                stats = engine.cache_stats()
                cache_bytes[len(depths)] = stats.bytes_used, stats.bytes_reserved
            frame_done()
    return Prediction(np.stack(depths), invert_transform(torch.stack(poses)).numpy(),
                      np.stack(cameras), np.array(times), cache_bytes, np.stack(confidences),
                      np.stack(errors) if errors else None)


def _cache_config(setting: EvalSetting) -> CacheConfig:
    given = CacheConfig()
    return replace(given, policy=setting.policy, quantization=setting.quantization,
                   max_tokens=setting.tokens or given.max_tokens,
                   camera_max_tokens=None if setting.policy == 'full'
                   else given.camera_max_tokens)


def baseline(stream: EvalStream) -> Prediction:
    """Return what one can say without looking: the same depth everywhere, and no motion."""
    count = len(stream.images)
    return Prediction(np.ones(stream.depths.shape, np.float32), np.tile(np.eye(4), (count, 1, 1)),
                      np.full((count, 3, 3), np.nan), np.zeros(count), {count: (0, 0)})


def score(predicted: Prediction, stream: EvalStream) -> Scores:
    """Return how far a prediction is from the truth, as far as it is known."""
    values: dict[str, Any] = {field.name: None for field in fields(Scores)}
    known = stream.depths > 0
    if known.any():
        values['depth_abs_rel'], values['depth_delta_1_25'], values['depth_scale'] = (
            metrics.depth_errors(predicted.depths, stream.depths, known))
    posed = np.isfinite(stream.world_from_camera).all(axis=(1, 2))
    if posed.sum() >= 3:
        estimate, truth = predicted.world_from_camera[posed], stream.world_from_camera[posed]
        values['ate'], values['ate_ratio'] = metrics.position_errors(
            estimate[:, :3, 3], truth[:, :3, 3])
        values['rotation_deg'] = metrics.rotation_error(estimate[:, :3, :3], truth[:, :3, :3])
        steps = predicted.odom_from_camera
        values['rpe_translation'], values['rpe_rotation_deg'] = metrics.relative_errors(
            estimate if steps is None else steps[posed], truth)
        if known.any() and np.isfinite(predicted.intrinsics).all():
            values['accuracy'], values['completeness'] = _cloud_errors(predicted, stream, posed)
    off = np.abs(predicted.intrinsics[:, (0, 1), (0, 1)] - stream.focal) / stream.focal
    if np.isfinite(off).any():
        values['focal_error'] = float(np.nanmean(off))
    values = {name: value if value is not None and np.isfinite(value) else None
              for name, value in values.items()}
    used, reserved = predicted.cache_bytes[len(stream.images)]
    return Scores(**values | {'seconds_per_frame': float(predicted.seconds[1:].mean()),
                              'cache_bytes': used, 'cache_bytes_reserved': reserved})


def error_tenths(
        runs: Sequence[tuple[Prediction, EvalStream]]) -> list[tuple[float, float]]:
    """
    Return how well a network knows its errors: median expected and true one, tenth by tenth.

    Of all depths whose truth is known, sorted by the relative error that the checkpoint's table
    expects of their confidence; one scale is taken out of each stream. Empty if none is known.
    """
    expected, errors = [], []
    for predicted, stream in runs:
        known = stream.depths > 0
        if predicted.depth_errors is not None and known.any():
            ratio = predicted.depths[known].astype(np.float64) / stream.depths[known]
            errors.append(np.abs(ratio / np.median(ratio) - 1))
            expected.append(predicted.depth_errors[known])
    return calibration(np.concatenate(expected), np.concatenate(errors)) if errors else []


def mean(scores: list[Scores]) -> Scores:
    """Return the mean over streams of each score, over those that know it."""
    columns: dict[str, Any] = {}
    for field in fields(Scores):
        known = [getattr(one, field.name) for one in scores
                 if getattr(one, field.name) is not None]
        columns[field.name] = float(np.mean(known)) if known else None
    for name in ('cache_bytes', 'cache_bytes_reserved'):
        columns[name] = round(columns[name])
    return Scores(**columns)


def _cloud_errors(predicted: Prediction, stream: EvalStream,
                  posed: np.ndarray) -> tuple[float, float]:
    """Return accuracy and completeness of points that are spread evenly over the stream."""
    rng = np.random.default_rng(0)
    frame, row, column = np.nonzero((stream.depths > 0) & posed[:, None, None])
    chosen = rng.choice(len(frame), min(_CLOUD_POINTS, len(frame)), replace=False)
    where = frame[chosen], row[chosen], column[chosen]
    similarity = metrics.align(predicted.world_from_camera[posed][:, :3, 3],
                               stream.world_from_camera[posed][:, :3, 3])
    estimate = _points(predicted.depths, predicted.intrinsics, predicted.world_from_camera, where)
    truth = _points(stream.depths, stream.intrinsics, stream.world_from_camera, where)
    return metrics.cloud_errors(similarity.points(estimate), truth)


def _points(depths: np.ndarray, intrinsics: np.ndarray, world_from_camera: np.ndarray,
            where: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the world points [n, 3] of pixels (frame, row, column)."""
    frame, row, column = where
    depth, camera, pose = depths[where], intrinsics[frame], world_from_camera[frame]
    local = np.stack([(column - camera[:, 0, 2]) / camera[:, 0, 0] * depth,
                      (row - camera[:, 1, 2]) / camera[:, 1, 1] * depth, depth], axis=-1)
    return np.einsum('nij,nj->ni', pose[:, :3, :3], local) + pose[:, :3, 3]


# Memory with something taken out -----------------------------------------------------------------

@dataclass(frozen=True)
class _ForgetfulResult:
    depth: Tensor
    depth_confidence: Tensor
    camera_from_world: Tensor
    intrinsics: Tensor


@dataclass(frozen=True)
class _ForgetfulStats:
    bytes_used: int
    bytes_reserved: int


class _ForgetfulEngine:
    """Steps through a stream as the engine does, with a memory that hides something."""

    config = EngineConfig()  # frames come one by one

    def __init__(self, loaded: LoadedModel, removed: str, device: torch.device) -> None:
        self._model, self._device = loaded.model, device
        self._model.join_first_frames(1)
        self.tokens, self.camera = (_ForgetfulMemory(removed) for _ in range(2))
        self._frames = 0

    @torch.inference_mode()
    def step(self, image: np.ndarray, remember: bool) -> _ForgetfulResult:
        for memory in (self.tokens, self.camera):
            memory.frame = self._frames
        predict_frame = self._model.step if self._frames else self._model.first_frame
        seen = predict_frame(to_network_input(torch.from_numpy(image).to(self._device)), self,
                             points=False)
        self._frames += 1
        camera_from_world, intrinsics = pose_encoding_to_camera(seen.pose_encoding,
                                                                *image.shape[:2])
        return _ForgetfulResult(seen.depth, seen.depth_confidence, camera_from_world, intrinsics)

    def finish_frame(self) -> None:
        pass

    def cache_stats(self) -> _ForgetfulStats:
        used = self.tokens.nbytes + self.camera.nbytes
        return _ForgetfulStats(used, used)


class _ForgetfulMemory:
    """All keys and values that may still be seen."""

    def __init__(self, removed: str) -> None:
        self.frame = 0
        self._removed = removed
        self._entries: dict[int, list[tuple[int, Tensor, Tensor]]] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        entries = self._entries.setdefault(layer, [])
        entries[:] = [entry for entry in entries if entry[0] == self.frame
                      or (self._removed == 'first' and entry[0] > 0)]
        entries.append((self.frame, key, value))
        keys = torch.cat([entry[1] for entry in entries], dim=-2)
        values = torch.cat([entry[2] for entry in entries], dim=-2)
        return self_attention(query, keys, values)

    def end_step(self) -> None:
        pass

    @property
    def steps(self) -> int:
        return self.frame

    @property
    def nbytes(self) -> int:
        return sum(key.nbytes + value.nbytes
                   for entries in self._entries.values() for _, key, value in entries)
