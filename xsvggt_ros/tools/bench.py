"""Measurements that a user can repeat: `xsvggt bench cache` compares cache settings."""

import argparse
from pathlib import Path
import sys

from xsvggt_ros.tools.arguments import positive_int, seed
from xsvggt_ros.tools.errors import ChoiceError, ToolError
from xsvggt_ros.tools.processes import interrupt_on_signals
from xsvggt_ros.tools.synthetic_world import DEMO_SEED

FRAMES = 120       # unless told otherwise
INTERRUPTED = 130  # exit code: no table was made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')
    cache = actions.add_parser(
        'cache', help='compare retention policies and precisions at equal bytes',
        description='Runs one stream under every policy and precision of the KV cache, all '
                    'within the same number of bytes, and prints how far depth and pose are from '
                    'those of a cache that forgets nothing, and what it costs.')
    _add_stream_arguments(cache)
    _add_setting_arguments(cache)
    cache.add_argument('--device', default='auto',
                       help='cpu, cuda or cuda:N (default: a GPU if there is one)')
    cache.add_argument('--json', type=Path, metavar='FILE', help='write the rows there too')
    cache.add_argument('--markdown', action='store_true', help='print the table as Markdown')


def _add_stream_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--world', type=seed, default=DEMO_SEED, metavar='SEED',
                        help=f'the synthetic world of this number (default: {DEMO_SEED})')
    source.add_argument('--input', type=Path, metavar='DIR', help='the images of this folder')
    parser.add_argument('--frames', type=positive_int, default=FRAMES, metavar='N',
                        help=f'images, at most (default: {FRAMES})')
    parser.add_argument('--checkpoint', default='small', metavar='FILE',
                        help="weights of the network (default: 'small', which comes with the "
                             "package; 'random' only tests the plumbing)")
    parser.add_argument('--size', choices=('auto', 'small', 'full'), default='auto',
                        help='size of the network (default: what the weights are, small if '
                             'random)')
    parser.add_argument('--image-size', type=positive_int, metavar='WIDTH',
                        help='width at which the network works, a multiple of 14 (default: 224 '
                             'with random weights, else what the weights were trained with)')


def _add_setting_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--policies', metavar='A,B', help='which tokens stay (default: all)')
    parser.add_argument('--precisions', metavar='A,B', help='none,int8,int4 (default: all)')
    parser.add_argument('--scheme', choices=('kcvt', 'token', 'both'),
                        help='how values are packed (default: the one that is the default of '
                             'the cache)')
    parser.add_argument('--tokens', type=positive_int, metavar='N',
                        help='the byte budget, as tokens per layer in bf16 (default: 4 frames)')


def run(options: argparse.Namespace) -> int:
    """Measure and print the table; return the exit code: 2 for names that do not exist."""
    interrupt_on_signals()
    try:
        # Everything slow to import comes after the handlers, so that Ctrl-C is always quiet.
        from xsvggt_ros.tools.bench_run import run_bench_cache

        run_bench_cache(options)
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        return INTERRUPTED
    except ChoiceError as error:
        print(f'xsvggt bench cache: {error}', file=sys.stderr)
        return 2
    except ToolError as error:
        print(f'xsvggt bench cache: {error}', file=sys.stderr)
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run `python -m xsvggt_ros.tools.bench`; return the exit code."""
    parser = argparse.ArgumentParser(prog='xsvggt bench', description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == '__main__':
    sys.exit(main())
