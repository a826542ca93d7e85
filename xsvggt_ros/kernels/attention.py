"""Attention on whatever device, by what is quickest there."""

from torch import Tensor

from xsvggt_ros.kernels import native, onednn


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax attention of queries [heads, tokens, d] over keys, values [heads, n, d]."""
    if native.takes_attention(query, key, value):
        return native.attend(query, key, value)
    return onednn.attention(query, key, value)
