"""Writes the synthetic world to a folder: images, depth, poses and calibration."""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import asdict
import json
from pathlib import Path

import numpy as np
from PIL import Image

from xsvggt_ros.console.arguments import image_size, positive_float, positive_int, seed
from xsvggt_ros.console.command import run_command
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.progress import ProgressBar
from xsvggt_ros.mapping.map_files import read_tum, write_tum
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.world.renderer import Intrinsics
from xsvggt_ros.world.synthetic_world import DEMO_SEED, SyntheticWorld

_CALIBRATION = """\
image_width: {width}
image_height: {height}
camera_name: synthetic_world
camera_matrix:
  rows: 3
  cols: 3
  data: [{fx}, 0.0, {cx}, 0.0, {fy}, {cy}, 0.0, 0.0, 1.0]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.0, 0.0, 0.0, 0.0, 0.0]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
projection_matrix:
  rows: 3
  cols: 4
  data: [{fx}, 0.0, {cx}, 0.0, 0.0, {fy}, {cy}, 0.0, 0.0, 0.0, 1.0, 0.0]
"""

_FOLDERS = {'images': '.png', 'depth': '.npy'}
_POSES = 'poses.tum'
_FIRST_STAMP = 10 ** 15   # ns, so that every name has the 16 digits of a stamp


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')
    render = actions.add_parser(
        'render', help='write the world as files',
        description='Writes images/*.png (names are times in ns, so the folder can be played), '
                    'depth/*.npy (float32 metres along the optical axis), poses.tum '
                    '(world_from_camera, optical frame), camera_info.yaml and intrinsics.json. '
                    'What it wrote to the folder before is replaced; a folder with other images '
                    'is refused.')
    render.add_argument('--seed', type=seed, default=DEMO_SEED, metavar='N',
                        help=f'number of the world (default: {DEMO_SEED})')
    render.add_argument('--frames', type=positive_int, default=120, metavar='N',
                        help='images (default: 120)')
    render.add_argument('--rate', type=positive_float, default=10.0, metavar='HZ',
                        help='images a second (default: 10)')
    render.add_argument('--size', type=image_size, default=(320, 240), metavar='WxH',
                        help='image size (default: 320x240)')
    render.add_argument('--out', type=Path, required=True, metavar='DIR',
                        help='folder to write to')


def run(options: argparse.Namespace) -> int:
    """Write the files; return the exit code."""
    def work() -> None:
        try:
            render(options.out, options.seed, options.frames, options.rate, options.size)
        except OSError as error:
            raise ToolError(f'cannot write to {options.out}: {error}') from error

    return run_command('world', work)


def render(out: Path, seed: int, frames: int, rate: float, size: tuple[int, int]) -> None:
    """
    Write `frames` images of world `seed` and everything true about them to `out`.

    Raises ToolError as `write_stream` does.
    """
    world = SyntheticWorld(seed, *size)
    times = [index / rate for index in range(frames)]
    poses = [world.path.world_from_camera(time) for time in times]
    seen = (world.frame(time) for time in times)
    write_stream(out, rate, poses, ((frame.image, frame.depth) for frame in seen),
                 world.intrinsics)


def write_stream(out: Path, rate: float, poses: Sequence[np.ndarray],
                 frames: Iterable[tuple[np.ndarray, np.ndarray]], camera: Intrinsics) -> None:
    """
    Write images, `rate` a second, and everything true about them to `out`.

    poses: world_from_camera [4, 4] each, optical frames. frames: image uint8 [H, W, 3] and depth
    float32 [H, W] of each pose. An earlier stream that was written there is removed first; raises
    ToolError if there is anything else among the images, which would be played with them. Whatever
    ends it before the last frame, poses and calibration are those of the frames that are there.
    """
    _remove_earlier(out)
    for name in _FOLDERS:
        (out / name).mkdir(parents=True, exist_ok=True)
    stamps = [_FIRST_STAMP + round(index * 1e9 / rate) for index in range(len(poses))]
    stamped = [StampedPose.from_matrix(stamp, pose) for stamp, pose in zip(stamps, poses)]
    intrinsics = asdict(camera)
    (out / 'camera_info.yaml').write_text(_CALIBRATION.format(**intrinsics), encoding='ascii')
    (out / 'intrinsics.json').write_text(json.dumps(intrinsics, indent=2) + '\n',
                                         encoding='ascii')
    # Before the images: it tells whose they are, should this be killed before the last one.
    write_tum(out / _POSES, stamped)
    bar, done = ProgressBar('rendering', len(stamps)), 0
    try:
        for stamp, (image, depth) in zip(stamps, frames):
            Image.fromarray(image).save(_file(out, 'images', stamp))
            np.save(_file(out, 'depth', stamp), depth)
            done += 1
            bar.update(done)
        bar.close(done)
    except BaseException:
        _keep(out, stamped, done)
        print(f'\nended early: {done} of {len(stamps)} images, their depth maps, poses and '
              f'calibration are in {out}', flush=True)
        raise
    print(f'{len(stamps)} images, depth maps and poses in {out}')


def _file(out: Path, name: str, stamp: int) -> Path:
    """Return where an image or a depth map of a time in ns is written."""
    return out / name / f'{stamp}{_FOLDERS[name]}'


def _keep(out: Path, stamped: Sequence[StampedPose], done: int) -> None:
    """Leave the poses of the frames that are done, and nothing of the one after them."""
    for pose in stamped[done:done + 1]:
        for name in _FOLDERS:
            _file(out, name, pose.stamp_ns).unlink(missing_ok=True)
    write_tum(out / _POSES, stamped[:done])


def _remove_earlier(out: Path) -> None:
    """Remove the images and depth maps that `render` wrote; raise ToolError for others."""
    there = {file for name in _FOLDERS if (out / name).is_dir() for file in (out / name).iterdir()}
    own = {_file(out, name, stamp) for name in _FOLDERS for stamp in _earlier_stamps(out)}
    others = sorted(file.name for file in there - own)
    if others:
        raise ToolError(
            f'{out}: images/ and depth/ hold {len(others)} files that are not of a stream written '
            f'here ({", ".join(others[:3])}), which would be played with it; remove them, or give '
            'another folder as --out')
    for file in there & own:
        file.unlink()


def _earlier_stamps(out: Path) -> list[int]:
    """Return the stamps, in ns, of a stream that `render` wrote to a folder; none without one."""
    try:
        stamps = [pose.stamp_ns for pose in read_tum(out / _POSES)]
    except (OSError, ValueError):
        return []
    return stamps if stamps[:1] == [_FIRST_STAMP] else []   # no camera begins at this time
