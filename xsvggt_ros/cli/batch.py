"""Reconstruct many recordings, some at a time; what is done is skipped on the next run."""

import argparse
from importlib.util import find_spec
import os
from pathlib import Path
import sys
import time
from typing import TYPE_CHECKING

from xsvggt_ros.cli.reconstruct import add_result_arguments
from xsvggt_ros.console.arguments import add_recording_arguments, positive_int
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.processes import ignore_signals, interrupt_on_signals, INTERRUPTED

if TYPE_CHECKING:
    from xsvggt_ros.recordings.batch.executors import Executor

EPILOG = """\
example: xsvggt batch 'drives/**/*.mcap' --out maps --workers 2 --export colmap --json maps.json

Each recording has a folder in DIR, which is complete or not there. A run again does what is
left; failures stay noted as NAME.failed.json, and --retry tries them again.

exit codes: 0 all done, 1 some failed, 2 wrong arguments, 130 after Ctrl-C (what is done stays)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument('inputs', nargs='+', metavar='INPUT',
                        help='globs in quotes (** too), recordings, folder trees, or a text file '
                             'with one a line')
    parser.add_argument('--out', type=Path, default=Path('out/batch'), metavar='DIR',
                        help='folder with a folder for each recording (default: out/batch)')
    parser.add_argument('--workers', type=positive_int, default=max(1, (os.cpu_count() or 2) // 2),
                        metavar='N', help='recordings at a time (default: half the processors)')
    parser.add_argument('--on', choices=('auto', 'ray', 'processes'), default='auto',
                        help='what runs them: Ray, or processes of this machine (default: Ray '
                             'with --address or where it is installed)')
    parser.add_argument('--address', metavar='ADDRESS',
                        help="a Ray cluster to join: HOST:PORT, or 'auto' for one that runs on "
                             'this machine; its machines share the folders of recordings and '
                             '--out')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the summary as JSON too')
    parser.add_argument('--retry', action='store_true',
                        help='try those again that failed in an earlier run')
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_shared_arguments(parser)


def _add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is the same for all recordings."""
    add_recording_arguments(parser)
    add_result_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Reconstruct what the options say; return the exit code."""
    interrupt_on_signals()
    try:
        return _run(options)
    except KeyboardInterrupt:
        ignore_signals()
        print('\ninterrupted: what is done stays; the same command goes on', flush=True)
        return INTERRUPTED
    except ToolError as error:
        print(f'xsvggt batch: {error}', file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    # Everything slow to import comes after the handlers, so that Ctrl-C is always quiet.
    from xsvggt_ros.console.measurement import check_writable, write_json
    from xsvggt_ros.console.tables import text_table
    from xsvggt_ros.recordings.batch.plan import find_recordings, make_tasks
    from xsvggt_ros.recordings.batch.runner import batch_folder, BatchRunner, hints, summary
    from xsvggt_ros.recordings.exports.export import export_names

    if options.address is not None and options.on == 'processes':
        raise ToolError('--address is of a Ray cluster: leave --on processes out')
    started = time.monotonic()
    names = export_names(options.export)
    check_writable(options.json)
    tasks = make_tasks(find_recordings(options.inputs), options.out)
    with batch_folder(options.out):
        executor, words = choose_executor(options)
        print(f'{len(tasks)} recordings, {options.workers} at a time, {words}', flush=True)
        runner = BatchRunner(executor, run_command_line(options), names, options.retry)
        try:
            outcomes = runner.run(tasks, options.workers)
        except KeyboardInterrupt:
            ignore_signals()
            if options.json is not None:
                write_json(options.json, summary(runner.outcomes(tasks), started))
            raise
        finally:
            executor.stop()
    report = summary(outcomes, started)
    if options.json is not None:
        write_json(options.json, report)
    rows = [[entry['state'], Path(entry['out']).name, str(entry['frames']),
             f"{entry['seconds']:.1f}", entry['reason'][:70]] for entry in report['recordings']]
    print(text_table(['state', 'recording', 'frames', 'seconds', ''], rows))
    print(f"{report['done']} done, {report['skipped']} done before, {report['failed']} failed; "
          f"{report['frames']} frames in {report['seconds']:.1f} s")
    for line in hints(outcomes):
        print(line)
    return 1 if report['failed'] else 0


def choose_executor(options: argparse.Namespace) -> 'tuple[Executor, str]':
    """Return what runs the processes, and what it is in words; raises ToolError."""
    from xsvggt_ros.recordings.batch.executors import LocalProcesses

    wanted = 'ray' if options.address is not None else options.on
    if wanted == 'auto':
        wanted = 'ray' if find_spec('ray') is not None else 'processes'
    if wanted == 'processes':
        return LocalProcesses(), 'in processes of this machine'
    from xsvggt_ros.recordings.batch.ray_tasks import RayTasks, TaskNeeds

    gpus = {'auto': None, 'cpu': 0}.get(options.device, 1)
    if gpus:
        options.device = 'cuda'   # each task sees the one that Ray gave it
    where = options.address or 'this machine'
    needs = TaskNeeds(options.threads or 1, gpus)
    return RayTasks(needs, options.workers, options.address), f'on Ray ({where})'


def run_command_line(options: argparse.Namespace) -> list[str]:
    """Return the arguments of `xsvggt reconstruct` that are the same for all recordings."""
    parser = argparse.ArgumentParser()
    _add_shared_arguments(parser)
    words = []
    for action in parser._actions:
        value = getattr(options, action.dest, None)
        if action.option_strings[:1] != ['-h'] and value is not None and value != action.default:
            words += [action.option_strings[-1], str(value)]
    return words
