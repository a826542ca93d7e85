"""The backbone of LingBot-Map: one more special token, and positions in time."""

from collections.abc import Callable, Collection, Hashable, Sequence
from functools import partial
from typing import cast

import torch
from torch import nn, Tensor

from xsvggt_ros.kernels import native
from xsvggt_ros.kernels.native_steps import BackboneSteps, WeightTable
from xsvggt_ros.model.aggregator import AggregatedTokens, Aggregator, FrameTables
from xsvggt_ros.model.dinov2 import PatchEmbed
from xsvggt_ros.model.layers import Block, QK_EPS, residual_stream
from xsvggt_ros.model.lingbot.block_tables import BlockTables
from xsvggt_ros.model.lingbot.config import LingBotConfig, MAX_KEYFRAMES
from xsvggt_ros.model.lingbot.positions import combined, reorder_pairs, space_table, time_table
from xsvggt_ros.model.positions import fold_norm_into_rope, RotaryTable
from xsvggt_ros.model.tables import is_traced, TableCache, version


class LingBotAggregator(Aggregator):
    """The aggregator, for one frame or for the scale frames at once."""

    config: LingBotConfig

    def __init__(self, config: LingBotConfig) -> None:
        """Build the backbone that `config` describes."""
        super().__init__(config)
        self.scale_token = nn.Parameter(torch.zeros(1, 2, 1, config.embed_dim))
        self._spaces = TableCache()
        self._times = TableCache(limit=1)
        self._specials = TableCache()
        self._block_tables = TableCache(limit=2)
        self._frame_tables = TableCache(limit=2)
        self._weights = WeightTable((), [
            (f'{kind}_blocks', str(layer)) for layer in range(config.depth)
            for kind in ('frame', 'global')])
        for block in self.global_blocks:
            # Their tables change with every frame: the norms' and the newest are enough.
            block.attn.table_cache = TableCache(limit=2)
            if config.time_rope:
                reorder_pairs(block.attn)

    def special(self, first: int, count: int, scale_frames: int) -> Tensor:
        """Return the special tokens [count, special, dim] of the frames from ``first`` on."""
        begins = tuple(min(frame, 1) for frame in range(first, first + count))
        later = tuple(int(frame >= scale_frames) for frame in range(first, first + count))
        weights = self.camera_token, self.register_token, self.scale_token

        def compute() -> Tensor:
            camera, register, scale = weights
            return torch.cat([camera[0, begins, :], register[0, begins, :],
                              scale[0, later, :]], dim=1)

        if torch.is_grad_enabled() or is_traced():
            return compute()
        return self._specials.get((begins, later, *map(version, weights)), compute)

    def time(self, first: int, count: int) -> Tensor:
        """Return what `forward` takes as the time of the frames from ``first`` on."""
        end, like = first + count, self.camera_token
        known = max(MAX_KEYFRAMES + 1, end)
        table = self._times.get((known, like.device, like.dtype), lambda: time_table(
            torch.arange(known)).to(like))
        return table[first:end]

    def forward(  # type: ignore[override]
        self, images: Tensor, remember: Callable[..., Tensor], special: Tensor, time: Tensor,
        layers: Collection[int], stream_size: tuple[int, int] | None = None,
    ) -> AggregatedTokens:
        """
        Run frames through the backbone that all see each other.

        images: [S, 3, H, W] in [0, 1]; special: [S, special, dim], see `special`; time: [S, 2,
        head_dim], see `time`. `remember(layer, query, key, value)`, tensors [heads, S * tokens,
        head_dim], is asked once per global block for the attention over the stream; its keys have
        their channels in our order, see `positions`. Returns layers [S, tokens, 2 dim] and camera
        tokens [S, 2 dim]. stream_size: see `Aggregator.forward`.
        """
        height, width = images.shape[-2:]
        tables = self.frame_tables(height, width, stream_size)
        lanes = self._lanes(images, time, stream_size)
        frame_lanes = self._frame_lanes(images, tables.rope)
        frames = len(images)
        x = torch.cat([special, self._patch_tokens(images, tables)], dim=1)
        x = residual_stream(x.flatten(0, 1), self.frame_blocks[0].attn.qkv.dtype)
        steps = self._steps(x, [one for pair in zip(frame_lanes, lanes) for one in pair])
        if steps is not None:
            return _stepwise(steps, self.config.depth, remember, layers)
        rope, kept = self._global_table(images, time, stream_size), {}
        for layer, (frame_block, global_block) in enumerate(
                zip(self.frame_blocks, self.global_blocks)):
            frame_out = frame_block(_by_frame(x, frames), rope=tables.rope,
                                    lanes=frame_lanes[layer]).flatten(0, -2)
            x = global_block(frame_out, partial(remember, layer), rope, lanes[layer])
            if layer in layers:
                kept[layer] = torch.cat([frame_out, x], dim=-1).unflatten(0, (frames, -1))
        first = [part.unflatten(0, (frames, -1))[:, 0] for part in (frame_out, x)]
        return AggregatedTokens(kept, torch.cat(first, dim=-1))

    def _patch_tokens(self, images: Tensor, tables: FrameTables) -> Tensor:
        """Return the tokens [S, patches, dim] of images [S, 3, H, W] in [0, 1]."""
        if isinstance(self.patch_embed, PatchEmbed):
            return self.patch_embed(images, tables.image_scale, tables.image_shift)
        return self.patch_embed(tables.normalise(images))

    def _global_table(
        self, images: Tensor, time: Tensor, stream_size: tuple[int, int] | None,
    ) -> RotaryTable:
        if self.config.time_rope:
            return combined(self._space(images, stream_size)[1], time)
        height, width = images.shape[-2:]
        tables = self.frame_tables(height, width, stream_size)
        cosines, sines = (part.repeat(len(images), 1) for part in tables.rope)
        return cosines, sines

    def _steps(self, x: Tensor, lanes: Sequence[Tensor | None]) -> BackboneSteps | None:
        """
        Return the way of tokens [tokens, dim] through the C++ kernels; None if they take no such.

        lanes: of both blocks of each layer, the frame block's first.
        """
        known = [one for one in lanes if one is not None]
        blocks = [one for pair in zip(self.frame_blocks, self.global_blocks) for one in pair]
        if (len(known) < len(lanes) or not native.suits(x) or not native.takes_block(x)
                or not all(block.is_folded for block in blocks)):
            return None
        weights = self._weights.pointers(self)
        if weights is None:
            return None
        eps = [norm.eps for block in blocks for norm in (block.norm1, block.norm2)]
        hidden = blocks[0].mlp.fc1.out_features
        return BackboneSteps(x, self.config.num_heads, hidden, weights, known, eps, QK_EPS)

    def _lanes(
        self, images: Tensor, time: Tensor, stream_size: tuple[int, int] | None,
    ) -> Sequence[Tensor | None]:
        """Return what the C++ kernels take of the global blocks' norms and positions, or None."""
        blocks = self.global_blocks
        if not (self.config.time_rope and len(images) == 1 and native.suits(time)
                and blocks[0].is_native):
            return [None] * len(blocks)
        size, space = self._space(images, stream_size)
        tables = self._block_tables.get(
            (size, *_norm_versions(blocks)), lambda: BlockTables(blocks, space))
        return tables.at(time[0])

    def _frame_lanes(self, images: Tensor, rope: RotaryTable) -> Sequence[Tensor | None]:
        """Return the same of the frame blocks, which would look for it one by one."""
        blocks = self.frame_blocks
        if not (len(images) == 1 and native.suits(rope[0]) and blocks[0].is_native):
            return [None] * len(blocks)
        return self._frame_tables.get(
            (*map(version, rope), *_norm_versions(blocks)),
            lambda: [native.lanes(*fold_norm_into_rope(block.attn.norms(), rope, torch.float32))
                     for block in blocks])

    def _space(
        self, images: Tensor, stream_size: tuple[int, int] | None,
    ) -> tuple[Hashable, RotaryTable]:
        """Return a frame's rows and columns as `positions.space_table` has them, and a key."""
        config, like = self.config, self.camera_token
        extent: tuple[int, int] | None = None
        if stream_size is not None:
            rows, columns = (side // config.patch_size for side in stream_size)
            extent = rows, columns
        height, width = (side // config.patch_size for side in images.shape[-2:])

        def compute() -> RotaryTable:
            table = space_table(height, width, config.special_tokens, extent)
            return table[0].to(like), table[1].to(like)

        key = height, width, extent, like.device, like.dtype
        return key, self._spaces.get(key, compute)


def _stepwise(
    steps: BackboneSteps, depth: int, remember: Callable[..., Tensor], layers: Collection[int],
) -> AggregatedTokens:
    """Return what `LingBotAggregator.forward` does, of one frame."""
    read = None
    for layer in range(depth):
        read = remember(layer, *steps.queries(layer, read))
    pairs = steps.finish(cast(Tensor, read))
    return AggregatedTokens({layer: pairs[layer, None] for layer in layers}, pairs[-1, :1])


def _norm_versions(blocks: Sequence[Block]) -> list[Hashable]:
    """Return what changes when a norm of queries or keys does."""
    return [version(weight) for block in blocks for weight in block.attn.norm_weights()]


def _by_frame(x: Tensor, frames: int) -> Tensor:
    """Return tokens [S * tokens, dim] as [S, tokens, dim], but of one frame as they are."""
    return x if frames == 1 else x.unflatten(0, (frames, -1))
