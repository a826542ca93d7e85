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


def _with_channels_in_order(x: Tensor) -> Tensor:
    return x if x.stride(2) == 1 else x.contiguous()


def _layer(layer: TokenLayer) -> _Layer:
    return _Layer(
        layer.keys.data_ptr(), layer.values.data_ptr(), layer.key_scale.data_ptr(),
        layer.value_scale.data_ptr(), layer.statistics.data_ptr(), layer.rows.data_ptr(),
        layer.keys.stride(0), layer.key_scale.stride(0), layer.statistics.stride(0),
        layer.head_dim, layer.bits)
