"""An evaluation's results as a table for a terminal, as Markdown and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from textwrap import fill
from typing import Any

import torch

from xsvggt_ros.console.environment import device_name
from xsvggt_ros.console.tables import markdown_table, text_table, TEXT_WIDTH
from xsvggt_ros.evaluation.eval_streams import EvalStream
from xsvggt_ros.evaluation.evaluation import EvalSetting, mean, Scores
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.kv_cache.retention import POLICIES
from xsvggt_ros.model.checkpoint import LoadedModel
from xsvggt_ros.model.weight_quantization import weight_bytes

# Heading, score and how it is written.
_SCORES = (('AbsRel', 'depth_abs_rel', '.4f'), ('d<1.25', 'depth_delta_1_25', '.3f'),
           ('ATE/spread', 'ate_ratio', '.4f'), ('ATE m', 'ate', '.3f'),
           ('rot deg', 'rotation_deg', '.2f'), ('RPE m', 'rpe_translation', '.3f'),
           ('RPE deg', 'rpe_rotation_deg', '.2f'), ('acc m', 'accuracy', '.3f'),
           ('comp m', 'completeness', '.3f'), ('focal', 'focal_error', '.3f'))
COLUMNS = ('policy', 'precision', 'frames', 'tokens', 'MB',
           *(heading for heading, _, _ in _SCORES), 'ms')
_NOTES = (
    'MB: keys and values remembered at the end, both caches. AbsRel, d<1.25: depth after one '
    'scale per stream. ATE/spread: position error after Sim(3) over the RMS spread of the true '
    'positions, 1 is a camera that never moves. rot: mean rotation error after the best rotation '
    'of the world. RPE: from frame to frame. acc, comp: of points, after Sim(3) of the '
    'trajectory. focal: relative error. ms: a frame, mean.')


@dataclass(frozen=True)
class EvalRow:
    """One setting, streams of one length, their mean scores and those of each stream."""

    setting: EvalSetting
    frames: int   # of a stream, at most
    mean: Scores
    streams: list[Scores]
    trajectory: str = 'network'
    # Of poses as they were known when each frame came; `mean` and `streams` are the final ones.
    live: 'EvalRow | None' = None
    # Median expected and true relative errors of depth, see `evaluation.error_tenths`.
    tenths: list[tuple[float, float]] = field(default_factory=list)


def make_row(setting: EvalSetting, frames: int, scores: list[Scores], trajectory: str = 'network',
             live: list[Scores] | None = None) -> EvalRow:
    """Return a row of the table."""
    live_row = None
    if live is not None:
        live_row = EvalRow(setting, frames, mean(live), live, f'{trajectory}, live')
    return EvalRow(setting, frames, mean(scores), scores, trajectory, live_row)


def report(rows: Sequence[EvalRow], base: Sequence[EvalRow], streams: Sequence[EvalStream],
           loaded: LoadedModel, device: torch.device, markdown: bool) -> str:
    """Return the table, what it was made with, and what its columns mean."""
    height, width = streams[0].images[0].shape[:2]
    frames = {len(stream.images) for stream in streams}
    count = f'{min(frames)}' if len(frames) == 1 else f'{min(frames)} to {max(frames)}'
    names = streams[0].name + (f' ... {streams[-1].name}' if len(streams) > 1 else '')
    about = (f'{len(streams)} streams of {count} frames at {width}x{height} ({names}); '
             f'{loaded.description}; {device_name(device)}, threads: {torch.get_num_threads()}, '
             f'torch {torch.__version__}.')
    shown = [one for row in rows for one in (row, row.live) if one is not None]
    lines = [cells(row) for row in (*shown, *base)]
    notes = [_NOTES] + ([_known_errors(rows[0])] if rows[0].tenths else [])
    if markdown:
        return '\n\n'.join([about, markdown_table(COLUMNS, lines), *notes])
    return '\n\n'.join([fill(about, TEXT_WIDTH), text_table(COLUMNS, lines),
                        *(fill(note, TEXT_WIDTH) for note in notes)])


def _known_errors(row: EvalRow) -> str:
    """Return how well the network knows its errors, in words."""
    pairs = ', '.join(f'{expected:.3f} {true:.3f}' for expected, true in row.tenths)
    return (f'Relative errors of depth ({row.setting}), expected by confidence and true, medians '
            f'of tenths: {pairs}.')


def cells(row: EvalRow) -> list[str]:
    """Return a row as words; the columns are `COLUMNS`."""
    setting, scores = row.setting, row.mean
    kind = POLICIES.get(setting.policy)
    tokens = '-'
    if kind is not None and kind.bounded:
        tokens = str(setting.tokens or CacheConfig().max_tokens)
    names = (str(setting), '-') if setting.removed else (setting.policy, setting.quantization)
    if row.trajectory != 'network':
        names = (f'{names[0]}, {row.trajectory}', names[1])
    values = (getattr(scores, name) for _, name, _ in _SCORES)
    return [*names, str(row.frames), tokens, f'{scores.cache_bytes / 1e6:.2f}',
            *('-' if value is None else format(value, form)
              for value, (_, _, form) in zip(values, _SCORES)),
            f'{1e3 * scores.seconds_per_frame:.1f}']


def to_json(rows: Sequence[EvalRow], base: Sequence[EvalRow], streams: Sequence[EvalStream],
            loaded: LoadedModel, device: torch.device, command: str,
            version: str) -> dict[str, Any]:
    """Return what the JSON file holds: the first row's means on top, then all rows."""
    height, width = streams[0].images[0].shape[:2]
    return {
        **asdict(rows[0].mean), **_more_json(rows[0]), 'baseline': asdict(base[0].mean),
        'command': command, 'version': version, 'torch': torch.__version__,
        'device': device_name(device), 'threads': torch.get_num_threads(),
        'model': loaded.description, 'weights': loaded.weights,
        'weight_bytes': weight_bytes(loaded.model), 'image': f'{width}x{height}',
        'streams': [{'name': stream.name, 'frames': len(stream.images)} for stream in streams],
        'rows': [{'policy': row.setting.policy, 'quantization': row.setting.quantization,
                  'tokens': row.setting.tokens, 'removed': row.setting.removed,
                  'frames': row.frames, **asdict(row.mean),
                  'of_streams': [asdict(one) for one in row.streams],
                  **_more_json(row)}
                 for row in (*rows, *base)]}


def _more_json(row: EvalRow) -> dict[str, Any]:
    """Return what a row has more: errors by confidence, and poses that are not the network's."""
    if row.live is None:
        return {'depth_error_tenths': row.tenths} if row.tenths else {}
    return {'trajectory': row.trajectory,
            'live': {**asdict(row.live.mean),
                     'of_streams': [asdict(one) for one in row.live.streams]}}
