"""The whole chain in one command: camera, stream node, recording, a picture of the result."""

import argparse
import logging
from pathlib import Path

from xsvggt_ros.console.arguments import add_network_arguments, add_source_arguments, WORLD_FRAMES
from xsvggt_ros.console.command import run_command, run_module
from xsvggt_ros.console.processes import leave
from xsvggt_ros.trajectory.config import MODES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    add_source_arguments(parser)
    parser.add_argument('--out', type=Path, default=Path('out/demo'), metavar='DIR',
                        help='folder for map, trajectory, cache table and picture '
                             '(default: out/demo)')
    add_network_arguments(parser)
    parser.add_argument('--trajectory', default='optimized', choices=MODES,
                        help='source of the poses: of the network, tracked corners, or these '
                             'with bundle adjustment (default: optimized)')
    parser.add_argument('--parameter', action='append', default=[], metavar='NAME:=VALUE',
                        help='any other parameter of the node; may be given several times')


def run(options: argparse.Namespace) -> int:
    """Run the demo that the options describe; return the exit code."""
    def work() -> None:
        # Everything slow to import comes after the handlers, so that Ctrl-C is always quiet.
        from xsvggt_ros.demo.ros_environment import prepare_ros
        prepare_ros()
        from xsvggt_ros.demo.demo_run import run_demo

        logging.basicConfig(format='%(message)s')
        if options.input is None and options.frames is None:
            options.frames = WORLD_FRAMES
        run_demo(options)

    return run_command('demo', work, interrupted=0)


def main(arguments: list[str] | None = None) -> int:
    """Run `python -m xsvggt_ros.cli.demo`; return the exit code."""
    return run_module('demo', __doc__, add_arguments, run, arguments)


if __name__ == '__main__':
    leave(main())
