"""The real node under injected faults, or under a hundred thousand images: what it stands."""

import argparse
from pathlib import Path

from xsvggt_ros.console.arguments import positive_float, positive_int
from xsvggt_ros.console.command import run_command, run_module
from xsvggt_ros.console.processes import leave

PATIENCE = 60.0  # seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--short', action='store_true',
                      help='each kind of fault once or a few times, in under 5 minutes on two '
                           'idle cores')
    form.add_argument('--injections', type=positive_int, metavar='N',
                      help='faults to inject, at least (default: 1000, which take half an hour to '
                           'an hour)')
    form.add_argument('--frames', type=positive_int, metavar='N',
                      help='no faults: so many images, as fast as the node takes them')
    parser.add_argument('--only', metavar='WORDS',
                        help='only kinds of faults, or groups, whose names have these words')
    parser.add_argument('--list', action='store_true', help='list the kinds of faults')
    parser.add_argument('--seed', type=int, default=0, metavar='N',
                        help='of the order of the faults and all that is drawn (default: 0)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the result as JSON too')
    parser.add_argument('--logs', type=Path, metavar='DIR',
                        help="keep the node's logs in this folder")
    parser.add_argument('--patience', type=positive_float, default=PATIENCE, metavar='S',
                        help='seconds without progress that are a hang (default: '
                             f'{PATIENCE:.0f}); less on an idle machine')
    parser.add_argument('--parameter', action='append', default=[], metavar='NAME:=VALUE',
                        help='a parameter of the node; may be given several times')


def run(options: argparse.Namespace) -> int:
    """Run what the options say; return 0 if all was well, 1 if not, 130 after Ctrl-C."""
    def work() -> int:
        # Everything slow to import comes after the handlers, so that Ctrl-C is always quiet.
        from xsvggt_ros.demo.ros_environment import prepare_ros
        prepare_ros()
        from xsvggt_ros.soak.main import soak

        return soak(options)

    return run_command('soak', work)


if __name__ == '__main__':
    leave(run_module('soak', __doc__, add_arguments, run))
