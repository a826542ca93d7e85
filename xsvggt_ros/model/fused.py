"""Linear layers and convolutions, together with what comes after them where one call does both."""

import torch
from torch import nn, Tensor
import torch.nn.functional as F

from xsvggt_ros.kernels import native, onednn


class Linear(nn.Linear):
    """A linear layer; its parameters are those of `nn.Linear`."""

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision in which the layer computes, which its input must have."""
        return self.weight.dtype

    def forward(self, x: Tensor, gelu: bool = False, residual: Tensor | None = None) -> Tensor:
        """
        Return [..., out] for x [..., in], after an exact (erf) GELU or with ``residual`` added.

        residual may be more precise, and the result then is.
        """
        if native.takes_row(x, self.weight, self.bias, residual):
            return native.row(x, self.weight, self.bias, gelu, residual)
        if onednn.suits_linear(x, self.weight):
            if residual is None or residual.dtype == x.dtype:
                return onednn.linear(x, self.weight, self.bias, gelu, residual)
            return residual + onednn.linear(x, self.weight, self.bias)
        x = super().forward(x)
        if residual is not None:
            return residual + x
        return F.gelu(x) if gelu else x


class Conv2d(nn.Conv2d):
    """A convolution; its parameters are those of `nn.Conv2d`."""

    def forward(self, x: Tensor, relu: bool = False, residual: Tensor | None = None) -> Tensor:
        """Return x [N, channels, h, w] convolved, then ``residual`` added or a ReLU."""
        if onednn.suits(x):
            where = self.padding, self.stride, self.dilation, self.groups
            return onednn.convolve(x, self.weight, self.bias, where, relu, residual)
        x = super().forward(x)
        if residual is not None:
            return x + residual
        return F.relu(x) if relu else x
