"""What all networks share that go through a stream one frame at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import nn, Tensor

from xsvggt_ros.kernels import availability
from xsvggt_ros.kv_cache.config import CacheLayout
from xsvggt_ros.model.aggregator import Aggregator
from xsvggt_ros.model.camera_head import AttentionMemory, CameraHead
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.dpt_head import DPTHead
from xsvggt_ros.model.layers import Attention, Block
from xsvggt_ros.model.weight_quantization import Int8Linear, QuantisedLinear

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Runs a part of a frame: its name, a function of tensors that returns tensors, and the tensors.
Run = Callable[..., tuple[Tensor, ...]]
Network = TypeVar('Network', bound='StreamNetwork')


def run_plainly(
    name: str, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor,
) -> tuple[Tensor, ...]:
    """Return what the function returns; `engine.cuda_graph.SteadyFrame` does more."""
    return function(*inputs)


@dataclass(frozen=True)
class StreamLayout:
    """The shapes of what a stream of one frame size remembers."""

    tokens: CacheLayout  # keys and values of the global blocks
    camera: CacheLayout  # keys and values of the camera head's trunk
    # How many frames a stream can remember at all, those that were evicted included, and how many
    # streams had in training; None: any number.
    max_steps: int | None = None
    trained_steps: int | None = None
    # Whether the camera head, too, forgets the frames that are not to be remembered.
    camera_follows: bool = False


@dataclass
class FramePrediction:
    """What the network says about one frame; fp32, lengths in the unit of the stream's scale."""

    pose_encoding: Tensor  # [9] translation, quaternion xyzw, field of view (height, width) in rad
    depth: Tensor  # [H, W] along the optical axis
    depth_confidence: Tensor  # [H, W], 1 and more
    # [H, W, 3] in the first camera's frame; None if nobody wanted it, or no head is there for it
    points: Tensor | None
    points_confidence: Tensor | None  # [H, W], 1 and more


class CountingMemory(AttentionMemory, Protocol):
    """A memory that knows how many frames it has remembered."""

    @property
    def steps(self) -> int:
        """Return the frames remembered so far, those that were evicted included."""


class StreamMemory(Protocol):
    """What a stream remembers of its earlier frames."""

    @property
    def tokens(self) -> CountingMemory:
        """Return what the global blocks remember."""

    @property
    def camera(self) -> AttentionMemory:
        """Return what the camera head's trunk remembers."""


class StreamNetwork(nn.Module):
    """
    An aggregator, a camera head and dense heads, with the module names of public checkpoints.

    It holds no stream: the caller brings the memory.
    """

    config: ModelConfig
    aggregator: Aggregator
    camera_head: CameraHead
    depth_head: DPTHead

    def dense_heads(self) -> list[DPTHead]:
        """Return the heads that predict maps."""
        return [self.depth_head]

    def cache_layout(self, height: int, width: int) -> StreamLayout:
        """Return the shapes of the memory for frames of height x width pixels."""
        raise NotImplementedError

    def first_frame(
        self, image: Tensor, memory: StreamMemory, points: bool = True,
    ) -> FramePrediction:
        """Start a stream with `image` [3, H, W], RGB in [0, 1]; `memory` must be empty."""
        raise NotImplementedError

    def join_first_frames(self, count: int) -> None:
        """Have streams begin with so many frames together; raise ValueError if that cannot be."""
        if count != 1:
            raise ValueError(f'first_frames is {count}, but this network sees the first images of '
                             'a stream one after the other: set it to 1')

    def beginning(self) -> str:
        """Return how a stream begins, for a person; empty if as one expects."""
        return ''

    def first_frames(self, images: Tensor, memory: StreamMemory) -> list[FramePrediction]:
        """
        Start a stream with images [S, 3, H, W] that all see each other; `memory` must be empty.

        Asked of networks only that have been told of several by `join_first_frames`. All but the
        last step of `memory.tokens` are ended.
        """
        raise NotImplementedError

    def step(
        self, image: Tensor, memory: StreamMemory, points: bool = True, run: Run = run_plainly,
        stream_size: tuple[int, int] | None = None,
    ) -> FramePrediction:
        """Go on with `image` [3, H, W], RGB in [0, 1], of the size of the first frame."""
        raise NotImplementedError

    @property
    def patch_size(self) -> int:
        """Return the pixels that an image's sides must be multiples of."""
        return self.config.patch_size

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision of the aggregator's matrix products."""
        return self.aggregator.global_blocks[0].attn.qkv.dtype

    @property
    def head_dtype(self) -> torch.dtype:
        """Return the precision of the heads' matrix products and convolutions."""
        return self.camera_head.dtype

    def set_dtype(
        self: Network, dtype: torch.dtype, heads: torch.dtype = torch.float32,
    ) -> Network:
        """
        Set the precision of matrix products and convolutions, and of what is remembered.

        dtype: of the aggregator's; the residual stream, the norms and the positions stay fp32, as
        in the published evaluation, but on a CPU those of bf16 are bf16 (`residual_stream`).
        heads: of the heads', which stay fp32 there. Maps and poses are fp32 always. Returns the
        model itself.
        """
        for choice in (dtype, heads):
            if choice not in DTYPES:
                raise ValueError(f'the network cannot run in {choice}; choose one of '
                                 f'{", ".join(str(choice) for choice in DTYPES)}')
        lower(self.aggregator, dtype)
        for head in (*self.dense_heads(), self.camera_head.trunk,
                     self.camera_head.poseLN_modulation):
            lower(head, heads)
        return self

    def set_kernels(self, choice: str) -> str:
        """
        Choose what cuts queries, keys and values and reads int8 weights for one token.

        choice: one of `availability.CHOICES`. Call it when the network is where it will run.
        Returns which it is now, 'triton' or 'portable'. Raises ValueError.
        """
        device = self.aggregator.camera_token.device
        qkv, gemv = (availability.load(name, choice, device, self.config.head_dim)
                     for name in ('qkv', 'gemv'))
        for part in self.modules():
            if isinstance(part, Attention):
                part.fused = qkv.split_qkv if qkv is not None else None
            elif isinstance(part, Int8Linear):
                part.kernel = gemv.product if gemv is not None else None
        return 'triton' if qkv is not None else 'portable'

    def fold_scales(self: Network) -> Network:
        """Fold the layer scales into other weights, see `Block.fold`; returns the model itself."""
        for module in self.modules():
            if isinstance(module, Block):
                module.fold()
        return self

    def _token_layout(self, height: int, width: int) -> CacheLayout:
        """Return the shape of what the global blocks remember for frames of this size."""
        self._check_size(height, width)
        config = self.config
        patches = (height // config.patch_size) * (width // config.patch_size)
        return CacheLayout(layers=config.depth, heads=config.num_heads,
                           head_dim=config.head_dim,
                           tokens_per_step=config.special_tokens + patches,
                           special_tokens=config.special_tokens)

    def _depth_maps(self, height: int, width: int, *patches: Tensor) -> tuple[Tensor, ...]:
        """Return depth and its confidence."""
        return depth_map(self.depth_head(patches, height, width)[0])

    def _check_image(self, image: Tensor) -> None:
        """Raise ValueError unless this is an image [3, H, W] that the network can take."""
        if image.dim() != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise ValueError('the network takes an RGB image [3, height, width] of floats in '
                             f'[0, 1], got {list(image.shape)} {image.dtype}')
        self._check_size(*image.shape[-2:])

    def _check_size(self, height: int, width: int) -> None:
        """Raise ValueError unless frames of this size can be cut into whole patches."""
        patch = self.config.patch_size
        if height < patch or width < patch or height % patch or width % patch:
            raise ValueError(f'the network takes images whose sides are multiples of {patch} '
                             f'pixels, got {width}x{height}')


def lower(part: nn.Module, dtype: torch.dtype) -> None:
    """Give the linear layers and the convolutions of a part this precision."""
    for module in part.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            if module.weight.dtype != dtype:
                module.to(dtype)
        elif isinstance(module, QuantisedLinear):
            module.set_dtype(dtype)


def depth_map(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Return depth [..., H, W] and confidence [..., H, W] of raw maps [..., 2, H, W]."""
    return raw[..., 0, :, :].exp(), 1 + raw[..., 1, :, :].exp()


def point_map(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Return points [..., H, W, 3] and confidence [..., H, W] of raw maps [..., 4, H, W]."""
    points = raw[..., :3, :, :].movedim(-3, -1)
    return points.sign() * points.abs().expm1(), 1 + raw[..., 3, :, :].exp()
