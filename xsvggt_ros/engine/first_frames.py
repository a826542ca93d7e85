"""The frames that a stream begins with, where the network sees several of them together."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
import time
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from xsvggt_ros.engine.errors import FrameError
from xsvggt_ros.engine.frame_input import as_tensor, FrameInput
from xsvggt_ros.engine.frame_result import FrameResult
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.images.preprocess import to_network_input
from xsvggt_ros.images.rectify import CameraView
from xsvggt_ros.kv_cache.cache import KVCache

if TYPE_CHECKING:
    from xsvggt_ros.engine.stream_engine import StreamEngine

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


def begin_together(
    engine: 'StreamEngine', frames: Sequence[np.ndarray | Tensor],
    cameras: Sequence[CameraModel | None],
) -> list[FrameResult]:
    """Do what `StreamEngine.begin` does with several frames."""
    if engine.frames:
        raise FrameError(f'the stream has had {engine.frames} frames; reset it to begin anew')
    if not 1 < len(frames) <= engine.config.first_frames or len(frames) != len(cameras):
        raise FrameError(
            f'a stream begins with up to {engine.config.first_frames} frames (first_frames) and '
            f'as many cameras, got {len(frames)} and {len(cameras)}')
    pixels = [as_tensor(frame) for frame in frames]
    height, width = pixels[0].shape[:2]
    for other in pixels:
        check_size((height, width), other.shape[:2])
    source = engine._prepare(height, width)
    views = [source.view(camera) for camera in cameras]
    try:
        return _begin(engine, source, pixels, views)
    except BaseException:
        engine.discard_frame()
        raise


def check_size(begun: Sequence[int], size: Sequence[int]) -> None:
    """Raise FrameError unless a frame is as large, (height, width), as those before it."""
    if tuple(size) != tuple(begun):
        raise FrameError(
            f'the frame is {size[1]}x{size[0]} but this stream began with {begun[1]}x{begun[0]}; '
            'send that size, or reset the stream to begin anew')


def _begin(
    engine: 'StreamEngine', source: FrameInput, pixels: Sequence[Tensor],
    views: Sequence[CameraView | None],
) -> list[FrameResult]:
    engine.finish_frame()
    engine._begin_undoable()
    start = time.perf_counter()
    images = [source.image(frame, view) for frame, view in zip(pixels, views)]
    upload_seconds = (time.perf_counter() - start) / len(images)
    caches = engine.caches
    caches.tokens.limit_tokens(engine._limit)
    caches.prepare(remember=True, smaller=False)
    watched = _WatchedCache(caches.tokens)
    engine._remember = True
    predictions = engine._model.first_frames(
        torch.stack([to_network_input(image) for image in images]),
        _WatchedCaches(watched, caches.camera))
    engine._frames = len(images)
    engine._unfinished = True
    engine._stored += [*watched.stored, *caches.camera.written(), *caches.tokens.written()]
    return [FrameResult.of(index, image, view, prediction, upload_seconds,
                           engine.config.depth_errors)
            for index, (image, view, prediction) in enumerate(zip(images, views, predictions))]
