"""One frame in, one result out, for as long as the stream runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
import time
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from xsvggt_ros.engine.cuda_graph import GraphBackend, SteadyFrame
from xsvggt_ros.engine.enlarge import enlarge
from xsvggt_ros.engine.frame_result import check_results, FrameResult, ResultError
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.geometry.se3 import pose_encoding_to_camera
from xsvggt_ros.images.preprocess import Resize, to_network_input
from xsvggt_ros.images.rectify import CameraView
from xsvggt_ros.kernels import native
from xsvggt_ros.kv_cache.cache import build_cache, CacheHealth, KVCache, ReadOnlyCache
from xsvggt_ros.kv_cache.config import CacheConfig
from xsvggt_ros.kv_cache.retention import POLICIES
from xsvggt_ros.model.streamvggt import FramePrediction, StreamLayout

MAX_VIEWS = 8  # cameras of which the maps are kept
MAX_HEIGHT_OVER_WIDTH = 20  # of a frame: it is scaled to the width before it is cut


class FrameError(ValueError):
    """A frame that this stream cannot take; the stream is as it was before."""


class BudgetError(FrameError):
    """A memory budget that does not even hold the frames that are always kept."""


@dataclass
class StreamCaches:
    """What the network remembers of a stream: its global layers and its camera head's trunk."""

    tokens: KVCache | ReadOnlyCache  # in a frame that is not to be remembered, the latter
    camera: KVCache


class StreamModel(Protocol):
    """What the engine needs of a network; `StreamVGGT` is one."""

    patch_size: int

    def set_dtype(self, dtype: torch.dtype, heads: torch.dtype) -> None:
        """Compute in these precisions from now on; `heads`: of what predicts from tokens."""

    def to(self, device: torch.device) -> 'StreamModel':
        """Move the weights."""

    def cache_layout(self, height: int, width: int) -> StreamLayout:
        """Return the shapes of the two caches for images of this size."""

    def first_frame(self, image: Tensor, memory: StreamCaches, points: bool) -> FramePrediction:
        """
        Predict the frame that defines the world's frame; image: [3, H, W] in [0, 1].

        points: whether the map of points is wanted; the rest must be the same without it.
        """

    def step(self, image: Tensor, memory: StreamCaches, points: bool) -> FramePrediction:
        """Predict a later frame."""


@dataclass(frozen=True)
class CacheStats:
    """How full the caches are, after the last frame's eviction."""

    frames: int  # since the stream began
    tokens_per_frame: int  # 0 before the first frame, when no size is known
    tokens_per_layer: tuple[int, ...]  # remembered, one entry per global layer
    # Tokens per global layer, never below two frames (once there has been one); None: no limit
    budget: int | None
    occupancy: float  # tokens / budget, 0..1; 0 where there is no limit
    evicted_this_frame: int  # tokens per global layer
    evicted_total: int  # tokens per global layer since the stream began
    camera_tokens: int  # per layer of the camera head's trunk
    camera_budget: int | None
    bytes_used: int  # keys and values remembered, both caches
    bytes_reserved: int  # allocated for both caches, scratch and bookkeeping included
    health: CacheHealth | None  # what is left of the past; None before the first frame
    # What `StreamEngine.limit_tokens` makes of the budget; the same where nothing is limited
    limit: int | None = None


@dataclass(frozen=True)
class PendingStats:
    """Statistics of the caches, a part of which is still on the device."""

    stats: CacheStats  # without health
    health: Tensor | None  # what `CacheHealth.of` reads; None before the first frame

    def complete(self, health: Tensor | None) -> CacheStats:
        """Return all of it; health: a copy on the host of the one here."""
        if health is None:
            return self.stats
        tokens = max(self.stats.tokens_per_layer)
        return replace(self.stats, health=CacheHealth.of(health, tokens))


class StreamEngine:
    """
    The life of a stream: it owns the caches, and no earlier frame or result.

    ``step`` may be followed by ``finish_frame`` once the result is on its way; otherwise the next
    call does that work first. Until then ``discard_frame`` undoes it, and ``accept`` does so if
    the result cannot be a reconstruction.
    """

    def __init__(
        self, model: StreamModel, cache: CacheConfig, device: torch.device | str = 'cpu',
        dtype: torch.dtype = torch.float32, image_size: int | None = None,
        head_dtype: torch.dtype = torch.float32, kernels: str = 'portable',
        graphs: GraphBackend | None = None,
        report: Callable[[str], None] = lambda line: None, tracking_size: int | None = None,
    ) -> None:
        """
        Take a network and move it to ``device`` and the precision ``dtype``, heads ``head_dtype``.

        image_size: width of the model image in pixels, a multiple of the patch size; None uses
        frames as they are, which then must have sides that are multiples of it.
        kernels: one of `kernels.availability.CHOICES`; anything but 'portable' asks for a model
        with `set_kernels`. graphs: what captures the steady part of a frame, `CudaGraphs` on a
        GPU; None runs every frame eagerly. It asks for a model whose `step` takes a `run`, as
        `StreamVGGT` does. report: is told in a line when graphs are captured, or given up.
        tracking_size: width at which the network sees frames that are not to be remembered, a
        multiple of the patch size; their maps are brought to the size of the others. None, or
        the stream's width: as the others. It asks for a model whose `step` takes a `stream_size`.
        """
        for name, width in (('image_size', image_size), ('tracking_size', tracking_size)):
            if width is not None and (width < 1 or width % model.patch_size):
                raise ValueError(
                    f'{name} must be a multiple of the patch size {model.patch_size}, for '
                    f'example {max(1, round(width / model.patch_size)) * model.patch_size}; '
                    f'got {width}')
        if None not in (image_size, tracking_size) and tracking_size > image_size:
            raise ValueError(f'tracking_size must not be above image_size, {image_size}; '
                             f'got {tracking_size}')
        self._device = torch.device(device)
        self._dtype = dtype
        self._head_dtype = head_dtype
        model.set_dtype(dtype, head_dtype)
        self._model = model.to(self._device)
        self._kernels_used = 'portable'
        if kernels != 'portable':
            self._kernels_used = self._model.set_kernels(kernels)
        self._kernels = kernels
        self._graphs = graphs
        self._report = report
        self._steady: dict[bool, SteadyFrame] = {}  # by whether a frame is remembered
        self._cache_config = cache
        self._image_size = image_size
        self._tracking_size = tracking_size
        self._shrink: Resize | None = None  # of images that are not remembered
        self._memory: StreamCaches | None = None
        self._resize: Resize | None = None
        self._views: dict[CameraModel, CameraView] = {}
        self._source_size = (0, 0)  # height, width
        self._frames = 0
        self._begun = False  # frames that can still be undone
        self._unfinished = False  # the last of them
        self._before = 0, True  # them: frames, and whether the last one was remembered
        self._stored: list[Tensor] = []  # of them: `KVCache.written`
        self._remember = True  # the last frame
        self._limit: int | None = None
        self._points = True

    # Public interface ----------------------------------------------------------------------------

    @property
    def resize(self) -> Resize | None:
        """Return how this stream's frames are resized; None before the first frame."""
        return self._resize

    @property
    def frames(self) -> int:
        """Return how many frames the stream has had."""
        return self._frames

    @torch.inference_mode()
    def prepare(self, height: int, width: int) -> None:
        """
        Allocate the caches for frames of this size; the first `step` does it otherwise.

        Raises FrameError if the size does not suit the model or an ongoing stream.
        """
        if self._resize is not None and (height, width) == self._source_size:
            return
        if self._frames:
            expected = f'{self._source_size[1]}x{self._source_size[0]}'
            raise FrameError(
                f'the frame is {width}x{height} but this stream began with {expected}; '
                'send that size, or reset the stream to begin anew')
        if height > MAX_HEIGHT_OVER_WIDTH * width:
            raise FrameError(
                f'the frame is {width}x{height}; more than {MAX_HEIGHT_OVER_WIDTH} times as high '
                'as wide is no camera image')
        resize = Resize.plan(height, width, self._image_size, self._model.patch_size)
        self._check_model_size(resize.height, resize.width)
        layout = self._model.cache_layout(resize.height, resize.width)
        if self._memory is None or self._memory.tokens.layout != layout.tokens:
            # Free the old one before the new one is allocated, which may fail.
            self._memory = self._resize = None
            self._steady.clear()
            self._memory = self._allocate(layout)
            if self._graphs is not None:
                self._steady = self._watch(self._memory.tokens, self._graphs)
        self._source_size = (height, width)
        self._resize = resize
        self._shrink = None
        if self._tracking_size is not None and self._tracking_size < resize.width:
            self._shrink = resize.smaller(self._tracking_size, self._model.patch_size)
        self._views.clear()

    @torch.inference_mode()
    def step(
        self, frame: np.ndarray | Tensor, camera: CameraModel | None = None,
        remember: bool = True, joins: bool = False,
    ) -> FrameResult:
        """
        Reconstruct one frame, uint8 [H, W, 3] RGB.

        camera: the calibration of the camera that took it. The frame is rectified if that makes
        a difference, and the result has the calibrated intrinsics in place of the predicted ones.
        The same object must come with every frame, since maps are made once for each.
        remember: whether later frames are to attend to this one; the first frame is remembered in
        any case. The camera head remembers its token of every frame.
        joins: whether it belongs to the frame before, as another camera's does: either both are
        undone or none is.

        Raises FrameError for a frame that cannot be taken. If the network itself fails half-way,
        the error is passed on and the stream is as it was before the frame, and before those it
        joins. Should that no longer be possible, the stream is reset (`frames` is 0 then).
        """
        frame = self._check_frame(frame)
        view = self._view(camera)
        try:
            return self._step(frame, view, remember, joins and self._begun)
        except BaseException:
            self.discard_frame()
            raise

    def _step(
        self, frame: Tensor, view: CameraView | None, remember: bool, joins: bool,
    ) -> FrameResult:
        if joins:
            self._end_step(more=True)
        else:
            self.finish_frame()
            self._begin_undoable()
        start = time.perf_counter()
        pixels = frame.to(self._device, copy=True)  # never the caller's memory
        image = self._resize(pixels if view is None else view.rectify(pixels))
        upload_seconds = time.perf_counter() - start
        self._memory.tokens.limit_tokens(self._limit)
        index = self._frames
        remember = remember or index == 0
        self._remember = remember
        prediction = self._predict(image, remember)
        self._frames += 1
        self._unfinished = True
        self._stored += self._memory.camera.written()
        if remember:
            self._stored += self._memory.tokens.written()
        camera_from_world, predicted = pose_encoding_to_camera(
            prediction.pose_encoding, self._resize.height, self._resize.width)
        result = FrameResult(
            frame_index=index, image=image, pose_encoding=prediction.pose_encoding,
            camera_from_world=camera_from_world,
            intrinsics=predicted if view is None else view.intrinsics.clone(),
            predicted_intrinsics=predicted,
            depth=prediction.depth, depth_confidence=prediction.depth_confidence,
            points=prediction.points, points_confidence=prediction.points_confidence,
            upload_seconds=upload_seconds)
        return result if view is None or view.valid is None else result.masked(view.valid)

    @torch.inference_mode()
    def finish_frame(self) -> None:
        """
        Commit the last frame to the cache, if it is to be, and evict down to the budget.

        If that fails, the frame is undone and the error passed on.
        """
        if not self._begun:
            return
        try:
            self._end_step()
        except BaseException:
            self.discard_frame()
            raise
        self._memory.tokens.keep()
        self._memory.camera.keep()
        self._begun = False
        self._stored.clear()
        self._settle()

    @torch.inference_mode()
    def accept(self, results: Sequence[FrameResult]) -> np.ndarray:
        """
        Return camera_from_world, fp64 [K, 4, 4] on the host, of the frames since `finish_frame`.

        It waits for the device. If anything in the results or in what they would leave in the
        caches is not finite or absurd, all these frames are undone, and ResultError tells why.
        """
        largest = min(self._memory.tokens.max_magnitude, self._memory.camera.max_magnitude)
        try:
            return check_results(results, self._stored, largest)
        except ResultError:
            self.discard_frame()
            raise

    @torch.inference_mode()
    def discard_frame(self) -> None:
        """
        Undo the frames that `finish_frame` has not committed; nothing to do if there is none.

        Every bit that the caches remember is as it was, and so is `frames`. Should that not be
        possible, the stream is reset.
        """
        if not self._begun:
            return
        self._begun = self._unfinished = False
        self._stored.clear()
        try:
            self._memory.camera.rewind()
            self._memory.tokens.rewind()
            self._frames, self._remember = self._before
        except BaseException:
            self.reset()

    def acceleration(self) -> dict[str, str]:
        """Return how kernels and graphs stand, in words; from any thread."""
        graphs, steady = 'off', self._steady.get(True)
        if self._graphs is not None:
            graphs = 'begin when the cache is full' if steady is None else steady.description
        kernels = self._kernels_used
        if self._device.type == 'cpu' and native.library() is not None:
            kernels += ', C++ where layers are small and for packed tokens'
        return {'kernels': kernels, 'graphs': graphs}

    def want_points(self, wanted: bool) -> None:
        """
        Choose whether the next frames have `FrameResult.points`; at first they have.

        Nothing else depends on the point head, which takes as long as the depth head. The depth
        gives points as well: `geometry.unproject_depth`.
        """
        self._points = wanted

    def limit_tokens(self, tokens: int | None) -> None:
        """
        Attend to at most so many tokens per layer, to be faster; None: the whole budget again.

        It counts from the next `step` on, whose `finish_frame` evicts what is above: that frame
        still attends to what there was. Two frames are always kept, and a limit above the budget
        is the budget. Once the limit is raised the history grows again, frame by frame; what was
        forgotten does not come back. The memory stays allocated, and a limit holds through
        `reset`. A cache without a budget takes none. Raises ValueError for less than a token.
        """
        if tokens is not None and tokens < 1:
            raise ValueError(f'the limit must be a token at least, or None; got {tokens}')
        self._limit = tokens

    @torch.inference_mode()
    def reset(self) -> None:
        """
        Forget the stream; the next frame defines a new world. Memory stays allocated.

        If that fails, the memory is let go of, and the error passed on.
        """
        self._frames = 0
        self._begun = self._unfinished = False
        self._stored.clear()
        if self._memory is None:
            return
        try:
            for steady in self._steady.values():
                steady.invalidate('the stream was reset')
            self._memory.tokens.reset()
            self._memory.camera.reset()
        except BaseException:
            self._memory = self._resize = None
            self._steady.clear()
            raise

    def kept_token_ids(self) -> list[Tensor]:
        """
        Return the tokens each global layer remembers, int64 ascending.

        A token's id is frame * tokens_per_frame + its index in the frame; frames that were not to
        be remembered do not count.
        """
        self.finish_frame()
        return self._memory.tokens.kept_token_ids() if self._memory else []

    def kept_camera_ids(self) -> list[Tensor]:
        """Return what each layer of the camera head's trunk remembers: frame * 4 + iteration."""
        return self._memory.camera.kept_token_ids() if self._memory else []

    def cache_stats(self) -> CacheStats:
        """Return how full the caches are; waits for the device."""
        pending = self.pending_stats()
        return pending.complete(pending.health)

    @torch.inference_mode()
    def pending_stats(self) -> PendingStats:
        """Return the same without waiting."""
        self.finish_frame()
        if self._memory is None:
            config = self._cache_config
            limited = POLICIES[config.policy].bounded
            budget = config.max_tokens if limited else None
            return PendingStats(
                CacheStats(0, 0, (), budget, 0.0, 0, 0, 0, config.camera_max_tokens, 0, 0, None,
                           budget), None)
        tokens, camera = self._memory.tokens, self._memory.camera
        stats = CacheStats(
            frames=self._frames,
            tokens_per_frame=tokens.layout.tokens_per_step,
            tokens_per_layer=(tokens.tokens,) * tokens.layout.layers,
            budget=tokens.budget,
            occupancy=tokens.tokens / tokens.budget if tokens.budget else 0.0,
            evicted_this_frame=tokens.evicted_last if self._remember else 0,
            evicted_total=tokens.evicted_total,
            camera_tokens=camera.tokens,
            camera_budget=camera.budget,
            bytes_used=tokens.bytes_used + camera.bytes_used,
            bytes_reserved=tokens.bytes_reserved + camera.bytes_reserved,
            health=None,
            limit=tokens.limit)
        return PendingStats(stats, tokens.health_numbers() if self._frames else None)

    def budget_warning(self) -> str | None:
        """Return what is wrong with the token budget for this frame size, or None."""
        if self._memory is None or self._memory.tokens.budget is None:
            return None
        frame = self._memory.tokens.layout.tokens_per_step
        budget = self._memory.tokens.budget
        if self._cache_config.memory_budget_mb is None:
            budget = self._cache_config.max_tokens
        if budget > 2 * frame:
            return None
        size = f'{self._resize.width}x{self._resize.height}'
        return (f'cache.max_tokens {budget} leaves no room for history: at {size} a frame has '
                f'{frame} tokens, and the first and the newest frame, {2 * frame} tokens, are '
                f'always kept; set cache.max_tokens to {4 * frame} or more')

    def budget_description(self) -> str:
        """Return what the budget buys for this frame size, in one line."""
        stats = self.cache_stats()
        size = f'{self._resize.width}x{self._resize.height}'
        megabytes = f'{stats.bytes_reserved / 1e6:.0f} MB'
        if stats.budget is None:
            return f'{megabytes} for a start, no limit, {stats.tokens_per_frame} tokens a frame'
        history = stats.budget / stats.tokens_per_frame - 2
        return (f'{megabytes} = {stats.budget} tokens per layer = first + newest + {history:.1f} '
                f'frames of history at {size}')

    def bytes_needed(self, height: int, width: int) -> int:
        """Return the bytes that both caches will reserve for frames of this size."""
        resize = Resize.plan(height, width, self._image_size, self._model.patch_size)
        layout = self._model.cache_layout(resize.height, resize.width)
        memory = self._build(layout, self._token_budget(layout), torch.device('meta'))
        return memory.tokens.bytes_reserved + memory.camera.bytes_reserved

    def tokens_that_fit(self, height: int, width: int, megabytes: float) -> int:
        """Return the largest max_tokens that fits into so much memory; 0 if none does."""
        resize = Resize.plan(height, width, self._image_size, self._model.patch_size)
        layout = self._model.cache_layout(resize.height, resize.width)
        return self._tokens_for_bytes(layout, int(megabytes * 1e6))

    # Parts ---------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Put in the graphs that are ready to be captured."""
        for steady in self._steady.values():
            steady.settle()

    def _begin_undoable(self) -> None:
        """Have what follows be undone by `discard_frame`."""
        self._memory.tokens.mark()
        self._memory.camera.mark()
        self._before = self._frames, self._remember
        self._begun = True

    def _end_step(self, more: bool = False) -> None:
        """Commit the last frame to the token cache, if it is to be."""
        if self._unfinished and self._remember:
            self._memory.tokens.end_step(more)
        self._unfinished = False

    def _predict(self, image: Tensor, remember: bool) -> FramePrediction:
        self._memory.tokens.compact(gapless=not remember and self._shrink is not None)
        if self._frames == 0:
            return self._model.first_frame(
                to_network_input(image), self._memory, points=self._points)
        settings = {'run': self._steady[remember]} if self._steady else {}
        if remember:
            return self._model.step(
                to_network_input(image), self._memory, points=self._points, **settings)
        memory = replace(self._memory, tokens=self._memory.tokens.read_only())
        if self._shrink is None:
            return self._model.step(
                to_network_input(image), memory, points=self._points, **settings)
        height, width = image.shape[:2]
        small = self._model.step(
            to_network_input(self._shrink(image)), memory, points=self._points,
            stream_size=(height, width), **settings)
        return enlarge(small, height, width)

    def _check_frame(self, frame: np.ndarray | Tensor) -> Tensor:
        if isinstance(frame, np.ndarray):
            if frame.dtype != np.uint8:
                raise FrameError(f'a frame must be uint8, got {frame.dtype}')
            # PyTorch warns of memory that may not be written, as that of Pillow's pictures.
            frame = torch.from_numpy(np.require(frame, requirements=('C', 'W')))
        if frame.dtype != torch.uint8:
            raise FrameError(f'a frame must be uint8, got {frame.dtype}')
        if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise FrameError(f'a frame must be [height, width, 3], got {list(frame.shape)}')
        self.prepare(frame.shape[0], frame.shape[1])
        return frame

    def _view(self, camera: CameraModel | None) -> CameraView | None:
        if camera is None:
            return None
        if (camera.height, camera.width) != self._source_size:
            raise FrameError(
                f'the calibration is for images of {camera.width}x{camera.height}, but the frame '
                f'is {self._source_size[1]}x{self._source_size[0]}')
        if camera not in self._views:
            if len(self._views) == MAX_VIEWS:
                del self._views[next(iter(self._views))]
            self._views[camera] = CameraView(camera, self._resize, self._device)
        return self._views[camera]

    def _check_model_size(self, height: int, width: int) -> None:
        patch = self._model.patch_size
        if height % patch or width % patch:
            raise FrameError(
                f'the frame is {width}x{height}, but without image_size both sides must be '
                f'multiples of the patch size {patch}')

    def _watch(self, tokens: KVCache, graphs: GraphBackend) -> dict[bool, SteadyFrame]:
        """Return what replays frames; those that are not remembered have graphs of their own."""
        return {
            True: SteadyFrame(tokens, graphs, self._report),
            False: SteadyFrame(tokens, graphs, lambda line: self._report(
                f'images that are not remembered: {line}'))}

    def _allocate(self, layout: StreamLayout) -> StreamCaches:
        return self._build(layout, self._token_budget(layout), self._device)

    def _build(
        self, layout: StreamLayout, budget: int | None, device: torch.device,
    ) -> StreamCaches:
        config = self._cache_config
        return StreamCaches(
            tokens=build_cache(
                layout.tokens, config, budget, self._attention_dtype(self._dtype), device,
                config.quantization, self._kernels),
            camera=build_cache(
                layout.camera, config, config.camera_max_tokens,
                self._attention_dtype(self._head_dtype), device, 'none', track_health=False))

    def _attention_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the type in which a network of this precision attends."""
        return torch.float32 if self._device.type == 'cpu' else dtype

    def _token_budget(self, layout: StreamLayout) -> int | None:
        megabytes = self._cache_config.memory_budget_mb
        if megabytes is None:
            return self._cache_config.max_tokens
        budget = self._tokens_for_bytes(layout, int(megabytes * 1e6))
        if budget == 0:
            meta = self._build(layout, 1, torch.device('meta'))
            needed = meta.tokens.bytes_reserved + meta.camera.bytes_reserved
            raise BudgetError(
                f'memory_budget_mb {megabytes:g} does not hold the first and the newest frame of '
                f'{layout.tokens.tokens_per_step} tokens: set it to {needed / 1e6 + 0.5:.0f} or '
                'more, use a smaller image_size, or pack the cache in fewer bits')
        return budget

    def _tokens_for_bytes(self, layout: StreamLayout, limit: int) -> int:
        """Return the largest budget in tokens per layer within a limit in bytes, or 0."""
        meta = torch.device('meta')

        def fits(budget: int) -> bool:
            memory = self._build(layout, budget, meta)
            return memory.tokens.bytes_reserved + memory.camera.bytes_reserved <= limit

        low, high = 2 * layout.tokens.tokens_per_step, limit
        if not fits(low):
            return 0
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low
