"""
The trajectory's table: network, tracks and adjustment side by side, in rooms and where it is hard.

    python -m xsvggt_ros.evaluation.trajectory_table --json FILE [--sets rooms,loops,long,hard]
        [--data DIR]

The network runs once over each stream; all trajectories are made of what it said.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
import sys
from typing import Any

import torch

from xsvggt_ros.console.arguments import positive_int
from xsvggt_ros.console.command import run_command
from xsvggt_ros.console.environment import device_name, package_version
from xsvggt_ros.console.errors import ChoiceError
from xsvggt_ros.console.measurement import load_network, write_json
from xsvggt_ros.console.tables import markdown_table
from xsvggt_ros.evaluation import evaluation
from xsvggt_ros.evaluation.datasets.layouts import open_sequences
from xsvggt_ros.evaluation.eval_streams import EvalSource, world_sources
from xsvggt_ros.evaluation.evaluation import Scores
from xsvggt_ros.evaluation.hard_streams import HardSource, STREAMS
from xsvggt_ros.evaluation.tracking import predict_tracked, track
from xsvggt_ros.world.synthetic_world import SPLITS

SETS = ('rooms', 'loops', 'long', 'hard')
_HARD_ROOMS = 2
# Name, mode, whether the focal length is known.
RUNS = (('tracked', 'tracked', True), ('optimized', 'optimized', True),
        ('optimized, focal unknown', 'optimized', False))
_SHOWN = (('ATE/spread', 'ate_ratio', '.3f'), ('ATE m', 'ate', '.3f'),
          ('rot deg', 'rotation_deg', '.2f'), ('RPE m', 'rpe_translation', '.4f'),
          ('AbsRel', 'depth_abs_rel', '.3f'), ('d<1.25', 'depth_delta_1_25', '.3f'),
          ('ms', 'seconds_per_frame', '.1f'))


@dataclass(frozen=True)
class Group:
    """Streams whose scores are averaged into one line of the table."""

    name: str
    sources: Sequence[EvalSource]


def groups(sets: list[str], data: Path | None, streams: int | None) -> Iterator[Group]:
    """Yield the chosen groups, with `streams` streams each at most."""
    for name in sets:
        if name not in SETS:
            raise ChoiceError(f"there is no set '{name}'; choose from {', '.join(SETS)}")
    if 'rooms' in sets:
        count = streams or 12
        yield Group(f'{count} rooms, 100 frames at 5 Hz', world_sources('test', count, 100, 5.0))
    if 'loops' in sets:
        count = streams or 3
        yield Group(f'{count} rooms, 400 frames at 10 Hz', world_sources('test', count, 400, 10.0))
    if 'long' in sets:
        count = streams or 3
        yield Group(f'{count} rooms, 1000 frames at 10 Hz',
                    world_sources('test', count, 1000, 10.0))
    if data is not None:
        for sequence in open_sequences(data, 'auto'):
            yield Group(sequence.name, [sequence])
    if 'hard' in sets:
        for hard in STREAMS.values():
            seeds = SPLITS['test'][:min(streams or _HARD_ROOMS, _HARD_ROOMS)]
            yield Group(hard.name, [HardSource(seed, hard) for seed in seeds])


def measure(group: Group, loaded: Any) -> list[dict[str, Any]]:
    """Return a row for each trajectory of a group: the mean over its streams, and each."""
    scores: dict[str, list[Scores]] = {}
    for source in group.sources:
        stream, predicted = predict_tracked(source, loaded)
        scores.setdefault('network', []).append(evaluation.score(predicted, stream))
        for name, mode, known in RUNS:
            for when, run in zip(('final', 'live'), track(predicted, stream, mode, known)):
                scores.setdefault(f'{name}, {when}', []).append(evaluation.score(run, stream))
    return [{'streams': group.name, 'trajectory': name,
             **asdict(evaluation.mean(values)),
             'of_streams': [{'name': source.name, **asdict(one)}
                            for source, one in zip(group.sources, values)]}
            for name, values in scores.items()]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    lines = []
    for row in rows:
        values = [1e3 * row[key] if key == 'seconds_per_frame' else row[key]
                  for _, key, _ in _SHOWN]
        lines.append([row['streams'], row['trajectory'],
                      *('-' if value is None else format(value, form)
                        for value, (_, _, form) in zip(values, _SHOWN))])
    return markdown_table(['streams', 'trajectory', *(name for name, _, _ in _SHOWN)], lines)


def run(options: argparse.Namespace) -> None:
    """Measure, print and write the table; raise ToolError."""
    loaded = load_network(options.checkpoint, 'auto', torch.device('cpu'))
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for group in groups([name for name in options.sets.split(',') if name], options.data,
                        options.streams):
        rows += measure(group, loaded)
        print(table([row for row in rows if row['streams'] == group.name]), flush=True)
        # After each group: what was measured is not lost when it is ended early.
        write_json(options.json, {
            'version': package_version(), 'device': device_name(torch.device('cpu')),
            'model': loaded.description, 'threads': 1, 'rows': rows})


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sets', default='rooms,loops,hard', metavar='A,B')
    parser.add_argument('--streams', type=positive_int, metavar='N', help='of each set, at most')
    parser.add_argument('--data', type=Path, metavar='DIR', help='sequences of a data set, too')
    parser.add_argument('--checkpoint', default='small', metavar='FILE')
    parser.add_argument('--json', type=Path, metavar='FILE', required=True)
    options = parser.parse_args(arguments)
    return run_command('trajectory table', lambda: run(options))


if __name__ == '__main__':
    sys.exit(main())
