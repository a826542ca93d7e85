"""
Small networks on a CPU: what lies between two attentions, and attention, in one call each.

A frame of `small` is hundreds of operators of a few microseconds, and half of its time went into
calling them. The C++ beside this file takes a few of them at once, in fp32 and on a few threads,
and gives the same to rounding. CMake or setup.py builds it, once for each kind of processor; the
best one that runs here is taken. Without it, with XSVGGT_NATIVE=0 in the environment, and for wide
layers, which gain nothing, everything is PyTorch.
"""

from collections.abc import Sequence
import ctypes
from functools import cache, lru_cache
import os
from pathlib import Path
import platform
from typing import Any

import torch
from torch import nn, Tensor

import xsvggt_ros

VERSION = 10  # of the functions in native.cpp
# Files for a processor, the quickest first, by what PyTorch calls it; others have the plain one.
FILES = {'AVX512': ('native_x86-64-v4.so', 'native_x86-64-v3.so'),
         'AVX2': ('native_x86-64-v3.so',)}
LANES = 64  # tokens side by side in native.cpp
MAX_WEIGHTS = 1 << 18  # of a layer: wider ones keep more than one core busy
MAX_PRODUCTS = 1 << 25  # of an attention, queries times keys times channels, for the same reason
MAX_PIXELS = 1 << 16  # of a map, for the same reason
PRECISIONS = (torch.float32, torch.bfloat16)  # of rows of numbers that are read as `Numbers`
DENSE_WEIGHTS = 72  # tensors that native.cpp reads for a dense head

# Asked dozens of times a frame, when the names in `torch` have left the processor's cache.
_is_grad_enabled, _is_autocast_enabled = torch.is_grad_enabled, torch.is_autocast_enabled
_is_compiling, _is_tracing = torch.compiler.is_compiling, torch.jit.is_tracing
_POINTER, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
# What the functions take after the number of threads.
_ARGUMENTS: dict[str, list[Any]] = {
    'norm_qkv': [_LONG] * 3 + [_POINTER] * 3 + [_FLOAT] + [_POINTER] * 3 + [_FLOAT]
    + [_POINTER] * 3,
    'proj_mlp': [_LONG] * 3 + [_POINTER] * 6 + [_FLOAT] + [_POINTER] * 5,
    'block': [_LONG] * 4 + [_POINTER] * 3 + [_FLOAT] + [_POINTER] * 3 + [_FLOAT] + [_POINTER] * 4
    + [_FLOAT] + [_POINTER] * 5,
    'attend': [_LONG] * 4 + [_FLOAT] + [_POINTER, _LONG, _LONG] + [_POINTER, _LONG] * 2
    + [_POINTER],
    'store_and_attend': [_LONG] * 4 + [_FLOAT] + [_POINTER, _LONG, _LONG] + [_POINTER]
    + [_POINTER, _LONG, _LONG] * 2 + [_POINTER, _LONG] * 2 + [_POINTER],
    'backbone': [_LONG] * 6 + [_POINTER] * 3 + [_FLOAT] + [_POINTER] * 4,
    'patches': [_LONG] * 4 + [_POINTER] * 6,
    'camera': [_LONG] * 7 + [_POINTER] * 6,
    'row': [_LONG] * 2 + [_POINTER] * 4 + [ctypes.c_int, _POINTER],
    'insert': [_POINTER, _LONG, _LONG] + [_POINTER] * 2 + [_POINTER, _LONG, _LONG] * 2,
    'decode': [_POINTER, _LONG, _LONG] + [_POINTER, _LONG] * 2,
    'attend_packed': [_POINTER] + [_LONG] * 3 + [_FLOAT, _POINTER, _LONG, _LONG, _POINTER, _LONG]
    + [_POINTER, _LONG, _LONG] * 2 + [_POINTER] * 3,
    'attend_frame': [_LONG] * 3 + [_FLOAT] + [_POINTER, _LONG, _LONG] * 3 + [_POINTER],
    'dense': [_LONG] * 4 + [_POINTER, _LONG] + [_POINTER] * 2 + [_FLOAT, _POINTER],
    'products': [_LONG] * 4 + [_POINTER, _LONG, _LONG] * 2 + [_POINTER],
    'place_heads': [_LONG] * 3 + [_FLOAT, _POINTER, ctypes.c_int] + [_POINTER] * 3
    + [ctypes.c_int, _POINTER],
    'round_rows': [_LONG] * 2 + [_POINTER, ctypes.c_int, _FLOAT] + [_POINTER] * 4,
    'finish_rows': [_LONG] * 2 + [_POINTER] * 5 + [ctypes.c_int] + [_POINTER, ctypes.c_int] * 2,
    'voxels_insert': [_POINTER, _LONG, _POINTER, _LONG, _POINTER],
    'voxels_add': [_POINTER, _LONG, _POINTER, _POINTER] + [_FLOAT] * 3 + [_POINTER]
    + [_LONG] * 3 + [_FLOAT, _POINTER],
}


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled functions, or None where there are none, or they are not wanted."""
    if os.environ.get('XSVGGT_NATIVE', '1') == '0':
        return None
    return next(filter(None, map(load, files())), None)


def called() -> ctypes.CDLL:
    """Return the library for a call; raise RuntimeError where there is none."""
    found = library()
    if found is None:
        raise RuntimeError('there are no C++ kernels here: ask `allowed` before')
    return found


def files() -> list[Path]:
    """Return the libraries for this processor that were built, the one to take first."""
    names = FILES.get(torch.backends.cpu.get_cpu_capability(), ('native.so',))
    return [file for name in names for file in sorted(
        filter(Path.is_file, (Path(folder) / 'kernels' / name for folder in xsvggt_ros.__path__)),
        key=lambda file: file.stat().st_mtime, reverse=True)]  # built by CMake, or by pip


def why_missing() -> str | None:
    """Return why there are no functions here and what to do, None if nothing is amiss."""
    if library() is not None or os.environ.get('XSVGGT_NATIVE', '1') == '0':
        return None
    if platform.machine().lower() in ('x86_64', 'amd64') and (
            torch.backends.cpu.get_cpu_capability() not in FILES):
        return None  # they are made for AVX2 and newer
    what = 'belong to another version' if files() else 'were not built'
    return (f'the C++ kernels {what}: all works, but small networks are slower. Install a C++ '
            'compiler (g++) and install this package again (pip install ., colcon build or make '
            'env); XSVGGT_NATIVE=0 does without them')


def load(file: Path) -> ctypes.CDLL | None:
    """Return a library of these functions, or None if it is missing or of another version."""
    try:
        loaded = ctypes.CDLL(str(file))
        if loaded.xsvggt_version() != VERSION:
            return None
        for name, arguments in _ARGUMENTS.items():
            function = getattr(loaded, f'xsvggt_{name}')
            function.argtypes = [_LONG, *arguments]
            function.restype = None
        loaded.xsvggt_attends_packed.argtypes = [_LONG]
        loaded.xsvggt_use_thread_team.argtypes = [_POINTER]
        loaded.xsvggt_use_thread_team(_thread_team())
    except (OSError, AttributeError):
        return None
    return loaded


def _thread_team() -> int | None:
    """Return what starts the threads of PyTorch's OpenMP runtime, if it can be seen from here."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, _POINTER).value
    except AttributeError:
        return None


def allowed() -> bool:
    """Return whether there are functions, and nobody traces or trains."""
    return (library() is not None and not _is_grad_enabled() and not _is_autocast_enabled('cpu')
            and not _is_compiling() and not _is_tracing())


def suits(x: Tensor) -> bool:
    """Return whether x is fp32 on a CPU, in order, and nobody traces or trains."""
    return x.dtype is torch.float32 and x.is_cpu and x.is_contiguous() and allowed()


def small(
    weights: Sequence[Tensor | None], order: torch.memory_format = torch.contiguous_format,
) -> bool:
    """Return whether all of these are there, fp32 on a CPU, in order, and few numbers each."""
    return all(weight is not None and weight.dtype is torch.float32 and weight.is_cpu
               and weight.is_contiguous(memory_format=order) and weight.numel() <= MAX_WEIGHTS
               for weight in weights)


def lanes(*tables: Tensor) -> Tensor:
    """Return what `norm_qkv` takes of the tables of `positions.apply_folded_rope`."""
    table = torch.stack([table[:, :, 0] for table in tables], dim=2)  # [tokens, 2, 3, head_dim]
    table = torch.nn.functional.pad(table, (0, 0, 0, 0, 0, 0, 0, -len(table) % LANES))
    return table.unflatten(0, (-1, LANES)).permute(0, 2, 3, 4, 1).contiguous()


class WeightPointers:
    """
    Weights and biases of some layers of a module, as the functions here take them.

    The layers themselves are not called, nor are their hooks.
    """

    def __init__(self, *paths: tuple[str, ...]) -> None:
        """Name the layers by their paths in the module."""
        self._paths = paths
        self._pointers: list[int] = []

    def pointers(self, module: nn.Module) -> list[int] | None:
        """Return where they are now, two for each layer; None if they are not for `native`."""
        weights: list[Tensor] = []
        for path in self._paths:
            layer: nn.Module | None = module
            for name in path:  # what `layer.name` does, at a tenth of its time
                layer = None if layer is None else layer._modules[name]
            own = {} if layer is None else layer._parameters
            weight, bias = own.get('weight'), own.get('bias')
            if weight is None or bias is None or weight.dtype is not bias.dtype \
                    or weight.dtype is not torch.float32:
                return None
            weights += weight, bias
        pointers = [weight.data_ptr() for weight in weights]
        if pointers != self._pointers:
            if not small(weights):
                return None
            self._pointers = pointers
        return pointers


def norm_qkv(
    x: Tensor, heads: int, weights: Sequence[int], eps: float, table: Tensor | None,
    head_eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Return queries, keys and values [heads, tokens, head_dim] of x [tokens, dim].

    weights: `WeightPointers` of the norm before and the projection [3 dim, dim]. table: `lanes`,
    if heads have norms (head_eps) and positions.
    """
    tokens, dim = x.shape
    out = x.new_empty(3, heads, tokens, dim // heads)
    start, size = out.data_ptr(), 4 * tokens * dim
    norm, norm_bias, weight, bias = weights
    called().xsvggt_norm_qkv(
        torch.get_num_threads(), tokens, dim, heads, x.data_ptr(), norm, norm_bias, eps, weight,
        bias, None if table is None else table.data_ptr(), head_eps, start, start + size,
        start + 2 * size)
    query, key, value = out.unbind()
    return query, key, value


def proj_mlp(
    x: Tensor, attended: Tensor, hidden: int, weights: Sequence[int], eps: float,
) -> Tensor:
    """
    Return y + MLP(norm(y)) of y = x + projection of the attention output, for x [tokens, dim].

    attended: [heads, tokens, head_dim]; weights: of the projection, the norm and the
    two layers of the MLP with so many hidden channels.
    """
    tokens, dim = x.shape
    attended = attended.transpose(0, 1)
    if attended.dtype is not x.dtype or not attended.is_contiguous():
        attended = attended.to(x.dtype).contiguous()
    out = torch.empty_like(x)
    proj, proj_bias, norm, norm_bias, *mlp = weights
    called().xsvggt_proj_mlp(
        torch.get_num_threads(), tokens, dim, hidden, x.data_ptr(), attended.data_ptr(), proj,
        proj_bias, norm, norm_bias, eps, *mlp, out.data_ptr())
    return out


def takes_block(x: Tensor) -> bool:
    """Return whether `block` is quicker for tokens [tokens, dim] than its parts would be."""
    return x.numel() * len(x) <= MAX_PRODUCTS


def block(
    x: Tensor, heads: int, hidden: int, before: Sequence[int], eps: float, table: Tensor | None,
    head_eps: float, after: Sequence[int], after_eps: float,
) -> Tensor:
    """
    Return what a block makes of x [tokens, dim], whose tokens attend to each other.

    before, eps, table and head_eps are those of `norm_qkv`, hidden, after and after_eps those of
    `proj_mlp`.
    """
    tokens, dim = x.shape
    out = torch.empty_like(x)
    norm, norm_bias, weight, bias = before
    proj, proj_bias, norm2, norm2_bias, *mlp = after
    called().xsvggt_block(
        torch.get_num_threads(), tokens, dim, heads, hidden, x.data_ptr(), norm, norm_bias, eps,
        weight, bias, None if table is None else table.data_ptr(), head_eps, proj, proj_bias,
        norm2, norm2_bias, after_eps, *mlp, out.data_ptr())
    return out


def takes_attention(
    query: Tensor, key: Tensor, value: Tensor, count: int | None = None,
) -> bool:
    """Return whether `attend` can be called, and is quicker."""
    if not (query.dtype is key.dtype is value.dtype is torch.float32
            and query.is_cpu and key.is_cpu and value.is_cpu and allowed()):
        return False
    shape, (heads, tokens, dim) = key.shape, query.shape
    count = shape[1] if count is None else count
    return (shape == value.shape and shape[0] == heads and 0 < count <= shape[1]
            and heads * tokens * dim * count <= MAX_PRODUCTS and query.stride(2) == 1
            and key.stride()[1:] == value.stride()[1:] == (dim, 1))


def attend(query: Tensor, key: Tensor, value: Tensor, count: int | None = None) -> Tensor:
    """
    Return softmax attention of queries [heads, tokens, d] over keys and values [heads, n, d].

    count: of how many keys, the first ones; None for all. What is returned lies in memory as
    [tokens, heads, d].
    """
    heads, tokens, dim = query.shape
    head_stride, token_stride, _ = query.stride()
    out = query.new_empty(tokens, heads, dim)
    called().xsvggt_attend(
        torch.get_num_threads(), heads, tokens, dim, key.shape[1] if count is None else count,
        dim ** -0.5, query.data_ptr(), head_stride, token_stride, key.data_ptr(), key.stride(0),
        value.data_ptr(), value.stride(0), out.data_ptr())
    return out.transpose(0, 1)


def store_and_attend(
    query: Tensor, key: Tensor, value: Tensor, slots: Tensor, keys: Tensor, values: Tensor,
    count: int,
) -> Tensor:
    """
    Put keys and values [heads, tokens, d] into slots [tokens] of others, then `attend` to these.

    keys, values: [heads, slots, d], as `takes_attention` has them.
    """
    heads, tokens, dim = query.shape
    slots, out = slots.contiguous(), query.new_empty(tokens, heads, dim)
    called().xsvggt_store_and_attend(
        torch.get_num_threads(), heads, tokens, dim, count, dim ** -0.5, query.data_ptr(),
        query.stride(0), query.stride(1), slots.data_ptr(), key.data_ptr(), key.stride(0),
        key.stride(1), value.data_ptr(), value.stride(0), value.stride(1), keys.data_ptr(),
        keys.stride(0), values.data_ptr(), values.stride(0), out.data_ptr())
    return out.transpose(0, 1)


def takes_row(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> bool:
    """Return whether `row` can be called, and is quicker."""
    return (x.numel() == x.shape[-1] == weight.shape[1] and suits(x) and small((weight, bias))
            and (residual is None
                 or suits(residual) and residual.shape == (*x.shape[:-1], len(weight))))


def row(
    x: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False, residual: Tensor | None = None,
) -> Tensor:
    """Return one x [..., in] through weights [out, in], with ``residual`` added or an erf GELU."""
    out = x.new_empty(*x.shape[:-1], len(weight))
    called().xsvggt_row(
        torch.get_num_threads(), *weight.shape, weight.data_ptr(), x.data_ptr(),
        bias.data_ptr(), None if residual is None else residual.data_ptr(), gelu, out.data_ptr())
    return out


def dense(
    layers: Sequence[Tensor], size: tuple[int, int], patch: int, widths: Sequence[int],
    channels: int, weights: Sequence[Tensor], eps: float,
) -> Tensor:
    """
    Return the maps [1, channels, H, W] of four layers' tokens [1, patches, dim].

    size: height and width in patches; widths, weights: see native.cpp, which reads as much as
    they say and checks nothing. Raises ValueError if something else is there.
    """
    rows, columns = size
    dim = layers[0].shape[-1]
    if any(layer.numel() != rows * columns * dim for layer in layers):
        raise ValueError(f'the layers must be of {rows} x {columns} patches, got '
                         f'{[list(layer.shape) for layer in layers]}')
    expected = dense_sizes(dim, size, patch, tuple(widths), channels)
    found = tuple(weight.numel() for weight in weights)
    if found != expected:
        wrong = next((i for i, pair in enumerate(zip(found, expected)) if pair[0] != pair[1]),
                     min(len(found), len(expected)))
        raise ValueError(f'{len(expected)} weights are expected, got {len(found)}; the first that '
                         f'does not fit is number {wrong}')
    out = layers[0].new_empty(1, channels, rows * patch, columns * patch)
    called().xsvggt_dense(
        torch.get_num_threads(), rows, columns, patch, layers[0].shape[-1],
        (_LONG * len(widths))(*widths), channels, _pointers(layers), _pointers(weights), eps,
        out.data_ptr())
    return out


@lru_cache(maxsize=8)
def dense_sizes(
    dim: int, size: tuple[int, int], patch: int, widths: tuple[int, ...], channels: int,
) -> tuple[int, ...]:
    """Return how many numbers each of the weights of `dense` has, in order."""
    rows, columns = size
    *levels, fused, narrow, inner = widths
    sizes = [dim, dim]
    for level, own in enumerate(levels):
        sizes += own * dim, own
        if level != 2:
            sizes += own * own * (16, 4, 0, 9)[level], own
        sizes += own // 2 * columns, own // 2 * rows
    sizes += [fused * own * 9 for own in levels]
    for level in (3, 2, 1, 0):
        sizes += [fused * fused * 9, fused] * (2 if level == 3 else 4)
        sizes += fused * fused, fused
    sizes += narrow * fused * 9, narrow
    sizes += narrow // 2 * columns * patch, narrow // 2 * rows * patch
    return (*sizes, inner * narrow * 9, inner, channels * inner, channels)


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array:
    return (_POINTER * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def takes_products(vectors: Tensor, keys: Tensor) -> bool:
    """Return whether `products` can be called."""
    return (keys.dtype is torch.float32 and vectors.dtype is torch.float32 and keys.is_cpu
            and keys.dim() == 4 and vectors.dim() == 3 and vectors.stride(2) == 1
            and keys.stride()[2:] == (vectors.shape[2], 1) and allowed())


def products(vectors: Tensor, keys: Tensor) -> Tensor:
    """Return vectors [layers, heads or 1, d] . keys [layers, heads, n, d], [layers, heads, n]."""
    layers, heads, count, dim = keys.shape
    vectors = vectors.expand(layers, heads, dim)
    out = keys.new_empty(layers, heads, count)
    called().xsvggt_products(
        torch.get_num_threads(), layers, heads, count, dim, vectors.data_ptr(), vectors.stride(0),
        vectors.stride(1), keys.data_ptr(), keys.stride(0), keys.stride(1), out.data_ptr())
    return out
