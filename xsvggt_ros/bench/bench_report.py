"""The bench's results as a table for a terminal, as Markdown and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from textwrap import fill
from typing import Any

import torch

from xsvggt_ros.bench.cache_bench import BenchRow, CacheBench
from xsvggt_ros.console.environment import device_name
from xsvggt_ros.console.tables import markdown_table, text_table, TEXT_WIDTH
from xsvggt_ros.kv_cache.retention import POLICIES

COLUMNS = ('policy', 'precision', 'tokens', 'MB', '%', 'depth drift', 'pose drift', 'rot deg',
           'att kept', 'frames', 'abs rel', 'ATE', 'ms', 'quantise', 'attend', 'score', 'evict')


def to_json(
    rows: Sequence[BenchRow], bench: CacheBench, device: torch.device, command: str, version: str,
) -> dict[str, Any]:
    """Return what the JSON file holds."""
    return {
        'command': command, 'version': version, 'torch': torch.__version__,
        'device': device_name(device), 'threads': torch.get_num_threads(),
        'model': bench.loaded.description,
        'image': f'{bench.width}x{bench.height}', 'frames': len(bench.stream.images),
        'byte_budget': bench.byte_budget, 'rows': [asdict(row) for row in rows]}


def cells(row: BenchRow, byte_budget: int) -> list[str]:
    """Return a row as words; the columns are `COLUMNS`."""
    limited = POLICIES[row.policy].bounded
    return [
        row.policy, ' '.join(filter(None, (row.quantization, row.scheme))), str(row.tokens),
        f'{row.bytes / 1e6:.2f}', f'{100 * row.bytes / byte_budget:.1f}' if limited else '-',
        _number(row.depth_drift), _number(row.pose_drift), _number(row.rotation_drift_deg),
        f'{row.attention_kept:.3f}', f'{row.frames_kept:.1f}', _number(row.depth_abs_rel),
        _number(row.ate_ratio),
        *(f'{value:.1f}' for value in (
            row.ms_frame, row.ms_quantise, row.ms_attend, row.ms_score, row.ms_evict))]


def report(
    rows: Sequence[BenchRow], bench: CacheBench, device: torch.device, markdown: bool,
) -> str:
    """Return the table, what it was made with, and what its columns mean."""
    lines = [cells(row, bench.byte_budget) for row in rows]
    if markdown:
        return '\n\n'.join(
            [*_about(bench, device), markdown_table(COLUMNS, lines), *_notes(bench)])
    about, notes = ('\n'.join(fill(text, TEXT_WIDTH) for text in texts)
                    for texts in (_about(bench, device), _notes(bench)))
    return f'{about}\n\n{text_table(COLUMNS, lines)}\n\n{notes}'


def _about(bench: CacheBench, device: torch.device) -> list[str]:
    """Return what the table was made with."""
    return [
        f'{bench.stream.name}, {len(bench.stream.images)} frames at {bench.width}x{bench.height} '
        f'({bench.tokens_per_frame} tokens each); {bench.loaded.description}; '
        f'{device_name(device)}, threads: {torch.get_num_threads()}, torch {torch.__version__}.',
        f'Byte budget of all bounded rows: {bench.byte_budget / 1e6:.3f} MB for both caches, '
        f'what {bench.tokens} tokens a layer take in bf16; the camera head remembers '
        f'{bench.camera_tokens} tokens a layer in each.']


def _notes(bench: CacheBench) -> list[str]:
    """Return what the columns mean."""
    notes = [
        '%: of the byte budget that is reserved. Drift is against full in fp32 and, like the ms '
        '(medians), of the second half of the stream. depth: mean |log ratio|; pose: mean '
        "distance of the camera / RMS spread of the full run's; att kept: share of the newest "
        "frame's attention that stays remembered; frames: of which a token remains; quantise to "
        'evict: the global layers only, score with what att kept costs.']
    if bench.loaded.random_weights:
        notes.append('abs rel, ATE: n/a, as random weights predict nothing. Drift then tells how '
                     'well a cache stands for all of the past, not how good the result is.')
    elif bench.stream.depths is None:
        notes.append('abs rel, ATE: n/a, as the truth is not known.')
    else:
        notes.append('abs rel: depth against the truth, after one median scale; ATE: positions '
                     'after a similarity, RMS error / RMS spread of the true ones.')
    return notes


def _number(value: float | None) -> str:
    return 'n/a' if value is None else f'{value:.3g}'
