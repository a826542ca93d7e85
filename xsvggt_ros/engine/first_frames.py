"""The frames that a stream begins with, where the network sees several of them together."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from xsvggt_ros.engine.errors import FrameError
from xsvggt_ros.engine.frame_input import as_tensor
from xsvggt_ros.engine.stream_caches import StreamCaches
from xsvggt_ros.engine.stream_model import StreamModel
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.images.preprocess import to_network_input
from xsvggt_ros.kv_cache.cache import KVCache
from xsvggt_ros.model.network import FramePrediction

Item = TypeVar('Item')


def grouped(items: Iterable[Item], first: int) -> Iterator[list[Item]]:
    """Return the first items together, as many as there are of them, and then each by itself."""
    rest = iter(items)
    begin = list(islice(rest, first))
    if begin:
        yield begin
    for item in rest:
        yield [item]


@dataclass
class _WatchedCache:
    """The token cache while several frames are remembered at once: notes what each stores."""

    cache: KVCache
    stored: list[Tensor] = field(default_factory=list)

    @property
    def steps(self) -> int:
        return self.cache.steps

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.cache.attend(layer, query, key, value)

    def end_step(self) -> None:
        self.stored += self.cache.written()
        self.cache.end_step(more=True)  # the last one's end is the engine's


@dataclass(frozen=True)
class _WatchedCaches:
    tokens: _WatchedCache
    camera: KVCache


def check_together(
    frames: Sequence[np.ndarray | Tensor], cameras: Sequence[CameraModel | None], had: int,
    most: int,
) -> list[Tensor]:
    """Return frames that a stream may begin with; raise FrameError. had: its frames so far."""
    if had:
        raise FrameError(f'the stream has had {had} frames; reset it to begin anew')
    if not 1 < len(frames) <= most or len(frames) != len(cameras):
        raise FrameError(
            f'a stream begins with up to {most} frames (first_frames) and as many cameras, got '
            f'{len(frames)} and {len(cameras)}')
    pixels = [as_tensor(frame) for frame in frames]
    for other in pixels:
        check_size(pixels[0].shape[:2], other.shape[:2])
    return pixels


def check_size(begun: Sequence[int], size: Sequence[int]) -> None:
    """Raise FrameError unless a frame is as large, (height, width), as those before it."""
    if tuple(size) != tuple(begun):
        raise FrameError(
            f'the frame is {size[1]}x{size[0]} but this stream began with {begun[1]}x{begun[0]}; '
            'send that size, or reset the stream to begin anew')


def predict_together(
    model: StreamModel, caches: StreamCaches, images: Sequence[Tensor],
) -> tuple[list[FramePrediction], list[Tensor]]:
    """
    Return what the network makes of a stream's first images, uint8 [H, W, 3].

    All are remembered. Also returns what all but the last have stored in the token cache, whose
    step is not ended.
    """
    caches.prepare(remember=True, smaller=False)
    watched = _WatchedCache(caches.tokens)
    predictions = model.first_frames(
        torch.stack([to_network_input(image) for image in images]),
        _WatchedCaches(watched, caches.camera))
    return predictions, watched.stored
