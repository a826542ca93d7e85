"""The heads that predict a dense map from four layers of the aggregator."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn, Tensor
import torch.nn.functional as F

from xsvggt_ros.kernels import native
from xsvggt_ros.model.config import DPT_LEVELS, ModelConfig
from xsvggt_ros.model.fused import Conv2d
from xsvggt_ros.model.layers import residual_stream
from xsvggt_ros.model.positions import add_uv, uv_embedding
from xsvggt_ros.model.tables import TableCache


class ResidualConvUnit(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels: int) -> None:
        """Build two 3x3 convolutions that keep size and channels."""
        super().__init__()
        self.conv1 = Conv2d(channels, channels, 3, padding=1)
        self.conv2 = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """
        Return [N, channels, h, w] for a rectified x of the same shape.

        The published network was trained with an in-place ReLU at this place, so its shortcut
        carries the rectified input, not the input.
        """
        return self.conv2(self.conv1(x, relu=True), residual=x)


class FusionBlock(nn.Module):
    """Merge a level into the coarser ones and bring the sum to the next size."""

    def __init__(self, channels: int, has_skip: bool) -> None:
        """Build a block; the coarsest level has nothing to merge into, hence no `has_skip`."""
        super().__init__()
        self.out_conv = Conv2d(channels, channels, 1)
        if has_skip:
            self.resConfUnit1 = ResidualConvUnit(channels)
        self.resConfUnit2 = ResidualConvUnit(channels)

    def forward(self, x: Tensor, size: tuple[int, int], skip: Tensor | None = None) -> Tensor:
        """
        Return [N, channels, *size] of x and a skip connection of the same shape.

        The skip connection, or x where there is none, is rectified.
        """
        if skip is not None:
            x = F.relu(x + self.resConfUnit1(skip))
        # The 1x1 convolution and the interpolation commute; this order convolves fewer pixels.
        return _resize(self.out_conv(self.resConfUnit2(x)), size)


class FusionStack(nn.Module):
    """Everything after the four levels have their sizes."""

    refinenet1: FusionBlock
    refinenet2: FusionBlock
    refinenet3: FusionBlock
    refinenet4: FusionBlock

    def __init__(self, config: ModelConfig, channels: int) -> None:
        """Build the stack for maps of `channels` channels."""
        super().__init__()
        head = config.dpt_head
        for level, width in enumerate(head.out_channels, start=1):
            self.add_module(f'layer{level}_rn',
                            Conv2d(width, head.features, 3, padding=1, bias=False))
            self.add_module(f'refinenet{level}',
                            FusionBlock(head.features, has_skip=level < DPT_LEVELS))
        self.output_conv1 = Conv2d(head.features, head.features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            Conv2d(head.features // 2, 32, 3, padding=1), nn.ReLU(), Conv2d(32, channels, 1))

    @property
    def output_convolutions(self) -> tuple[Conv2d, Conv2d]:
        """Return the two last convolutions, between which is a ReLU."""
        first, _, last = self.output_conv2
        return cast(Conv2d, first), cast(Conv2d, last)

    def fuse(self, levels: Sequence[Tensor]) -> Tensor:
        """Return [N, features / 2, 2h, 2w] of the levels' maps, the finest (h, w) first."""
        level1, level2, level3, level4 = (
            getattr(self, f'layer{i}_rn')(level, relu=True)
            for i, level in enumerate(levels, start=1))
        x = self.refinenet4(level4, level3.shape[-2:])
        x = self.refinenet3(x, level2.shape[-2:], skip=level3)
        x = self.refinenet2(x, level1.shape[-2:], skip=level2)
        height, width = level1.shape[-2:]
        x = self.refinenet1(x, (2 * height, 2 * width), skip=level1)
        return self.output_conv1(x)


class DPTHead(nn.Module):
    """A dense prediction transformer head, without its final activation."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        """Build a head for maps of `channels` channels."""
        super().__init__()
        self.patch_size = config.patch_size
        dim, widths = 2 * config.embed_dim, config.dpt_head.out_channels
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.projects: Sequence[Conv2d] = nn.ModuleList(  # type: ignore[assignment]
            Conv2d(dim, width, 1) for width in widths)
        self.resize_layers = nn.ModuleList([
            nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
            nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
            nn.Identity(),
            Conv2d(widths[3], widths[3], 3, stride=2, padding=1)])
        self.scratch = FusionStack(config, channels)
        self._native_order: list[nn.Module | int] = []   # see `_native_layers`
        self._embeddings = TableCache()  # of four frame sizes
        # Tokens come channels last, and convolutions follow their weights: on a CPU this takes
        # a third less time (8 instead of 12 ms for a small head).
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, layers: Sequence[Tensor], height: int, width: int) -> Tensor:
        """Return raw maps [N, channels, H, W] of four layers' patch tokens [N, patches, 2 dim]."""
        return self.decode(height, width, *layers, *self.tables(height, width))

    def tables(self, height: int, width: int) -> tuple[Tensor, ...]:
        """Return the positions that `decode` takes: of four levels, then of the whole map."""
        like = self.projects[0].weight

        def compute() -> tuple[Tensor, ...]:
            rows, columns = height // self.patch_size, width // self.patch_size
            sizes = [(project.out_channels, rows, columns) for project in self.projects]
            sizes.append((self.scratch.output_conv1.out_channels, height, width))
            return tuple(table.to(like.device, like.dtype) for size in sizes
                         for table in uv_embedding(*size, width / height))

        return self._embeddings.get((height, width, like.device, like.dtype), compute)

    def decode(self, height: int, width: int, *tensors: Tensor) -> Tensor:
        """Return the maps of the layers' tokens and the `tables`. A function of tensors."""
        layers, tables = tensors[:DPT_LEVELS], tensors[DPT_LEVELS:]
        if height * width <= native.MAX_PIXELS and len(layers[0]) == 1 \
                and all(map(native.suits, layers)):
            weights = self._native_weights(tables)
            if weights:
                return self._decode_natively(height, width, layers, weights)
        positions = list(zip(tables[::2], tables[1::2]))
        rows, columns = height // self.patch_size, width // self.patch_size
        levels = []
        for tokens, project, resize, position in zip(
                layers, self.projects, self.resize_layers, positions):
            # [N, patches, dim] -> [N, dim, rows, columns], a view: channels last in memory
            tokens = residual_stream(tokens, project.weight.dtype)
            x = self.norm(tokens).unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
            x = x.to(project.weight.dtype)
            levels.append(resize(add_uv(project(x), position)))
        x = _resize(self.scratch.fuse(levels), (height, width))
        first, last = self.scratch.output_convolutions
        return last(first(add_uv(x, positions[-1]), relu=True)).float()

    def _decode_natively(
        self, height: int, width: int, layers: Sequence[Tensor], weights: list[Tensor],
    ) -> Tensor:
        first, last = self.scratch.output_convolutions
        widths = [project.out_channels for project in self.projects]
        widths += (self.scratch.output_conv1.in_channels, first.in_channels, first.out_channels)
        size = height // self.patch_size, width // self.patch_size
        return native.dense(layers, size, self.patch_size, widths, last.out_channels, weights,
                            self.norm.eps)

    def _native_weights(self, tables: tuple[Tensor, ...]) -> list[Tensor] | None:
        """Return weights and positions in the order of native.cpp, or None if it takes no such."""
        if not self._native_order:
            self._native_order = self._native_layers()
        weights: list[Tensor] = [self.norm.weight, self.norm.bias]
        kernels: list[Tensor | None] = []
        for layer in self._native_order:
            if isinstance(layer, int):
                weights += tables[2 * layer:2 * layer + 2]
                continue
            own = layer._parameters  # what `layer.weight` looks through, at a tenth of its time
            kernels.append(own['weight'])
            weights += [part for part in (own['weight'], own['bias']) if part is not None]
        suit = len(weights) == native.DENSE_WEIGHTS and native.small(kernels, torch.channels_last)
        return weights if suit else None

    def _native_layers(self) -> list[nn.Module | int]:
        """Return the layers in the order of native.cpp, and where which of the `tables` stand."""
        stack = self.scratch
        first, last = stack.output_convolutions
        layers: list[nn.Module | int] = []
        for level, (project, resize) in enumerate(zip(self.projects, self.resize_layers)):
            layers.append(project)
            if not isinstance(resize, nn.Identity):
                layers.append(resize)
            layers.append(level)
        layers += (getattr(stack, f'layer{level}_rn') for level in range(1, DPT_LEVELS + 1))
        for level in range(DPT_LEVELS, 0, -1):
            fusion = getattr(stack, f'refinenet{level}')
            for unit in ('resConfUnit1', 'resConfUnit2'):
                if hasattr(fusion, unit):
                    layers += getattr(fusion, unit).conv1, getattr(fusion, unit).conv2
            layers.append(fusion.out_conv)
        return [*layers, stack.output_conv1, DPT_LEVELS, first, last]


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return x [N, channels, h, w], resampled so that corner pixels stay corner pixels."""
    return F.interpolate(x, size=size, mode='bilinear', align_corners=True)
