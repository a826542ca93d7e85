"""The backbone of LingBot-Map: one more special token, and positions in time."""

from collections.abc import Callable, Collection
from functools import partial

import torch
from torch import nn, Tensor

from xsvggt_ros.model.aggregator import AggregatedTokens, Aggregator
from xsvggt_ros.model.layers import residual_stream
from xsvggt_ros.model.lingbot.config import LingBotConfig
from xsvggt_ros.model.lingbot.positions import combined, reorder_pairs, space_table, time_table
from xsvggt_ros.model.positions import RotaryTable
from xsvggt_ros.model.tables import TableCache


class LingBotAggregator(Aggregator):
    """The aggregator, for one frame or for the scale frames at once."""

    config: LingBotConfig

    def __init__(self, config: LingBotConfig) -> None:
        """Build the backbone that `config` describes."""
        super().__init__(config)
        self.scale_token = nn.Parameter(torch.zeros(1, 2, 1, config.embed_dim))
        self._spaces = TableCache()
        for block in self.global_blocks:
            # Their tables change with every frame: the norms' and the newest are enough.
            block.attn._tables = TableCache(limit=2)
            if config.time_rope:
                reorder_pairs(block.attn)

    def special(self, first: int, count: int, scale_frames: int) -> Tensor:
        """Return the special tokens [count, special, dim] of the frames from ``first`` on."""
        begins = [min(frame, 1) for frame in range(first, first + count)]
        later = [int(frame >= scale_frames) for frame in range(first, first + count)]
        return torch.cat([self.camera_token[0, begins], self.register_token[0, begins],
                          self.scale_token[0, later]], dim=1)

    def time(self, first: int, count: int) -> Tensor:
        """Return what `forward` takes as the time of the frames from ``first`` on."""
        return time_table(torch.arange(first, first + count)).to(self.camera_token)

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
        rope = self._global_table(images, time, stream_size)
        frames = len(images)
        x = torch.cat([special, self.patch_embed(tables.normalise(images))], dim=1)
        x = residual_stream(x.flatten(0, 1), self.frame_blocks[0].attn.qkv.dtype)
        kept = {}
        for layer, (frame_block, global_block) in enumerate(
                zip(self.frame_blocks, self.global_blocks)):
            frame_out = frame_block(_by_frame(x, frames), rope=tables.rope).flatten(0, -2)
            x = global_block(frame_out, partial(remember, layer), rope)
            if layer in layers:
                kept[layer] = torch.cat([frame_out, x], dim=-1).unflatten(0, (frames, -1))
        first = [part.unflatten(0, (frames, -1))[:, 0] for part in (frame_out, x)]
        return AggregatedTokens(kept, torch.cat(first, dim=-1))

    def _global_table(
        self, images: Tensor, time: Tensor, stream_size: tuple[int, int] | None,
    ) -> RotaryTable:
        config, like = self.config, self.camera_token
        height, width = images.shape[-2:]
        if not config.time_rope:
            tables = self.frame_tables(height, width, stream_size)
            cosines, sines = (part.repeat(len(images), 1) for part in tables.rope)
            return cosines, sines
        extent: tuple[int, int] | None = None
        if stream_size is not None:
            rows, columns = (side // config.patch_size for side in stream_size)
            extent = rows, columns

        def compute() -> RotaryTable:
            table = space_table(height // config.patch_size, width // config.patch_size,
                                config.special_tokens, extent)
            return table[0].to(like), table[1].to(like)

        space = self._spaces.get((height, width, extent, like.device, like.dtype), compute)
        return combined(space, time)


def _by_frame(x: Tensor, frames: int) -> Tensor:
    """Return tokens [S * tokens, dim] as [S, tokens, dim], but of one frame as they are."""
    return x if frames == 1 else x.unflatten(0, (frames, -1))
