"""Heads of wide layers on a CPU: their positions, and attention inside a frame, in C++."""

import torch
from torch import Tensor

from xsvggt_ros.kernels.native import allowed, called, PRECISIONS

CHANNELS = 16  # of a head: a multiple of these
MOST_CHANNELS = 64  # of a head that `attend` takes: for more, sums leave too little to queries


def takes(packed: Tensor, heads: int, tables: tuple[Tensor, ...]) -> bool:
    """Return whether `place_heads` can be called with tables, if there are the right ones."""
    if len(tables) != 3 or packed.dim() != 2 or packed.dtype not in PRECISIONS:
        return False
    head = packed.shape[1] // (3 * heads)
    kind = tables[0].dtype
    return (head % CHANNELS == 0 and kind in PRECISIONS and packed.is_cpu
            and packed.is_contiguous() and allowed()
            and all(table.dtype is kind and table.shape == (len(packed), 2, 1, head)
                    and table.is_contiguous() for table in tables))


def place_heads(
    packed: Tensor, heads: int, eps: float, scale: Tensor, shift: Tensor, partner: Tensor,
) -> Tensor:
    """
    Return queries, keys and values [tokens, 3, heads, head_dim] in the tables' precision.

    packed: [tokens, 3 heads head_dim], as projected. scale, shift, partner: of queries and keys,
    [tokens, 2, 1, head_dim], see `positions.fold_norm_into_rope`.
    """
    head = packed.shape[1] // (3 * heads)
    out = torch.empty(len(packed), 3, heads, head, dtype=scale.dtype)
    called().xsvggt_place_heads(
        torch.get_num_threads(), len(packed), heads, head, eps, packed.data_ptr(),
        packed.dtype is torch.bfloat16, scale.data_ptr(), shift.data_ptr(), partner.data_ptr(),
        scale.dtype is torch.bfloat16, out.data_ptr())
    return out


def takes_attention(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether `attend` can be called; it takes half the time of torch's attention."""
    heads, tokens, dim = query.shape
    return (query.dtype is key.dtype is value.dtype is torch.bfloat16 and tokens > 1
            and query.is_cpu and attends(dim) and not torch.is_grad_enabled()
            and query.shape == key.shape == value.shape
            and query.stride(2) == key.stride(2) == value.stride(2) == 1)


def attends(head_dim: int) -> bool:
    """Return whether there is a way here for heads of so many channels."""
    return (head_dim % (2 * CHANNELS) == 0 and head_dim <= MOST_CHANNELS and allowed()
            and bool(called().xsvggt_attends_packed(head_dim)))


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """
    Return softmax attention of a frame's tokens to each other, all [heads, tokens, d] in bf16.

    Keys and values count to 11 bits of the largest number of their token, sums are exact. What is
    returned lies in memory as [tokens, heads, d].
    """
    heads, tokens, dim = query.shape
    out = query.new_empty(tokens, heads, dim)
    called().xsvggt_attend_frame(
        torch.get_num_threads(), heads, tokens, dim, dim ** -0.5, query.data_ptr(),
        *query.stride()[:2], key.data_ptr(), *key.stride()[:2], value.data_ptr(),
        *value.stride()[:2], out.data_ptr())
    return out.transpose(0, 1)
