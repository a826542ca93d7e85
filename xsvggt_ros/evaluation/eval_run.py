"""Runs an evaluation: streams in, a table and a JSON file out."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
import shlex
import sys
import time

import numpy as np
import torch

from xsvggt_ros.console.arguments import is_whole
from xsvggt_ros.console.environment import package_version
from xsvggt_ros.console.errors import ChoiceError, ToolError
from xsvggt_ros.console.measurement import (
    check_image_size,
    check_tracking_size,
    check_writable,
    choose_device,
    load_network,
    write_json,
)
from xsvggt_ros.console.progress import ProgressBar
from xsvggt_ros.evaluation import evaluation
from xsvggt_ros.evaluation.datasets.layouts import open_sequences
from xsvggt_ros.evaluation.eval_report import EvalRow, make_row, report, to_json
from xsvggt_ros.evaluation.eval_streams import EvalSource, EvalStream, prepare, world_sources
from xsvggt_ros.evaluation.evaluation import EvalSetting, Prediction, REMOVALS
from xsvggt_ros.evaluation.tracking import track
from xsvggt_ros.kv_cache.config import QUANTIZATIONS
from xsvggt_ros.kv_cache.retention import POLICIES
from xsvggt_ros.model.camera_head import ITERATIONS
from xsvggt_ros.model.checkpoint import LoadedModel


def run_eval(options: argparse.Namespace) -> None:
    """Evaluate what the options choose; raise ToolError for what is wrong."""
    settings, lengths = choose_settings(options), read_lengths(options.frames)
    check_writable(options.json)
    device = choose_device(options.device)
    loaded, width = _load(options, device, min(lengths))
    streams = load_streams(options, width, loaded.config.patch_size)

    total = len(settings) * sum(len(stream.images) for stream in streams)
    bar = ProgressBar('evaluating', total, sys.stderr)
    done, start = 0, time.monotonic()
    rows: list[EvalRow] = []
    for setting in settings:
        def frame_done() -> None:
            nonlocal done
            done += 1
            bar.update(done, str(setting))

        # A longer stream's beginning is what the shorter stream would have been.
        ends = [[min(length, len(stream.images)) for length in lengths] for stream in streams]
        predictions = [
            evaluation.predict(loaded, setting, stream, device, options.dtype, frame_done, end,
                               options.keyframe_stride, options.tracking_size,
                               options.threads or 0, options.first_frames)
            for stream, end in zip(streams, ends)]
        for number, length in enumerate(lengths):
            starts = [(predicted.first(end[number]), stream.first(end[number]))
                      for predicted, stream, end in zip(predictions, streams, ends)]
            rows.append(_row(setting, length, starts, options))
    bar.close(total, f'{len(settings)} settings in {time.monotonic() - start:.0f} s')
    rows.sort(key=lambda row: row.frames)
    base = []
    for length in lengths:
        beginnings = [stream.first(length) for stream in streams]
        base.append(make_row(EvalSetting('no motion', 'constant depth'), length, [
            evaluation.score(evaluation.baseline(start), start) for start in beginnings]))
    print(report(rows, base, streams, loaded, device, options.markdown), flush=True)
    if options.json is not None:
        write_json(options.json, to_json(rows, base, streams, loaded, device,
                                         _command(options), package_version()))


def _load(options: argparse.Namespace, device: torch.device,
          shortest: int) -> tuple[LoadedModel, int]:
    """Return the network and the width at which it works; shortest: frames of a stream."""
    loaded = load_network(options.checkpoint, options.size, device, options.weights,
                          options.dtype)
    loaded.model.camera_head.iterations = options.camera_iterations
    try:
        loaded.model.join_first_frames(options.first_frames)
    except ValueError as error:
        raise ToolError(f'--{str(error).replace("_", "-", 1)}') from error
    if options.first_frames > shortest:
        raise ToolError(f'--first-frames {options.first_frames}: a stream of --frames '
                        f'{shortest} has fewer')
    width = options.image_size or loaded.config.img_size
    check_image_size(width, loaded.config.patch_size)
    check_tracking_size(options.tracking_size, width, options.keyframe_stride,
                        loaded.config.patch_size)
    return loaded, width


def _row(setting: EvalSetting, length: int, starts: list[tuple[Prediction, EvalStream]],
         options: argparse.Namespace) -> EvalRow:
    """Return the row of a setting and a length: predictions, and the streams they are of."""
    if options.trajectory == 'network':
        row = make_row(setting, length, [evaluation.score(*start) for start in starts])
        return replace(row, tenths=evaluation.error_tenths(starts))
    runs = [track(predicted, stream, options.trajectory, options.focal == 'known',
                  options.depth_correction == 'auto')
            for predicted, stream in starts]
    scores = [[evaluation.score(predicted, stream)
               for predicted, (_, stream) in zip(kind, starts)] for kind in zip(*runs)]
    return make_row(setting, length, scores[0], options.trajectory, scores[1])


def read_lengths(text: str) -> list[int]:
    """Return the lengths of streams that `--frames` asks for, ascending; raise ChoiceError."""
    if not all(is_whole(part) and int(part) for part in text.split(',')):
        raise ChoiceError(f"--frames takes whole numbers above 0, got '{text}'")
    return sorted({int(part) for part in text.split(',')})


def choose_settings(options: argparse.Namespace) -> list[EvalSetting]:
    """Return a setting for each row; raise ChoiceError for a name that does not exist."""
    policies, precisions = options.policy.split(','), options.quantization.split(',')
    removals = [name for name in options.remove.split(',') if name]
    for what, names, known in (('policy', policies, POLICIES),
                               ('quantization', precisions, QUANTIZATIONS),
                               ('removal', removals, REMOVALS)):
        for name in names:
            if name not in known:
                raise ChoiceError(f"there is no {what} '{name}'; choose from {', '.join(known)}")
    if removals and options.keyframe_stride > 1:
        raise ChoiceError('--remove hides frames of a stream that is remembered as a whole: leave '
                          '--keyframe-stride out')
    budgets: list[int | None] = [None]
    if options.tokens:
        if not all(is_whole(text) and int(text) for text in options.tokens.split(',')):
            raise ChoiceError(f"--tokens takes whole numbers above 0, got '{options.tokens}'")
        budgets = [int(text) for text in options.tokens.split(',')]
    settings = [EvalSetting(policy, precision, budget if POLICIES[policy].bounded else None)
                for policy in policies for precision in precisions for budget in budgets]
    settings += [EvalSetting('full', 'none', removed=name) for name in removals]
    return list(dict.fromkeys(settings))


def load_streams(options: argparse.Namespace, width: int, patch_size: int) -> list[EvalStream]:
    """Return the chosen streams at the network's size; raise ToolError."""
    recordings: Sequence[EvalSource]
    frames = read_lengths(options.frames)[-1]
    if options.data is None:
        recordings = world_sources(options.world, options.streams, frames * options.stride,
                                   options.rate)
    else:
        recordings = open_sequences(options.data, options.layout)[:options.streams]
    total = sum(min(frames, -(-len(one) // options.stride)) for one in recordings)
    bar = ProgressBar('reading', total, sys.stderr)
    done = 0

    def frame_done() -> None:
        nonlocal done
        done += 1
        bar.update(done)

    streams = [prepare(recording, frames, options.stride, width, patch_size, frame_done,
                       options.trajectory != 'network')
               for recording in recordings]
    bar.close(done)
    if not any((stream.depths > 0).any() or np.isfinite(stream.world_from_camera).any()
               for stream in streams):
        raise ToolError(f'{options.data}: neither depth nor poses are known, so there is nothing '
                        'to compare with')
    return streams


def _command(options: argparse.Namespace) -> str:
    """Return the command that repeats the run, with file names in place of paths."""
    words = ['xsvggt', 'eval']
    if options.data is None:
        words += ['--world', options.world, '--rate', f'{options.rate:g}']
    else:
        words += ['--data', options.data.resolve().name]
    words += ['--checkpoint', Path(options.checkpoint).name]
    for name in ('layout', 'size', 'streams', 'frames', 'stride', 'image_size', 'policy',
                 'quantization', 'tokens', 'remove', 'tracking_size', 'dtype', 'device'):
        value = getattr(options, name)
        if value not in (None, '', 'auto'):
            words += ['--' + name.replace('_', '-'), str(value)]
    if options.trajectory != 'network':
        words += ['--trajectory', options.trajectory, '--focal', options.focal]
        if options.depth_correction != 'auto':
            words += ['--depth-correction', options.depth_correction]
    if options.weights != 'auto':
        words += ['--weights', options.weights]
    if options.camera_iterations != ITERATIONS:
        words += ['--camera-iterations', str(options.camera_iterations)]
    if options.first_frames > 1:
        words += ['--first-frames', str(options.first_frames)]
    if options.keyframe_stride > 1:
        words += ['--keyframe-stride', str(options.keyframe_stride)]
    return shlex.join(words)
