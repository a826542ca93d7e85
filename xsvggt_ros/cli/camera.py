"""Images as a camera sends them: of a camera of this machine, a recording or made up."""

import argparse
import logging

from xsvggt_ros.console.arguments import add_source_arguments, TOPIC_OPTIONS
from xsvggt_ros.console.command import run_command, run_module
from xsvggt_ros.console.processes import leave


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    add_source_arguments(parser, topics=TOPIC_OPTIONS[:1])   # --topic is the one published
    parser.add_argument('--loop', action='store_true', help='begin again after the last image')
    parser.add_argument('--reconnect', action='store_true',
                        help='when a camera of this machine is unplugged, wait until it is back, '
                             'and go on (default: it ends with exit code 1)')
    parser.add_argument('--restamp', action='store_true',
                        help='stamp with the time of sending, even if the files have stamps')
    parser.add_argument('--reliability', choices=('best_effort', 'reliable'),
                        default='best_effort', help='of images and CameraInfo')
    parser.add_argument('--topic', default='/camera/image_raw',
                        help='to publish images on; camera_info is published beside it')
    parser.add_argument('--frame-id', default='camera_optical_frame', help='of the headers')
    parser.add_argument('--ros-args', nargs=argparse.REMAINDER, default=[],
                        help='all that follows is for ROS: remappings and the like')
    parser.add_argument('--wait-for-subscriber', type=int, nargs='?', const=1, default=0,
                        metavar='N', help='send nothing before N (default: 1) subscribe')


def run(options: argparse.Namespace) -> int:
    """Publish what the options say; return the exit code."""
    def work() -> None:
        # Everything slow to import comes after the handlers, so that Ctrl-C is always quiet.
        from xsvggt_ros.demo.ros_environment import prepare_ros
        prepare_ros()
        from xsvggt_ros.demo.camera_publisher import CameraOptions, run_camera
        from xsvggt_ros.recordings.frame_source import open_source

        logging.basicConfig(format='%(message)s')
        source = open_source(options.input, options.world, options.rate, options.frames,
                             options.size, options.calibration, options.input_topic)
        how = CameraOptions(
            topic=options.topic, frame_id=options.frame_id,
            reliable=options.reliability == 'reliable', loop=options.loop,
            restamp=options.restamp, reconnect=options.reconnect,
            wait_for_subscribers=options.wait_for_subscriber)
        run_camera(source, how, options.ros_args)

    return run_command('camera', work, interrupted=0)


def main(arguments: list[str] | None = None) -> int:
    """Run `python -m xsvggt_ros.cli.camera`; return the exit code."""
    return run_module('camera', __doc__, add_arguments, run, arguments)


if __name__ == '__main__':
    leave(main())
