"""The console command `xsvggt`: one sub-command per tool."""

import argparse
from importlib import import_module
import sys

from xsvggt_ros.console.environment import package_version

COMMANDS = {
    'demo': 'camera, node, recording and picture in one command (needs ROS 2)',
    'camera': 'publish the synthetic world or a folder as a camera (needs ROS 2)',
    'reconstruct': 'reconstruct images, a video, a bag or the synthetic world without ROS',
    'batch': 'reconstruct many recordings, some at a time (no ROS)',
    'eval': 'measure how true a reconstruction is, in rooms or on a data set (no ROS)',
    'bench': 'measure speed and memory, or compare cache settings (no ROS)',
    'weights': 'list and fetch weights of others; their licence comes first (no ROS)',
    'doctor': 'look at this machine: what runs here, how quickly, what to mend first',
    'export': 'write parts of the network as ONNX files, for TensorRT (no ROS)',
    'soak': 'inject faults into the real node, and see what it does (needs ROS 2)',
    'world': 'write images, depth and poses of the synthetic world',
}


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; only `command`'s module is imported and gives its arguments."""
    parser = argparse.ArgumentParser(
        prog='xsvggt', description='Streaming 3D reconstruction from one camera.')
    parser.add_argument('--version', action='version', version=f'xsvggt {package_version()}')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, words in COMMANDS.items():
        sub = commands.add_parser(name, help=words, description=words)
        if name == command:
            module = import_module(f'xsvggt_ros.cli.{name}')
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run `xsvggt`; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command = next((word for word in arguments if word in COMMANDS), None)
    options = build_parser(command).parse_args(arguments)
    return options.run(options)


if __name__ == '__main__':
    sys.exit(main())
