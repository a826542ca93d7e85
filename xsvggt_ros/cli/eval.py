"""How true a reconstruction is: `xsvggt eval` compares it with what is known of the scene."""

import argparse
from pathlib import Path

from xsvggt_ros.console.arguments import (
    add_device_arguments,
    add_first_frames_argument,
    add_keyframe_arguments,
    add_tradeoff_arguments,
    add_trajectory_arguments,
    positive_float,
    positive_int,
)
from xsvggt_ros.console.command import run_command

WORLD_RATE = 5.0   # images a second of a synthetic world, so that 100 of them go about a room
STREAMS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    parser.description = (
        'Reconstructs streams whose depth and poses are known, under each of the chosen policies '
        'and precisions of the KV cache, and prints the errors: synthetic rooms that no network '
        'was trained on, or a data set in the layout of 7-Scenes, TUM RGB-D, Bonn, KITTI '
        'odometry, or `xsvggt world render`.')
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--world', choices=('test', 'validation', 'train'), default='test',
                        help='rooms of this range of seeds (default: test)')
    source.add_argument('--data', type=Path, metavar='DIR',
                        help='a sequence of a data set, or a folder of sequences')
    parser.add_argument('--layout', default='auto',
                        choices=('auto', '7scenes', 'tum', 'bonn', 'kitti', 'rendered'),
                        help='how the folder is laid out (default: what it looks like)')
    parser.add_argument('--streams', type=positive_int, default=STREAMS, metavar='N',
                        help=f'rooms or sequences, at most (default: {STREAMS})')
    parser.add_argument('--frames', default='100', metavar='N,M',
                        help='of each stream, at most; several numbers give rows for the '
                             'beginnings of the streams too (default: 100)')
    parser.add_argument('--stride', type=positive_int, default=1, metavar='N',
                        help='take every n-th frame (default: 1)')
    parser.add_argument('--rate', type=positive_float, default=WORLD_RATE, metavar='HZ',
                        help=f'frames a second in a room (default: {WORLD_RATE:g})')
    parser.add_argument('--checkpoint', default='small', metavar='FILE',
                        help="weights of the network (default: 'small', which comes with the "
                             'package)')
    parser.add_argument('--size', choices=('auto', 'small', 'full'), default='auto',
                        help='size of the network (default: what the weights are)')
    parser.add_argument('--image-size', type=positive_int, metavar='WIDTH',
                        help='width at which the network works, a multiple of 14 (default: what '
                             'the weights were trained with)')
    parser.add_argument('--policy', default='full', metavar='A,B',
                        help='which tokens stay, one row of the table each (default: full)')
    parser.add_argument('--quantization', default='none', metavar='A,B',
                        help='none,int8,int4: how they are stored (default: none)')
    parser.add_argument('--tokens', metavar='N,M',
                        help='budgets per layer of the policies that have one (default: the '
                             "node's)")
    add_trajectory_arguments(parser, 'network')
    parser.add_argument('--focal', choices=('known', 'unknown'), default='known',
                        help='whether --trajectory is told the focal length, or begins with what '
                             'the network says of the first frame (default: known)')
    parser.add_argument('--remove', default='', metavar='A,B',
                        help='rows that show what the memory is for: first hides the first frame '
                             'from all others, history all earlier frames')
    add_tradeoff_arguments(parser)
    add_first_frames_argument(parser)
    add_keyframe_arguments(parser)
    add_device_arguments(parser)
    parser.add_argument('--json', type=Path, metavar='FILE',
                        help='write all numbers there, those of each stream too')
    parser.add_argument('--markdown', action='store_true', help='print the table as Markdown')


def run(options: argparse.Namespace) -> int:
    """Evaluate and print the table; return the exit code: 2 for names that do not exist."""
    def work() -> None:
        # Everything slow to import comes after the handlers, so that Ctrl-C is always quiet.
        from xsvggt_ros.evaluation.eval_run import run_eval

        run_eval(options)

    return run_command('eval', work, words='\ninterrupted')
