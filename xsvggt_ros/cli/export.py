"""Write the network's parts without a memory as ONNX files, for TensorRT (see docs/jetson.md)."""

import argparse
from importlib.util import find_spec
from pathlib import Path
import sys

from xsvggt_ros.console.arguments import image_size
from xsvggt_ros.console.command import run_module
from xsvggt_ros.console.processes import interrupt_on_signals, leave

NEEDED = ('onnx', 'onnxscript')
INTERRUPTED = 130  # exit code: some files are missing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument('--checkpoint', default='small', metavar='FILE',
                        help="weights of the network (default: 'small', which comes with the "
                             "package; 'random' only tests the plumbing)")
    parser.add_argument('--image', type=image_size, required=True, metavar='WxH',
                        help='size of the model image, both sides multiples of 14; the files '
                             'are good for this size only')
    parser.add_argument('--out', type=Path, default=Path('out/onnx'), metavar='DIR',
                        help='folder to write to (default: out/onnx)')


def run(options: argparse.Namespace) -> int:
    """Export; return the exit code: 1 if something is missing or wrong."""
    interrupt_on_signals()
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(f'xsvggt export: {" and ".join(missing)} must be installed first: '
              f'python3 -m pip install {" ".join(missing)}', file=sys.stderr)
        return 1
    try:
        from xsvggt_ros.model.checkpoint import CheckpointError, load_model
        from xsvggt_ros.model.export import export_parts
        from xsvggt_ros.model.streamvggt import StreamVGGT

        width, height = options.image
        try:
            model = load_model(options.checkpoint).model
            if not isinstance(model, StreamVGGT):
                raise CheckpointError(
                    f'{options.checkpoint} is no StreamVGGT, and no other network can be exported')
            written = export_parts(model, height, width, options.out)
        except (CheckpointError, ValueError, OSError) as error:
            print(f'xsvggt export: {error}', file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        return INTERRUPTED
    print(f'{len(written)} files in {options.out}; parts.json there says what goes in and out')
    return 0


if __name__ == '__main__':
    leave(run_module('export', __doc__, add_arguments, run))
