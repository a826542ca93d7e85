"""
Linear layers and convolutions, together with what comes after them where one call does both.

On a CPU, outside of training, they go to oneDNN directly. torch gives fp32 matrix products to MKL,
which takes twice as long on processors that are not Intel's (197 tokens through 1024 x 3072 on one
core of a Zen 4: 11.8 against 5.3 ms), and small images to a convolution of its own. The results
are the same to rounding.
"""

from functools import cache

import torch
from torch import nn, Tensor
import torch.nn.functional as F

# One row through fewer weights than these is quicker without oneDNN, which takes 10 us to set up.
FEW_WEIGHTS = 1 << 20


class Linear(nn.Linear):
    """A linear layer; its parameters are those of `nn.Linear`."""

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """Return [..., out] for x [..., in], after an exact (erf) GELU if wanted."""
        single = x.numel() == x.shape[-1]
        if not (single and self.weight.numel() < FEW_WEIGHTS) and calls_onednn(x):
            return torch.ops.mkldnn._linear_pointwise(
                x, self.weight, self.bias, 'gelu' if gelu else 'none', [], 'none')
        x = super().forward(x)
        return F.gelu(x) if gelu else x


class Conv2d(nn.Conv2d):
    """A convolution; its parameters are those of `nn.Conv2d`."""

    def forward(self, x: Tensor, relu: bool = False, plus: Tensor | None = None) -> Tensor:
        """Return x [N, channels, h, w] convolved, ``plus`` added or negative values cut off."""
        if calls_onednn(x):
            where = self.padding, self.stride, self.dilation, self.groups
            if plus is not None:
                return torch.ops.mkldnn._convolution_pointwise.binary(
                    x, plus, self.weight, self.bias, *where, 'add', None, None, [], None)
            return torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, *where, 'relu' if relu else 'none', [], '')
        x = super().forward(x)
        if plus is not None:
            return x + plus
        return F.relu(x) if relu else x


def calls_onednn(x: Tensor) -> bool:
    """Return whether x goes to oneDNN directly: on a CPU that can, if nobody traces or trains."""
    return (x.device.type == 'cpu' and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled('cpu') and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing() and onednn_works(x.dtype))


@cache
def onednn_works(dtype: torch.dtype) -> bool:
    """Try what is called here once: the operators are torch's own, but not promised to anybody."""
    try:
        with torch.inference_mode():
            ones = torch.ones(1, 16, 4, 4, dtype=dtype)
            rows = ones.flatten(2)[0]
            weight = rows[:1, :, None, None].expand(16, 16, 1, 1).contiguous()
            linear = torch.ops.mkldnn._linear_pointwise(rows, rows, None, 'gelu', [], 'none')
            where = (0, 0), (1, 1), (1, 1), 1
            convolved = torch.ops.mkldnn._convolution_pointwise(
                ones, weight, None, *where, 'relu', [], '')
            added = torch.ops.mkldnn._convolution_pointwise.binary(
                ones, ones, weight, None, *where, 'add', None, None, [], None)
            return bool((linear.round() == 16).all() and (convolved == 16).all()
                        and (added == 17).all())
    except (AttributeError, RuntimeError, TypeError):
        return False
