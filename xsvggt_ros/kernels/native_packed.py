"""
Keys and values that are packed by the scheme `token`, on a CPU: what `packed` does on a GPU.

`insert` and `decode` do what those of `packing.TokenLayer` do: the same bits into the cache, and
the same floats to rounding out of it. They need `native.library`.
"""

import ctypes

import torch
from torch import Tensor

from xsvggt_ros.kernels.native import called
from xsvggt_ros.kernels.packing import TokenLayer


class _Layer(ctypes.Structure):
    """A layer as native.cpp has it."""

    _fields_ = [(name, ctypes.c_void_p) for name in (
        'key_payload', 'value_payload', 'key_scale', 'value_scale', 'statistics', 'rows')] + [
            (name, ctypes.c_long) for name in ('payloads', 'halves', 'tables', 'head', 'bits')]


def insert(layer: TokenLayer, key: Tensor, value: Tensor, slots: Tensor, row: Tensor) -> None:
    """Do what `TokenLayer.insert` does, of keys and values of any strides and precision."""
    layer.check(len(slots), key, value)
    key, value = (_with_channels_in_order(x.float()) for x in (key, value))
    heads, tokens, _ = key.shape
    slots, row = slots.contiguous(), row.contiguous()
    called().xsvggt_insert(
        torch.get_num_threads(), ctypes.byref(_layer(layer)), heads, tokens, row.data_ptr(),
        slots.data_ptr(), key.data_ptr(), *key.stride()[:2], value.data_ptr(),
        *value.stride()[:2])


def decode(layer: TokenLayer, out_keys: Tensor, out_values: Tensor) -> None:
    """Do what `TokenLayer.decode` does, to fp32 tensors that are in order but for the heads."""
    heads, used, _ = out_keys.shape
    layer.check(used, out_keys, out_values)
    called().xsvggt_decode(
        torch.get_num_threads(), ctypes.byref(_layer(layer)), heads, used, out_keys.data_ptr(),
        out_keys.stride(0), out_values.data_ptr(), out_values.stride(0))


def takes_attention(query: Tensor) -> bool:
    """
    Return whether `attend` takes queries [heads, tokens, head_dim].

    However many there are, it needs half the time of attention over floats; only where a frame has
    five or fewer tokens left is it slower, and no policy leaves so few of them.
    """
    return (query.dtype is torch.float32 and query.stride(2) == 1
            and bool(called().xsvggt_attends_packed(query.shape[2])))


def attend(
    layer: TokenLayer, query: Tensor, key: Tensor, value: Tensor, slots: Tensor, used: int,
    watched: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """
    Return softmax attention [heads, tokens, head_dim] of a frame's queries, all of that shape.

    Over the first ``used`` slots of a layer, without making floats of what is packed there, to
    about 1e-5; in a frame's own ``slots`` [tokens] are its own keys and values, as they come.
    watched: one more query of each head, [heads, head_dim], and where the sum over the heads of
    its softmax is written, [used] fp32.
    """
    layer.check(query.shape[1], query)
    layer.check(len(slots), key, value)
    key, value = _with_channels_in_order(key), _with_channels_in_order(value)
    heads, tokens, dim = query.shape
    out, slots = query.new_empty(tokens, heads, dim), slots.contiguous()
    extra, seen = watched or (None, None)
    called().xsvggt_attend_packed(
        torch.get_num_threads(), ctypes.byref(_layer(layer)), heads, tokens, used, dim ** -0.5,
        query.data_ptr(), query.stride(0), query.stride(1), slots.data_ptr(), len(slots),
        key.data_ptr(), key.stride(0), key.stride(1), value.data_ptr(), value.stride(0),
        value.stride(1), None if extra is None else extra.data_ptr(),
        None if seen is None else seen.data_ptr(), out.data_ptr())
    return out.transpose(0, 1)


def _with_channels_in_order(x: Tensor) -> Tensor:
    return x if x.stride(2) == 1 else x.contiguous()


def _layer(layer: TokenLayer) -> _Layer:
    return _Layer(
        layer.keys.data_ptr(), layer.values.data_ptr(), layer.key_scale.data_ptr(),
        layer.value_scale.data_ptr(), layer.statistics.data_ptr(), layer.rows.data_ptr(),
        layer.keys.stride(0), layer.key_scale.stride(0), layer.statistics.stride(0),
        layer.head_dim, layer.bits)
