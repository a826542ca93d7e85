"""Whether the Triton kernels can run here; nothing in this module needs Triton."""

from importlib import import_module
from importlib.util import find_spec
import os
from types import ModuleType

import torch

# portable: PyTorch alone; triton: Triton or an error; auto: Triton where it runs.
CHOICES = ('portable', 'triton', 'auto')
MIN_CAPABILITY = (7, 5)  # of a CUDA device: what Triton compiles for


def interpreted() -> bool:
    """Return whether Triton runs kernels in Python, on the CPU, which is for tests only."""
    return os.environ.get('TRITON_INTERPRET', '0').lower() in ('1', 'true', 'on', 'y', 'yes')


def load(
    name: str, choice: str, device: torch.device | str, head_dim: int,
) -> ModuleType | None:
    """
    Return a module of kernels, 'packed', 'qkv' or 'gemv', or None for what PyTorch does itself.

    choice: one of `CHOICES`. On the device 'meta' there is nothing to run. Raises ValueError for
    'triton' where it does not run.
    """
    if choice not in CHOICES:
        raise ValueError(f"kernels must be one of {', '.join(CHOICES)}; got '{choice}'")
    if choice == 'portable' or torch.device(device).type == 'meta':
        return None
    reason = why_not(device, head_dim)
    if reason is None:
        return import_module(f'xsvggt_ros.kernels.{name}')
    if choice == 'triton':
        raise ValueError(f'the Triton kernels cannot be used: {reason}')
    return None


def why_not(device: torch.device | str, head_dim: int) -> str | None:
    """
    Return why the kernels cannot run on a device, None if they can.

    head_dim: channels of a head; a tile is made of halves of a head, 16 channels at least.
    """
    device = torch.device(device)
    if head_dim < 32 or head_dim & (head_dim - 1):
        return f'a head has {head_dim} channels, and the kernels take powers of two from 32 on'
    if device.type != ('cpu' if interpreted() else 'cuda'):
        return f'Triton does not run on the device {device.type}'
    if find_spec('triton') is None:
        return 'triton is not installed (python3 -m pip install triton)'
    try:
        import_module('triton')
    except (ImportError, OSError, RuntimeError) as error:
        return f'triton cannot be imported: {error}'
    if device.type == 'cuda' and torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        return f'the GPU {torch.cuda.get_device_name(device)} is too old for Triton'
    return None
