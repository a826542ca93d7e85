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

    def forward(self, x: Tensor, gelu: bool = False, plus: Tensor | None = None) -> Tensor:
        """
        Return [..., out] for x [..., in], after an exact (erf) GELU or with ``plus`` added.

        plus may be more precise, and the result then is.
        """
        if native.takes_row(x, self.weight, self.bias, plus):
            return native.row(x, self.weight, self.bias, gelu, plus)
        if onednn.suits_linear(x, self.weight):
            if plus is None or plus.dtype == x.dtype:
                return onednn.linear(x, self.weight, self.bias, gelu, plus)
            return plus + onednn.linear(x, self.weight, self.bias)
        x = super().forward(x)
        if plus is not None:
            return plus + x
        return F.gelu(x) if gelu else x


class Conv2d(nn.Conv2d):
    """A convolution; its parameters are those of `nn.Conv2d`."""

    def forward(self, x: Tensor, relu: bool = False, plus: Tensor | None = None) -> Tensor:
        """Return x [N, channels, h, w] convolved, ``plus`` added or negative values cut off."""
        if onednn.suits(x):
            where = self.padding, self.stride, self.dilation, self.groups
            return onednn.convolve(x, self.weight, self.bias, where, relu, plus)
        x = super().forward(x)
        if plus is not None:
            return x + plus
        return F.relu(x) if relu else x
