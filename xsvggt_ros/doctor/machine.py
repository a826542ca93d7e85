"""The machine, Python, torch, ROS and the libraries, looked at without starting anything."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
import os
from pathlib import Path
import platform
import shutil
import sys

import torch

from xsvggt_ros.console.environment import device_name, package_version
from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.demo.ros_environment import (
    OLD_PROFILE_VARIABLE,
    PROFILE_VARIABLE,
    require_ros,
)
from xsvggt_ros.doctor.finding import Finding
from xsvggt_ros.kernels import native

LEAST_PYTHON = (3, 10)
LEAST_MEMORY = 2 * 2 ** 30         # bytes
LEAST_SHARED_MEMORY = 128 * 2 ** 20   # bytes of /dev/shm: a few images on their way
_NVIDIA = ('/dev/nvidiactl', '/dev/nvhost-gpu', '/dev/nvgpu')
# Package and what for; its module where that has another name.
_LIBRARIES = (('matplotlib', 'pictures of runs', 'matplotlib'),
              ('pillow', 'images and compressed topics', 'PIL'),
              ('pyyaml', 'calibration files', 'yaml'),
              ('av', 'videos, H.264 in bags', 'av'),
              ('rosbags', 'bags', 'rosbags'),
              ('mcap', 'MCAP, read and written', 'mcap'),
              ('zstandard', 'packed bags', 'zstandard'),
              ('rerun-sdk', '--export rerun', 'rerun'))


def machine_findings() -> list[Finding]:
    """Return all that is found without loading the network."""
    return [python(), processor(), memory(), shared_memory(), torch_build(), *gpus(), kernels(),
            ros(), middleware(), *libraries()]


def python() -> Finding:
    """Look at Python and the package."""
    words = f'Python {platform.python_version()}, xsvggt_ros {package_version()}'
    if sys.version_info < LEAST_PYTHON:
        return Finding('python', 'error', words, 'Python 3.10 or later is needed')
    return Finding('python', 'ok', words)


def processor() -> Finding:
    """Look at the processor, and whether others use it."""
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    words = (f'{device_name(torch.device("cpu"))}, {cores} cores for this process, '
             f'{torch.backends.cpu.get_cpu_capability()}, load {load:.1f}')
    if load > 1.5 * cores:
        return Finding('processor', 'warning', words,
                       'other programs keep it busy: what is measured below is too slow')
    return Finding('processor', 'ok', words)


def memory() -> Finding:
    """Look at the machine's memory, and at that of its control group."""
    free, total = host_memory()
    words = f'{free / 2 ** 30:.1f} GB free of {total / 2 ** 30:.1f} GB'
    if free < LEAST_MEMORY:
        return Finding('memory', 'warning', words,
                       'small networks need about 1 GB, larger ones what stands under '
                       '"network memory"; end other programs')
    return Finding('memory', 'ok', words)


def host_memory() -> tuple[int, int]:
    """Return the bytes that this process may still take, and all that there are."""
    about = {}
    with open('/proc/meminfo', encoding='ascii') as file:
        for line in file:
            name, _, rest = line.partition(':')
            about[name] = int(rest.split()[0]) * 1024
    total, free = about['MemTotal'], about['MemAvailable']
    limit = _group_limit()
    if limit is not None and limit < total:
        total, free = limit, min(free, limit)
    return free, total


def _group_limit() -> int | None:
    try:
        text = Path('/sys/fs/cgroup/memory.max').read_text('ascii').strip()
        return None if text == 'max' else int(text)
    except (OSError, ValueError):
        return None


def shared_memory() -> Finding:
    """Look at /dev/shm, through which the middleware sends images."""
    try:
        free = shutil.disk_usage('/dev/shm').free
    except OSError as error:
        return Finding('shared memory', 'note', f'/dev/shm: {error}',
                       'images of other processes come over the network stack, more slowly')
    words = f'/dev/shm has {free / 2 ** 20:.0f} MB free'
    if free < LEAST_SHARED_MEMORY:
        return Finding('shared memory', 'warning', words,
                       'images get lost; in a container: --ipc=host or --shm-size=1g')
    return Finding('shared memory', 'ok', words)


def torch_build() -> Finding:
    """Look at torch, and whether it is the right one for this machine."""
    cuda = torch.version.cuda
    words = f'torch {torch.__version__}, ' + (f'CUDA {cuda}' if cuda else 'built for CPUs')
    has_gpu = any(map(os.path.exists, _NVIDIA))
    if has_gpu and not cuda:
        return Finding('torch', 'warning', words,
                       'there is an NVIDIA GPU, which this torch cannot use: pip install torch '
                       '--index-url https://download.pytorch.org/whl/cu126 (Jetson: '
                       'docs/jetson.md)')
    if cuda and has_gpu and not torch.cuda.is_available():
        return Finding('torch', 'error', f'{words}, but no GPU can be used',
                       'the driver is missing, too old for this CUDA, or not let into the '
                       'container: nvidia-smi tells')
    return Finding('torch', 'ok', words)


def gpus() -> list[Finding]:
    """Look at each GPU."""
    if not torch.cuda.is_available():
        return [Finding('GPU', 'note', 'none: the network runs on the CPU')]
    findings = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        major, minor = torch.cuda.get_device_capability(number)
        findings.append(Finding(
            'GPU', 'ok', f'cuda:{number} {torch.cuda.get_device_name(number)}, capability '
            f'{major}.{minor}, {free / 2 ** 30:.1f} of {total / 2 ** 30:.1f} GB free'))
    return findings


def kernels() -> Finding:
    """Look at the C++ kernels and Triton."""
    triton = _installed('triton')
    beside = f'; triton {triton}' if triton else '; no triton'
    reason = native.why_missing()
    if reason is not None:
        return Finding('kernels', 'warning', f'no C++ kernels{beside}', reason)
    library = 'C++ kernels' if native.library() is not None else 'no C++ kernels for this machine'
    return Finding('kernels', 'ok', library + beside)


def ros() -> Finding:
    """Look at ROS 2 and at our messages."""
    distribution = os.environ.get('ROS_DISTRO')
    try:
        require_ros()
    except ToolError as error:
        if distribution or find_spec('rclpy') is not None:
            return Finding('ROS 2', 'error', f'ROS_DISTRO is {distribution or "not set"}',
                           str(error))
        return Finding('ROS 2', 'note', 'not here: the node and the demo cannot run',
                       'reconstruct, batch, eval and bench work without it')
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    return Finding('ROS 2', 'ok', f'{distribution or "from wheels"}, domain {domain}')


def middleware() -> Finding:
    """Look at the middleware and its profile."""
    if find_spec('rclpy') is None:
        return Finding('middleware', 'note', 'none without ROS 2')
    name = os.environ.get('RMW_IMPLEMENTATION', 'default')
    profile = os.environ.get(PROFILE_VARIABLE) or os.environ.get(OLD_PROFILE_VARIABLE)
    if profile and not Path(profile).is_file():
        return Finding('middleware', 'error', f'{PROFILE_VARIABLE} is {profile}',
                       'there is no such file: Fast DDS goes on with its defaults, and loses '
                       'images')
    if name in ('default', 'rmw_fastrtps_cpp') and not profile:
        return Finding('middleware', 'warning', f'{name}, no profile of Fast DDS',
                       'images above 0.5 MB get lost on their way from the camera driver: '
                       f'export {PROFILE_VARIABLE}=.../config/fastdds.xml for it too')
    return Finding('middleware', 'ok', name + (f', {profile}' if profile else ''))


def libraries() -> list[Finding]:
    """Look at the libraries that only some commands need."""
    missing = [(package, purpose) for package, purpose, module in _LIBRARIES
               if find_spec(module) is None]
    there = [f'{package} {_installed(package)}' for package, _, module in _LIBRARIES
             if find_spec(module) is not None]
    findings = [Finding('libraries', 'ok', ', '.join(there) or 'none')]
    broken = [name for _, _, name in _LIBRARIES if find_spec(name) is not None
              and not _imports(name)]
    if broken:
        findings.append(Finding('libraries', 'error', f'cannot be imported: {", ".join(broken)}',
                                'install them again'))
    if missing:
        words = ', '.join(f'{package} ({purpose})' for package, purpose in missing)
        findings.append(Finding('libraries', 'note', f'not here: {words}', 'pip install '
                                + ' '.join(package for package, _ in missing)))
    return findings


def _imports(name: str) -> bool:
    try:
        import_module(name)
    except Exception:   # whatever a broken installation raises
        return False
    return True


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ''
