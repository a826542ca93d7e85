"""What the results of a command were made with: version and device."""

from importlib.metadata import PackageNotFoundError, version
import platform

import torch


def device_name(device: torch.device) -> str:
    """Return what a person calls the device: the model of the CPU or the GPU."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as file:
            for line in file:
                if line.startswith('model name'):
                    return line.partition(':')[2].strip()
    except OSError:   # not Linux
        pass
    return platform.processor() or platform.machine()


def package_version() -> str:
    """Return the installed version, or words for where there is none."""
    try:
        return version('xsvggt_ros')
    except PackageNotFoundError:   # built by colcon, or run from the source tree
        return '(source tree)'
