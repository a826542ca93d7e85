"""Which precision a network runs in, and on how many threads: one rule for node and commands."""

import torch

from xsvggt_ros.kernels import onednn, rounded
from xsvggt_ros.model.config import ModelConfig
from xsvggt_ros.model.network import StreamNetwork
from xsvggt_ros.model.threads import use_threads
from xsvggt_ros.model.weight_quantization import AUTO, give_back_memory

WIDE = 512  # channels from which bf16 pays on a CPU: small networks are busy with other things
PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def _named(name: str, device: torch.device) -> torch.dtype:
    """Return the precision of that name; 'auto': that of the device, whatever the network."""
    if name != 'auto':
        return PRECISIONS[name]
    if device.type != 'cuda':
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def choose_precision(
    name: str, device: torch.device, config: ModelConfig,
) -> tuple[torch.dtype, torch.dtype]:
    """
    Return the precision of a network on a device, and that of its heads.

    name: one of `PRECISIONS`, or 'auto'. On a GPU 16 bits unless another is named, heads in fp32.
    On a CPU heads are as the rest: what is named; or fp32, but bf16 for wide networks where the
    processor multiplies it.
    """
    dtype = _named(name, device)
    if device.type == 'cuda':
        return dtype, torch.float32
    if name == 'auto' and config.embed_dim >= WIDE and cpu_multiplies_bf16():
        dtype = torch.bfloat16
    return dtype, dtype


def choose_weights(
    name: str, precision: str | None, device: torch.device, config: ModelConfig,
) -> str:
    """
    Return how weights of a network are stored, one of `weight_quantization.STORED`.

    name: one of these, or 'auto': int8_dynamic for wide networks on CPUs that multiply in 8 bits
    clearly quicker (`rounded.pays`), where the precision is left open too; float elsewhere.
    """
    if name != AUTO:
        return name
    if device.type != 'cpu' or precision != AUTO or config.embed_dim < WIDE:
        return 'float'
    return 'int8_dynamic' if rounded.pays(choose_precision(AUTO, device, config)[0]) else 'float'


def make_ready(
    model: StreamNetwork, device: torch.device, dtype: str = 'auto', threads: int = 0,
) -> tuple[torch.dtype, torch.dtype]:
    """
    Give a network on a device its precision, and the process the threads for it.

    dtype: see `choose_precision`, whose result is returned; threads: see `use_threads`. The
    network's layer scales are folded (`StreamNetwork.fold_scales`).
    """
    precision = choose_precision(dtype, device, model.config)
    before = model.dtype
    model.fold_scales().set_dtype(*precision)
    if device.type == 'cpu' and precision[0] != before:
        give_back_memory()
    use_threads(threads, model)
    return precision


def cpu_multiplies_bf16() -> bool:
    """Return whether the processor has instructions for it, and oneDNN may use them."""
    checks = ('_is_avx512_bf16_supported', '_is_amx_tile_supported')  # of torch since 2.6
    return any(getattr(torch.cpu, check, bool)() for check in checks) and onednn.multiplies_bf16()
