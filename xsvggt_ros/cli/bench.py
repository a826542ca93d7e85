"""Measurements that a user can repeat: how long a frame takes, and how cache settings compare."""

import argparse
from pathlib import Path

from xsvggt_ros.console.arguments import (
    add_device_arguments,
    add_first_frames_argument,
    add_keyframe_arguments,
    add_tradeoff_arguments,
    image_size,
    positive_float,
    positive_int,
    seed,
)
from xsvggt_ros.console.command import run_command, run_module
from xsvggt_ros.console.processes import leave
from xsvggt_ros.world.synthetic_world import DEMO_SEED

FRAMES = 300       # unless told otherwise
CACHE_FRAMES = 120
NODE_FRAMES = 150


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    _add_frame_arguments(parser)
    actions = parser.add_subparsers(dest='action', metavar='cache|keys|node')
    cache = actions.add_parser(
        'cache', help='compare retention policies and precisions at equal bytes',
        description='Runs one stream under every policy and precision of the KV cache, all '
                    'within the same number of bytes, and prints how far depth and pose are from '
                    'those of a cache that forgets nothing, and what it costs.')
    _add_stream_arguments(cache)
    _add_setting_arguments(cache)
    add_device_arguments(cache)
    cache.add_argument('--json', type=Path, metavar='FILE', help='write the rows there too')
    cache.add_argument('--markdown', action='store_true', help='print the table as Markdown')
    _add_key_arguments(actions.add_parser(
        'keys', help='how exact packed keys and values are, frame by frame',
        description='Runs a stream of the synthetic world and prints how far keys and values are '
                    'from what the network gave, as relative RMS error over everything that is '
                    'remembered, mean and worst of the layers.'))
    _add_node_arguments(actions.add_parser(
        'node', help='latency of the real node beside a camera, and how long it takes to start',
        description='Starts the node beside a camera of the synthetic world that streams already, '
                    'and prints the time to the first pose, the latency of each stage, what the '
                    'node adds to the engine, and the rate it holds.'))


def _add_frame_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--size', choices=('small', 'full'), default='small',
                        help='the network: small with its checkpoint, or full with random weights '
                             '(default: small)')
    parser.add_argument('--checkpoint', metavar='FILE', help='other weights than these')
    parser.add_argument('--image', type=image_size, metavar='WxH',
                        help='size of the images (default: 112x84 for small, 224x168 for full)')
    parser.add_argument('--frames', type=positive_int, default=FRAMES, metavar='N',
                        help=f'length of the stream (default: {FRAMES})')
    add_device_arguments(parser)
    parser.add_argument('--head-dtype', choices=('auto', 'fp32', 'bf16', 'fp16'), default='auto',
                        help='precision of the heads')
    parser.add_argument('--policy', default='frame_coverage', metavar='NAME',
                        help='which tokens stay (default: frame_coverage)')
    parser.add_argument('--quantization', choices=('none', 'int8', 'int4'), default='none',
                        help='how keys and values are stored (default: none, as floats)')
    parser.add_argument('--max-tokens', type=positive_int, default=2048, metavar='N',
                        help='budget of the cache per layer (default: 2048)')
    parser.add_argument('--camera-tokens', type=positive_int, default=2048, metavar='N',
                        help="budget of the camera head's cache (default: 2048)")
    parser.add_argument('--no-fill', dest='fill', action='store_false',
                        help='begin with empty caches (default: with full ones, so that all '
                             'frames are like those of a stream that has run for long)')
    add_tradeoff_arguments(parser)
    add_first_frames_argument(parser)
    add_keyframe_arguments(parser)
    parser.add_argument('--points', action='store_true', help='run the point head as well')
    parser.add_argument('--kernels', choices=('portable', 'triton', 'auto'), default='portable',
                        help='what works on packed tokens and queries: PyTorch, or Triton on a '
                             'GPU (default: portable)')
    parser.add_argument('--graphs', choices=('off', 'auto', 'on'), default='off',
                        help='replay the steady part of a frame from CUDA graphs (default: off)')
    parser.add_argument('--compare', metavar='MODULE:FACTORY',
                        help='another implementation, to run in turn with this one, frame by '
                             'frame: FACTORY(settings) returns an object with step(frame)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the results there too')


def _add_stream_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--world', type=seed, default=DEMO_SEED, metavar='SEED',
                        help=f'the synthetic world of this number (default: {DEMO_SEED})')
    source.add_argument('--input', type=Path, metavar='DIR', help='the images of this folder')
    parser.add_argument('--frames', type=positive_int, default=CACHE_FRAMES, metavar='N',
                        help=f'images, at most (default: {CACHE_FRAMES})')
    _add_network_arguments(parser)


def _add_key_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--world', type=seed, default=DEMO_SEED, metavar='SEED',
                        help=f'the synthetic world of this number (default: {DEMO_SEED})')
    parser.add_argument('--frames', type=positive_int, default=CACHE_FRAMES, metavar='N',
                        help=f'length of the stream (default: {CACHE_FRAMES})')
    parser.add_argument('--every', type=positive_int, default=1, metavar='N',
                        help='look after every n-th frame only (default: 1)')
    _add_network_arguments(parser)
    parser.add_argument('--tokens', type=positive_int, default=7300, metavar='N',
                        help='budget of the cache per layer (default: 7300)')
    parser.add_argument('--quantization', choices=('int8', 'int4'), default='int4',
                        help='how keys and values are stored (default: int4)')
    parser.add_argument('--scheme', choices=('kcvt', 'token'),
                        help='how values are packed (default: the one that is the default of '
                             'the cache)')
    add_device_arguments(parser)
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the curves there too')
    parser.add_argument('--markdown', action='store_true', help='print the table as Markdown')


def _add_node_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--world', type=seed, default=DEMO_SEED, metavar='SEED',
                        help=f'the synthetic world of this number (default: {DEMO_SEED})')
    parser.add_argument('--image', type=image_size, default=(640, 480), metavar='WxH',
                        help="size of the camera's images (default: 640x480)")
    parser.add_argument('--rate', type=positive_float, default=10.0, metavar='HZ',
                        help='images a second (default: 10)')
    parser.add_argument('--frames', type=positive_int, default=NODE_FRAMES, metavar='N',
                        help=f'end after so many, the first third to warm up '
                             f'(default: {NODE_FRAMES})')
    _add_network_arguments(parser)
    parser.add_argument('--device', default='auto',
                        help='cpu, cuda or cuda:N (default: a GPU if there is one)')
    parser.add_argument('--parameter', action='append', default=[], metavar='NAME:=VALUE',
                        help='a parameter of the node; may be given several times')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the results there too')


def _add_network_arguments(parser: argparse.ArgumentParser) -> None:
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
    """Measure and print; return the exit code: 2 for names that do not exist."""
    def work() -> None:
        # Everything slow to import comes after the handlers, so that Ctrl-C is always quiet.
        if options.action is None:
            from xsvggt_ros.bench.frame_bench_run import run_bench

            run_bench(options)
        elif options.action == 'keys':
            from xsvggt_ros.bench.key_error import run_bench_keys

            run_bench_keys(options)
        elif options.action == 'node':
            from xsvggt_ros.demo.ros_environment import prepare_ros

            prepare_ros()
            from xsvggt_ros.demo.node_bench import run_bench_node

            run_bench_node(options)
        else:
            from xsvggt_ros.bench.bench_run import run_bench_cache

            run_bench_cache(options)

    name = ' '.join(filter(None, ('bench', options.action)))
    return run_command(name, work, words='\ninterrupted')


def main(arguments: list[str] | None = None) -> int:
    """Run `python -m xsvggt_ros.cli.bench`; return the exit code."""
    return run_module('bench', __doc__, add_arguments, run, arguments)


if __name__ == '__main__':
    leave(main())
