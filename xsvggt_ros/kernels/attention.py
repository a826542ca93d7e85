"""Attention on whatever device, by what is quickest there."""

from torch import Tensor

from xsvggt_ros.kernels import native, onednn


def attention(query: Tensor, key: Tensor, value: Tensor, count: int | None = None) -> Tensor:
    """
    Return softmax attention of queries [heads, tokens, d] over keys, values [heads, n, d].

    count: of how many keys, the first ones; None for all.
    """
    if native.takes_attention(query, key, value, count):
        return native.attend(query, key, value, count)
    return onednn.attention(query, key[:, :count], value[:, :count])
