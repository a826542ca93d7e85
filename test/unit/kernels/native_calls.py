"""The libraries of the C++ kernels that were built, and how often their functions are called."""

from pathlib import Path

import torch

import xsvggt_ros
from xsvggt_ros.bench.operator_count import OperatorCount
from xsvggt_ros.kernels import native

FILES = native.FILES.get(torch.backends.cpu.get_cpu_capability(), ('native.so',))
BUILT = [file for folder in xsvggt_ros.__path__ for name in FILES
         if (file := Path(folder) / 'kernels' / name).is_file()]


def count_calls(function, *arguments):
    """Return the result, and how often each of the kernels was called."""
    with OperatorCount() as count:
        result = function(*arguments)
    return result, {name: calls for name, calls in count.names.items() if 'xsvggt' in name}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_weights(module):
    generator = torch.Generator().manual_seed(1)
    for weight in module.parameters():
        weight.requires_grad_(False)
        scale = weight[0].numel() ** -0.5 if weight.dim() > 1 else 1
        weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    return module
