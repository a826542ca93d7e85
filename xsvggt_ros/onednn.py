"""
torch's own operators of oneDNN, called directly: what is quicker that way on a CPU.

torch gives fp32 matrix products to MKL, which takes twice as long on processors that are not
Intel's (197 tokens through 1024 x 3072 on one core of a Zen 4: 11.8 against 5.3 ms), and small
images to a convolution of its own. Results are the same to rounding.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

# One row through fewer weights than these is quicker without oneDNN, which takes 10 us to set up.
FEW_WEIGHTS = 1 << 20
# Attention head by head pays for few heads over much, on a CPU: 53 queries, 2 heads, 2101 keys
# take 0.41 instead of 0.71 ms. With many heads each of its operators has too little to do.
FEW_HEADS, MANY_KEYS = 4, 512


def suits_linear(x: Tensor, weight: Tensor) -> bool:
    """Return whether `linear` can be called, and is quicker."""
    single = x.numel() == x.shape[-1]
    return not (single and weight.numel() < FEW_WEIGHTS) and suits(x)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: bool = False) -> Tensor:
    """Return x [..., in] through weights [out, in], and through an exact (erf) GELU."""
    return torch.ops.mkldnn._linear_pointwise(
        x, weight, bias, 'gelu' if gelu else 'none', [], 'none')


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, where: tuple, relu: bool = False,
    plus: Tensor | None = None,
) -> Tensor:
    """
    Return x [N, channels, h, w] convolved, ``plus`` added or negative values cut off.

    where: padding, stride, dilation and groups.
    """
    if plus is not None:
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x, plus, weight, bias, *where, 'add', None, None, [], None)
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, *where, 'relu' if relu else 'none', [], '')


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax attention of queries [heads, tokens, d]; by oneDNN where that is quicker."""
    heads, tokens, channels = query.shape
    if (heads > FEW_HEADS or key.shape[1] < MANY_KEYS or tokens == 1
            or query.dtype != torch.float32 or not suits(query)):
        # The fused kernels take exactly four dimensions.
        return scaled_dot_product_attention(query[None], key[None], value[None])[0]
    out = query.new_empty(tokens, heads, channels)
    query = query * channels ** -0.5
    for head in range(heads):
        weights = linear(query[head], key[head]).softmax(dim=-1)
        out[:, head] = linear(weights, value[head].t())
    return out.transpose(0, 1)


def suits(x: Tensor) -> bool:
    """Return whether x is on a CPU whose oneDNN can be called, and nobody traces or trains."""
    return (x.device.type == 'cpu' and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled('cpu') and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing() and works(x.dtype))


@cache
def works(dtype: torch.dtype) -> bool:
    """Try what is called here once: torch has the operators, but promises them to nobody."""
    try:
        with torch.inference_mode():
            ones = torch.ones(1, 16, 4, 4, dtype=dtype)
            rows, weight = ones[0].flatten(1), torch.ones(16, 16, 1, 1, dtype=dtype)
            where = (0, 0), (1, 1), (1, 1), 1
            return all(bool((result.round() == expected).all()) for result, expected in (
                (linear(rows, rows, gelu=True), 16),
                (convolve(ones, weight, None, where, relu=True), 16),
                (convolve(ones, weight, None, where, plus=ones), 17)))
    except (AttributeError, RuntimeError, TypeError):
        return False
