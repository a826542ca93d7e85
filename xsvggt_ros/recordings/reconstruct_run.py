"""Feeds frames straight to the engine and keeps what comes out."""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from xsvggt_ros.console.arguments import network_image_size
from xsvggt_ros.console.environment import device_name
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.measurement import choose_device, load_network
from xsvggt_ros.console.processes import ignore_signals, OutOfTime, time_limit
from xsvggt_ros.engine.factory import build_engine, EngineOptions
from xsvggt_ros.engine.stream_engine import StreamEngine
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.model.checkpoint import LoadedModel
from xsvggt_ros.recordings.exports.earlier import remove_earlier
from xsvggt_ros.recordings.exports.export import (
    export_names,
    ExportOptions,
    make_exports,
)
from xsvggt_ros.recordings.frame_source import frames_ahead, FrameSource, open_source
from xsvggt_ros.recordings.inputs.bag import is_bag
from xsvggt_ros.recordings.inputs.bag_hints import HintChoice
from xsvggt_ros.recordings.live_viewer import LiveViewer
from xsvggt_ros.recordings.pipeline import CLOUD, Pipeline, writing_export
from xsvggt_ros.recordings.recording import (
    describe_errors,
    MAP_FILE,
    PICTURE_FILE,
    Recording,
    TRAJECTORY_FILE,
    write_map_landmarks,
    writing,
)
from xsvggt_ros.recordings.recording_scale import RecordingScale
from xsvggt_ros.recordings.report import relative, RunReport, write_report
from xsvggt_ros.recordings.resume import forget_state, load_state, save_state
from xsvggt_ros.recordings.tracked_frames import TrackedFrames
from xsvggt_ros.trajectory.landmark_file import LandmarkFileError, read_landmarks
from xsvggt_ros.trajectory.landmark_map import LandmarkMap

PICTURE_PATIENCE = 2.0  # seconds after Ctrl-C


def run_reconstruct(options: argparse.Namespace) -> None:
    """
    Reconstruct all frames and write the results; on Ctrl-C write what there is.

    Raises ToolError for what the user can put right, KeyboardInterrupt after Ctrl-C.
    """
    names = export_names(options.export)
    landmarks = _landmarks(options)
    source = open_source(options.input, options.world, options.rate, options.frames, options.size,
                         options.calibration, options.input_topic, _hints(options))
    hints = getattr(source, 'hints', None)
    metres = RecordingScale(options.scale if isinstance(options.scale, float) else None,
                            options.scale != 'none' and hints is not None
                            and bool(hints.describe()))
    Recording.check_folder(options.out)
    exports = make_exports(names, ExportOptions(
        options.out, str(options.input or 'synthetic world'), _grid_options(options),
        options.base_frame or ''))
    report = _begin_report(options, source)
    loaded, engine = _load(options)
    print(f'weights: {loaded.description}', flush=True)
    tracked = None if options.trajectory == 'network' else TrackedFrames(
        options.trajectory, options.depth_correction == 'auto', landmarks=landmarks)
    viewer = _open_viewer(report.source) if options.viewer else None
    recording = Recording(model=loaded.description, random_weights=loaded.random_weights)
    run = Pipeline(engine, source, recording, exports, metres, tracked,
                   None if viewer is None else viewer.show)
    settings = _settings(options)
    if options.resume:
        _go_on(run, load_state(options.out, settings, choose_device(options.device)))
    else:
        forget_state(options.out)   # of an earlier run, whose files are replaced now
    ahead = frames_ahead(source)
    try:
        run.reconstruct_all(ahead, lambda: _save_state(run, settings, options.out))
        report.complete = True
        _tell_summary(run)
        _tell_files(_write_all(run, report, options.out))
    except (KeyboardInterrupt, ToolError) as error:
        ignore_signals()
        ahead.stop()
        report.complete = False
        _end_early(run, report, options.out,
                   settings if isinstance(error, KeyboardInterrupt) else None)
        raise
    forget_state(options.out)
    if viewer is not None:
        viewer.finish(run.recording)


def _open_viewer(source: str) -> LiveViewer:
    viewer = LiveViewer(source)
    print(f'viewer: {viewer.address}', flush=True)
    return viewer


def _end_early(run: Pipeline, report: RunReport, folder: Path,
               settings: dict[str, Any] | None) -> None:
    """Write what there is; settings: of a run that was interrupted, which may go on from here."""
    resumes = settings is not None and _save_state(run, settings, folder)
    print('\nended by an error' if settings is None else '\ninterrupted')
    with suppress(ToolError):   # the first one is told
        run.finish()
    _save_so_far(run, report, folder)
    if resumes:
        print('the same command with --resume goes on from here', flush=True)


def _landmarks(options: argparse.Namespace) -> LandmarkMap | None:
    """Return the saved map in which the run is to find itself, if any; raises ToolError."""
    if options.localize_in is None:
        return None
    if options.trajectory != 'optimized':
        raise ToolError('--localize-in needs --trajectory optimized: only that has keyframes')
    if options.scale not in ('auto', 'none'):
        raise ToolError('--localize-in brings lengths into the unit of the saved map: leave '
                        '--scale out')
    saved, out = options.localize_in, options.out.resolve()
    if out in (saved.parent.resolve(), saved.resolve().parent):
        raise ToolError(f'--out {options.out}: has the saved map that --localize-in names, which '
                        'would be replaced; give another folder')
    try:
        landmarks = read_landmarks(options.localize_in)
    except LandmarkFileError as error:
        raise ToolError(f'--localize-in: {error}') from error
    _check_unit(options, landmarks)
    return landmarks


def _check_unit(options: argparse.Namespace, landmarks: LandmarkMap) -> None:
    """Raise ToolError for a topic that is to give metres where the saved map has none."""
    asked = [name for name, topic in (('--depth-topic', options.depth_topic),
                                      ('--odometry-topic', options.odometry_topic)) if topic]
    if asked and options.scale != 'none' and not landmarks.is_metric:
        raise ToolError(f'{" and ".join(asked)}: {options.localize_in.absolute()} is not in '
                        'metres, and what is localised in it takes its unit; leave the topic '
                        'out, or add --scale none: an odometry is then compared only')


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that a run has to have from its beginning to its end."""
    free = {'out', 'resume', 'viewer', 'frames', 'device', 'threads', 'run', 'command'}
    return {name: str(value) for name, value in vars(options).items() if name not in free}


def _go_on(run: Pipeline, state: dict[str, Any]) -> None:
    """Give a run the state of an earlier one; raises ToolError."""
    if getattr(run.source, 'is_live', False):
        raise ToolError('--resume: a camera cannot be played again')
    try:
        run.restore(state)
    except (ValueError, KeyError, AttributeError) as error:
        raise ToolError(f'--resume: the run cannot be gone on with: {error}') from error
    print(f'going on after {run.frames} frames', flush=True)


def _save_state(run: Pipeline, settings: dict[str, Any], folder: Path) -> bool:
    """Save what `--resume` goes on from; return whether that could be done."""
    state = None if getattr(run.source, 'is_live', False) else run.state()
    if state is None:
        return False
    try:
        save_state(folder, settings, state)
    except OSError as error:
        print(f'\nthe run cannot be saved for --resume: {error}', flush=True)
        return False
    return True


def _hints(options: argparse.Namespace) -> HintChoice | None:
    """Return what is wanted of a bag beside its images; raises ToolError if it is no bag."""
    scale = 'none' if isinstance(options.scale, float) else options.scale
    choice = HintChoice(scale, options.depth_topic, options.odometry_topic,
                        options.base_frame or '')
    is_recording = options.input is not None and options.input.exists()
    if is_recording and is_bag(options.input):
        return choice
    asked = {'--scale ' + scale: scale in ('depth', 'odometry'),
             '--depth-topic': choice.depth_topic, '--odometry-topic': choice.odometry_topic,
             '--base-frame': choice.base_frame}
    for name, is_asked in asked.items():
        if is_asked:
            raise ToolError(f'{name}: {options.input or "the synthetic world"} is no bag; only '
                            'bags have depth, odometry and TF beside the images')
    return None


def _grid_options(options: argparse.Namespace) -> dict[str, float]:
    """Return what the options say of the occupancy grid; raises ToolError."""
    given = {name: getattr(options, f'grid_{name}') for name in ('resolution', 'low', 'high')}
    low, high = given['low'], given['high']
    if low is not None and high is not None and low >= high:
        raise ToolError(f'--grid-low {low:g} is not below --grid-high {high:g}: nothing would be '
                        'an obstacle')
    return {name: value for name, value in given.items() if value is not None}


def _begin_report(options: argparse.Namespace, source: FrameSource) -> RunReport:
    name = f'synthetic world {options.world}' if options.input is None else str(options.input)
    cache = {'policy': options.policy, 'quantization': options.quantization,
             'max_tokens': options.max_tokens}
    device = device_name(choose_device(options.device))
    return RunReport(name, source.calibration, {}, cache, device, trajectory=options.trajectory,
                     base_frame=options.base_frame or '')


def _tell_summary(run: Pipeline) -> None:
    """Print what came of a run."""
    recording, source = run.recording, run.source
    if not recording.cache:
        raise ToolError('not one frame could be reconstructed. ' + source.describe_skipped())
    cache = recording.cache[-1]
    print(f'{recording.frames} frames in {run.seconds:.1f} s, median latency '
          f'{1e3 * recording.median_latency():.0f} ms, KV cache {cache.tokens_used} tokens a '
          f'layer ({cache.bytes_used / 1e6:.1f} MB)')
    if source.describe_skipped():
        print(source.describe_skipped())
    errors = recording.errors()
    if errors is not None:
        print(describe_errors(errors))
    told = [run.tracked.describe() if run.tracked is not None else '', run.metres.describe()]
    print('\n'.join(filter(None, told)))


def _tell_files(files: Sequence[Path]) -> None:
    """Print where files are."""
    print('\n'.join(str(file.absolute()) for file in files), flush=True)


def _write_all(run: Pipeline, report: RunReport, folder: Path) -> list[Path]:
    """Write everything but for the exports that were written before; return the files."""
    files = _write_data(run, report, folder)
    files.insert(-1, _write_picture(run.recording, folder))
    return files


def _write_data(run: Pipeline, report: RunReport, folder: Path) -> list[Path]:
    """Write map, trajectory, cache table, exports and report; return the files; ToolError."""
    _remove_earlier(run, folder)
    files = run.recording.write_data(folder)
    saved = write_map_landmarks(folder, run.landmarks())
    files += saved
    report.exports = {'ply': {'files': [MAP_FILE, *relative(saved, folder)]},
                      'tum': {'files': [TRAJECTORY_FILE]}}
    for export in run.exports:
        with writing_export(export.name):
            written = export.finish(run.recording)
        report.exports[export.name] = {'files': relative(written, folder)} | export.notes
        files += written
    report.seconds, report.skipped = run.seconds, run.source.describe_skipped()
    report.scale, report.against_odometry = run.metres.as_json(), run.against_odometry
    report.poses_from = run.poses_from
    report.localization = run.tracked.localization if run.tracked is not None else None
    return [*files, write_report(folder, report, run.recording)]


def _remove_earlier(run: Pipeline, folder: Path) -> None:
    """Remove what this run does not replace of one that was written there before; ToolError."""
    with writing(folder):
        removed = remove_earlier(folder, [export.name for export in run.exports])
        (folder / PICTURE_FILE).unlink(missing_ok=True)
    if removed:
        print(f'removed from {folder}, for they were of an earlier run: {", ".join(removed)}')


def _save_so_far(run: Pipeline, report: RunReport, folder: Path) -> None:
    """Write and name what there is; the picture only if that does not keep anybody waiting."""
    recording = run.recording
    if not recording.poses:
        print('no frame was finished: nothing is saved', flush=True)
        return
    files = _write_data(run, report, folder)
    print(f'saved {recording.frames} frames:')
    _tell_files(files)
    try:
        with time_limit(PICTURE_PATIENCE):
            _tell_files([_write_picture(recording, folder)])
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
            threads=options.threads or 0, first_frames=options.first_frames), device)
    except (ValueError, RuntimeError) as error:
        raise ToolError(str(error)) from error
    engine.want_points(CLOUD.source == 'points')
    return loaded, engine
