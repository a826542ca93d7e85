"""
Networks over one frame on a CPU, from one attention to the next one in a call of C++ each.

What is attended to is left to whoever calls: give the queries to a memory, and what it returns to
the next step. The layers of the network are not called, nor are their hooks.
"""

from collections.abc import Iterable, Sequence
import ctypes

import torch
from torch import nn, Tensor

from xsvggt_ros.kernels.native import called, WeightPointers

POSE_CHANNELS = 9
# The layers of a block, and those of a camera head beside its blocks, as native.cpp reads them.
BLOCK_LAYERS = (('norm1',), ('attn', 'qkv'), ('attn', 'proj'), ('norm2',), ('mlp', 'fc1'),
                ('mlp', 'fc2'))
CAMERA_LAYERS = (('token_norm',), ('trunk_norm',), ('embed_pose',), ('poseLN_modulation', '1'),
                 ('pose_branch', 'fc1'), ('pose_branch', 'fc2'))


class WeightTable:
    """Where weights and biases of layers of a module are, in an array for native.cpp."""

    def __init__(
        self, layers: Iterable[tuple[str, ...]], blocks: Iterable[tuple[str, ...]],
    ) -> None:
        """Name the layers, and blocks of which the layers come behind them, by their paths."""
        self._weights = WeightPointers(
            *layers, *((*block, *layer) for block in blocks for layer in BLOCK_LAYERS))
        self._known: list[int] = []
        self._pointers: ctypes.Array | None = None

    def pointers(self, module: nn.Module, *first: Tensor) -> ctypes.Array | None:
        """
        Return the array, or None if the weights are not for C++.

        first: parameters that come before those of the layers.
        """
        weights = self._weights.pointers(module)
        if weights is None or any(own.dtype is not torch.float32 for own in first):
            return None
        known = [*(own.data_ptr() for own in first), *weights]
        if known != self._known:
            if not all(own.is_cpu and own.is_contiguous() for own in first):
                return None
            self._known, self._pointers = known, _array(known)
        return self._pointers


class CameraSteps:
    """The way of one token through the iterations of a camera head."""

    def __init__(
        self, token: Tensor, heads: int, widths: tuple[int, int], iterations: int,
        weights: ctypes.Array, eps: Sequence[float],
    ) -> None:
        """
        Begin with a token of dim channels.

        widths: channels inside of the MLPs of the trunk's blocks, and of the one that changes the
        pose. weights: the first pose [9], `CAMERA_LAYERS` and the blocks. eps: of the norm of the
        token, of the one behind the trunk, and of the two of each block.
        """
        dim, depth = token.numel(), len(eps) // 2 - 1
        self._depth = depth
        self._sizes = dim, *widths, depth, iterations
        self._weights, self._eps = weights, (ctypes.c_float * len(eps))(*eps)
        self._state = token.new_empty(3 * dim + POSE_CHANNELS)
        self._state[:dim] = token.flatten()
        self._parts = token.new_empty(iterations * depth, 3, heads, 1, dim // heads).unbind()
        self._poses = token.new_empty(iterations, POSE_CHANNELS)

    def queries(self, number: int, read: Tensor | None) -> Sequence[Tensor]:
        """
        Return queries, keys and values [heads, 1, head_dim] of attention ``number``.

        read: what the one before has returned, of that shape; None before the first.
        """
        self._call(number, read, self._parts[number].data_ptr())
        return self._parts[number].unbind()

    def finish(self, read: Tensor) -> Tensor:
        """Return the poses [iterations, 9]; read: what the last attention has returned."""
        self._call(len(self._parts), read, None)
        return self._poses

    def _call(self, number: int, read: Tensor | None, out: int | None) -> None:
        read = _in_order(read, self._parts[0].shape)
        called().xsvggt_camera(
            torch.get_num_threads(), *self._sizes, *divmod(number, self._depth), self._weights,
            self._eps, _pointer(read), self._state.data_ptr(), self._poses.data_ptr(), out)


class BackboneSteps:
    """The way of a frame's tokens through blocks that see the frame and the stream in turn."""

    def __init__(
        self, x: Tensor, heads: int, hidden: int, weights: ctypes.Array,
        tables: Sequence[Tensor], eps: Sequence[float], head_eps: float,
    ) -> None:
        """
        Begin with tokens [tokens, dim].

        hidden: channels inside of the blocks' MLPs. Of both blocks of each layer, the one that
        sees the frame first: weights, tables (`native.lanes`), and eps of their two norms.
        """
        tokens, dim = x.shape
        depth = len(tables) // 2
        self._sizes = tokens, dim, heads, hidden, depth
        self._weights, self._eps = weights, (ctypes.c_float * len(eps))(*eps)
        self._tables, self._owners = _array([one.data_ptr() for one in tables]), tables
        self._head_eps = head_eps
        self._state = x.new_empty(2, tokens, dim)
        self._state[1] = x
        self._pairs = x.new_empty(depth, tokens, 2 * dim)
        self._part = 3, heads, tokens, dim // heads

    def queries(self, layer: int, read: Tensor | None) -> Sequence[Tensor]:
        """
        Return queries, keys and values [heads, tokens, head_dim] of a layer.

        read: what the attention of the layer before has returned, of that shape; None before the
        first.
        """
        parts = self._state.new_empty(self._part)
        self._call(layer, read, parts.data_ptr())
        return parts.unbind()

    def finish(self, read: Tensor) -> Tensor:
        """Return what both blocks of each layer make, [depth, tokens, 2 dim]; read: the last."""
        self._call(len(self._pairs), read, None)
        return self._pairs

    def _call(self, layer: int, read: Tensor | None, out: int | None) -> None:
        read = _in_order(read, self._part)
        called().xsvggt_backbone(
            torch.get_num_threads(), *self._sizes, layer, self._weights, self._tables, self._eps,
            self._head_eps, _pointer(read), self._state.data_ptr(), self._pairs.data_ptr(), out)


def _in_order(read: Tensor | None, parts: Sequence[int]) -> Tensor | None:
    """
    Return what an attention has read [heads, tokens, head_dim] as [tokens, heads, head_dim].

    parts: the shape of its queries, keys and values [3, heads, tokens, head_dim].
    """
    if read is None:
        return None
    if read.shape != parts[1:]:
        raise ValueError(f'the attention was asked for {list(parts[1:])}, and gave '
                         f'{list(read.shape)}')
    read = read.transpose(0, 1)
    fits = read.dtype is torch.float32 and read.is_contiguous()
    return read if fits else read.to(torch.float32).contiguous()


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _array(pointers: Sequence[int]) -> ctypes.Array:
    # As numbers, so that a network that has them can be copied.
    return (ctypes.c_size_t * len(pointers))(*pointers)
