"""Which precision a network runs in unless somebody chose one."""

import torch

from xsvggt_ros import onednn
from xsvggt_ros.model.config import ModelConfig

WIDE = 512  # channels from which bf16 pays on a CPU: small networks are busy with other things


def automatic_precision(
    device: torch.device, config: ModelConfig,
) -> tuple[torch.dtype, torch.dtype]:
    """
    Return the precision of a network on a device, and that of its heads.

    On a GPU 16 bits, heads in fp32. On a CPU fp32, but bf16, heads too, for wide networks on
    processors that multiply bf16.
    """
    if device.type == 'cuda':
        return (torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16,
                torch.float32)
    if config.embed_dim >= WIDE and cpu_multiplies_bf16():
        return torch.bfloat16, torch.bfloat16
    return torch.float32, torch.float32


def cpu_multiplies_bf16() -> bool:
    """Return whether the processor has instructions for it, and oneDNN may use them."""
    checks = ('_is_avx512_bf16_supported', '_is_amx_tile_supported')  # of torch since 2.6
    return any(getattr(torch.cpu, check, bool)() for check in checks) and onednn.multiplies_bf16()
