"""The backbone of LingBot-Map: one more special token, and positions in time."""

from collections.abc import Callable, Collection, Hashable, Sequence
from functools import partial

import torch
from torch import nn, Tensor

from xsvggt_ros.kernels import native
from xsvggt_ros.model.aggregator import AggregatedTokens, Aggregator, norm_versions
from xsvggt_ros.model.layers import residual_stream
from xsvggt_ros.model.lingbot.block_tables import BlockTables
from xsvggt_ros.model.lingbot.config import LingBotConfig, MAX_KEYFRAMES
from xsvggt_ros.model.lingbot.positions import combined, reorder_pairs, space_table, time_table
from xsvggt_ros.model.positions import RotaryTable
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
        lanes, frame_lanes, frames = self._time_lanes(images, time, stream_size), None, len(images)
        if frames == 1:
            frame_lanes = self.lanes(self.frame_blocks, tables.rope)
        x = torch.cat([special, self.patch_tokens(images, tables)], dim=1)
        x = residual_stream(x.flatten(0, 1), self.frame_blocks[0].attn.qkv.dtype)
        steps = None if lanes is None or frame_lanes is None else self.steps(
            x, [one for pair in zip(frame_lanes, lanes) for one in pair])
        if steps is not None:
            pairs = self.walk(steps, remember)
            return AggregatedTokens(
                {layer: pairs[layer, None] for layer in layers}, pairs[-1, :1])
        rope, kept = self._global_table(images, time, stream_size), {}
        for layer, (frame_block, global_block) in enumerate(
                zip(self.frame_blocks, self.global_blocks)):
            frame_out = frame_block(_by_frame(x, frames), rope=tables.rope,
                                    lanes=_of(frame_lanes, layer)).flatten(0, -2)
            x = global_block(frame_out, partial(remember, layer), rope, _of(lanes, layer))
            if layer in layers:
                kept[layer] = torch.cat([frame_out, x], dim=-1).unflatten(0, (frames, -1))
        first = [part.unflatten(0, (frames, -1))[:, 0] for part in (frame_out, x)]
        return AggregatedTokens(kept, torch.cat(first, dim=-1))

    def _global_table(
        self, images: Tensor, time: Tensor, stream_size: tuple[int, int] | None,
    ) -> RotaryTable:
        if self.config.time_rope:
            return combined(self._space(images, stream_size)[1], time)
        height, width = images.shape[-2:]
        tables = self.frame_tables(height, width, stream_size)
        cosines, sines = (part.repeat(len(images), 1) for part in tables.rope)
        return cosines, sines

    def _time_lanes(
        self, images: Tensor, time: Tensor, stream_size: tuple[int, int] | None,
    ) -> Sequence[Tensor] | None:
        """Return the `lanes` of the global blocks at a time; None without the C++ kernels."""
        blocks = self.global_blocks
        if not (self.config.time_rope and len(images) == 1 and native.suits(time)
                and blocks[0].is_native):
            return None
        size, space = self._space(images, stream_size)
        tables = self._block_tables.get(
            (size, *norm_versions(blocks)), lambda: BlockTables(blocks, space))
        return tables.at(time[0])

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


def _of(lanes: Sequence[Tensor] | None, layer: int) -> Tensor | None:
    return None if lanes is None else lanes[layer]


def _by_frame(x: Tensor, frames: int) -> Tensor:
    """Return tokens [S * tokens, dim] as [S, tokens, dim], but of one frame as they are."""
    return x if frames == 1 else x.unflatten(0, (frames, -1))
