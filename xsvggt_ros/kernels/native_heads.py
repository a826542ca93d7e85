"""Queries and keys of wide layers on a CPU: norm, position and precision in one call of C++."""

import torch
from torch import Tensor

from xsvggt_ros.kernels.native import allowed, called

PRECISIONS = (torch.float32, torch.bfloat16)
CHANNELS = 16  # of a head: a multiple of these


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
