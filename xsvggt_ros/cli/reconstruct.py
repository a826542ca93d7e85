"""Reconstruct a folder of images, a video, a bag, or the synthetic world, without ROS."""

import argparse
import logging
from pathlib import Path

from xsvggt_ros.console.arguments import (
    add_device_arguments,
    add_first_frames_argument,
    add_network_arguments,
    add_source_arguments,
    add_trajectory_arguments,
    export_list,
    positive_float,
    scale_choice,
    WORLD_FRAMES,
)
from xsvggt_ros.console.command import run_command, run_module
from xsvggt_ros.console.processes import leave

EPILOG = """\
example: xsvggt reconstruct drive.mcap --topic /front/image_raw --export colmap,grid --out drive

exit codes: 0 done, 1 failed (the reason is one line on stderr), 2 wrong arguments, 130 after
Ctrl-C; with 1 and 130 the frames so far are saved and the files named
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    add_source_arguments(parser, positional=True)
    parser.add_argument('--out', type=Path, default=Path('out/reconstruct'), metavar='DIR',
                        help='folder for map, trajectory, cache table, report and picture '
                             '(default: out/reconstruct)')
    parser.add_argument('--resume', action='store_true',
                        help='go on with the run in DIR that was interrupted, with the same '
                             'options')
    parser.add_argument('--localize-in', type=Path, metavar='FILE',
                        help='find the recording in an earlier map, its .landmarks.safetensors, '
                             'and bring all into its frame and unit')
    parser.add_argument('--viewer', action='store_true',
                        help="show the run live in Rerun's viewer; without a display, on a page "
                             'whose address is printed')
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_result_arguments(parser)


def add_result_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is made of a recording, and by which network."""
    parser.add_argument('--export', type=export_list, default='ply,tum', metavar='NAMES',
                        help='what is written, with commas between: ply and tum (always), mcap, '
                             'rerun, colmap, depth, grid')
    add_metric_arguments(parser)
    add_trajectory_arguments(parser, 'optimized')
    parser.add_argument('--grid-resolution', type=positive_float, metavar='LENGTH',
                        help='edge of a cell of the occupancy grid, in metres if there is a '
                             "scale, else in the network's unit (default: about 200 cells "
                             'across)')
    parser.add_argument('--grid-low', type=positive_float, metavar='HEIGHT',
                        help='least height of an obstacle above the floor (default: a tenth of '
                             "the camera's)")
    parser.add_argument('--grid-high', type=positive_float, metavar='HEIGHT',
                        help="greatest height of an obstacle (default: 1.1 times the camera's)")
    add_network_arguments(parser)
    add_device_arguments(parser)
    add_first_frames_argument(parser)


def add_metric_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where metres come from, and whose poses are written."""
    parser.add_argument('--scale', type=scale_choice, default='auto', metavar='METRES',
                        help="metres for one unit of the network, or what tells them: 'depth' or "
                             "'odometry' of the bag, 'none' for the network's own unit "
                             "(default: 'auto', depth before odometry, if the bag has one)")
    parser.add_argument('--depth-topic', metavar='TOPIC',
                        help='depth images of the bag in metres, registered to the images '
                             '(default: the only ones of their frame)')
    parser.add_argument('--odometry-topic', metavar='TOPIC',
                        help="the bag's nav_msgs/Odometry to compare with (default: the only one)")
    parser.add_argument('--base-frame', metavar='FRAME',
                        help='frame of the robot whose poses are written, such as base_link; '
                             "where the camera is on it says the bag's TF (default: the camera's "
                             'own poses)')


def run(options: argparse.Namespace) -> int:
    """Reconstruct what the options say; return the exit code."""
    def work() -> None:
        # Everything slow to import comes after the handlers, so that Ctrl-C is always quiet.
        from xsvggt_ros.recordings.reconstruct_run import run_reconstruct

        logging.basicConfig(format='%(message)s')
        if options.input is None and options.frames is None:
            options.frames = WORLD_FRAMES
        run_reconstruct(options)

    return run_command('reconstruct', work)


if __name__ == '__main__':
    leave(run_module('reconstruct', __doc__, add_arguments, run))
