"""What `bootstrap.py` has to know of the machine: its parts, its GPU, its torch, its variables."""

from __future__ import annotations  # so that an old Python can still say that it is too old

import importlib.util
import os
from pathlib import Path
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig

OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
OLDEST_CMAKE = (3, 20)

# They lead to the Python modules, libraries or packages of another environment, above all of a
# ROS 2 that was sourced in this shell.
FOREIGN_VARIABLES = (
    'PYTHONPATH', 'PYTHONHOME', 'AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH', 'COLCON_PREFIX_PATH',
    'VIRTUAL_ENV', '_ROS_WHEELS_BOOTSTRAP_COMPLETE', 'PIP_USER', 'PIP_TARGET', 'PIP_PREFIX',
)


class SetupError(Exception):
    """Tell the person in front of the terminal what is missing and what to do."""


def check_machine() -> None:
    """Raise SetupError that names every missing part of the machine and how to get it."""
    version = sys.version_info[:2]
    if not OLDEST_PYTHON <= version <= NEWEST_PYTHON:
        raise SetupError(
            f'Python {version[0]}.{version[1]} ({sys.executable}) is not supported: 3.10 to '
            '3.13 is needed.\nIf there is one under another name: make ... PYTHON=python3.12')
    if sys.platform != 'linux' or platform.machine() != 'x86_64' or not has_modern_glibc():
        raise SetupError(
            'The ROS 2 wheels that this environment is made of exist for x86_64 Linux with glibc '
            f'2.28 or newer only;\nthis is {platform.machine()} {platform.system()}, '
            f'{" ".join(platform.libc_ver()).strip() or "without glibc"}. On this machine build '
            'the package in a stock ROS 2\ninstallation instead: colcon build (see README.md).')
    missing = missing_parts(f'python{version[0]}.{version[1]}')
    if missing:
        raise SetupError(
            'Missing on this machine: ' + ', '.join(missing) + '.\n'
            'On Debian and Ubuntu this installs what is missing:\n\n    sudo apt-get install '
            + ' '.join(missing.values()))


def missing_parts(python: str) -> dict[str, str]:
    """Return the missing parts of the system: a name for people, and the Debian package."""
    parts = {
        f'the venv module of {python}': (f'{python}-venv', all(
            importlib.util.find_spec(name) for name in ('venv', 'ensurepip'))),
        f'the C headers of {python}': (f'{python}-dev', Path(
            sysconfig.get_paths()['include'], 'Python.h').exists()),
        'a C and C++ compiler': ('g++', find_compiler('CC', 'cc', 'gcc', 'clang')
                                 and find_compiler('CXX', 'c++', 'g++', 'clang++')),
        'make': ('make', shutil.which('make')),
    }
    return {part: package for part, (package, found) in parts.items() if not found}


def find_compiler(variable: str, *names: str) -> str | None:
    """Return the compiler that CMake would take: the variable's, else the first of the names."""
    chosen = shlex.split(os.environ.get(variable, ''))[:1]
    return next(filter(None, map(shutil.which, chosen or names)), None)


def has_modern_glibc() -> bool:
    """Return whether the C library is one that manylinux_2_28 wheels run on."""
    name, version = platform.libc_ver()
    return name == 'glibc' and tuple(map(int, re.findall(r'\d+', version)[:2])) >= (2, 28)


def has_cmake() -> bool:
    """Return whether the system's cmake is new enough."""
    cmake = shutil.which('cmake')
    if not cmake:
        return False
    answer = subprocess.run([cmake, '--version'], stdout=subprocess.PIPE, text=True)
    found = re.search(r'version (\d+)\.(\d+)', answer.stdout)
    return bool(found) and tuple(map(int, found.groups())) >= OLDEST_CMAKE


def has_nvidia_gpu() -> bool:
    """Return whether a driver here sees an NVIDIA GPU."""
    nvidia_smi = shutil.which('nvidia-smi') or '/usr/lib/wsl/lib/nvidia-smi'
    try:
        answer = subprocess.run([nvidia_smi, '-L'], stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and 'GPU ' in answer.stdout


def torch_version(python: str | Path) -> str:
    """Return the version of the torch that an interpreter imports, empty if it has none."""
    answer = subprocess.run(
        [python, '-c', 'import torch; print(torch.__version__)'], cwd=Path(python).parent,
        env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return answer.stdout.strip() if answer.returncode == 0 else ''


def clean_environment(**extra: str) -> dict[str, str]:
    """Return the environment variables without those of another environment, and with extra."""
    environment = {k: v for k, v in os.environ.items() if k not in FOREIGN_VARIABLES}
    prefixes = [prefix for name in ('AMENT_PREFIX_PATH', 'COLCON_PREFIX_PATH', 'VIRTUAL_ENV')
                for prefix in os.environ.get(name, '').split(os.pathsep) if prefix]
    libraries = [folder for folder in environment.pop('LD_LIBRARY_PATH', '').split(os.pathsep)
                 if folder and not any(f'{folder}/'.startswith(f'{p}/') for p in prefixes)]
    if libraries:
        environment['LD_LIBRARY_PATH'] = os.pathsep.join(libraries)
    return {**environment, **extra}


if __name__ == '__main__':  # for .ci/run: the Debian packages to install
    print(*missing_parts('python{}.{}'.format(*sys.version_info)).values())
