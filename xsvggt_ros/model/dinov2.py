"""Patch embeddings: the DINOv2 vision transformer and its plain stand-in."""

from collections.abc import Sequence

import torch
from torch import nn, Tensor
import torch.nn.functional as F

from xsvggt_ros.kernels import native_patches, onednn
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.fused import Conv2d
from xsvggt_ros.model.layers import Block, residual_stream
from xsvggt_ros.model.tables import TableCache, version


class PatchEmbed(nn.Module):
    """One convolution that turns each patch of an image into a token."""

    def __init__(self, patch_size: int, dim: int) -> None:
        """Build a convolution from RGB patches to `dim` channels."""
        super().__init__()
        self.proj = Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(
        self, image: Tensor, scale: Tensor | None = None, shift: Tensor | None = None,
    ) -> Tensor:
        """
        Return tokens [..., patches, dim], row by row, of normalised images [..., 3, H, W].

        scale, shift: [3, 1, 1], what normalises them, if they are not yet.
        """
        weight, side = self.proj.weight, self.proj.kernel_size[0]
        if scale is not None and shift is not None:
            patches = native_patches.patches(image, scale, shift, weight, self.proj.bias)
            if patches is not None:
                return patches
            image = torch.addcmul(shift, image.to(scale.dtype), scale)
        image = image.to(weight.dtype)
        height, width = image.shape[-2:]
        if not (height % side or width % side) and onednn.suits(image):
            # half of a convolution's time
            cut = image.unflatten(-1, (-1, side)).unflatten(-3, (-1, side))
            cut = cut.movedim((-4, -2), (-5, -4)).reshape(-1, weight[0].numel())
            tokens = onednn.linear(cut, weight.flatten(1), self.proj.bias)
            return tokens.unflatten(0, (*image.shape[:-3], -1))
        images = image.reshape(-1, *image.shape[-3:])
        patches = self.proj(images).flatten(2).transpose(1, 2)  # [images, patches, dim]
        return patches.reshape(*image.shape[:-3], *patches.shape[1:])


class DinoVisionTransformer(nn.Module):
    """DINOv2 with register tokens, read out at its patches."""

    def __init__(self, config: ModelConfig) -> None:
        """Build the transformer that `config.patch_embed` describes."""
        super().__init__()
        dim, vit = config.embed_dim, config.patch_embed
        self.patch_size = config.patch_size
        self.grid = config.img_size // config.patch_size  # side of the learnt position grid
        self.special_tokens = 1 + vit.num_register_tokens
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid ** 2, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, vit.num_register_tokens, dim))
        # Only masked pre-training used it; checkpoints carry it.
        self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)
        self.patch_embed = PatchEmbed(config.patch_size, dim)
        self.blocks: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]
            Block(dim, vit.num_heads, vit.mlp_ratio, eps=1e-6, is_frame_block=True,
                  layer_scale=1.0)
            for _ in range(vit.depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self._positions = TableCache()

    def forward(self, image: Tensor) -> Tensor:
        """Return tokens [..., patches, dim], row by row, of normalised images [..., 3, H, W]."""
        rows, columns = (side // self.patch_size for side in image.shape[-2:])
        special, positions = self.position_table(rows, columns)
        patches = self.patch_embed(image) + positions
        x = torch.cat([special.expand(*patches.shape[:-2], -1, -1), patches], dim=-2)
        x = residual_stream(x, self.blocks[0].attn.qkv.dtype)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[..., self.special_tokens:, :])

    def position_table(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """
        Return special tokens [1 + registers, dim] and positions [patches, dim] for this grid.

        They come from the cache if they can.
        """
        weights = self.pos_embed, self.cls_token, self.register_tokens

        def compute() -> tuple[Tensor, Tensor]:
            positions = resize_positions(self.pos_embed[0], rows, columns)
            special = torch.cat([self.cls_token[0] + positions[:1],
                                 self.register_tokens[0]])  # registers stand nowhere
            return special, positions[1:]

        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            return compute()  # training wants the gradient
        return self._positions.get((rows, columns, *map(version, weights)), compute)


def resize_positions(positions: Tensor, rows: int, columns: int) -> Tensor:
    """
    Return learnt positions [1 + side * side, dim] for a grid of rows x columns.

    The first row belongs to the class token and is left alone; a grid of the learnt size is used
    as it is, any other is resampled (bicubic with antialiasing).
    """
    side = int((positions.shape[0] - 1) ** 0.5 + 0.5)
    if rows == columns == side:
        return positions
    # Strides as channels last has them, the first one too: with others torch 2.13 computes a wrong
    # result for grids of one column.
    grid = positions[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)  # [1, dim, side, side]
    grid = F.interpolate(grid, size=(rows, columns), mode='bicubic', antialias=True,
                         align_corners=False)
    return torch.cat([positions[:1], grid[0].flatten(1).transpose(0, 1)])
