"""Reconstruct a folder of images, or the synthetic world, without ROS."""

import argparse
import logging
from pathlib import Path
import sys

from xsvggt_ros.console.arguments import (
    add_device_arguments,
    add_network_arguments,
    add_source_arguments,
    WORLD_FRAMES,
)
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.processes import interrupt_on_signals, INTERRUPTED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    add_source_arguments(parser, positional=True)
    parser.add_argument('--out', type=Path, default=Path('out/reconstruct'), metavar='DIR',
                        help='folder for map, trajectory, cache table and picture '
                             '(default: out/reconstruct)')
    add_network_arguments(parser)
    add_device_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Reconstruct what the options say; return the exit code."""
    interrupt_on_signals()
    try:
        # Everything slow to import comes after the handlers, so that Ctrl-C is always quiet.
        from xsvggt_ros.recordings.reconstruct_run import run_reconstruct

        logging.basicConfig(format='%(message)s')
        if options.input is None and options.frames is None:
            options.frames = WORLD_FRAMES
        run_reconstruct(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except ToolError as error:
        print(f'xsvggt reconstruct: {error}', file=sys.stderr)
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run `python -m xsvggt_ros.cli.reconstruct`; return the exit code."""
    parser = argparse.ArgumentParser(prog='xsvggt reconstruct', description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == '__main__':
    sys.exit(main())
