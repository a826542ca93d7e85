"""The console command `xsvggt`: one sub-command per tool."""

import argparse
from collections.abc import Sequence
from importlib import import_module
import sys
from typing import NoReturn

from xsvggt_ros.console.environment import package_version
from xsvggt_ros.console.processes import INTERRUPTED, leave

COMMANDS = {
    'demo': 'camera, node, recording and picture in one command (needs ROS 2)',
    'camera': 'publish a camera of this machine, a recording or the synthetic world '
              '(needs ROS 2)',
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

# Of commands whose module says nothing at the end of its help.
EXAMPLES = {
    'demo': 'demo --input drive.mp4 --out out/drive',
    'camera': 'camera --input drive.mp4 --topic /camera/image_raw --loop',
    'eval': 'eval --data 7scenes/chess --trajectory optimized --json chess.json',
    'bench': 'bench --checkpoint small --image 112x84 --frames 100',
    'export': 'export --checkpoint small --image 112x84 --out onnx',
    'soak': 'soak --short',
    'world': 'world render --seed 2000001 --frames 200 --out room',
}
ENDED_BY_CTRL_C = ('demo', 'camera')   # which is how they end
EXIT_CODES = 'exit codes: 0 done, 1 failed (the reason is one line on stderr), 2 wrong arguments'


class _CommandParser(argparse.ArgumentParser):
    """Refuses what it does not know with its own usage; argparse leaves that to `xsvggt`'s."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None,
    ) -> tuple[argparse.Namespace, list[str]]:
        """Return the options and nothing that is not known; ends the process for that."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; only `command`'s module is imported and gives its arguments."""
    parser = argparse.ArgumentParser(
        prog='xsvggt', description='Streaming 3D reconstruction from one camera.')
    parser.add_argument('--version', action='version', version=f'xsvggt {package_version()}')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND',
                                     parser_class=_CommandParser)
    for name, words in COMMANDS.items():
        sub = commands.add_parser(name, help=words, description=words)
        if name == command:
            module = import_module(f'xsvggt_ros.cli.{name}')
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
            if sub.epilog is None:
                last = ('0 after Ctrl-C, too' if name in ENDED_BY_CTRL_C
                        else '130 after Ctrl-C')
                sub.epilog = f'example: xsvggt {EXAMPLES[name]}\n\n{EXIT_CODES},\n{last}\n'
                sub.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run `xsvggt`; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command = next((word for word in arguments if word in COMMANDS), None)
    try:
        options = build_parser(command).parse_args(arguments)
    except KeyboardInterrupt:   # while the command's module was imported
        return 0 if command in ENDED_BY_CTRL_C else INTERRUPTED
    return options.run(options)


def run() -> NoReturn:
    """Run `xsvggt` and end the process."""
    leave(main())


if __name__ == '__main__':
    run()
