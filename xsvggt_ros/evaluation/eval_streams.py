"""The streams that an evaluation runs on, at the network's size: synthetic worlds, data sets."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.evaluation.datasets.sequence import TrueFrame
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.recordings.frame_source import DEFAULT_SIZE
from xsvggt_ros.trajectory.tracker import grey_of
from xsvggt_ros.world.synthetic_world import SPLITS, SyntheticWorld


class EvalSource(Protocol):
    """A stream with its truth."""

    name: str

    def __len__(self) -> int:
        """Return the number of frames."""

    def frame(self, index: int) -> TrueFrame:
        """Return a frame, in the order of time."""


class WorldSource:
    """The first frames of a synthetic world."""

    def __init__(self, seed: int, frames: int, rate: float) -> None:
        """Take `frames` frames of world `seed`, `rate` a second."""
        self.name = f'world {seed}'
        self._world = SyntheticWorld(seed, *DEFAULT_SIZE)
        self._frames, self._rate = frames, rate
        self._begin = 0.0   # seconds

    def __len__(self) -> int:
        """Return the number of frames."""
        return self._frames

    def frame(self, index: int) -> TrueFrame:
        """Return a frame, in the order of time."""
        seen = self._world.frame(self._begin + index / self._rate)
        return TrueFrame(seen.image, seen.depth, seen.world_from_camera,
                         self._world.intrinsics.matrix())


def world_sources(split: str, count: int, frames: int, rate: float) -> list[WorldSource]:
    """Return the first `count` worlds of a split."""
    return [WorldSource(seed, frames, rate) for seed in SPLITS[split][:count]]


@dataclass(frozen=True)
class EvalStream:
    """
    Pictures at the network's size and what is true of them.

    Pixels without a true depth hold 0; frames without a true pose or focal length NaN.
    """

    name: str
    images: list[np.ndarray]        # [H, W, 3] uint8 RGB
    depths: np.ndarray              # [N, H, W] float32, metres along the optical axis
    world_from_camera: np.ndarray   # [N, 4, 4] float64, metres
    focal: np.ndarray               # [N, 2] float64, fx and fy in pixels
    intrinsics: np.ndarray          # [N, 3, 3] float64
    # For tracking: grey pictures as they came, uint8, and from their pixels to the network's.
    greys: list[np.ndarray] = field(default_factory=list)
    model_from_source: np.ndarray | None = None

    def first(self, frames: int) -> 'EvalStream':
        """Return the stream's beginning."""
        return EvalStream(self.name, self.images[:frames], self.depths[:frames],
                          self.world_from_camera[:frames], self.focal[:frames],
                          self.intrinsics[:frames], self.greys[:frames], self.model_from_source)


def prepare(recording: EvalSource, frames: int, stride: int, image_size: int, patch_size: int,
            frame_done: Callable[[], None], tracked: bool = False) -> EvalStream:
    """
    Return every `stride`-th frame of a recording, `frames` at most; raise ToolError.

    tracked: whether the pictures are to be tracked, too, which takes them at their own size.
    """
    indices = range(0, len(recording), stride)[:frames]
    if len(indices) < 2:
        raise ToolError(f'{recording.name}: {len(recording)} frames, of which every '
                        f'{stride}th makes no stream; it takes two')
    images, depths, poses, cameras, greys = [], [], [], [], []
    for index in indices:
        frame = recording.frame(index)
        height, width = frame.image.shape[:2]
        resize = Resize.plan(height, width, image_size, patch_size)
        images.append(resize(torch.from_numpy(np.ascontiguousarray(frame.image))).numpy())
        if images[-1].shape != images[0].shape:
            raise ToolError(f'{recording.name}: frame {index} is {width}x{height}, another shape '
                            'than the first one')
        if tracked:
            greys.append(grey_of(frame.image))
        depths.append(_sample(frame.depth, resize))
        poses.append(np.full((4, 4), np.nan) if frame.world_from_camera is None
                     else frame.world_from_camera)
        model_from_source = resize.model_from_source().numpy()
        cameras.append(np.full((3, 3), np.nan) if frame.intrinsics is None
                       else model_from_source @ frame.intrinsics)
        frame_done()
    intrinsics = np.stack(cameras)
    return EvalStream(recording.name, images, np.stack(depths), np.stack(poses),
                      intrinsics[:, (0, 1), (0, 1)], intrinsics, greys, model_from_source)


def _sample(depth: np.ndarray | None, resize: Resize) -> np.ndarray:
    """Return the true depth [H, W] at the centres of the network's pixels, 0 where unknown."""
    if depth is None:
        return np.zeros((resize.height, resize.width), np.float32)
    source_from_model = torch.linalg.inv(resize.model_from_source()).numpy()
    columns = source_from_model[0, 0] * np.arange(resize.width) + source_from_model[0, 2]
    rows = source_from_model[1, 1] * np.arange(resize.height) + source_from_model[1, 2]
    rows = np.clip(np.rint(rows).astype(int), 0, depth.shape[0] - 1)
    columns = np.clip(np.rint(columns).astype(int), 0, depth.shape[1] - 1)
    sampled = depth[rows[:, None], columns]
    return np.where(np.isfinite(sampled), sampled, 0.0).astype(np.float32)
