"""One frame in, one result out, for as long as the stream runs."""

from collections.abc import Callable, Sequence
import time

import numpy as np
import torch
from torch import Tensor

from xsvggt_ros.engine.cache_stats import CacheStats, PendingStats
from xsvggt_ros.engine.config import EngineConfig
from xsvggt_ros.engine.cuda_graph import GraphBackend, SteadyFrame
from xsvggt_ros.engine.errors import FrameError
from xsvggt_ros.engine.first_frames import check_size, check_together, predict_together
from xsvggt_ros.engine.frame_input import as_tensor, FrameInput, plan_resize
from xsvggt_ros.engine.frame_result import check_results, FrameResult, ResultError
from xsvggt_ros.engine.stream_caches import (
    budget_description,
    budget_warning,
    empty_stats,
    StreamCaches,
    token_budget,
    tokens_for_bytes,
)
from xsvggt_ros.engine.stream_model import StreamModel
from xsvggt_ros.engine.stream_progress import StreamProgress
from xsvggt_ros.engine.stream_state import StreamState
from xsvggt_ros.engine.upsample import upsample
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.images.preprocess import Resize, to_network_input
from xsvggt_ros.images.rectify import CameraView
from xsvggt_ros.kernels import native
from xsvggt_ros.model.network import FramePrediction, Run, run_plainly, StreamLayout


class StreamEngine:
    """
    The life of a stream: it owns the caches, and no earlier frame or result.

    ``step`` may be followed by ``finish_frame`` once the result is on its way; otherwise the next
    call does that work first. Until then ``discard_frame`` undoes it, and ``accept`` does so if
    the result cannot be a reconstruction.

    A long class, as it is all of the interface to a stream; the rest is in the modules beside it.
    """

    def __init__(
        self, model: StreamModel, config: EngineConfig = EngineConfig(),
        graphs: GraphBackend | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        """
        Take a network and move it to the device and the precision of ``config``.

        graphs: what captures the steady part of a frame, `CudaGraphs` on a GPU; None runs every
        frame eagerly. report: is told in a line when graphs are captured, or given up. Raises
        ValueError for settings that do not suit the network.
        """
        config.check(model.patch_size)
        self.config = config
        model.set_dtype(config.dtype, config.head_dtype)
        model.join_first_frames(config.first_frames)
        self._model = model.to(torch.device(config.device))
        self._kernels_used = 'portable'
        if config.kernels != 'portable':
            self._kernels_used = self._model.set_kernels(config.kernels)
        self._graphs = graphs
        self._report = report
        self._steady: dict[bool, SteadyFrame] = {}  # by whether a frame is remembered
        self._caches: StreamCaches | None = None
        self._input: FrameInput | None = None
        self._progress = StreamProgress()
        self._limit: int | None = None
        self._points = True

    @property
    def resize(self) -> Resize | None:
        """Return how this stream's frames are resized; None before the first frame."""
        return None if self._input is None else self._input.resize

    @property
    def frames(self) -> int:
        """Return how many frames the stream has had."""
        return self._progress.frames

    @property
    def caches(self) -> StreamCaches:
        """Return the caches; raise RuntimeError before the first frame, whose size they need."""
        if self._caches is None:
            raise RuntimeError('there are no caches before the first frame')
        return self._caches

    def exhausted(self, frames: int = 1) -> str | None:
        """Return why the network cannot remember so many more frames in this stream, or None."""
        if not self.frames:
            return None
        ahead = self._progress.unfinished and self._progress.remembered
        return self.caches.exhausted(frames + ahead)

    @torch.inference_mode()
    def prepare(self, height: int, width: int) -> FrameInput:
        """Allocate the caches for frames of this size, as `step` would; raise FrameError."""
        known = self._input
        if known is not None and (height, width) == (known.height, known.width):
            return known
        if known is not None and self.frames:
            check_size((known.height, known.width), (height, width))
        resize = plan_resize(self.config, height, width, self._model.patch_size)
        layout = self._model.cache_layout(resize.height, resize.width)
        if self._caches is None or self._caches.tokens.layout != layout.tokens:
            # Free the old one before the new one is allocated, which may fail.
            self._caches = self._input = None
            self._steady.clear()
            self._use(StreamCaches.build(
                self.config, layout, token_budget(self.config, layout)))
        self._input = FrameInput(self.config, height, width, resize, self._model.patch_size)
        return self._input

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
        any case. StreamVGGT's camera head remembers its token of every frame.
        joins: whether it belongs to the frame before, as another camera's does: either both are
        undone or none is.

        Raises FrameError for a frame that cannot be taken, or not be remembered (`exhausted`). If
        the network itself fails half-way, the error is passed on and the stream is as it was
        before the frame, and before those it joins. Should that no longer be possible, the stream
        is reset (`frames` is 0 then).
        """
        pixels = as_tensor(frame)
        source = self.prepare(*pixels.shape[:2])
        view = source.view(camera)
        end = self.exhausted() if remember else None
        if end is not None:
            raise FrameError(f'{end}; remember fewer of them, or begin a new stream')
        try:
            return self._see(source, [pixels], [view], remember,
                             joins and self._progress.can_undo)[0]
        except BaseException:
            self.discard_frame()
            raise

    def _see(
        self, source: FrameInput, frames: Sequence[Tensor], views: Sequence[CameraView | None],
        remember: bool, joins: bool = False,
    ) -> list[FrameResult]:
        """Reconstruct a frame, or several that a stream begins with; see `step`."""
        caches, progress = self.caches, self._progress
        if joins:
            progress.end_step(caches, more=True)
        else:
            self.finish_frame()
            progress.mark(caches)
        start = time.perf_counter()
        images = [source.image(frame, view) for frame, view in zip(frames, views)]
        upload_seconds = (time.perf_counter() - start) / len(images)
        caches.tokens.limit_tokens(self._limit)
        first = progress.frames
        remember = remember or first == 0
        stored: list[Tensor] = []
        if len(images) == 1:
            predictions = [self._predict(source, images[0], remember)]
        else:
            predictions, stored = predict_together(self._model, caches, images)
        progress.add(caches, len(images), remember, stored)
        return [FrameResult.of(first + index, image, view, prediction, upload_seconds,
                               self.config.depth_errors)
                for index, (image, view, prediction) in enumerate(zip(images, views, predictions))]

    @torch.inference_mode()
    def begin(
        self, frames: Sequence[np.ndarray | Tensor], cameras: Sequence[CameraModel | None],
    ) -> list[FrameResult]:
        """
        Reconstruct a stream's first frames together: `EngineConfig.first_frames`, or fewer.

        frames, cameras: as of `step`. All are remembered, and undone together. Raises as `step`.
        """
        if len(frames) == 1:
            return [self.step(frames[0], cameras[0])]
        pixels = check_together(frames, cameras, self.frames, self.config.first_frames)
        source = self.prepare(*pixels[0].shape[:2])
        views = [source.view(camera) for camera in cameras]
        try:
            return self._see(source, pixels, views, remember=True)
        except BaseException:
            self.discard_frame()
            raise

    @torch.inference_mode()
    def finish_frame(self) -> None:
        """
        Commit the last frame to the cache, if it is to be, and evict down to the budget.

        If that fails, the frame is undone and the error passed on.
        """
        if not self._progress.can_undo:
            return
        try:
            self._progress.end_step(self.caches)
        except BaseException:
            self.discard_frame()
            raise
        self._progress.keep(self.caches)
        for steady in self._steady.values():   # puts in the graphs that are ready
            steady.settle()

    @torch.inference_mode()
    def accept(self, results: Sequence[FrameResult]) -> np.ndarray:
        """
        Return camera_from_world, fp64 [K, 4, 4] on the host, of the frames since `finish_frame`.

        It waits for the device. If anything in the results or in what they would leave in the
        caches is not finite or absurd, all these frames are undone, and ResultError tells why.
        """
        try:
            return check_results(results, self._progress.stored, self.caches.max_magnitude)
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
        if not self._progress.can_undo:
            return
        try:
            self._progress.undo(self.caches)
        except BaseException:
            self.reset()

    def acceleration(self) -> dict[str, str]:
        """Return how kernels and graphs stand, in words; from any thread."""
        graphs, steady = 'off', self._steady.get(True)
        if self._graphs is not None:
            graphs = 'begin when the cache is full' if steady is None else steady.description
        kernels = self._kernels_used
        if torch.device(self.config.device).type == 'cpu' and native.library() is not None:
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
        self._progress.restart()
        if self._caches is None:
            return
        try:
            for steady in self._steady.values():
                steady.invalidate('the stream was reset')
            self._caches.tokens.reset()
            self._caches.camera.reset()
        except BaseException:
            self._caches = self._input = None
            self._steady.clear()
            raise

    def capture(self, frames: int) -> StreamState | None:
        """
        Commit or undo what is unfinished and return the state after so many frames.

        None if there is none: before the first frame, and where an interrupt has taken more along.
        """
        if self._progress.unfinished and self.frames == frames:
            self.finish_frame()
        else:
            self.discard_frame()
        known = self._input
        if known is None or not frames or self.frames != frames:
            return None
        return StreamState(
            (known.height, known.width), self.caches, frames, self._progress.remembered)

    def restore(self, state: StreamState) -> None:
        """
        Go on with a stream of the same network and settings; its caches are taken over.

        Raises ValueError if they are not for this network, FrameError for the size.
        """
        self.prepare(*state.size)
        for own, there in ((self.caches.tokens, state.caches.tokens),
                           (self.caches.camera, state.caches.camera)):
            if own.layout != there.layout:
                raise ValueError('the caches are of another network or image size')
        self._use(state.caches)
        self._progress.restart(state.frames, state.remember)

    def kept_token_ids(self) -> list[Tensor]:
        """
        Return the tokens each global layer remembers, int64 [tokens] ascending.

        A token's id is frame * tokens_per_frame + its index in the frame; frames that were not to
        be remembered do not count.
        """
        self.finish_frame()
        return self._caches.tokens.kept_token_ids() if self._caches else []

    def cache_stats(self) -> CacheStats:
        """Return how full the caches are; waits for the device."""
        pending = self.pending_stats()
        return pending.complete(pending.health)

    @torch.inference_mode()
    def pending_stats(self) -> PendingStats:
        """Return the same without waiting."""
        self.finish_frame()
        if self._caches is None:
            return empty_stats(self.config)
        return self._caches.pending_stats(self.frames, self._progress.remembered)

    def budget_warning(self) -> str | None:
        """Return what is wrong with the token budget for this frame size, or None."""
        if self._caches is None or self._input is None:
            return None
        return budget_warning(self.config, self._caches, self._input.model_size)

    def budget_description(self) -> str:
        """Return what the budget buys for this frame size, in one line."""
        size = '' if self._input is None else self._input.model_size
        return budget_description(self.cache_stats(), size)

    def bytes_needed(self, height: int, width: int) -> int:
        """Return the bytes that both caches will reserve for frames of this size."""
        layout = self._layout(height, width)
        return StreamCaches.build(
            self.config, layout, token_budget(self.config, layout),
            torch.device('meta')).bytes_reserved

    def tokens_that_fit(self, height: int, width: int, megabytes: float) -> int:
        """Return the largest max_tokens that fits into so much memory; 0 if none does."""
        return tokens_for_bytes(self.config, self._layout(height, width), int(megabytes * 1e6))

    def _predict(self, source: FrameInput, image: Tensor, remember: bool) -> FramePrediction:
        shrink = source.shrink
        memory = self.caches.prepare(remember, smaller=shrink is not None)
        if self.frames == 0:
            return self._model.first_frame(to_network_input(image), memory, points=self._points)
        run: Run = self._steady[remember] if self._steady else run_plainly
        smaller = None if remember or shrink is None else shrink(image)
        height, width = image.shape[:2]
        prediction = self._model.step(
            to_network_input(image if smaller is None else smaller), memory, points=self._points,
            run=run, stream_size=None if smaller is None else (height, width))
        return prediction if smaller is None else upsample(prediction, height, width)

    def _layout(self, height: int, width: int) -> StreamLayout:
        """Return the shapes of the caches for frames of this size."""
        resize = Resize.plan(height, width, self.config.image_size, self._model.patch_size)
        return self._model.cache_layout(resize.height, resize.width)

    def _use(self, caches: StreamCaches) -> None:
        """Take caches; frames that are not remembered have graphs of their own."""
        self._caches = caches
        if self._graphs is not None:
            self._steady = {
                True: SteadyFrame(caches.tokens, self._graphs, self._report),
                False: SteadyFrame(caches.tokens, self._graphs, lambda line: self._report(
                    f'images that are not remembered: {line}'))}
