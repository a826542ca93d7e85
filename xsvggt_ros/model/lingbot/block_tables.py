"""What the C++ kernels take of norms and positions of all global blocks, quickly made anew."""

from collections.abc import Sequence

import torch
from torch import Tensor

from xsvggt_ros.kernels import native
from xsvggt_ros.model.layers import Block
from xsvggt_ros.model.lingbot.config import TIME_CHANNELS
from xsvggt_ros.model.positions import fold_norm_into_rope, RotaryTable


class BlockTables:
    """
    The tables of `native.lanes`, one a block, in which the time can be changed.

    All tokens of a frame have the same time, and a fifth of the channels turn with it: the others
    are computed once for a frame size.
    """

    def __init__(self, blocks: Sequence[Block], space: RotaryTable) -> None:
        """Compute what stays; space: of the frame's tokens, see `positions.space_table`."""
        norms = [block.attn.norms() for block in blocks]
        self._weights, self._biases = (torch.stack(parts) for parts in zip(*norms))
        lanes = [native.lanes(*fold_norm_into_rope(norm, space, torch.float32)) for norm in norms]
        self._lanes = torch.stack(lanes)  # [blocks, tiles, 2, 3, head_dim, native.LANES]
        half, pairs = self._lanes.shape[4] // 2, TIME_CHANNELS // 2
        self._turning = [slice(0, pairs), slice(half // 2, half // 2 + pairs)]

    def at(self, time: Tensor) -> Sequence[Tensor]:
        """Return the blocks' tables at a time [2, head_dim], see `positions.time_table`."""
        cosines, sines = time.expand(len(self._lanes), -1, -1).unbind(1)
        folded = fold_norm_into_rope(
            (self._weights, self._biases), (cosines, sines), torch.float32)
        values = torch.cat(folded, dim=2)[:, None, ..., None]  # [blocks, 1, 2, 3, head_dim, 1]
        for channels in self._turning:
            self._lanes[..., channels, :] = values[..., channels, :]
        return self._lanes.unbind()
