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
        lanes = [native.lanes(*fold_norm_into_rope(norm, space, torch.float32)) for norm in norms]
        self._lanes = torch.stack(lanes)  # [blocks, tiles, 2, 3, head_dim, native.LANES]
        self._parts = self._lanes.unbind()
        # What turns with time: of the first axis, the first channels of both partners.
        self._turning = _by_axis(self._lanes, -2)[..., 0, :, :TIME_CHANNELS // 2, :]
        weights, biases = (
            _turning(torch.stack(parts)[:, :, 0].float()) for parts in zip(*norms))
        nothing = torch.zeros_like(weights)
        # Scale, shift and partner of `fold_norm_into_rope` are straight, of the cosine, plus
        # crossed, of the sine: [blocks, 2, 3, partners, channels].
        self._straight = torch.stack([weights, biases, nothing], dim=2)
        self._crossed = torch.stack([nothing, biases.flip(-2), weights.flip(-2)], dim=2)

    def at(self, time: Tensor) -> Sequence[Tensor]:
        """Return the blocks' tables at a time [2, head_dim], see `positions.time_table`."""
        cosines, sines = _turning(time)
        values = torch.addcmul(self._straight * cosines, self._crossed, sines)
        self._turning.copy_(values[:, None, ..., None])
        return self._parts


def _by_axis(x: Tensor, dim: int) -> Tensor:
    """Return x with a head's channels [head_dim] as [axis, partner, channel]."""
    return x.unflatten(dim, (2, 2, -1))


def _turning(x: Tensor) -> Tensor:
    """Return the channels of x [..., head_dim] that turn with time, [..., partner, channel]."""
    return _by_axis(x, -1)[..., 0, :, :TIME_CHANNELS // 2]
