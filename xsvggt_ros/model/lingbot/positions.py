"""
Positions in time, row and column, for the global blocks of LingBot-Map.

An attention head has 10 pairs of channels that turn with the frame's number, 11 with the row and
11 with the column; in a group of d channels pair j turns by position * 10000 ** (-2 j / d). In
published weights the channels of a pair are neighbours. Here they lie where our kernels expect
them, a quarter of the head apart: queries and keys are both reordered, with the rows of the
weights that make them, and their products stay the same.
"""

from typing import Any

import torch
from torch import nn, Tensor

from xsvggt_ros.model.layers import Attention
from xsvggt_ros.model.lingbot.config import COLUMN_CHANNELS, ROW_CHANNELS, TIME_CHANNELS
from xsvggt_ros.model.positions import RotaryTable

BASE = 10000.0
REORDERED = ('qkv.weight', 'qkv.bias', 'q_norm.weight', 'q_norm.bias', 'k_norm.weight',
             'k_norm.bias')


def time_table(frames: Tensor) -> Tensor:
    """
    Return cosines and signed sines [S, 2, head_dim] of the frames' numbers [S], fp64.

    Of the channels that do not turn with time they are 1 and 0.
    """
    angles = torch.zeros(len(frames), _pairs(), dtype=torch.float64)
    angles[:, :TIME_CHANNELS // 2] = _angles(frames, TIME_CHANNELS)
    return torch.stack(_table(angles), dim=1)


def space_table(
    rows: int, columns: int, special_tokens: int, extent: tuple[int, int] | None = None,
) -> RotaryTable:
    """
    Return the rotary tables [tokens, head_dim] of a frame's rows and columns, fp64.

    Special token i stands in row and column i, the patches behind them. Channels that turn with
    time have cosine 1 and sine 0. extent: as of `positions.grid_rotary_table`.
    """
    patches = torch.cartesian_prod(*(
        (torch.arange(count, dtype=torch.float64) + 0.5) * (of / count) - 0.5 + special_tokens
        for count, of in zip((rows, columns), extent or (rows, columns))))
    special = torch.arange(special_tokens, dtype=torch.float64)[:, None].expand(-1, 2)
    places = torch.cat([special, patches])
    angles = torch.zeros(len(places), _pairs(), dtype=torch.float64)
    row_pairs = TIME_CHANNELS // 2 + ROW_CHANNELS // 2
    angles[:, TIME_CHANNELS // 2:row_pairs] = _angles(places[:, 0], ROW_CHANNELS)
    angles[:, row_pairs:] = _angles(places[:, 1], COLUMN_CHANNELS)
    return _table(angles)


def combined(space: RotaryTable, time: Tensor) -> RotaryTable:
    """Return the tables [S * tokens, head_dim] of S frames, time [S, 2, head_dim]."""
    cosines, sines = space
    return ((cosines * time[:, None, 0]).flatten(0, 1), (sines + time[:, None, 1]).flatten(0, 1))


def reorder_pairs(attention: Attention) -> None:
    """Have an attention keep its channels in our order; its state dict stays as published."""
    attention.register_load_state_dict_pre_hook(_take_published)
    attention.register_state_dict_post_hook(_give_published)


def published_order(heads: int, head_dim: int, parts: int) -> Tensor:
    """Return which published channel each of ours is, ``parts`` of them (queries, keys) in."""
    order = _interleaved(torch.arange(head_dim).unflatten(0, (-1, 2))[:, 0], second=1)
    starts = head_dim * torch.arange(heads * parts)[:, None]
    return (starts + order).flatten()


def _take_published(
    attention: nn.Module, weights: dict[str, Tensor], prefix: str, *others: Any,
) -> None:
    """Reorder weights that are about to be loaded."""
    _reorder(attention, weights, prefix, back=False)


def _give_published(
    attention: nn.Module, weights: dict[str, Tensor], prefix: str, *others: Any,
) -> None:
    """Reorder weights that are given away."""
    _reorder(attention, weights, prefix, back=True)


def _reorder(
    attention: nn.Module, weights: dict[str, Tensor], prefix: str, back: bool,
) -> None:
    heads, dim = attention.heads, attention.head_dim
    for name in REORDERED:
        weight = weights.get(prefix + name)
        if weight is None:
            continue
        order = published_order(*((heads, dim, 2) if name.startswith('qkv') else (1, dim, 1)))
        if weight.dim() and len(weight) >= len(order):  # another shape is an error of its own
            others = torch.arange(len(order), len(weight))  # the values'
            order = torch.cat([order.argsort() if back else order, others]).to(weight.device)
            weights[prefix + name] = weight[order]


def _pairs() -> int:
    return (TIME_CHANNELS + ROW_CHANNELS + COLUMN_CHANNELS) // 2


def _angles(positions: Tensor, channels: int) -> Tensor:
    """Return the angles [n, channels / 2] of positions [n]."""
    exponents = torch.arange(channels // 2, dtype=torch.float64) * 2 / channels
    return positions.to(torch.float64)[:, None] * BASE ** -exponents


def _table(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and signed sines [n, head_dim] of each pair's angle [n, pairs]."""
    return _interleaved(angles.cos()), _interleaved(angles.sin(), sign=-1)


def _interleaved(first: Tensor, second: int = 0, sign: int = 1) -> Tensor:
    """
    Return [..., 2 pairs] of the pairs' first channels: ours lie by halves, first before second.

    The second ones are the same plus ``second``; the first ones are multiplied by ``sign``.
    """
    halves = first.unflatten(-1, (2, -1))
    return torch.stack([halves if sign == 1 else sign * halves, halves + second if second
                        else halves], dim=-2).flatten(-3)
