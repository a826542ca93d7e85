"""Argument types and groups that several commands share."""

import argparse
from pathlib import Path
from typing import Any

from xsvggt_ros.world.synthetic_world import DEMO_SEED

RANDOM_IMAGE_SIZE = 224    # pixels: quick on two cores, and random weights lose nothing by it
WORLD_FRAMES = 200         # of a run that has to end, unless told otherwise: about a lap
SCALES = ('auto', 'depth', 'odometry', 'none')   # where metres come from
TOPIC_OPTIONS = ('--input-topic', '--topic')   # of a bag's images; the first in all commands
EXPORTS = ('ply', 'tum', 'mcap', 'rerun', 'colmap', 'depth', 'grid')   # of a reconstruction


def is_whole(text: str) -> bool:
    """Return whether `text` is a whole number, in the digits that int() reads, of sane length."""
    return text.isascii() and text.isdigit() and len(text) < 19


def image_size(text: str) -> tuple[int, int]:
    """Return the (width, height) that 'WxH' means."""
    width, _, height = text.lower().partition('x')
    if not (is_whole(width) and is_whole(height) and int(width) > 0 and int(height) > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is not a size; write it like 640x480")
    return int(width), int(height)


def seed(text: str) -> int:
    """Return a whole number, 0 or more."""
    if not is_whole(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def positive_int(text: str) -> int:
    """Return a whole number above 0."""
    if not is_whole(text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def positive_float(text: str) -> float:
    """Return a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


def scale_choice(text: str) -> float | str:
    """Return metres for one unit, or where they come from."""
    if text in SCALES:
        return text
    try:
        return positive_float(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(
            f"'{text}' is neither a number of metres nor one of {', '.join(SCALES)}") from error


def export_list(text: str) -> str:
    """Return a list of `EXPORTS` with commas between, as it was given."""
    for name in filter(None, (name.strip() for name in text.split(','))):
        if name not in EXPORTS:
            raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(EXPORTS)}")
    return text


def add_tradeoff_arguments(parser: argparse.ArgumentParser) -> None:
    """Add choices of the network that have a price."""
    parser.add_argument('--weights', choices=('auto', 'float', 'int8_camera', 'int8',
                                              'int8_dynamic', 'fp8'),
                        default='auto',
                        help="how weights are stored: in 8 bits the camera head's, all of the "
                             'transformers (int8), the same with products of 8 bits on a CPU '
                             '(int8_dynamic), or those of the backbone as fp8 on a GPU; auto: '
                             'int8_dynamic for the full size on a CPU that gains by it, '
                             'float elsewhere (default: auto)')
    parser.add_argument('--camera-iterations', type=int, choices=range(1, 5), default=4,
                        metavar='1..4', help='how often the pose is refined (default: 4)')


def add_first_frames_argument(parser: argparse.ArgumentParser) -> None:
    """Add how many frames the network sees together at the beginning."""
    parser.add_argument('--first-frames', type=positive_int, default=1, metavar='N',
                        help='how many frames the network sees together when a stream begins, if '
                             'it can (docs/models.md; default: 1)')


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the network runs, in which precision and on how many threads."""
    parser.add_argument('--device', default='auto',
                        help='cpu, cuda or cuda:N (default: a GPU if there is one)')
    parser.add_argument('--dtype', choices=('auto', 'fp32', 'bf16', 'fp16'), default='auto',
                        help='precision of the network, on a CPU of its heads too (default: as in '
                             'the node, 16 bits on a GPU; on a CPU fp32, or bf16 for wide '
                             'networks where the processor multiplies it)')
    parser.add_argument('--threads', type=positive_int, metavar='N',
                        help='threads on a CPU (default: as in the node, one for small networks, '
                             'otherwise what PyTorch chooses)')


def add_keyframe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which frames are remembered, and how the network sees the others."""
    parser.add_argument('--keyframe-stride', type=positive_int, default=1, metavar='N',
                        help='remember every n-th frame only (default: 1)')
    parser.add_argument('--tracking-size', type=positive_int, metavar='WIDTH',
                        help='width at which the network sees the frames that are not remembered, '
                             'a multiple of 14 (default: as the others)')


def add_source_arguments(parser: argparse.ArgumentParser, positional: bool = False,
                         topics: tuple[str, ...] = TOPIC_OPTIONS) -> None:
    """
    Add what chooses the frames: the world's seed or a recording, its topic, rate, number, size.

    positional: the recording is given without `--input` before it.
    """
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--world', type=seed, default=DEMO_SEED, metavar='SEED',
                        help=f'play the synthetic world of this number (default: {DEMO_SEED})')
    name: dict[str, Any] = {'nargs': '?'} if positional else {}
    source.add_argument('input' if positional else '--input', type=Path, metavar='INPUT',
                        **name,
                        help='a folder of images (names that are times in ns are used as stamps), '
                             'a video, a bag of ROS 2 (folder, .mcap, .db3) or ROS 1 (.bag), or a '
                             'camera of this machine (camera:0, /dev/video0)')
    add_recording_arguments(parser, topics)
    parser.add_argument('--size', type=image_size, metavar='WxH',
                        help='image size of the synthetic world (default: 320x240), or asked of '
                             'a camera')


def add_recording_arguments(parser: argparse.ArgumentParser,
                            topics: tuple[str, ...] = TOPIC_OPTIONS) -> None:
    """Add how a recording is read; topics: what the option for its topic is called."""
    parser.add_argument(*topics, dest='input_topic', metavar='TOPIC',
                        help="the bag's topic of images (default: the only one that there is)")
    parser.add_argument('--calibration', type=Path, metavar='FILE',
                        help='calibration of the images: ROS camera_info, OpenCV, ASL or Kalibr '
                             'YAML (default: one that lies in the folder or beside it, or the '
                             "bag's camera_info)")
    parser.add_argument('--rate', type=positive_float, metavar='HZ',
                        help='images a second: of a folder (default: its stamps, else 10); of a '
                             'video or bag, how many are used at most')
    parser.add_argument('--frames', type=positive_int, metavar='N',
                        help='stop after this many images')


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what chooses the weights, their size and the cache."""
    parser.add_argument('--checkpoint', default='small', metavar='FILE',
                        help="weights of the network (default: 'small', which comes with the "
                             "package; 'random' only tests the plumbing)")
    parser.add_argument('--image-size', type=positive_int, metavar='WIDTH',
                        help='width at which the network works, a multiple of 14 (default: 224 '
                             'with random weights, else what the weights were trained with)')
    parser.add_argument('--max-tokens', type=positive_int, default=2048, metavar='N',
                        help='budget of the KV cache per layer (default: 2048)')
    parser.add_argument('--policy', default='frame_coverage', metavar='NAME',
                        help='which tokens stay when the cache is full (default: frame_coverage)')
    parser.add_argument('--quantization', default='int4', choices=('none', 'int8', 'int4'),
                        help='how keys and values are stored (default: int4)')


def network_image_size(options: argparse.Namespace) -> int:
    """Return the chosen image size; 0 is the one that the weights were trained with."""
    small = RANDOM_IMAGE_SIZE if options.checkpoint == 'random' else 0
    return options.image_size or small


def add_trajectory_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add whose poses are taken, and what becomes of the depth."""
    parser.add_argument(
        '--trajectory', choices=('network', 'tracked', 'optimized'), default=default,
        help="whose poses are taken: the network's; those of tracked corners on the network's "
             'depth; or those after a window of keyframes was adjusted, too '
             f'(default: {default})')
    parser.add_argument(
        '--depth-correction', choices=('off', 'auto'), default='auto',
        help="with tracks: whether the network's depth is bent, smoothly, to agree with the "
             'landmarks, as far as it disagrees (default: auto)')
