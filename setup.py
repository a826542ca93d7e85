"""
Build the C++ kernels when the Python part is installed with pip; the rest is in pyproject.toml.

colcon does not read this file: it builds the package, and its messages, by CMakeLists.txt. Both
build the same C++ kernels. Without a compiler, or with XSVGGT_BUILD_KERNELS=0 in the environment,
they are left out: everything works, and small networks are slower.
"""

import os
from pathlib import Path
import platform
import shutil
import subprocess
import sys

from setuptools import Command, Distribution, setup
from setuptools.command.build import build

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # before setuptools 70
    from wheel.bdist_wheel import bdist_wheel

KERNELS = Path('xsvggt_ros', 'kernels')
# As CMake does it. gnu++17 and not c++17: without GNU's products and sums are rounded apart.
FLAGS = ('-std=gnu++17', '-O3', '-DNDEBUG', '-fno-fast-math', '-fvisibility=hidden', '-fPIC',
         '-shared', '-Wall', '-Wextra', '-Wno-psabi')
LIBRARIES = {'x86_64': ('x86-64-v4', 'x86-64-v3'), 'amd64': ('x86-64-v4', 'x86-64-v3'),
             'aarch64': ('',), 'arm64': ('',)}  # by machine: for which processors


class Kernels(Command):
    """Build the C++ kernels, once for each kind of processor, if there is a compiler."""

    description = 'build the C++ kernels of small networks'
    user_options = []
    editable_mode = False  # set by setuptools

    def initialize_options(self) -> None:
        """Start with what `build` will say."""
        self.build_lib = None

    def finalize_options(self) -> None:
        """Take the folder of `build`."""
        self.set_undefined_options('build', ('build_lib', 'build_lib'))

    def run(self) -> None:
        """Build what can be built, and say what cannot."""
        if os.environ.get('XSVGGT_BUILD_KERNELS', '1') == '0':
            return
        compiler = os.environ.get('CXX', '').split() or [next(
            filter(None, map(shutil.which, ('c++', 'g++', 'clang++'))), '')]
        if not shutil.which(compiler[0]):
            self.warn('there is no C++ compiler, so the C++ kernels are left out, and small '
                      'networks will be slower; install one (g++) and install again')
            return
        for source, target in self.libraries():
            target.parent.mkdir(parents=True, exist_ok=True)
            architecture = target.stem.partition('_')[2]
            march = [f'-march={architecture}'] if architecture else []
            done = subprocess.run(
                [*compiler, *FLAGS, *march, str(source), '-o', str(target)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8')
            if done.returncode:
                target.unlink(missing_ok=True)
                self.warn(f'{target.name} could not be built and is left out:\n{done.stdout}')
            else:
                print(f'built {target}', file=sys.stderr)

    def libraries(self) -> list:
        """Return sources and targets."""
        folder = Path() if self.editable_mode else Path(self.build_lib)
        names = (f'native_{architecture}' if architecture else 'native'
                 for architecture in LIBRARIES.get(platform.machine().lower(), ()))
        return [(KERNELS / 'native.cpp', folder / KERNELS / f'{name}.so') for name in names]

    def get_source_files(self) -> list:
        """Return what a source distribution needs to build them."""
        return [str(KERNELS / 'native.cpp'), *map(str, sorted(KERNELS.glob('*.h')))]

    def get_outputs(self) -> list:
        """Return what was built."""
        return [str(target) for _, target in self.libraries() if target.exists()]

    def get_output_mapping(self) -> dict:
        """Return nothing: in an editable installation they are built where they stay."""
        return {}


class Build(build):
    """Build the kernels too."""

    sub_commands = [*build.sub_commands, ('build_kernels', None)]


class Wheel(bdist_wheel):
    """Name the machine that a wheel is for; any Python 3 takes it."""

    def get_tag(self) -> tuple:
        """Return the tags of Python, its binary interface and the platform."""
        return 'py3', 'none', super().get_tag()[2]


class Machine(Distribution):
    """Not for every machine, though no module is an extension of Python."""

    def has_ext_modules(self) -> bool:
        """Say so."""
        return True


setup(cmdclass={'bdist_wheel': Wheel, 'build': Build, 'build_kernels': Kernels},
      distclass=Machine)
