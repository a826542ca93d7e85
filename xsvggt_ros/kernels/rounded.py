"""
Products of 8 bits for tokens that are rounded on their way in: quicker on CPUs that have them.

Each token has a scale of its own, found as it comes (dynamic quantisation), each channel of the
weights another one; sums are exact integers. A token whose largest number is more than `HEAVY`
times its root mean square would be rounded too coarsely: what its integers leave out is rounded
again and goes through the product as one more row, which makes 15 bits of 8.
"""

import ctypes
from functools import cache
import time

import torch
from torch import Tensor
import torch.nn.functional as F

from xsvggt_ros.kernels import native, onednn

# Largest number over root mean square. Rounding costs a token at most 16 / 127 / sqrt(12) = 3.6 %
# then; that of a normal distribution 0.8 %.
HEAVY = 16.0
MOST = 127
ROWS_AT_ONCE = 16  # rows beside the tokens come in so many: oneDNN prepares for each new number
MIN_ROWS = 16      # fewer tokens are quicker through weights that are made floats
GAIN = 0.75        # of the time in floats, below which products of 8 bits pay with what is around


def product(
    x: Tensor, values: Tensor, scale: Tensor, bias: Tensor, gelu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """
    Return tokens x [rows, in] through int8 weights, then an erf GELU, or with others added.

    values: int8 [out, in], whose columns lie one after the other; scale, bias: fp32 [out].
    residual: [rows, out]. Returns [rows, out] in the residual's precision, or in that of x.
    """
    integers, scales, again = round_tokens(x)
    sums = torch._int_mm(integers, values.t())
    return _finish(sums, scales, again, scale, bias, gelu, residual,
                   x.dtype if residual is None else residual.dtype)


def allowed(x: Tensor) -> bool:
    """Return whether `product` can be called for x: on a CPU, where nobody traces or trains."""
    return (x.is_cpu and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing())


def round_tokens(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """
    Return tokens x [rows, in] as integers, their scales, and where they are rounded again.

    int8 [rows and more, in], fp32 [rows], and int32 [rows]: the row with what the integers leave
    out, whose scale is a 254th; below 0 if there is none. What is no number has a scale that is
    none either.
    """
    if not _takes(x):
        return _round_portably(x)
    x = x.contiguous()
    rows, channels = x.shape
    integers = torch.empty(2 * rows + ROWS_AT_ONCE, channels, dtype=torch.int8)
    scales, again = torch.empty(rows), torch.empty(rows, dtype=torch.int32)
    count = ctypes.c_int32()
    native.called().xsvggt_round_rows(
        torch.get_num_threads(), rows, channels, x.data_ptr(), x.dtype is torch.bfloat16, HEAVY,
        integers.data_ptr(), scales.data_ptr(), again.data_ptr(), ctypes.byref(count))
    return _padded(integers, rows, count.value), scales, again


def _padded(integers: Tensor, rows: int, count: int) -> Tensor:
    """Return the first rows that are filled, and zeros up to a number that comes often."""
    whole = rows + -(-(count - rows) // ROWS_AT_ONCE) * ROWS_AT_ONCE
    if whole > count:
        integers[count:whole] = 0
    return integers[:whole]


def _round_portably(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = x.float()
    rows = len(x)
    top = x.abs().amax(1)
    scales = top.clamp_min(1e-30) / MOST
    twice = top.square() * x.shape[1] > HEAVY ** 2 * x.square().sum(1)
    first = _integers(x, 1 / scales)
    left = x[twice] - first[twice].float() * scales[twice, None]
    second = _integers(left, 2 * MOST / scales[twice])
    count = rows + len(second)
    integers = torch.cat([first, second, first.new_empty(ROWS_AT_ONCE, x.shape[1])])
    again = torch.full((rows,), -1, dtype=torch.int32)
    again[twice] = torch.arange(rows, count, dtype=torch.int32)
    return _padded(integers, rows, count), torch.where(top.isfinite(), scales, torch.nan), again


def _integers(x: Tensor, inverse: Tensor) -> Tensor:
    return (x * inverse[:, None]).round().nan_to_num(0).clamp(-MOST, MOST).to(torch.int8)


def _finish(
    sums: Tensor, scales: Tensor, again: Tensor, scale: Tensor, bias: Tensor, gelu: bool,
    residual: Tensor | None, dtype: torch.dtype,
) -> Tensor:
    """Return sums int32 [rows and more, out] as numbers of a precision, and what comes after."""
    rows, channels = len(scales), sums.shape[1]
    if native.allowed() and (residual is None or _takes(residual)) and dtype in native.PRECISIONS:
        added = None if residual is None else residual.contiguous()
        out = torch.empty(rows, channels, dtype=dtype)
        native.called().xsvggt_finish_rows(
            torch.get_num_threads(), rows, channels, sums.data_ptr(), scales.data_ptr(),
            again.data_ptr(), scale.data_ptr(), bias.data_ptr(), gelu,
            None if added is None else added.data_ptr(),
            added is not None and added.dtype is torch.bfloat16, out.data_ptr(),
            dtype is torch.bfloat16)
        return out
    whole = sums[:rows].float()
    twice = again >= 0
    whole[twice] += sums[again[twice].long()].float() / (2 * MOST)
    whole = torch.addcmul(bias, whole * scales[:, None], scale)
    if gelu:
        whole = F.gelu(whole)
    return (whole if residual is None else whole + residual).to(dtype)


def _takes(x: Tensor) -> bool:
    """Return whether native.cpp reads these numbers."""
    return x.is_cpu and x.dtype in native.PRECISIONS and native.allowed()


@cache
def largest_weight() -> int:
    """
    Return the largest integer that weights may be for sums to be right here; 0 if none are.

    127 on processors with VNNI and on arm64. x86 without it adds two products in 16 bits, which
    torch does not say: 127 times 127, 256 times, came out as 32,640. Weights of 7 bits fit there.
    """
    try:
        with torch.inference_mode():
            x = torch.full((MIN_ROWS, 256), MOST, dtype=torch.int8)
            x[1::2] = -MOST
            for most in (MOST, MOST // 2):
                weight = x.clamp(-most, most)
                if (torch._int_mm(x, weight.t()) == x.float() @ weight.float().t()).all():
                    return most
    except (AttributeError, RuntimeError, TypeError):
        pass
    return 0


def works() -> bool:
    """Return whether this torch and CPU give sums of products of 8 bits, and the right ones."""
    return largest_weight() > 0


@cache
def pays(dtype: torch.dtype) -> bool:
    """
    Return whether products of 8 bits are right here, and clearly quicker than in a precision.

    Found by products that take 20 ms in all. Without instructions for it torch takes a thousand
    times as long.
    """
    if native.library() is None or not (works() and onednn.works(dtype)):
        return False
    with torch.inference_mode():
        return _share_of(dtype) < GAIN


def _share_of(dtype: torch.dtype) -> float:
    """Return the time of a product in 8 bits over that in floats, the least of a few of each."""
    x, weight = torch.ones(128, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    integers, values = x.to(torch.int8), weight.to(torch.int8).t()
    taken: tuple[list[float], list[float]] = [], []
    for _ in range(6):
        for times, run in zip(taken, (lambda: onednn.linear(x, weight),
                                      lambda: torch._int_mm(integers, values))):
            begun = time.perf_counter()
            run()
            times.append(time.perf_counter() - begun)
        if taken[1][0] > 10 * taken[0][0]:
            break
    return min(taken[1]) / min(taken[0])
