"""The backbone: tokens attend inside their frame and over the stream, in turn."""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import nn, Tensor

from xsvggt_ros.kernels import native
from xsvggt_ros.kernels.native_steps import BackboneSteps, WeightTable
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.dinov2 import DinoVisionTransformer, PatchEmbed
from xsvggt_ros.model.layers import Block, QK_EPS, residual_stream
from xsvggt_ros.model.positions import fold_norm_into_rope, grid_rotary_table, RotaryTable
from xsvggt_ros.model.tables import TableCache, version

IMAGE_MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB
IMAGE_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class FrameTables:
    """What the aggregator needs to know about a frame size."""

    image_scale: Tensor  # [3, 1, 1], 1 / standard deviation
    image_shift: Tensor  # [3, 1, 1], -mean / standard deviation
    rope: RotaryTable  # of all tokens of a frame

    def normalise(self, image: Tensor) -> Tensor:
        """Return images [..., 3, H, W] in [0, 1] as the patch embedding expects them."""
        return torch.addcmul(self.image_shift, image.to(self.image_scale.dtype), self.image_scale)


@dataclass(frozen=True)
class AggregatedTokens:
    """What the heads read of a frame."""

    # Per layer that was asked for: tokens [special + patches, 2 dim], frame and global output.
    layers: dict[int, Tensor]
    camera_token: Tensor  # [1, 2 dim], the first token of the last layer


class Aggregator(nn.Module):
    """Frame blocks, which see one frame, alternating with global blocks, which see the stream."""

    frame_blocks: Sequence[Block]
    global_blocks: Sequence[Block]

    def __init__(self, config: ModelConfig) -> None:
        """Build the backbone that `config` describes."""
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.patch_embed: DinoVisionTransformer | PatchEmbed
        if config.patch_embed.type == 'dinov2':
            self.patch_embed = DinoVisionTransformer(config)
        else:
            self.patch_embed = PatchEmbed(config.patch_size, dim)
        # Two sets of special tokens: 0 marks the first frame of a stream, 1 all later ones.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, dim))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.num_register_tokens, dim))
        for name in ('frame_blocks', 'global_blocks'):
            self.add_module(name, nn.ModuleList(
                Block(dim, config.num_heads, config.mlp_ratio, qk_norm=True,
                      is_frame_block=name == 'frame_blocks')
                for _ in range(config.depth)))
        self._tables = TableCache()
        self._lane_tables = TableCache(limit=2)
        self._weights = WeightTable((), [
            (f'{kind}_blocks', str(layer)) for layer in range(config.depth)
            for kind in ('frame', 'global')])

    def forward(self, image: Tensor, remember: Callable[..., Tensor], first_frame: bool,
                layers: Collection[int], stream_size: tuple[int, int] | None = None,
                ) -> AggregatedTokens:
        """
        Run one frame through the backbone.

        `image` is [3, H, W] in [0, 1]. `remember(layer, query, key, value)`, tensors
        [heads, tokens, head_dim], is asked once per global block for the attention over the
        stream. Of all layers only those in `layers` are kept. `stream_size`, height and width of
        the stream's other images, is given for one that is smaller than they are: its patches are
        placed where they lie in those.
        """
        tables = self.frame_tables(image.shape[-2], image.shape[-1], stream_size)
        x = self.embed(image, tables, first_frame)  # [special + patches, dim]
        x = residual_stream(x, self.frame_blocks[0].attn.qkv.dtype)
        steps = self.steps(x, self.lanes(self._all_blocks(), tables.rope))
        if steps is not None:
            pairs = self.walk(steps, remember)
            return AggregatedTokens({layer: pairs[layer] for layer in layers}, pairs[-1, :1])
        kept = {}
        for layer, (frame_block, global_block) in enumerate(
                zip(self.frame_blocks, self.global_blocks)):
            frame_out = frame_block(x, rope=tables.rope)
            x = global_block(frame_out, partial(remember, layer), tables.rope)
            if layer in layers:
                kept[layer] = torch.cat([frame_out, x], dim=-1)
        last = kept[layer] if layer in kept else torch.cat([frame_out[:1], x[:1]], dim=-1)
        return AggregatedTokens(kept, last[:1])

    def embed(self, image: Tensor, tables: FrameTables, first_frame: bool) -> Tensor:
        """Return the tokens [special + patches, dim] that the first block gets."""
        patches = self.patch_tokens(image[None], tables)[0]
        index = 0 if first_frame else 1
        return torch.cat([self.camera_token[0, index], self.register_token[0, index], patches])

    def patch_tokens(self, images: Tensor, tables: FrameTables) -> Tensor:
        """Return the tokens [S, patches, dim] of images [S, 3, H, W] in [0, 1]."""
        if isinstance(self.patch_embed, PatchEmbed):
            return self.patch_embed(images.contiguous(), tables.image_scale, tables.image_shift)
        return self.patch_embed(tables.normalise(images))

    def steps(self, x: Tensor, lanes: Sequence[Tensor] | None) -> BackboneSteps | None:
        """
        Return the way of tokens [tokens, dim] through the C++ kernels; None if they take no such.

        lanes: of both blocks of each layer, the frame block's first.
        """
        if lanes is None or not native.suits(x) or not native.takes_block(x):
            return None
        blocks = self._all_blocks()
        weights = self._weights.pointers(self) if all(b.is_folded for b in blocks) else None
        if weights is None:
            return None
        eps = [norm.eps for block in blocks for norm in (block.norm1, block.norm2)]
        hidden = blocks[0].mlp.fc1.out_features
        return BackboneSteps(x, self.config.num_heads, hidden, weights, lanes, eps, QK_EPS)

    def walk(self, steps: BackboneSteps, remember: Callable[..., Tensor]) -> Tensor:
        """Return what both blocks of each layer make, [depth, tokens, 2 dim]; see `forward`."""
        read = None
        for layer in range(self.config.depth):
            read = remember(layer, *steps.queries(layer, read))
        return steps.finish(cast(Tensor, read))

    def lanes(self, blocks: Sequence[Block], rope: RotaryTable) -> Sequence[Tensor] | None:
        """Return what the C++ kernels take of blocks' norms and positions; None without them."""
        if not (native.suits(rope[0]) and blocks[0].is_native):
            return None
        return self._lane_tables.get(
            (*map(version, rope), *norm_versions(blocks)),
            lambda: [native.lanes(*fold_norm_into_rope(block.attn.norms(), rope, torch.float32))
                     for block in blocks])

    def _all_blocks(self) -> list[Block]:
        return [block for pair in zip(self.frame_blocks, self.global_blocks) for block in pair]

    def frame_tables(
        self, height: int, width: int, stream_size: tuple[int, int] | None = None,
    ) -> FrameTables:
        """
        Return the tables for a frame size, on the device of the tokens, as precise as they.

        stream_size: see `forward`.
        """
        config, like = self.config, self.camera_token
        extent = None
        if stream_size is not None:
            # `small`, every second frame at half the width: ATE 0.54 m, with own positions 0.85 m.
            rows, columns = stream_size
            extent = rows // config.patch_size, columns // config.patch_size

        def compute() -> FrameTables:
            cosines, sines = grid_rotary_table(
                height // config.patch_size, width // config.patch_size,
                config.special_tokens, config.head_dim, config.rope_freq, extent)
            mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None]
                         for values in (IMAGE_MEAN, IMAGE_STD))
            return FrameTables(
                image_scale=(1 / std).to(like), image_shift=(-mean / std).to(like),
                rope=(cosines.to(like), sines.to(like)))

        return self._tables.get((height, width, extent, like.device, like.dtype), compute)


def norm_versions(blocks: Sequence[Block]) -> list[Hashable]:
    """Return what changes when a norm of queries or keys does."""
    return [version(weight) for block in blocks for weight in block.attn.norm_weights()]
