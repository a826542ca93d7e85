"""
Shows the wide world, or writes rooms of it that no training sees, to measure networks on.

python -m training.wide_world --out FILE.png, or --write DIR and then xsvggt eval --data DIR.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
import time

import matplotlib
import numpy as np
from PIL import Image

from training.wide_pool import FIRST_UNSEEN
from training.wide_world.textures import load_textures, Textures
from training.wide_world.world import WideClip, WideRoom
from xsvggt_ros.cli.world import write_stream
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.world.renderer import Intrinsics

_COLUMNS, _SHOWN = 3, 3     # rooms beside each other, frames of a room
_SIZE, _RATE = (320, 240), 5.0    # of what is written: pixels, nominal frames a second
_NEAREST, _RANGE = 0.3, 30.0    # metres, and how many times as far the coldest colour is


def main() -> None:
    """Render rooms, write a picture of them, and say how long it took."""
    parser = argparse.ArgumentParser(prog='python -m training.wide_world', description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--out', type=Path, metavar='FILE.png', help='a picture of rooms to write')
    what.add_argument('--write', type=Path, metavar='DIR',
                      help='rooms of validation, with textures that are held back, to write as '
                           '`xsvggt eval --data` reads them')
    parser.add_argument('--textures', type=Path, metavar='DIR',
                        help='photographs of surfaces (without: procedural textures)')
    parser.add_argument('--first', type=int, help='number of the first room')
    parser.add_argument('--rooms', type=int, default=12)
    parser.add_argument('--frames', type=int, default=24, help='of each room')
    options = parser.parse_args()
    try:
        textures = load_textures(options.textures)
    except (OSError, ValueError) as error:
        parser.exit(1, f'{error}\n')
    if options.write is not None:
        first = FIRST_UNSEEN if options.first is None else options.first
        try:
            write_rooms(options.write, range(first, first + options.rooms), options.frames,
                        textures.share(held_back=True))
        except (OSError, ToolError) as error:
            parser.exit(1, f'{error}\n')
        return
    options.first = options.first or 0
    WideRoom(options.first, textures).clip(1)      # compiles the loops
    tiles, building, rendering = [], 0.0, 0.0
    for seed in range(options.first, options.first + options.rooms):
        start = time.process_time()
        room = WideRoom(seed, textures)
        middle = time.process_time()
        clip = room.clip(options.frames, (112, 84))
        building += middle - start
        rendering += time.process_time() - middle
        tiles.append(_tile(clip))
    print(f'{1000 * building / options.rooms:.0f} ms to build a room, '
          f'{options.rooms * options.frames / rendering:.0f} frames of 112x84 a second '
          '(processor time of one core)')
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % _COLUMNS)
    rows = [np.concatenate(tiles[start:start + _COLUMNS], axis=1)
            for start in range(0, len(tiles), _COLUMNS)]
    Image.fromarray(np.concatenate(rows)).save(options.out)


def write_rooms(out: Path, numbers: Sequence[int], frames: int, textures: Textures) -> None:
    """Write a path of `frames` frames through each room to a folder in `out`; raise ToolError."""
    for number in numbers:
        clip = WideRoom(number, textures).clip(frames, _SIZE)
        camera = Intrinsics.from_field_of_view(*_SIZE, float(clip.fields_of_view[1]))
        write_stream(out / f'room-{number}', _RATE, list(clip.world_from_camera),
                     zip(clip.images, clip.depths), camera)


def _tile(clip: WideClip) -> np.ndarray:
    """Return some frames of a clip beside each other, their depths below."""
    shown = np.linspace(0, len(clip.images) - 1, _SHOWN).round().astype(int)
    near = 1 - np.log(clip.depths[shown] / _NEAREST) / np.log(_RANGE)
    colours = matplotlib.colormaps['turbo'](np.clip(near, 0, 1))[..., :3]
    pairs = [np.concatenate([image, (255 * depth).astype(np.uint8)])
             for image, depth in zip(clip.images[shown], colours)]
    return np.concatenate(pairs, axis=1)


if __name__ == '__main__':
    main()
