"""
The training set: views of synthetic rooms, rendered once and kept in memory-mapped files.

A room has `RANDOM_VIEWS` views from anywhere and `PATH_VIEWS` in the order of a camera's path. Any
choice of them is a clip, so that a few thousand rooms hold more clips than can ever be seen.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from xsvggt_ros.console.progress import ProgressBar
from xsvggt_ros.world.synthetic_world import SyntheticWorld

RANDOM_VIEWS = 28
PATH_VIEWS = 36
PATH_PERIOD = 0.4   # seconds between the views of a path
OVERSAMPLING = 2    # pictures are rendered this much larger and averaged
VIEWS = RANDOM_VIEWS + PATH_VIEWS

# What is stored of a view: name, shape (H and W stand for the image size) and type.
_FIELDS = {'images': (('H', 'W', 3), np.uint8),
           'depths': (('H', 'W'), np.float16),                 # metres along the optical axis
           'world_from_camera': ((4, 4), np.float32),          # optical frame, metres
           'fields_of_view': ((2,), np.float32)}               # vertical, horizontal, rad


@dataclass(frozen=True)
class Rooms:
    """A rendered set, mapped into memory: arrays [rooms, VIEWS, ...]; random views come first."""

    images: np.ndarray
    depths: np.ndarray
    world_from_camera: np.ndarray
    fields_of_view: np.ndarray

    def __len__(self) -> int:
        """Return the number of rooms."""
        return len(self.images)


def open_rooms(folder: Path, seeds: Iterable[int], size: tuple[int, int],
               processes: int = 1) -> Rooms:
    """
    Return the rooms of `seeds` at `size` (width, height), rendering those that `folder` lacks.

    Rooms must be asked for in the same order every time; a longer list renders the new ones only.
    """
    seeds = list(seeds)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: _open(folder / f'{name}.npy', (len(seeds), VIEWS, *_shape(shape, size)), kind)
              for name, (shape, kind) in _FIELDS.items()}
    finished = _open(folder / 'finished.npy', (len(seeds),), np.int64)   # seed + 1, 0: not yet
    if any(number not in (0, seed + 1) for number, seed in zip(finished, seeds)):
        raise ValueError(f'{folder} holds other rooms than were asked for: delete it, or name '
                         'another folder')
    missing = [(index, seed) for index, seed in enumerate(seeds) if not finished[index]]
    if missing:
        bar = ProgressBar('rendering rooms', len(missing))
        jobs = [(seed, size) for _, seed in missing]
        with get_context('spawn').Pool(processes) as pool:
            rendered = pool.imap(_render, jobs, chunksize=4)
            for done, ((index, seed), room) in enumerate(zip(missing, rendered), start=1):
                for name, values in room.items():
                    arrays[name][index] = values
                finished[index] = seed + 1
                bar.update(done)
        bar.close(len(missing))
    return Rooms(**arrays)


def _shape(shape: tuple, size: tuple[int, int]) -> tuple[int, ...]:
    """Return `shape` with the image size put in."""
    return tuple({'W': size[0], 'H': size[1]}.get(side, side) for side in shape)


def _open(path: Path, shape: tuple[int, ...], kind: type) -> np.ndarray:
    """Return a writable map of the .npy file `path`, grown to `shape` if it has fewer rooms."""
    if path.exists():
        old = np.load(path, mmap_mode='r+')
        if old.shape == shape:
            return old
        if old.shape[1:] != shape[1:] or old.dtype != kind:
            raise ValueError(f'{path} is not of this image size: delete it, or name another '
                             'folder')
        if len(old) > shape[0]:
            return old[:shape[0]]
        grown = np.lib.format.open_memmap(path.with_suffix('.new'), 'w+', kind, shape)
        grown[:len(old)] = old
        path.with_suffix('.new').rename(path)
        return grown
    return np.lib.format.open_memmap(path, 'w+', kind, shape)


def _render(job: tuple[int, tuple[int, int]]) -> dict[str, np.ndarray]:
    """Return the views of one room."""
    seed, (width, height) = job
    world = SyntheticWorld(seed, OVERSAMPLING * width, OVERSAMPLING * height, clean=True)
    rng = np.random.default_rng((seed, 1))
    start = rng.uniform(0.0, 60.0)
    views = [world.view(rng) for _ in range(RANDOM_VIEWS)]
    views += [world.frame(start + PATH_PERIOD * number) for number in range(PATH_VIEWS)]
    camera = world.intrinsics
    fields = 2 * np.arctan(np.array([camera.height / camera.fy, camera.width / camera.fx]) / 2)
    return {'images': np.stack([_shrink(view.image) for view in views]),
            'depths': np.stack([view.depth[::OVERSAMPLING, ::OVERSAMPLING] for view in views]),
            'world_from_camera': np.stack([view.world_from_camera for view in views]),
            'fields_of_view': np.tile(fields, (VIEWS, 1))}


def _shrink(image: np.ndarray) -> np.ndarray:
    """Return `image` [n H, n W, 3], each block of pixels averaged."""
    height, width, _ = image.shape
    blocks = image.reshape(height // OVERSAMPLING, OVERSAMPLING, width // OVERSAMPLING,
                           OVERSAMPLING, 3)
    return (blocks.mean(axis=(1, 3)) + 0.5).astype(np.uint8)
