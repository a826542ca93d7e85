"""Feeds frames straight to the engine and keeps what comes out."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
import time

import numpy as np
import torch

from xsvggt_ros.console.arguments import network_image_size
from xsvggt_ros.console.environment import device_name
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.measurement import choose_device, load_network
from xsvggt_ros.console.processes import ignore_signals, OutOfTime, time_limit
from xsvggt_ros.console.progress import ProgressBar, ProgressRate
from xsvggt_ros.engine.cache_stats import CacheStats
from xsvggt_ros.engine.factory import build_engine, EngineOptions
from xsvggt_ros.engine.frame_result import ResultError
from xsvggt_ros.engine.stream_engine import FrameResult, StreamEngine
from xsvggt_ros.geometry.se3 import invert_transform
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.mapping.map_files import format_stamp
from xsvggt_ros.mapping.point_cloud import CloudOptions, pack_cloud
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.model.checkpoint import LoadedModel
from xsvggt_ros.recordings.exports.export import (
    Export,
    export_names,
    ExportOptions,
    FrameOutput,
    make_exports,
    SourcePictures,
)
from xsvggt_ros.recordings.followed_frames import FollowedFrames, odom_pose
from xsvggt_ros.recordings.frame_source import frames_ahead, FrameSource, open_source
from xsvggt_ros.recordings.outputs import CacheRow
from xsvggt_ros.recordings.recording import (
    describe_errors,
    MAP_FILE,
    PICTURE_FILE,
    Recording,
    TRAJECTORY_FILE,
)
from xsvggt_ros.recordings.report import relative, RunReport, write_report
from xsvggt_ros.recordings.sink_thread import SinkThread
from xsvggt_ros.recordings.source_frame import SourceFrame

CLOUD = CloudOptions(confidence_percentile=20.0)    # as the node does by default
PICTURE_PATIENCE = 2.0  # seconds after Ctrl-C


def run_reconstruct(options: argparse.Namespace) -> None:
    """
    Reconstruct all frames and write the results; on Ctrl-C write what there is.

    Raises ToolError for what the user can put right, KeyboardInterrupt after Ctrl-C.
    """
    names = export_names(options.export)
    source = open_source(options.input, options.world, options.rate, options.frames, options.size,
                         options.calibration, options.input_topic)
    Recording.check_folder(options.out)
    exports = make_exports(names, ExportOptions(
        options.out, options.scale is not None, str(options.input or 'synthetic world'),
        _grid_options(options)))
    report = _begin_report(options, source)
    loaded, engine = _load(options)
    print(f'weights: {loaded.description}', flush=True)
    recording = Recording(model=loaded.description, random_weights=loaded.random_weights,
                          metric=options.scale is not None)
    followed = None
    if options.trajectory != 'network':
        followed = FollowedFrames(options.trajectory, options.depth_correction == 'auto')
    run = _Run(engine, source, recording, exports, options.scale, followed)
    ahead = frames_ahead(source)
    try:
        run.reconstruct_all(ahead)
        report.complete = True
        _tell_summary(recording, run.seconds, source)
        if followed is not None:
            print(followed.describe())
        files = _write_all(run, report, options.out)
    except (KeyboardInterrupt, ToolError) as error:
        ignore_signals()
        ahead.stop()
        print('\ninterrupted' if isinstance(error, KeyboardInterrupt) else '\nended by an error')
        report.complete = False
        with suppress(ToolError):   # the first one is told
            run.finish()
        _save_so_far(run, report, options.out)
        raise
    print('\n'.join(str(file) for file in files))


def _grid_options(options: argparse.Namespace) -> dict[str, float]:
    """Return what the options say of the occupancy grid."""
    given = {name: getattr(options, f'grid_{name}') for name in ('resolution', 'low', 'high')}
    return {name: value for name, value in given.items() if value is not None}


def _begin_report(options: argparse.Namespace, source: FrameSource) -> RunReport:
    name = f'synthetic world {options.world}' if options.input is None else str(options.input)
    cache = {'policy': options.policy, 'quantization': options.quantization,
             'max_tokens': options.max_tokens}
    return RunReport(name, source.calibration, options.scale, cache,
                     device_name(choose_device(options.device)), trajectory=options.trajectory)


class _Run:
    """One run: each frame goes through the engine, into the recording and to the exports."""

    def __init__(self, engine: StreamEngine, source: FrameSource, recording: Recording,
                 exports: Sequence[Export] = (), scale: float | None = None,
                 followed: FollowedFrames | None = None) -> None:
        """
        Begin before the first frame; scale: metres for one unit of the network.

        followed: locates the frames; None: the network does.
        """
        self.engine, self.source, self.recording = engine, source, recording
        self.exports = exports
        self.seconds = 0.0
        self._stride = 1  # of the frames that are remembered
        self._scale = scale
        self._followed = followed
        self._failed: set[str] = set()   # exports, which get no more frames
        self._sink = SinkThread(self._take)
        self._camera = source.calibration.camera() if source.calibration is not None else None
        self._pictures: SourcePictures | None = None

    def reconstruct_all(self, frames: Iterable[SourceFrame]) -> None:
        """Take all frames, and show how it goes on."""
        count = self.source.count
        bar, pace = ProgressBar('reconstructing', count), ProgressRate(count)
        start = time.perf_counter()
        for frame in frames:
            output = self.reconstruct(frame)
            if self._followed is None:
                self.give(output)
            else:
                self._followed.hold(output, self.give, self._scale or 1.0)
            done = self.recording.frames
            self.seconds = time.perf_counter() - start
            bar.update(done, f'{pace.words(done)}, {_cache_words(output.cache)}'.lstrip(', '))
        bar.close(self.recording.frames)
        self.finish()

    def finish(self) -> None:
        """Give on what waits for its final pose, and wait until all is taken."""
        try:
            if self._followed is not None:
                self._followed.finish(self.recording, self.give, self._scale or 1.0)
        finally:
            self._sink.finish()

    def give(self, output: FrameOutput) -> None:
        """Put a frame whose pose is final into the map and the exports, beside the next one."""
        self._sink.put(output)

    def _take(self, output: FrameOutput) -> None:
        self.recording.map.add(output.cloud, torch.from_numpy(output.pose.matrix()))
        for export in self.exports:
            if export.name not in self._failed:
                self._failed.add(export.name)
                with writing_export(export.name):
                    export.add(output)
                self._failed.remove(export.name)

    def reconstruct(self, frame: SourceFrame) -> FrameOutput:
        """Put one frame through the engine and into the recording."""
        pixels, recording = frame.pixels, self.recording
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[:, :, None], 3, axis=2)
        start = time.perf_counter()
        result = self._step(pixels)
        cloud = pack_cloud(result, CLOUD)
        latency = time.perf_counter() - start
        # Without stamps of their own, frames count from 0.
        stamp_ns = frame.offset_ns if frame.stamp_ns is None else frame.stamp_ns
        pose = _pose(result, stamp_ns)
        row = _cache_row(self.engine.cache_stats(), stamp_ns, latency)
        recording.poses.append(pose)
        if frame.motion is not None:
            recording.truth.append(
                StampedPose.from_matrix(stamp_ns, frame.motion.world_from_camera))
        recording.cache.append(row)
        recording.image = pixels
        return FrameOutput(len(recording.poses) - 1, stamp_ns, pixels, result, pose, cloud, row,
                           self._source_pictures())

    def _step(self, pixels: np.ndarray) -> FrameResult:
        """Return what the network makes of a frame; raises ToolError."""
        number = self.recording.frames
        if number == 1 and self.source.count is not None:
            self._stride = self.engine.caches.keyframe_stride(self.source.count)
        try:
            result = self.engine.step(pixels, self._camera, number % self._stride == 0)
            self.engine.accept([result])  # nothing that is not finite gets into the files
            resize = self.engine.resize
            if self._followed is not None and resize is not None:
                result = self._followed.follow(pixels, self._camera, result,
                                               resize.model_from_source())
        except ResultError as error:
            raise ToolError(
                f'frame {number}: this is no reconstruction: {error}. '
                'The weights are damaged, or too coarse for this number type') from error
        except (ValueError, RuntimeError, MemoryError) as error:
            words = str(error) or type(error).__name__
            raise ToolError(f'frame {number}: {words}') from error
        return result if self._scale is None else result.scaled(self._scale)

    def _source_pictures(self) -> SourcePictures:
        if self._pictures is None:
            assert self.engine.resize is not None   # there was a frame
            self._pictures = SourcePictures(self._camera, self.engine.resize)
        return self._pictures


@contextmanager
def writing_export(name: str) -> Iterator[None]:
    """Raise ToolError for what goes wrong while an export is written."""
    try:
        yield
    except OSError as error:
        raise ToolError(f'--export {name}: cannot be written: {error}') from error


def _cache_words(row: CacheRow) -> str:
    """Return in words how full the cache is."""
    share = f' ({100 * row.occupancy:.0f} %)' if row.tokens_budget else ''
    return f'cache {row.tokens_used} tokens{share}'


def _tell_summary(recording: Recording, seconds: float, source: FrameSource) -> None:
    """Print what came of a run."""
    if not recording.cache:
        raise ToolError('not one frame could be reconstructed. ' + source.describe_skipped())
    cache = recording.cache[-1]
    print(f'{recording.frames} frames in {seconds:.1f} s, median latency '
          f'{1e3 * recording.median_latency():.0f} ms, KV cache {cache.tokens_used} tokens a '
          f'layer ({cache.bytes_used / 1e6:.1f} MB)')
    if source.describe_skipped():
        print(source.describe_skipped())
    errors = recording.errors()
    if errors is not None:
        print(describe_errors(errors))


def _write_all(run: _Run, report: RunReport, folder: Path) -> list[Path]:
    """Write everything but for the exports that were written before; return the files."""
    files = _write_data(run, report, folder)
    files.insert(-1, _write_picture(run.recording, folder))
    return files


def _write_data(run: _Run, report: RunReport, folder: Path) -> list[Path]:
    """Write map, trajectory, cache table, exports and report; return the files; ToolError."""
    files = run.recording.write_data(folder)
    report.exports = {'ply': {'files': [MAP_FILE]}, 'tum': {'files': [TRAJECTORY_FILE]}}
    for export in run.exports:
        with writing_export(export.name):
            written = export.finish(run.recording)
        report.exports[export.name] = {'files': relative(written, folder)} | export.notes
        files += written
    report.seconds, report.skipped = run.seconds, run.source.describe_skipped()
    return [*files, write_report(folder, report, run.recording)]


def _save_so_far(run: _Run, report: RunReport, folder: Path) -> None:
    """Write and name what there is; the picture only if that does not keep anybody waiting."""
    recording = run.recording
    if not recording.poses:
        print('no frame was finished: nothing is saved', flush=True)
        return
    files = _write_data(run, report, folder)
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


def _pose(result: FrameResult, stamp_ns: int) -> StampedPose:
    """Return the camera's pose in the odometry frame: forward-left-up at the first camera."""
    world_from_camera = invert_transform(result.camera_from_world.cpu().to(torch.float64))
    return odom_pose(world_from_camera.numpy(), stamp_ns)


def _cache_row(stats: CacheStats, stamp_ns: int, latency: float) -> CacheRow:
    return CacheRow(
        stamp=format_stamp(stamp_ns), frame_index=stats.frames - 1,
        tokens_used=max(stats.tokens_per_layer, default=0), tokens_budget=stats.budget or 0,
        occupancy=stats.occupancy, evicted=stats.evicted_this_frame, bytes_used=stats.bytes_used,
        bytes_budget=stats.bytes_reserved, latency=latency)
