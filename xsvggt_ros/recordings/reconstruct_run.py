"""Feeds frames straight to the engine and keeps what comes out."""

import argparse
from collections.abc import Iterable
from pathlib import Path
import time

import numpy as np
import torch

from xsvggt_ros.console.arguments import network_image_size
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.measurement import choose_device, load_network
from xsvggt_ros.console.processes import ignore_signals, OutOfTime, time_limit
from xsvggt_ros.console.progress import ProgressBar
from xsvggt_ros.engine.cache_stats import CacheStats
from xsvggt_ros.engine.factory import build_engine, EngineOptions
from xsvggt_ros.engine.frame_result import ResultError
from xsvggt_ros.engine.stream_engine import FrameResult, StreamEngine
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.geometry.se3 import flu_from_optical, invert_transform
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.mapping.map_files import format_stamp
from xsvggt_ros.mapping.point_cloud import CloudOptions, pack_cloud
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.model.checkpoint import LoadedModel
from xsvggt_ros.recordings.frame_source import FramesAhead, open_source, SourceFrame
from xsvggt_ros.recordings.outputs import CacheRow
from xsvggt_ros.recordings.recording import describe_errors, PICTURE_FILE, Recording

CLOUD = CloudOptions(confidence_percentile=20.0)    # as the node does by default
PICTURE_PATIENCE = 2.0  # seconds after Ctrl-C


def run_reconstruct(options: argparse.Namespace) -> None:
    """
    Reconstruct all frames and write the results; on Ctrl-C write what there is.

    Raises ToolError for what the user can put right, KeyboardInterrupt after Ctrl-C.
    """
    source = open_source(options.input, options.world, options.rate, options.frames, options.size,
                         options.calibration, options.input_topic)
    camera = source.calibration.camera() if source.calibration is not None else None
    Recording.check_folder(options.out)
    loaded, engine = _load(options)
    print(f'weights: {loaded.description}', flush=True)
    recording = Recording(model=loaded.description, random_weights=loaded.random_weights)
    ahead = FramesAhead(source.frames())
    try:
        seconds = _reconstruct_all(engine, ahead, source.count, camera, recording)
        files = [*recording.write_data(options.out), _write_picture(recording, options.out)]
    except (KeyboardInterrupt, ToolError) as error:
        ignore_signals()
        ahead.stop()
        print('\ninterrupted' if isinstance(error, KeyboardInterrupt) else '\nended by an error')
        _save_so_far(recording, options.out)
        raise
    cache = recording.cache[-1]
    print(f'{recording.frames} frames in {seconds:.1f} s, median latency '
          f'{1e3 * recording.median_latency():.0f} ms, KV cache {cache.tokens_used} tokens a '
          f'layer ({cache.bytes_used / 1e6:.1f} MB)')
    if source.describe_skipped():
        print(source.describe_skipped())
    if recording.errors() is not None:
        print(describe_errors(recording.errors()))
    print('\n'.join(str(file) for file in files))


def _reconstruct_all(
    engine: StreamEngine, frames: Iterable[SourceFrame], count: int | None,
    camera: CameraModel | None, recording: Recording,
) -> float:
    """Put all frames into the recording; return the seconds it took."""
    bar = ProgressBar('reconstructing', count)
    start = time.perf_counter()
    for frame in frames:
        seconds = _reconstruct(engine, frame, camera, recording)
        bar.update(recording.frames, f'{1e3 * seconds:.0f} ms a frame, '
                                     f'cache {recording.cache[-1].tokens_used} tokens')
    bar.close(recording.frames)
    return time.perf_counter() - start


def _save_so_far(recording: Recording, folder: Path) -> None:
    """Write and name what there is; the picture only if that does not keep anybody waiting."""
    if not recording.poses:
        print('no frame was finished: nothing is saved', flush=True)
        return
    files = recording.write_data(folder)
    print(f'saved {recording.frames} frames:')
    print('\n'.join(str(file) for file in files), flush=True)
    try:
        with time_limit(PICTURE_PATIENCE):
            print(_write_picture(recording, folder), flush=True)
    except OutOfTime:
        print(f'{PICTURE_FILE} is left out: drawing it takes longer than {PICTURE_PATIENCE:g} s',
              flush=True)


def _write_picture(recording: Recording, folder: Path) -> Path:
    """Draw the picture of the run; Matplotlib is imported here, for it takes a second."""
    from xsvggt_ros.recordings.figure import write_picture

    return write_picture(recording, folder)


def _load(options: argparse.Namespace) -> tuple[LoadedModel, StreamEngine]:
    """Return the network and the engine that the options ask for."""
    device = choose_device(options.device)
    loaded = load_network(options.checkpoint, 'auto', device, dtype=options.dtype)
    try:
        cache = CacheConfig(policy=options.policy, max_tokens=options.max_tokens,
                            quantization=options.quantization)
        engine = build_engine(loaded, EngineOptions(
            cache, options.dtype, image_size=network_image_size(options) or None,
            threads=options.threads or 0), device)
    except (ValueError, RuntimeError) as error:
        raise ToolError(str(error)) from error
    engine.want_points(CLOUD.source == 'points')
    return loaded, engine


def _reconstruct(
    engine: StreamEngine, frame: SourceFrame, camera: CameraModel | None, recording: Recording,
) -> float:
    """Put one frame through the engine and into the recording; return the seconds it took."""
    pixels = frame.pixels
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    start = time.perf_counter()
    try:
        result = engine.step(pixels, camera)
        engine.accept([result])  # nothing that is not finite gets into the files
    except ResultError as error:
        raise ToolError(
            f'frame {recording.frames}: this is no reconstruction: {error}. '
            'The weights are damaged, or too coarse for this number type') from error
    except (ValueError, RuntimeError, MemoryError) as error:
        words = str(error) or type(error).__name__
        raise ToolError(f'frame {recording.frames}: {words}') from error
    cloud = pack_cloud(result, CLOUD)
    latency = time.perf_counter() - start
    # Without stamps of their own, frames count from 0.
    stamp_ns = frame.offset_ns if frame.stamp_ns is None else frame.stamp_ns
    pose = _pose(result, stamp_ns)
    recording.poses.append(pose)
    if frame.motion is not None:
        recording.truth.append(
            StampedPose.from_matrix(stamp_ns, frame.motion.world_from_camera))
    recording.map.add(cloud, torch.from_numpy(pose.matrix()))
    recording.cache.append(_cache_row(engine.cache_stats(), stamp_ns, latency))
    recording.image = pixels
    return latency


def _pose(result: FrameResult, stamp_ns: int) -> StampedPose:
    """Return the camera's pose in the odometry frame: forward-left-up at the first camera."""
    world_from_camera = invert_transform(result.camera_from_world.cpu().to(torch.float64))
    odom_from_world = torch.eye(4, dtype=torch.float64)
    odom_from_world[:3, :3] = flu_from_optical()
    return StampedPose.from_matrix(stamp_ns, (odom_from_world @ world_from_camera).numpy())


def _cache_row(stats: CacheStats, stamp_ns: int, latency: float) -> CacheRow:
    return CacheRow(
        stamp=format_stamp(stamp_ns), frame_index=stats.frames - 1,
        tokens_used=max(stats.tokens_per_layer, default=0), tokens_budget=stats.budget or 0,
        occupancy=stats.occupancy, evicted=stats.evicted_this_frame, bytes_used=stats.bytes_used,
        bytes_budget=stats.bytes_reserved, latency=latency)
