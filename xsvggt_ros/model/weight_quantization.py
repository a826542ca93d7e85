"""
Linear layers whose weights are stored in 8 bits, one scale for each output channel.

int8 is about the weights alone: what goes through a layer keeps its precision, and the numbers are
made floats again on the way. int8_dynamic and fp8 round what goes through as well, one scale for
each token, and multiply in 8 bits: int8_dynamic on a CPU, fp8 on a GPU; fp8 has been computed on a
CPU only, where torch has the same operator.
"""

from collections.abc import Callable
import ctypes
from functools import cache

import torch
from torch import nn, Tensor
import torch.nn.functional as F

from xsvggt_ros.kernels import onednn, rounded
from xsvggt_ros.model.fused import Linear

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
FP8_CAPABILITY = (8, 9)  # of a CUDA device: Ada, Hopper and newer multiply fp8
# So many weights are made floats at once on a CPU: what they are made of stays in its caches.
# 2048 x 8192 for one token in fp32, two cores of a Zen 5: 1.0 ms, 1.8 ms with stored floats.
AT_ONCE = 1 << 21
# `kernels.gemv.product` on a GPU, one token through int8 weights.
Product = Callable[..., Tensor]


class QuantisedLinear(nn.Module):
    """
    A linear layer that keeps no floats of its weights; it is called like `fused.Linear`.

    dtype: the precision in which it computes. It has no state dict: what was rounded is not a
    checkpoint, and what is loaded must be rounded anew.
    """

    values: Tensor  # [out, in]
    scale: Tensor  # [out, 1]
    bias: Tensor | None

    def __init__(self, linear: Linear) -> None:
        """Round the weights of a layer; its precision is kept."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.dtype = linear.weight.dtype
        values, scale = self.round(linear.weight.detach())
        self.register_buffer('values', values, persistent=False)
        self.register_buffer('scale', scale, persistent=False)
        bias = None if linear.bias is None else linear.bias.detach()
        self.register_buffer('bias', bias, persistent=False)
        self.set_dtype(self.dtype)

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Compute in this precision; the weights stay as they are."""
        self.dtype = dtype
        if self.bias is not None:
            self.bias = self.bias.to(dtype)

    @staticmethod
    def round(weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights [out, in] as 8-bit numbers, and their scales [out, 1]."""
        raise NotImplementedError

    def product(self, x: Tensor) -> Tensor:
        """Return x [rows, in] through the layer, bias added, [rows, out]."""
        raise NotImplementedError

    def forward(self, x: Tensor, gelu: bool = False, residual: Tensor | None = None) -> Tensor:
        """
        Return [..., out] for x [..., in], after an exact (erf) GELU or with ``residual`` added.

        residual may be more precise, and the result then is.
        """
        out = self.product(x.reshape(-1, self.in_features)).view(*x.shape[:-1], self.out_features)
        if residual is not None:
            return residual + out
        return F.gelu(out) if gelu else out

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        raise RuntimeError(f'{prefix[:-1]} is stored in 8 bits, and a network like that cannot be '
                           'saved or copied by its weights; keep the checkpoint it was made from')

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, local_metadata: dict, strict: bool,
        missing_keys: list, unexpected_keys: list, error_msgs: list,
    ) -> None:
        if any(key.startswith(prefix) for key in state_dict):
            error_msgs.append(f'{prefix[:-1]} is stored in 8 bits and takes no other weights; '
                              'load them into a new network')


class Int8Linear(QuantisedLinear):
    """A linear layer with int8 weights, symmetric about zero."""

    kernel: Product | None = None  # instead of `product`, for one token

    @staticmethod
    def round(weight: Tensor) -> tuple[Tensor, Tensor]:
        """
        Return int8 [out, in] and scales [out, 1] whose product is off by half a scale at most.

        The scales are the next larger numbers of bf16, so that in bf16 they are the same.
        """
        weight = weight.float()
        least = (weight.abs().amax(1, keepdim=True) / 127).clamp_min(1e-30)
        scale = least.bfloat16()
        above = torch.nextafter(scale, torch.full_like(scale, torch.inf))
        scale = torch.where(scale.float() < least, above, scale).float()
        return (weight / scale).round_().to(torch.int8), scale

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Compute in this precision; the weights stay as they are."""
        super().set_dtype(dtype)
        self.scale = self.scale.to(torch.bfloat16 if dtype == torch.bfloat16 else torch.float32)

    def forward(self, x: Tensor, gelu: bool = False, residual: Tensor | None = None) -> Tensor:
        """Return [..., out] for x [..., in], see `QuantisedLinear.forward`."""
        if self.kernel is not None and x.numel() == self.in_features:
            return self.kernel(x, self.values, self.scale, self.bias, gelu, residual)
        return super().forward(x, gelu, residual)

    def product(self, x: Tensor) -> Tensor:
        """Return x [rows, in] through the layer, bias added, [rows, out]."""
        scale = self.scale.view(-1)
        if suits_packed_product(x, self.values):
            out = torch.ops.aten._weight_int8pack_mm(x.contiguous(), self.values, scale)
            return out if self.bias is None else out + self.bias
        if x.dtype == torch.float16:  # whose range sums of 127s leave
            return F.linear(x, (self.values * self.scale).half(), self.bias)
        rows = self.out_features
        if x.device.type == 'cpu':
            rows = max(1, AT_ONCE // self.in_features)
        parts = [_linear(x, part.to(x.dtype)) for part in self.values.split(rows)]
        out = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return out * scale if self.bias is None else torch.addcmul(self.bias, out, scale)


class DynamicLinear(QuantisedLinear):
    """A linear layer that multiplies int8 by int8 on a CPU, see `kernels.rounded`."""

    def __init__(self, linear: Linear) -> None:
        """Round the weights of a layer; its precision is kept."""
        super().__init__(linear)
        bias = self.bias
        self.added: Tensor
        self.register_buffer('added', self.scale.new_zeros(self.out_features) if bias is None
                             else bias.float(), persistent=False)
        self.bias = None

    @staticmethod
    def round(weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return int8 [out, in], columns one after the other, and scales [out, 1] in fp32."""
        weight = weight.float()
        most = rounded.largest_weight() or rounded.MOST
        scale = (weight.abs().amax(1, keepdim=True) / most).clamp_min(1e-30)
        return (weight / scale).round_().to(torch.int8).t().contiguous().t(), scale

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Give results in this precision; the products are of integers always."""
        self.dtype = dtype

    def forward(self, x: Tensor, gelu: bool = False, residual: Tensor | None = None) -> Tensor:
        """Return [..., out] for x [..., in], see `QuantisedLinear.forward`."""
        rows = x.numel() // self.in_features
        if rows < rounded.MIN_ROWS or not rounded.allowed(x):
            return super().forward(x, gelu, residual)
        out = rounded.product(
            x.reshape(rows, -1), self.values, self.scale.view(-1), self.added, gelu,
            None if residual is None else residual.reshape(rows, -1))
        return out.view(*x.shape[:-1], self.out_features)

    def product(self, x: Tensor) -> Tensor:
        """Return x [rows, in] through weights that are made floats, bias added, [rows, out]."""
        out = F.linear(x.float(), self.values.float())
        return torch.addcmul(self.added, out, self.scale.view(-1)).to(x.dtype)


class Fp8Linear(QuantisedLinear):
    """A linear layer that multiplies fp8 by fp8 (e4m3), a scale for each token and channel."""

    @staticmethod
    def round(weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return fp8 numbers [rows, in] and scales [rows, 1] of weights, or of tokens."""
        weight = weight.float()
        scale = (weight.abs().amax(1, keepdim=True) / FP8_MAX).clamp_min(1e-12)
        return (weight / scale).to(FP8), scale

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Give results in this precision; the products are in fp8 always."""
        super().set_dtype(dtype)
        if self.bias is not None:
            self.bias = self.bias.bfloat16()  # which CUDA adds to such products

    def product(self, x: Tensor) -> Tensor:
        """Return x [rows, in] through the layer, bias added, [rows, out]."""
        values, scale = self.round(x)
        out = torch._scaled_mm(
            values, self.values.t(), scale, self.scale.t(), bias=self.bias,
            out_dtype=torch.bfloat16, use_fast_accum=x.device.type == 'cuda')
        return out.to(x.dtype)


# Which layers each choice stores, by the beginning of their names, and how. Outside of blocks only
# the camera head has a large one; the small ones around its pose stay as they are.
STORED: dict[str, dict[str, type[QuantisedLinear]]] = {
    'float': {},
    'int8_camera': {'camera_head.trunk.': Int8Linear,
                    'camera_head.poseLN_modulation.': Int8Linear},
    'int8': {'camera_head.trunk.': Int8Linear, 'camera_head.poseLN_modulation.': Int8Linear,
             'aggregator.': Int8Linear},
    'int8_dynamic': {'camera_head.trunk.': Int8Linear,
                     'camera_head.poseLN_modulation.': Int8Linear, 'aggregator.': DynamicLinear},
    'fp8': {'aggregator.': Fp8Linear}}
AUTO = 'auto'  # what `precision.choose_weights` makes of it
WEIGHTS = (AUTO, *STORED)


def check_weights(choice: str, device: torch.device | str) -> None:
    """Raise ValueError unless weights can be stored like that for a device."""
    if choice not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}; got '{choice}'")
    device = torch.device(device)
    if choice == 'int8_dynamic' and device.type != 'cpu':
        raise ValueError(f'weights int8_dynamic multiplies in 8 bits on a CPU, and the network is '
                         f'to run on {device}; choose fp8, int8 or float')
    if choice == 'int8_dynamic' and not rounded.works():
        raise ValueError('weights int8_dynamic needs products of 8 bits, which this CPU does not '
                         f'do exactly, or not with torch {torch.__version__}; choose int8 or '
                         'float')
    if choice != 'fp8':
        return
    if device.type != 'cuda':
        dynamic = 'int8_dynamic, ' if device.type == 'cpu' and rounded.works() else ''
        raise ValueError(f'weights fp8 needs a GPU that multiplies fp8 (Ada, Hopper or newer), '
                         f'and the network is to run on {device}; choose {dynamic}int8_camera, '
                         'int8 or float')
    if torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        raise ValueError(f'weights fp8 needs a GPU that multiplies fp8 (Ada, Hopper or newer), '
                         f'and {torch.cuda.get_device_name(device)} does not; choose int8_camera, '
                         'int8 or float')


def quantise_weights(model: nn.Module, choice: str, under: str = '') -> None:
    """
    Replace a network's linear layers, one by one, by those of a choice in `WEIGHTS`.

    under: only those in the part of this name. Fold the layer scales before. Layers that are
    stored in 8 bits already are left alone.
    """
    kinds = STORED[choice]
    if not kinds:
        return
    linear = {name: part for name, part in model.get_submodule(under).named_modules(prefix=under)
              if isinstance(part, Linear)}
    count = len(linear)
    for name in list(linear):
        for start, kind in kinds.items():
            if name.startswith(start):
                parent, _, own = name.rpartition('.')
                setattr(model.get_submodule(parent), own, kind(linear.pop(name)))
    if count:
        give_back_memory()


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of a network's weights, scales included."""
    return sum(tensor.nbytes for tensors in (model.parameters(), model.buffers())
               for tensor in tensors)


def give_back_memory() -> None:
    """
    Give the memory of freed floats back to the system.

    glibc keeps it in holes between what stays: the full network in int8 took 6.5 GB to load,
    instead of 1.9.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass  # another C library


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return x through floats, without a bias."""
    if onednn.suits_linear(x, weight):
        return onednn.linear(x, weight)
    return F.linear(x, weight)


def suits_packed_product(x: Tensor, values: Tensor) -> bool:
    """Return whether torch has an operator that reads int8 weights for x, and it is quicker."""
    return (x.device.type == 'cpu' and x.dtype == torch.bfloat16 and len(x) == 1
            and not (values.shape[0] % 16 or values.shape[1] % 16)
            and not torch.compiler.is_compiling() and packed_product_works())


@cache
def packed_product_works() -> bool:
    """Try torch's operator once: it is there, but promised to nobody."""
    try:
        with torch.inference_mode():
            x = torch.ones(1, 32, dtype=torch.bfloat16)
            values = torch.full((32, 32), 2, dtype=torch.int8)
            out = torch.ops.aten._weight_int8pack_mm(x, values, x[0] / 4)
            return bool((out == 16).all())
    except (AttributeError, RuntimeError, TypeError):
        return False
