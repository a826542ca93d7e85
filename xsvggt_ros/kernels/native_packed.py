"""
Keys and values that are packed by the scheme `token`, on a CPU: what `packed` does on a GPU.

`insert` and `decode` do what `Centres.encode` and an index copy, and `dequantise` and
`Centres.uncentre` do in PyTorch: the same bits into the cache, and the same floats to rounding out
of it. They need `native.library`.
"""

import ctypes

import torch
from torch import Tensor

from xsvggt_ros.kernels import native
from xsvggt_ros.kernels.packing import Centres, PackedTensor


class _Layer(ctypes.Structure):
    """A layer as native.cpp has it."""

    _fields_ = [(name, ctypes.c_void_p) for name in (
        'key_payload', 'value_payload', 'key_scale', 'key_minimum', 'value_scale', 'value_minimum',
        'key_centres', 'value_centres', 'spread')] + [(name, ctypes.c_long) for name in (
            'payloads', 'halves', 'tables', 'spreads', 'head', 'bits')]


def insert(
    keys: PackedTensor, values: PackedTensor, centres: Centres, key: Tensor, value: Tensor,
    rows: Tensor, slots: Tensor, bits: int,
) -> None:
    """Do what `packed.insert` does, of keys and values of any strides and precision."""
    key, value = (_with_channels_in_order(x.float()) for x in (key, value))
    heads, tokens, dim = key.shape
    slots = slots.contiguous()
    native.called().xsvggt_insert(
        torch.get_num_threads(), ctypes.byref(_layer(keys, values, centres, dim, bits)), heads,
        tokens, rows.data_ptr(), slots.data_ptr(), key.data_ptr(), *key.stride()[:2],
        value.data_ptr(), *value.stride()[:2])


def decode(
    keys: PackedTensor, values: PackedTensor, centres: Centres, token_ids: Tensor, per_step: int,
    bits: int, out_keys: Tensor, out_values: Tensor,
) -> None:
    """Do what `packed.decode` does, to fp32 tensors that are in order but for the heads."""
    heads, used, dim = out_keys.shape
    native.called().xsvggt_decode(
        torch.get_num_threads(), ctypes.byref(_layer(keys, values, centres, dim, bits)), heads,
        used, token_ids.data_ptr(), per_step, centres.special_tokens, out_keys.data_ptr(),
        out_keys.stride(0), out_values.data_ptr(), out_values.stride(0))


def _with_channels_in_order(x: Tensor) -> Tensor:
    return x if x.stride(2) == 1 else x.contiguous()


def _layer(
    keys: PackedTensor, values: PackedTensor, centres: Centres, dim: int, bits: int,
) -> _Layer:
    return _Layer(
        keys.payload.data_ptr(), values.payload.data_ptr(), keys.scale.data_ptr(),
        keys.minimum.data_ptr(), values.scale.data_ptr(), values.minimum.data_ptr(),
        centres.keys.data_ptr(), centres.values.data_ptr(), centres.spread.data_ptr(),
        keys.payload.stride(0), keys.scale.stride(0), centres.keys.stride(0),
        centres.spread.stride(0), dim, bits)
