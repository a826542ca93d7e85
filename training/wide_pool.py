"""
A store of rendered ways that is renewed all the time, by processes beside the training.

Rooms have numbers and are rendered in their order into a ring of slots; step k of the training
draws from those it was told of, so that a stopped run that goes on sees what it would have seen.
The ring lies in memory-mapped files: what was rendered before a stop is not rendered again.
"""

from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
import sys

import numpy as np
import torch

from training.clips import Clips
from training.wide_losses import first_camera
from training.wide_world.textures import load_textures, Textures
from training.wide_world.world import WideRoom
from xsvggt_ros.world.synthetic_world import SPLITS, SyntheticWorld

WIDTH = 112
FRAMES = 48              # of a slot
_LARGEST = 112           # rows of the largest picture
_HEIGHTS = (84, 84, 84, 84, 84, 84, 70, 70, 56, 112)    # by the room's number
_OLD_EVERY = 3           # every so-manieth room is one of the synthetic world
_OLD_WEIGHT = 2.0        # of such a room when rooms are drawn
_LONGEST_STRIDE = 3
_ATTEMPTS, _OTHER = 3, 1 << 40   # numbers of rooms in place of one that cannot be drawn
FIRST_UNSEEN = 1_000_000   # number of the first room of validation, which no training sees
_FIELDS = {'images': ((FRAMES, _LARGEST, WIDTH, 3), np.uint8),
           'depths': ((FRAMES, _LARGEST, WIDTH), np.float16),
           'world_from_camera': ((FRAMES, 4, 4), np.float64),
           'fields_of_view': ((2, 2), np.float32),      # of either half of the frames
           'number': ((), np.int64)}                    # of the room, plus 1; 0: none yet


def height_of(number: int) -> int:
    """Return the rows of the pictures of room `number`."""
    return 84 if is_old(number) else _HEIGHTS[number // _OLD_EVERY % len(_HEIGHTS)]


def is_old(number: int) -> bool:
    """Return whether room `number` is one of the synthetic world."""
    return number % _OLD_EVERY == 0


@dataclass(frozen=True)
class Ring:
    """Slots in memory-mapped files."""

    arrays: dict[str, np.ndarray]

    @classmethod
    def open(cls, folder: Path, slots: int) -> 'Ring':
        """Open the ring in `folder`, made if it is not there or of another size."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {}
        for name, (shape, kind) in _FIELDS.items():
            path = folder / f'{name}.npy'
            if not path.exists() or np.load(path, mmap_mode='r').shape != (slots, *shape):
                np.lib.format.open_memmap(path, 'w+', kind, (slots, *shape)).flush()
                if name != 'number':
                    (folder / 'number.npy').unlink(missing_ok=True)
            arrays[name] = np.load(path, mmap_mode='r+')
        return cls(arrays)

    def __len__(self) -> int:
        """Return the number of slots."""
        return len(self.arrays['number'])

    def holds(self, number: int) -> bool:
        """Return whether room `number` is in its slot."""
        return bool(self.arrays['number'][number % len(self)] == number + 1)

    def write(self, number: int, values: dict[str, np.ndarray], slot: int | None = None) -> None:
        """Put a room into its slot, or into another."""
        slot = number % len(self) if slot is None else slot
        self.arrays['number'][slot] = 0
        for name, value in values.items():
            self.arrays[name][slot][tuple(slice(side) for side in value.shape)] = value
        self.arrays['number'][slot] = number + 1

    def clips(self, rooms: np.ndarray, frames: np.ndarray) -> Clips:
        """Return clips of rooms [B] and frames [B, S], which all have pictures of one size."""
        return self.clips_of_slots(rooms % len(self), frames, height_of(int(rooms[0])))

    def clips_of_slots(self, slot: np.ndarray, frames: np.ndarray, height: int) -> Clips:
        """Return clips of slots [B] and frames [B, S], whose pictures have `height` rows."""
        where = (slot[:, None], frames)
        images = torch.from_numpy(self.arrays['images'][where][:, :, :height])
        depth = torch.from_numpy(self.arrays['depths'][where][:, :, :height]).float()
        pose = torch.from_numpy(self.arrays['world_from_camera'][where])
        fields = torch.from_numpy(self.arrays['fields_of_view'][slot[:, None],
                                                                frames // (FRAMES // 2)])
        return Clips(images.movedim(-1, 2).float() / 255, depth.clamp_min(1e-3),
                     first_camera(pose), fields, pose.float())


class RoomPool:
    """A ring and the processes that fill it."""

    def __init__(self, folder: Path, textures: Path | None, slots: int, processes: int) -> None:
        """Open the ring in `folder` and start `processes`; textures: a folder of photographs."""
        self._folder, self.ring = folder, Ring.open(folder, slots)
        photographs = folder / 'textures.npz'
        if not photographs.exists():
            folder.mkdir(parents=True, exist_ok=True)
            save_textures(load_textures(textures).share(held_back=False), photographs)
        self._pool = ProcessPoolExecutor(processes, get_context('spawn'),
                                         torch.set_num_threads, (1,))
        self._ahead = max(2 * processes, 4)
        self.window = slots - self._ahead
        self._jobs: dict[int, Future] = {}
        self._next: int | None = None

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def prepare(self, end: int, wait: bool = True, least: int = 0) -> int:
        """
        Have the rooms before `end` rendered, those of the window, and some more begun.

        Returns the number after the last one that is there: `end` if this was to `wait`. Otherwise
        it still waits for so many rooms of the window that `least` are there; none are where a
        training goes on in a new folder.
        """
        first = max(0, end - self.window)
        start = first if self._next is None else max(self._next, first)
        for number in range(start, end + self._ahead):
            if not self.ring.holds(number):
                self._jobs[number] = self._pool.submit(
                    render_room, self._folder, len(self.ring), number)
        self._next = max(end + self._ahead, self._next or 0)
        least = min(least, end - first)
        for number in sorted(self._jobs):
            job = self._jobs[number]
            if not job.done() and (
                    number >= end or (not wait and len(self._there(number)) >= least)):
                return min(number, end)
            job.result()
            del self._jobs[number]
        return end

    def draw(self, rng: np.random.Generator, end: int, count: int, frames: int,
             path_share: float) -> Clips:
        """Return `count` clips of `frames` frames, from the rooms before `end` in the window."""
        window = self._there(end)
        heights = np.array([height_of(int(number)) for number in window])
        chosen = window[heights == heights[rng.integers(len(window))]]
        weights = np.array([_OLD_WEIGHT if is_old(int(number)) else 1.0 for number in chosen])
        rooms = rng.choice(chosen, count, replace=len(chosen) < count, p=weights / weights.sum())
        views = np.stack([_views(rng, frames, rng.uniform() < path_share) for _ in rooms])
        clips = jitter(self.ring.clips(rooms, views), rng)
        # Not rooms of the synthetic world: the colours of their walls tell left from right.
        new = np.array([not is_old(int(room)) for room in rooms])
        return mirrored(clips, new & (rng.uniform(size=count) < 0.5))

    def _there(self, end: int) -> np.ndarray:
        """Return the rooms before `end` that are rendered, and in no slot that is written to."""
        assert self._next is not None
        rooms = np.arange(max(0, self._next - self._ahead - self.window), end)
        return rooms[self.ring.arrays['number'][rooms % len(self.ring)] == rooms + 1]


def _views(rng: np.random.Generator, frames: int, along: bool) -> np.ndarray:
    """
    Return the frames [S] of a clip: along a path, or in any order.

    More frames than a path of 24 has are of both ways through a room, one behind the other.
    """
    half = FRAMES // 2
    start, long = 0, FRAMES
    if frames <= half:
        start, long = half * int(rng.integers(2)), half
    if not along:
        return start + rng.choice(long, frames, replace=False)
    stride = int(rng.integers(1, min(_LONGEST_STRIDE, (long - 1) // max(frames - 1, 1)) + 1))
    begin = start + int(rng.integers(long - stride * (frames - 1)))
    views = begin + stride * np.arange(frames)
    return views if rng.uniform() < 0.5 else views[::-1]


def jitter(clips: Clips, rng: np.random.Generator) -> Clips:
    """Return clips as another sensor would see them, each frame a little otherwise."""
    count, frames = clips.images.shape[:2]
    gain = np.exp(rng.normal(0.0, 0.1, (count, 1, 1)) + rng.normal(0.0, 0.05, (count, 1, 3))
                  + rng.normal(0.0, 0.02, (count, frames, 1)))
    shift = rng.normal(0.0, 0.02, (count, 1, 1))
    gains, shifts = (torch.from_numpy(np.broadcast_to(part, (count, frames, 3)).copy()).float()
                     [..., None, None] for part in (gain, shift))
    clips.images = (clips.images * gains + shifts).clamp_(0, 1)
    return clips


def mirrored(clips: Clips, chosen: np.ndarray) -> Clips:
    """Return clips, those that are `chosen` [B] of the same rooms left for right."""
    sides = torch.tensor([-1.0, 1.0, 1.0, 1.0])
    sides = sides[:, None] * sides
    other = Clips(clips.images.flip(-1), clips.depth.flip(-1), clips.camera_from_first * sides,
                  clips.fields_of_view, clips.room_from_camera * sides)
    where = torch.from_numpy(chosen)
    return Clips(*(torch.where(where[(...,) + (None,) * (kept.dim() - 1)], turned, kept)
                   for kept, turned in zip(vars(clips).values(), vars(other).values())))


# In the processes --------------------------------------------------------------------------------

def render_room(folder: Path, slots: int, number: int, slot: int | None = None) -> None:
    """Render room `number` into its slot, or another, of the ring in `folder`."""
    values = _old_room(number) if is_old(number) else _wide_room(
        number, _saved_textures(folder / 'textures.npz'))
    Ring.open(folder, slots).write(number, values, slot)


def _wide_room(number: int, textures: Textures) -> dict[str, np.ndarray]:
    """Return a room of the wide world, 24 frames of each of two cameras."""
    size = WIDTH, height_of(number)
    for attempt in range(_ATTEMPTS):
        try:
            room = WideRoom(number + attempt * _OTHER, textures)
            clips = [room.clip(FRAMES // 2, size) for _ in range(2)]
            break
        except (ArithmeticError, IndexError, ValueError) as error:
            # One room among many thousands must not end a training of hours.
            print(f'room {number + attempt * _OTHER} cannot be drawn ({error!r}); taking another',
                  file=sys.stderr, flush=True)
            if attempt == _ATTEMPTS - 1:
                raise
    return {'images': np.concatenate([clip.images for clip in clips]),
            'depths': np.concatenate([np.minimum(clip.depths, 6e4) for clip in clips]),
            'world_from_camera': np.concatenate([clip.world_from_camera for clip in clips]),
            'fields_of_view': np.stack([clip.fields_of_view for clip in (clips[0], clips[-1])])}


def _old_room(number: int) -> dict[str, np.ndarray]:
    """Return a room of the synthetic world: half its frames along a path, half from anywhere."""
    seeds = SPLITS['train'] if number < FIRST_UNSEEN else SPLITS['validation']
    seed = seeds[number // _OLD_EVERY % len(seeds)]
    world = SyntheticWorld(seed, 2 * WIDTH, 2 * height_of(number), clean=True)
    rng = np.random.default_rng((seed, 2))
    start, period = rng.uniform(0.0, 60.0), rng.uniform(0.1, 0.4)
    half = FRAMES // 2
    views = [world.frame(start + period * index) for index in range(half)]
    views += [world.view(rng) for _ in range(half)]
    camera = world.intrinsics
    images = np.stack([view.image for view in views])
    small = images.reshape(FRAMES, -1, 2, WIDTH, 2, 3).mean(axis=(2, 4)) + 0.5
    fields = 2 * np.arctan(np.array([camera.height / camera.fy, camera.width / camera.fx]) / 2)
    return {'images': small.astype(np.uint8),
            'depths': np.stack([view.depth[::2, ::2] for view in views]),
            'world_from_camera': np.stack([view.world_from_camera for view in views]),
            'fields_of_view': np.tile(fields, (2, 1))}


def save_textures(textures: Textures, path: Path) -> None:
    """Write textures to a file that loads quickly."""
    np.savez(path, texels=textures.texels, means=textures.means,
             categories=np.array(textures.categories))


@lru_cache(1)
def _saved_textures(path: Path) -> Textures:
    """Return the textures in `path`."""
    with np.load(path) as stored:
        return Textures(stored['texels'], stored['means'],
                        tuple(str(name) for name in stored['categories']))
