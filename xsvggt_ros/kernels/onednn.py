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
MIN_WEIGHTS = 1 << 20
# Attention of so many queries over so many keys gains from it; more queries do without a matrix of
# all weights. 197 queries, 16 heads, 2245 keys on one core: 11.6 instead of 21.5 ms; 1041 queries,
# 3089 keys: 86 instead of 144 ms.
MIN_KEYS, FUSED_QUERIES = 512, 768


def suits_linear(x: Tensor, weight: Tensor) -> bool:
    """Return whether `linear` can be called, and is quicker."""
    single = x.numel() == x.shape[-1]
    return not (single and weight.numel() < MIN_WEIGHTS) and suits(x)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """Return x [..., in] through weights [out, in], then an exact (erf) GELU, or added."""
    if residual is not None:
        return torch.ops.mkldnn._linear_pointwise.binary(x, residual, weight, bias, 'add')
    return torch.ops.mkldnn._linear_pointwise(
        x, weight, bias, 'gelu' if gelu else 'none', [], 'none')


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, where: tuple, relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """
    Return x [N, channels, h, w] convolved, ``residual`` added or negative values cut off.

    where: padding, stride, dilation and groups.
    """
    if residual is not None:
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x, residual, weight, bias, *where, 'add', None, None, [], None)
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, *where, 'relu' if relu else 'none', [], '')


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax attention of queries [heads, tokens, d]; by oneDNN where that is quicker."""
    tokens = query.shape[1]
    if (tokens == 1 or key.shape[1] < MIN_KEYS or query.dtype != torch.float32
            or not (suits(query) and takes_products())):
        return _fused_attention(query, key, value)
    settings = getattr(torch.backends.mkldnn, 'matmul')  # noqa: B009 (not in its stubs)
    before = settings.fp32_precision
    settings.fp32_precision = 'bf16'  # what this means is said in `takes_products`
    try:
        if tokens >= FUSED_QUERIES:
            return _fused_attention(query, key, value)
        weights = query.new_empty(len(query), tokens, key.shape[1])
        torch.baddbmm(weights, query, key.transpose(1, 2), beta=0, alpha=query.shape[2] ** -0.5,
                      out=weights)
        return torch.softmax(weights, -1, out=weights) @ value
    finally:
        settings.fp32_precision = before


def _fused_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return attention by torch's fused kernels, which take exactly four dimensions."""
    return scaled_dot_product_attention(query[None], key[None], value[None])[0]


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
                (linear(rows, rows, residual=rows), 17),
                (convolve(ones, weight, None, where, relu=True), 16),
                (convolve(ones, weight, None, where, residual=ones), 17)))
    except (AttributeError, RuntimeError, TypeError):
        return False


@cache
def takes_products() -> bool:
    """
    Return whether fp32 products of many matrices can be handed to oneDNN without loss.

    torch does so when it is allowed to compute them in bf16. oneDNN makes use of the permission
    only on processors with matrix units (AMX); on others it computes in fp32, quicker than MKL.
    """
    if not hasattr(getattr(torch.backends.mkldnn, 'matmul', None), 'fp32_precision'):
        return False
    with torch.inference_mode():
        x = torch.linspace(0.1, 1, 4 * 64 * 64).view(4, 64, 64)
        settings = getattr(torch.backends.mkldnn, 'matmul')  # noqa: B009 (not in its stubs)
        before = settings.fp32_precision
        settings.fp32_precision = 'bf16'
        try:
            product = x @ x
        finally:
            settings.fp32_precision = before
        exact = x.double() @ x.double()
        return bool(((product - exact).abs() / exact).max() < 1e-5)


@cache
def multiplies_bf16() -> bool:
    """
    Return whether oneDNN leaves products of bf16 to the processor's instructions for them.

    Those of x86 (AVX512-BF16 and AMX) take denormal numbers as zero, whatever the settings; where
    bf16 is made fp32 first, they count. That the processor has them is not enough: with
    ONEDNN_MAX_CPU_ISA=AVX512_CORE bf16 takes 2.7 times as long as fp32 on a Zen 4, not half.
    """
    if not works(torch.bfloat16):
        return False
    with torch.inference_mode():
        x = torch.full((64, 64), 2.0 ** -130, dtype=torch.bfloat16)
        weight = torch.full((64, 64), 2.0 ** 100, dtype=torch.bfloat16)
        return not linear(x, weight).any().item()
