"""Seeded random weights: a network that runs and means nothing."""

import math
import zlib

import torch
from torch import Tensor

# The camera head adds up four changes; a quarter of "no rotation, one radian wide" each.
POSE_CHANGE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 0.25, 0.25)
POINT_AHEAD = (0.0, 0.0, math.log(2.0), 0.0)  # expm1 makes it a point one unit before the camera


def random_weight(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """
    Return the fp32 weight `key`; it depends on key, shape and seed alone.

    The scales keep activations of order one, log depths within a few tenths of zero and poses
    close to the identity, on any image.
    """
    if key == 'camera_head.pose_branch.fc2.bias':
        return torch.tensor(POSE_CHANGE)
    if key == 'point_head.scratch.output_conv2.2.bias':
        return torch.tensor(POINT_AHEAD)
    leaf = key.rsplit('.', 1)[-1]
    if leaf == 'gamma':
        return torch.full(shape, 1.0 if key.startswith('aggregator.patch_embed.') else 0.01)
    if 'norm' in key and leaf == 'weight':
        return torch.ones(shape)
    if leaf in ('bias', 'mask_token', 'empty_pose_tokens'):
        return torch.zeros(shape)
    generator = torch.Generator().manual_seed((seed << 32) + zlib.crc32(key.encode()))
    return torch.randn(shape, generator=generator) * _scale(key, shape)


def _scale(key: str, shape: tuple[int, ...]) -> float:
    """Return the standard deviation of a weight that is drawn at random."""
    if len(shape) not in (2, 4) or 'token' in key:
        return 0.02  # learnt tokens and positions
    # Transposed convolutions with stride = kernel: each output pixel sees one input pixel.
    transposed = 'resize_layers.0.' in key or 'resize_layers.1.' in key
    inputs = shape[0] if transposed else math.prod(shape[1:])
    gain = 1.0
    if 'output_conv2.2' in key:
        gain = 0.4
    elif 'pose_branch.fc2' in key or 'poseLN_modulation' in key:
        gain = 0.05
    return gain / math.sqrt(inputs)
