"""
Make the virtual environment `.venv` that `make demo` and `make test` run in.

Runs on a bare Python, and does nothing if `.venv` is up to date: `.venv/setup.json` notes what
each step was made from. A step that did not end is done again.
"""

from __future__ import annotations  # so that an old Python can still say that it is too old

import argparse
from contextlib import contextmanager
import fcntl
import hashlib
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
import time

from machine import (
    check_machine,
    clean_environment,
    has_cmake,
    has_nvidia_gpu,
    SetupError,
    torch_version,
)

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'
NOTE = VENV / 'setup.json'
LOG = VENV / 'setup.log'
# Not in site-packages: the generated xsvggt_ros would hide the checkout's package there. A .pth
# file puts this folder behind the checkout, and xsvggt_ros/__init__.py joins the two.
MESSAGES = VENV / 'lib' / 'ros_messages'

# From 25.3 on, pip answers a --dry-run from metadata, without downloading the wheels.
PIP = 'pip==26.3'
CMAKE = 'cmake==3.31.10'
TORCH = 'torch==2.13.0'
# 200 MB to download and 0.7 GB on disk, so only for the tests, which run its kernels in an
# interpreter. A torch for CUDA brings a triton of its own.
TRITON = 'triton==3.7.1'
TORCH_CPU_INDEX = 'https://download.pytorch.org/whl/cpu'


def main() -> int:
    """Bring `.venv` up to date, and return the exit status."""
    parser = argparse.ArgumentParser(description='Make the virtual environment of this checkout.')
    parser.add_argument('--torch', default='', help="the torch for pip to install, or 'none'")
    parser.add_argument('--torch-index', default='', help='package index to take torch from')
    parser.add_argument('--triton', action='store_true', help='install triton too, for tests')
    arguments = parser.parse_args()
    try:
        leave_virtual_environment()
        with one_at_a_time():
            Setup(arguments.torch, arguments.torch_index, arguments.triton).run()
    except SetupError as error:
        print(f'\n{error}\n', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nInterrupted: the next run goes on with the set-up.', file=sys.stderr)
        return 130
    return 0


def leave_virtual_environment() -> None:
    """
    Go on in the interpreter that the active virtual environment, if any, was made from.

    It may be our own, which cannot be made anew from within.
    """
    base = Path(sys.base_exec_prefix, 'bin', 'python{}.{}'.format(*sys.version_info))
    if sys.prefix != sys.base_prefix and base.exists():
        os.execve(base, [str(base), *sys.argv], clean_environment())


@contextmanager
def one_at_a_time():
    """Wait for another set-up of the same checkout, should one be running."""
    with open(__file__, 'rb') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('Waiting for another set-up of this checkout ...', flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Setup:
    """The steps that make `.venv`, and the note of what each was made from."""

    def __init__(self, torch: str, torch_index: str, triton: bool) -> None:
        """
        Take the choice of torch; both empty leave it to an earlier choice or the machine.

        triton: whether the tests of the kernels are to find what they need.
        """
        self.note = json.loads(NOTE.read_text()) if NOTE.exists() and PYTHON.exists() else {}
        earlier = self.note.get('torch') or ['', '']
        if not (torch or torch_index) and earlier[0] != 'none':
            torch, torch_index = earlier
        self.torch = [torch, torch_index]
        self.triton = triton
        self.cmake = [] if has_cmake() else [CMAKE]

    def run(self) -> None:
        """Do the steps whose inputs have changed since they were last done."""
        start = time.monotonic()
        files = ROOT / 'ci' / 'requirements.txt', ROOT / 'ci' / 'constraints.txt'
        steps = {
            'packages': (self.install_packages, fingerprint(
                sys.version_info[:2], os.path.realpath(sys.executable), str(ROOT), PIP,
                self.cmake, *map(content, files))),
            'torch': (self.install_torch, self.torch),
            'checkout': (self.install_checkout, fingerprint(
                content(ROOT / 'setup.py'), content(ROOT / 'pyproject.toml'))),
            'messages': (self.build_messages, fingerprint(*message_sources())),
        }
        if self.triton and self.torch[0] != 'none':
            steps['triton'] = self.install_triton, [TRITON, *self.torch]
        if all(self.note.get(name) == inputs for name, (_, inputs) in steps.items()):
            return
        check_machine()
        if self.note.get('unfinished') in ('packages', 'torch', 'triton'):
            # pip was killed, anywhere in its work.
            self.note = {}
        for name, (action, inputs) in steps.items():
            if self.note.get(name) == inputs:
                continue
            self.note.pop(name, None)
            self.write_note(unfinished=name)
            try:
                action()
            except SetupError:
                self.write_note()
                raise
            self.note[name] = inputs
        self.check()
        self.write_note()
        print(f'.venv is ready ({time.monotonic() - start:.0f} s)', flush=True)

    def write_note(self, **extra: str) -> None:
        """Write down what is done, in one piece, if there is an environment to be noted."""
        if VENV.exists():
            draft = NOTE.with_suffix('.new')
            draft.write_text(json.dumps({**self.note, **extra}, indent=1))
            draft.replace(NOTE)

    def install_packages(self) -> None:
        """Make the environment from nothing, with the ROS 2 wheels and all else but torch."""
        self.note = {}
        shutil.rmtree(VENV, ignore_errors=True)
        VENV.mkdir()
        self.write_note(unfinished='packages')
        found = '' if any(self.torch) else torch_version(sys.executable)
        # Only for the torch that is there; other packages of the system stay out of the way.
        system = ['--system-site-packages'] if found else []
        version = '.'.join(map(str, sys.version_info[:3]))
        call(f'virtual environment (Python {version})',
             [sys.executable, '-m', 'venv', *system, VENV])
        pip_install('pip', PIP)
        pip_install('ROS 2 wheels and Python packages', *self.cmake,
                    '-r', ROOT / 'ci' / 'requirements.txt',
                    '-c', ROOT / 'ci' / 'constraints.txt')

    def install_torch(self) -> None:
        """Install the torch that was asked for, else the one that suits this machine."""
        requirement, index = self.torch
        if requirement == 'none':
            print('  torch: none, as asked; without it the network does not run')
            return
        found = '' if any(self.torch) else torch_version(PYTHON)
        if found:
            print(f'  torch: {found} is installed on this machine and is kept')
            return
        if not any(self.torch) and not has_nvidia_gpu() and brings_cuda(TORCH):
            print("  torch: no NVIDIA GPU is seen here, so PyTorch's own index for CPUs is used\n"
                  '         (make ... TORCH_INDEX=<index> or TORCH=<requirement> for another)')
            index = TORCH_CPU_INDEX
        requirement = requirement or TORCH
        pip_install(requirement, requirement, *(['--index-url', index] if index else []))

    def install_triton(self) -> None:
        """Install triton unless torch has brought it; the tests do without if that fails."""
        if call_quietly([PYTHON, '-c', 'import triton']):
            print('  triton: is there already')
            return
        try:
            pip_install(f'{TRITON}, for the tests of the kernels', '--no-deps', TRITON)
        except SetupError as error:
            print(f'{error}\n  triton: could not be installed; the tests of its kernels are '
                  'skipped')

    def install_checkout(self) -> None:
        """Make the checkout importable in place from any folder, with its console script."""
        os.environ['XSVGGT_BUILD_KERNELS'] = '0'  # which CMake builds, with the messages
        pip_install('xsvggt_ros, in place', '--no-deps', '--no-build-isolation', '-e', ROOT)
        site_packages = next((VENV / 'lib').glob('python3*/site-packages'))
        # Its name sorts behind that of the .pth file that pip has written for the checkout.
        (site_packages / 'xsvggt_ros_messages.pth').write_text(f'{MESSAGES}\n')

    def build_messages(self) -> None:
        """Build the messages, ours by the CMakeLists.txt that colcon uses."""
        shutil.rmtree(VENV / 'build', ignore_errors=True)
        shutil.rmtree(MESSAGES, ignore_errors=True)
        build_ros_package('tf2_msgs', ROOT / 'ci' / 'tf2_msgs')
        build_ros_package('xsvggt_ros', ROOT)

    def check(self) -> None:
        """Use what the node needs beside the checkout, as a last proof."""
        program = ('import numpy, rclpy, tf2_msgs.msg, xsvggt_ros.msg\n'
                   'rclpy.init()\n'
                   'node = rclpy.create_node("setup_check")\n'
                   'node.create_publisher(tf2_msgs.msg.TFMessage, "check_tf", 1)\n'
                   'node.create_publisher(xsvggt_ros.msg.CacheStatus, "check_status", 1)\n')
        if self.torch[0] != 'none':
            # Fails with a torch that was built for another NumPy.
            program += 'import torch\ntorch.from_numpy(numpy.zeros(1))\n'
        call('check', [PYTHON, '-c', program])


def message_sources() -> list[str]:
    """Return the names and contents of all that the build of the messages reads."""
    files = [ROOT / 'CMakeLists.txt', ROOT / 'package.xml', ROOT / 'ci' / 'ros_wheels.cmake',
             *sorted((ROOT / 'msg').glob('*.msg')),
             *sorted((ROOT / 'xsvggt_ros' / 'kernels').glob('*.cpp')),
             *sorted((ROOT / 'xsvggt_ros' / 'kernels').glob('*.h')),
             *sorted((ROOT / 'ci' / 'tf2_msgs').rglob('*.*'))]
    return [*map(str, files), *map(content, files)]


def build_ros_package(name: str, source: Path) -> None:
    """Configure, build and install one package into the environment, which is a ROS prefix."""
    environment = clean_environment(AMENT_PREFIX_PATH=str(VENV), CMAKE_PREFIX_PATH=str(VENV))
    environment['PATH'] = f'{VENV / "bin"}{os.pathsep}{environment["PATH"]}'
    cmake = shutil.which('cmake', path=environment['PATH'])
    build = VENV / 'build' / name
    call(f'messages of {name}: configure', [
        cmake, '-S', source, '-B', build, '-G', 'Unix Makefiles', '-DCMAKE_BUILD_TYPE=Release',
        f'-DCMAKE_INSTALL_PREFIX={VENV}', f'-DPYTHON_INSTALL_DIR={MESSAGES.relative_to(VENV)}',
        f'-DPython3_EXECUTABLE={PYTHON}', '-DBUILD_TESTING=OFF',
        # Links instead of copies, so that nothing here grows stale.
        '-DAMENT_CMAKE_SYMLINK_INSTALL=ON',
        f'-DCMAKE_PROJECT_INCLUDE={ROOT / "ci" / "ros_wheels.cmake"}'], environment)
    jobs = len(os.sched_getaffinity(0))
    call(f'messages of {name}: build', [cmake, '--build', build, f'-j{jobs}'], environment)
    call(f'messages of {name}: install', [cmake, '--install', build], environment)


def brings_cuda(requirement: str) -> bool:
    """Return whether pip, as it is set up here, would take a torch that needs CUDA packages."""
    answer = subprocess.run(
        [*pip_command(), '--dry-run', '--no-deps', '--quiet', '--report', '-', requirement],
        env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if answer.returncode != 0:
        return True
    metadata = json.loads(answer.stdout)['install'][0]['metadata']
    return any(line.startswith(('nvidia', 'cuda', 'triton')) and 'extra ==' not in line
               for line in metadata.get('requires_dist', []))


def pip_command() -> list:
    """Return the beginning of a `pip install` in the environment."""
    return [PYTHON, '-m', 'pip', '--disable-pip-version-check', 'install', '--no-input']


def pip_install(title: str, *arguments: str | Path) -> None:
    """Install into the environment with pip."""
    call(title, [*pip_command(), *arguments])


def call(title: str, command: list, environment: dict[str, str] | None = None) -> None:
    """Run a command with its output in the log; show the time that it takes, or its failure."""
    command = [str(part) for part in command]
    start = time.monotonic()
    with LOG.open('a') as log:
        log.write(f'\n$ {" ".join(command)}\n')
        log.flush()
        begin = log.tell()
        process = subprocess.Popen(command, cwd=VENV, env=environment or clean_environment(),
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        with process:
            while process.poll() is None:
                show(f'{title} ... {time.monotonic() - start:.0f} s', last=False)
                try:
                    process.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    continue
    show(f'{title} ({time.monotonic() - start:.1f} s)', last=True)
    if process.returncode != 0:
        with LOG.open() as log:
            log.seek(begin)
            lines = log.read().splitlines()[-30:]
        raise SetupError('\n'.join(['The last lines of what it said:', *lines, '',
                                    f'"{title}" failed (all of it: {LOG.relative_to(ROOT)}).']))


def call_quietly(command: list) -> bool:
    """Run a command and return whether it succeeds."""
    return subprocess.run(command, env=clean_environment(), stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0


def show(line: str, last: bool) -> None:
    """Write a line of progress: over the one before on a terminal, else only the last one."""
    if sys.stdout.isatty():
        print(f'\r\033[K  {line}', end='\n' if last else '', flush=True)
    elif last:
        print(f'  {line}', flush=True)


def fingerprint(*inputs: object) -> str:
    """Return a digest of what a step is made from."""
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def content(path: Path) -> str:
    """Return the text of a file, empty if there is none."""
    return path.read_text() if path.exists() else ''


if __name__ == '__main__':
    sys.exit(main())
