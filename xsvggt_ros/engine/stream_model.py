"""What the engine needs of a network; `model.streamvggt.StreamVGGT` is one."""

from typing import Protocol

import torch
from torch import Tensor

from xsvggt_ros.model.network import (
    FramePrediction,
    Run,
    run_plainly,
    StreamLayout,
    StreamMemory,
)


class StreamModel(Protocol):
    """A network that goes through a stream frame by frame and keeps nothing of it itself."""

    @property
    def patch_size(self) -> int:
        """Return the pixels that an image's sides must be multiples of."""

    def set_dtype(self, dtype: torch.dtype, heads: torch.dtype) -> object:
        """Compute in these precisions from now on; `heads`: of what predicts from tokens."""

    def set_kernels(self, choice: str) -> str:
        """Choose kernels, one of `availability.CHOICES`; return 'triton' or 'portable'."""

    def to(self, device: torch.device) -> 'StreamModel':
        """Move the weights."""

    def cache_layout(self, height: int, width: int) -> StreamLayout:
        """Return the shapes of the two caches for images of this size."""

    def join_first_frames(self, count: int) -> None:
        """Have streams begin with so many images together; raise ValueError if that cannot be."""

    def first_frames(self, images: Tensor, memory: StreamMemory) -> list[FramePrediction]:
        """Predict images [S, 3, H, W] that begin a stream together, if several are to."""

    def first_frame(
        self, image: Tensor, memory: StreamMemory, points: bool = True,
    ) -> FramePrediction:
        """
        Predict the frame that defines the world's frame; image: [3, H, W] in [0, 1].

        points: whether the map of points is wanted; the rest must be the same without it.
        """

    def step(
        self, image: Tensor, memory: StreamMemory, points: bool = True, run: Run = run_plainly,
        stream_size: tuple[int, int] | None = None,
    ) -> FramePrediction:
        """
        Predict a later frame.

        run: calls the parts that may be replayed, see `model.streamvggt.Run`. stream_size: height
        and width of the stream's images, if this one is smaller.
        """
