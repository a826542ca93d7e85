"""
Whether the covariance of the odometry holds its errors over 1 s and 5 s.

    python -m xsvggt_ros.evaluation.trajectory_covariance --json FILE [--split validation]
        [--data DIR --rate HZ] [--focal unknown] [--mode tracked]

Rooms of the test split, of which nothing was fitted; or sequences of a data set with true poses.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
import sys
from typing import Any

import numpy as np
import torch

from xsvggt_ros.console.arguments import positive_float, positive_int
from xsvggt_ros.console.command import run_command
from xsvggt_ros.console.environment import device_name, package_version
from xsvggt_ros.console.errors import ChoiceError
from xsvggt_ros.console.measurement import load_network, write_json
from xsvggt_ros.console.tables import markdown_table
from xsvggt_ros.evaluation.consistency import consistency, least_eigenvalue, run_odometry
from xsvggt_ros.evaluation.datasets.layouts import open_sequences
from xsvggt_ros.evaluation.eval_streams import EvalSource, world_sources
from xsvggt_ros.evaluation.tracking import predict_tracked
from xsvggt_ros.world.synthetic_world import SPLITS

SECONDS = (1.0, 5.0)
_FRAMES = 100
_RATE = 5.0   # of rooms, Hz
_SHOWN = (('in the 95 % ellipse', 'coverage', '.3f'), ('error^2 / predicted', 'nees', '.2f'),
          ('error', 'error', '.3f'), ('predicted', 'predicted', '.3f'),
          ('rotation in it', 'rotation_coverage', '.3f'), ('its error^2', 'rotation_nees', '.2f'))


def measure(source: EvalSource, loaded: Any, rate: float, mode: str, focal_known: bool,
            seconds: Sequence[float] = SECONDS) -> dict[str, Any]:
    """Return a stream's figures: of each time, as `Consistency` has them; raise ToolError."""
    stream, predicted = predict_tracked(source, loaded)
    run = run_odometry(predicted, stream, mode, focal_known)
    least = least_eigenvalue(run)
    found = {f'{time:g} s': consistency(run, stream.world_from_camera, max(1, round(time * rate)))
             for time in seconds}
    return {'name': source.name, 'positive_definite': bool(least > 0), 'least_eigenvalue': least,
            'located': sum(name in ('tracks', 'matches') for name in run.sources),
            'over': {name: one and asdict(one) for name, one in found.items()}}


def means(streams: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the means over streams, of each time, over those that are long enough."""
    rows = {}
    for name in streams[0]['over']:
        known = [one['over'][name] for one in streams if one['over'][name] is not None]
        if known:
            rows[name] = {key: float(np.mean([one[key] for one in known])) for key in known[0]}
    return rows


def table(rows: dict[str, dict[str, float]]) -> str:
    """Return the means as Markdown."""
    return markdown_table(
        ['motions over', *(title for title, _, _ in _SHOWN)],
        [[name, *(format(row[key], form) for _, key, form in _SHOWN)]
         for name, row in rows.items()])


def _sources(options: argparse.Namespace) -> Sequence[EvalSource]:
    if options.data is None:
        return world_sources(options.split, options.streams or 12, _FRAMES, _RATE)
    if options.rate is None:
        raise ChoiceError('--data needs --rate: how many frames a second its sequences have')
    return open_sequences(options.data, 'auto')[:options.streams]


def run(options: argparse.Namespace) -> None:
    """Measure, print and write the table; raise ToolError."""
    sources = _sources(options)
    loaded = load_network(options.checkpoint, 'auto', torch.device('cpu'))
    torch.set_num_threads(1)
    streams = []
    for source in sources:
        streams.append(measure(source, loaded, options.rate if options.data else _RATE,
                               options.mode, options.focal == 'known'))
        print(f"{source.name}: {streams[-1]['located']} frames located", file=sys.stderr)
    rows = means(streams)
    print(table(rows))
    write_json(options.json, {
        'version': package_version(), 'device': device_name(torch.device('cpu')),
        'model': loaded.description, 'split': None if options.data else options.split,
        'mode': options.mode, 'focal': options.focal, 'streams': len(streams),
        'positive_definite': all(one['positive_definite'] for one in streams),
        'over': rows, 'of_streams': streams})


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--split', choices=tuple(SPLITS), default='test', help='of the rooms')
    parser.add_argument('--streams', type=positive_int, metavar='N', help='at most; of rooms 12')
    parser.add_argument('--data', type=Path, metavar='DIR', help='sequences instead of rooms')
    parser.add_argument('--rate', type=positive_float, metavar='HZ', help='of the sequences')
    parser.add_argument('--focal', choices=('known', 'unknown'), default='known')
    parser.add_argument('--mode', choices=('tracked', 'optimized'), default='optimized')
    parser.add_argument('--checkpoint', default='small', metavar='FILE')
    parser.add_argument('--json', type=Path, metavar='FILE', required=True)
    options = parser.parse_args(arguments)
    return run_command('trajectory covariance', lambda: run(options))


if __name__ == '__main__':
    sys.exit(main())
