"""
A Triton kernel for one token through a linear layer with int8 weights.

The weights are read once, as bytes, which is all such a product costs. Importing this module needs
Triton; `availability.why_not` tells whether it will do. The kernel is checked against PyTorch in
Triton's interpreter and compiled for several GPUs, both on a CPU: it has not run on a GPU yet.
"""

import torch
from torch import Tensor
import triton
import triton.language as tl

from xsvggt_ros.kernels.availability import interpreted

# Outputs and inputs per program; 8 outputs make 256 programs of the narrowest large layer (2048).
OUTPUTS, INPUTS = (256, 512) if interpreted() else (8, 512)


def product(
    x: Tensor, weights: Tensor, scales: Tensor, bias: Tensor | None = None, gelu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """
    Return x through the layer, bias added, then an exact (erf) GELU, or ``residual`` added.

    x: [..., inputs], one token. weights: int8 [outputs, inputs], contiguous, each row times its
    scale in ``scales`` [outputs, 1]. Summed in fp32; the result [..., outputs] has the type of
    ``residual`` if that is given, of x otherwise.
    """
    outputs, inputs = weights.shape
    if x.numel() != inputs or x.shape[-1] != inputs:
        raise ValueError(f'one token of {inputs} channels is wanted, got {list(x.shape)}')
    if not weights.is_contiguous() or weights.dtype != torch.int8:
        raise ValueError('the weights must be int8 and contiguous')
    out = torch.empty(*x.shape[:-1], outputs, device=x.device,
                      dtype=x.dtype if residual is None else residual.dtype)
    _product[(triton.cdiv(outputs, OUTPUTS),)](
        x.contiguous(), weights, scales, x if bias is None else bias,
        x if residual is None else residual.contiguous(), out, inputs, outputs,
        BIAS=bias is not None, GELU=gelu, RESIDUAL=residual is not None, OUTPUTS=OUTPUTS,
        INPUTS=INPUTS, num_warps=4)
    return out


@triton.jit
def _product(
    x, weights, scales, bias, residual, out, inputs, outputs,
    BIAS: tl.constexpr, GELU: tl.constexpr, RESIDUAL: tl.constexpr,
    OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):
    row = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    there = row < outputs
    address = weights + row.to(tl.int64)[:, None] * inputs
    # Summed across a row once, at the end.
    sums = tl.zeros((OUTPUTS, INPUTS), tl.float32)
    for start in range(0, inputs, INPUTS):
        channel = start + tl.arange(0, INPUTS)
        inside = channel < inputs
        token = tl.load(x + channel, mask=inside, other=0.0).to(tl.float32)
        read = tl.load(address + channel[None, :], mask=there[:, None] & inside[None, :], other=0)
        sums += read.to(tl.float32) * token[None, :]
    result = tl.sum(sums, 1) * tl.load(scales + row, mask=there, other=0.0).to(tl.float32)
    if BIAS:
        result += tl.load(bias + row, mask=there, other=0.0).to(tl.float32)
    if GELU:
        result = 0.5 * result * (1 + tl.erf(result * 0.7071067811865476))
    if RESIDUAL:
        result += tl.load(residual + row, mask=there, other=0.0).to(tl.float32)
    tl.store(out + row, result.to(out.dtype.element_ty), mask=there)
