"""Attention on whatever device, by what is quickest there."""

import torch
from torch import Tensor

from xsvggt_ros.kernels import native, native_heads, onednn


def attention(query: Tensor, key: Tensor, value: Tensor, count: int | None = None) -> Tensor:
    """
    Return softmax attention of queries [heads, tokens, d] over keys, values [heads, n, d].

    count: of how many keys, the first ones; None for all.
    """
    if native.takes_attention(query, key, value, count):
        return native.attend(query, key, value, count)
    if count is None and native_heads.takes_attention(query, key, value):
        return native_heads.attend(query, key, value)
    return onednn.attention(query, key[:, :count], value[:, :count])


def store_and_attend(
    query: Tensor, key: Tensor, value: Tensor, slots: Tensor, keys: Tensor, values: Tensor,
    count: int,
) -> Tensor:
    """
    Put own keys and values into slots, and attend to the first ``count`` slots.

    query, key, value: [heads, tokens, d]; slots: [tokens] int64; keys, values: [heads, slots, d]
    of the same precision. Returns [heads, tokens, d].
    """
    if (key.dtype is value.dtype is torch.float32 and key.stride(2) == value.stride(2) == 1
            and query.shape == key.shape == value.shape and len(slots) == key.shape[1]
            and native.takes_attention(query, keys, values, count)):
        return native.store_and_attend(query, key, value, slots, keys, values, count)
    keys.index_copy_(1, slots, key)
    values.index_copy_(1, slots, value)
    return attention(query, keys, values, count)
