"""Clips for training: which views, in which order, and what a sensor does to them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
import torch.nn.functional as F

from training.rooms import RANDOM_VIEWS, Rooms, VIEWS
from xsvggt_ros.geometry.se3 import invert_transform

_LONGEST_STRIDE = 3   # views of a path between two frames of a clip


@dataclass
class Clips:
    """A batch of clips and what is true about them; the first camera is the world."""

    images: Tensor               # [B, S, 3, H, W] in [0, 1]
    depth: Tensor                # [B, S, H, W]
    camera_from_first: Tensor    # [B, S, 4, 4], optical frames
    fields_of_view: Tensor       # [B, S, 2] vertical, horizontal, rad
    room_from_camera: Tensor     # [B, S, 4, 4], origin in a corner of the room's floor

    def to(self, device: torch.device) -> 'Clips':
        """Return the same on `device`."""
        return Clips(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def draw_clips(rooms: Rooms, rng: np.random.Generator, count: int, frames: int,
               path_share: float, augment: bool = True) -> Clips:
    """
    Return `count` clips of `frames` frames each, drawn by `rng`.

    `path_share` of them follow a camera's path; the others jump about their room at random.
    """
    room = rng.integers(len(rooms), size=count)
    view = np.stack([draw_views(rng, frames, rng.uniform() < path_share) for _ in range(count)])
    return load_clips(rooms, room, view, rng if augment else None)


def load_clips(rooms: Rooms, room: np.ndarray, view: np.ndarray,
               rng: np.random.Generator | None = None) -> Clips:
    """Return clips of rooms [B] and views [B, S]; `rng` draws what the sensor does, if given."""
    where = (room[:, None], view)
    images = torch.from_numpy(rooms.images[where]).movedim(-1, 2).float() / 255
    depth = torch.from_numpy(rooms.depths[where]).float()
    pose = torch.from_numpy(rooms.world_from_camera[where]).double()
    camera_from_first = (invert_transform(pose) @ pose[:, :1]).float()
    fields_of_view = torch.from_numpy(rooms.fields_of_view[where])
    if rng is not None:
        images = _expose(images, rng)
    return Clips(images, depth, camera_from_first, fields_of_view, pose.float())


def draw_views(rng: np.random.Generator, frames: int, along_path: bool) -> np.ndarray:
    """Return the numbers of the views [frames] of one clip."""
    path_views = VIEWS - RANDOM_VIEWS
    if along_path and frames <= path_views:
        stride = rng.integers(1, min(_LONGEST_STRIDE, (path_views - 1) // max(frames - 1, 1)) + 1)
        start = rng.integers(path_views - stride * (frames - 1))
        views = RANDOM_VIEWS + start + stride * np.arange(frames)
        return views if rng.uniform() < 0.5 else views[::-1]   # a path leads both ways
    return rng.choice(VIEWS, frames, replace=frames > VIEWS)


def _expose(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Return `images` [B, S, 3, H, W] with exposure, white balance, blur and noise of a sensor."""
    clips, frames = images.shape[:2]
    white = rng.uniform(0.95, 1.05, (clips, 1, 3)) * rng.uniform(0.88, 1.12, (clips, 1, 1))
    gain = torch.from_numpy(white * rng.uniform(0.92, 1.08, (clips, frames, 1))).float()
    images = images * gain[..., None, None]
    generator = torch.Generator().manual_seed(int(rng.integers(2 ** 62)))
    if rng.uniform() < 0.3:
        side = torch.tensor([rng.uniform(0.0, 1.0)]).float()   # of pixels to either side
        kernel = torch.cat([side, torch.ones(1), side]) / (1 + 2 * side)
        flat = F.pad(images.flatten(0, 2)[:, None], (1, 1, 0, 0), mode='replicate')
        images = F.conv2d(flat, kernel[None, None, None]).view_as(images)
    sigma = rng.uniform(0.0, 5.0) / 255
    return (images + sigma * torch.randn(images.shape, generator=generator)).clamp_(0, 1)
