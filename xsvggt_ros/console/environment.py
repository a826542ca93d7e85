"""What the results of a command were made with: version and device."""

from importlib.metadata import PackageNotFoundError, version
import os
from pathlib import Path
import platform
import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:   # it takes a second or two, in which Ctrl-C would not be quiet
    import torch


def device_name(device: 'torch.device') -> str:
    """Return what a person calls the device: the model of the CPU or the GPU."""
    if device.type == 'cuda':
        from torch.cuda import get_device_name

        return get_device_name(device)
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


def own_command() -> str:
    """Return how `xsvggt` is called from this shell: by its path where it is not on PATH."""
    beside = Path(sys.executable).with_name('xsvggt')
    if shutil.which('xsvggt') is not None or not beside.exists():
        return 'xsvggt'
    path = os.path.relpath(beside)
    return str(beside) if path.startswith('..') else path
