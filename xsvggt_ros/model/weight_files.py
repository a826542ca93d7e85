"""Files of weights: opened without running code, and named when they are something else."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
import ctypes
from dataclasses import dataclass
from functools import cache
import json
import mmap
from pathlib import Path
import sys
from typing import Any
import warnings
import zipfile

from safetensors import safe_open, SafetensorError
import torch
from torch import Tensor

from xsvggt_ros.model import error_table
from xsvggt_ros.model.public_weights import networks, where_to_get_weights

CONFIG_KEY = 'xsvggt_config'  # metadata entry of a .safetensors file
TRAINING_KEY = 'training'  # another one: in which scenes the weights were trained
WRAPPERS = ('model', 'state_dict', 'model_state_dict')  # of training scripts
MAX_NESTING = 8  # wrappers in wrappers
PREFIX = 'module.'  # left by data-parallel training
# What numbers may be, as .safetensors files call it, and torch.
FLOATS = {'F64': torch.float64, 'F32': torch.float32, 'F16': torch.float16, 'BF16': torch.bfloat16}
MAX_CHARACTERS = 200  # characters of a text from a file that are shown to people
# What files begin with that get the name of a checkpoint now and then.
BEGINNINGS = (
    (b'version https://git-lfs', 'a Git LFS pointer, not the file itself: run git lfs pull'),
    (b'<', 'a web page'), (b'{', 'JSON'), (b'\x93NUMPY', 'a NumPy array'),
    (b'\x1f\x8b', 'compressed by gzip'), (b'\x89HDF', 'an HDF5 file'),
    (b'\x89PNG', 'a PNG image'), (b'\xff\xd8\xff', 'a JPEG image'), (b'\x7fELF', 'a program'),
    (b'GGUF', 'a GGUF file'), (b'\x08', 'perhaps an ONNX file'))

Shapes = Mapping[str, tuple[int, ...]]


class CheckpointError(Exception):
    """Weights that cannot be had; the message is for the person who named them."""


@dataclass(frozen=True)
class Source:
    """An open checkpoint; tensors are read when asked for."""

    path: Path
    shapes: Shapes
    read: Callable[[str], Tensor]
    odd: Mapping[str, str]  # what tensors are that are not made of floats, by key
    config: str | None = None  # JSON that was stored with the weights
    training: str | None = None  # what the weights say of where they come from
    depth_errors: str | None = None  # and of what their confidences mean, see `error_table`
    release: Callable[[Tensor], None] = lambda weight: None  # of one that was read and copied


def short(text: object, longest: int = MAX_CHARACTERS) -> str:
    """Return a text of unknown origin in one line of printable characters, cut if it is long."""
    text = str(text)
    line = ''.join(c if c.isprintable() else ' ' for c in ' '.join(text[:4 * longest].split()))
    return line if len(line) <= longest and len(text) <= 4 * longest else line[:longest] + '...'


def named_file(name: str) -> Path:
    """Return the path that a person gave, ~ spelled out; raise CheckpointError."""
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise CheckpointError(f'{short(name)}: {error}') from error


@contextmanager
def open_checkpoint(path: Path) -> Iterator[Source]:
    """Open a checkpoint of either format; raise CheckpointError if that cannot be done."""
    if path == Path():
        raise CheckpointError(f'no checkpoint was named. {where_to_get_weights()}')
    try:
        if not path.exists():
            raise CheckpointError(f'there is no checkpoint {path}. {where_to_get_weights()}')
    except (OSError, ValueError) as error:  # too long, no permission, a zero in it
        reason = getattr(error, 'strerror', None) or error
        raise CheckpointError(f'{short(path)} cannot be opened: {reason}') from error
    if not path.is_file():
        raise CheckpointError(f'{path} is not a file; name the checkpoint file itself '
                              '(.safetensors, .pt or .pth)')
    if path.suffix == '.safetensors':
        with _open_safetensors(path) as source:
            yield source
    elif path.suffix in ('.pt', '.pth'):
        yield _open_pickled(path)
    else:
        raise CheckpointError(f"{path}: a checkpoint's name must end in .safetensors, .pt or .pth")


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Source]:
    """Open a .safetensors file."""
    try:
        opened = safe_open(path, framework='pt')
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, str(error)) from error
    with opened:
        slices = {key: opened.get_slice(key) for key in opened.keys()}
        shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
        odd = {key: part.get_dtype() for key, part in slices.items()
               if part.get_dtype() not in FLOATS}
        notes = opened.metadata() or {}
        yield Source(path, shapes, opened.get_tensor, odd, notes.get(CONFIG_KEY),
                     notes.get(TRAINING_KEY), notes.get(error_table.KEY), release_pages)


def _open_pickled(path: Path) -> Source:
    """Open a .pt or .pth file; only tensors are taken from it, no code is run."""
    try:
        content, mapped = _load_pickled(path)
    except Exception as error:  # a pickle of nonsense raises whatever its reader stumbles over
        reason = 'it holds other things than tensors, or is none'
        # Other texts explain how to run code from the file, which is no advice to pass on, or
        # mean nothing to whoever named it.
        if isinstance(error, (RuntimeError, EOFError, OSError)) \
                and 'weights_only' not in str(error):
            reason = str(error)
        raise _unreadable(path, reason) from error
    weights = _unwrap(content)
    shapes = {key: tuple(weight.shape) for key, weight in weights.items()}
    odd = {key: kind for key, weight in weights.items() if (kind := _oddness(weight))}
    # pop: what was read needs no memory any more
    release = release_pages if mapped else lambda weight: None
    return Source(path, shapes, weights.pop, odd, release=release)


def _load_pickled(path: Path) -> tuple[Any, bool]:
    """Return what a .pt or .pth file holds, and whether its tensors are mapped into memory."""
    with path.open('rb') as file:
        mappable = file.read(2) == b'PK'  # files older than torch 1.6 are no zip archives
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of torch, about what it cannot read
        return torch.load(
            path, map_location='cpu', mmap=mappable, weights_only=True), mappable


def release_pages(weight: Tensor) -> None:
    """
    Give back the memory of a tensor that is a window into a mapped file.

    Whoever reads it again has it read from the file again. Without that the pages of a whole
    checkpoint stay in the process until it needs memory for something else.
    """
    if sys.platform != 'linux' or not weight.is_contiguous():
        return
    start, page = weight.data_ptr(), mmap.PAGESIZE
    first = -(-start // page) * page
    length = (start + weight.nbytes) // page * page - first
    if length > 0:
        _libc().madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _oddness(weight: Tensor) -> str:
    """Return what a tensor is if not an array of floats."""
    if weight.layout != torch.strided or weight.is_quantized:
        return 'sparse' if weight.layout != torch.strided else 'quantised'
    if weight.device.type == 'meta':
        return 'without numbers (device meta)'
    return '' if weight.dtype in FLOATS.values() else str(weight.dtype).removeprefix('torch.')


def _unwrap(content: Any) -> dict[str, Tensor]:
    """Return the weights inside what training scripts wrap around them."""
    for _ in range(MAX_NESTING):
        inner = [content[name] for name in WRAPPERS
                 if isinstance(content, Mapping) and isinstance(content.get(name), Mapping)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, Mapping):
        return {}
    weights = {key: weight for key, weight in content.items()
               if isinstance(key, str) and isinstance(weight, Tensor)}
    if weights and all(key.startswith(PREFIX) for key in weights):
        weights = {key[len(PREFIX):]: weight for key, weight in weights.items()}
    return weights


def _unreadable(path: Path, reason: str) -> CheckpointError:
    """Return the error for a file that is no checkpoint, or only a part of one."""
    kind = kind_of_file(path)
    if kind:
        return CheckpointError(
            f'{path} ({path.stat().st_size} bytes) cannot be read as a checkpoint: it is {kind}. '
            f'What is needed are weights of {networks()}, as torch.save or '
            'safetensors writes them; download or copy it again, or name another file')
    reason = short(reason.strip().split('\n')[0]) or 'it ends too early'
    return CheckpointError(
        f'{path} ({path.stat().st_size} bytes) cannot be read as a checkpoint: {reason}. The file '
        'is damaged, incomplete or something else; download or copy it again and compare its size')


def kind_of_file(path: Path) -> str:
    """Return what a file is that is no checkpoint; empty if that is not clear."""
    with path.open('rb') as file:
        beginning = file.read(64)
    if not beginning:
        return 'empty'
    if path.suffix != '.safetensors' and beginning[8:10] == b'{"':
        return 'of the format safetensors: rename it to .safetensors'
    if beginning.startswith(b'PK'):
        if path.suffix == '.safetensors':
            return 'of the format of torch.save, or another archive: rename it to .pth'
        return _kind_of_archive(path)
    if beginning.startswith(b'\x80') and path.suffix == '.safetensors':
        return 'of the format of torch.save: rename it to .pth'
    return next((kind for start, kind in BEGINNINGS if beginning.lstrip().startswith(start)), '')


def _kind_of_archive(path: Path) -> str:
    """Return what a zip archive is that torch cannot load; empty if it is one of torch's."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {Path(name).name for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return ''
    if 'constants.pkl' in names:
        return 'a TorchScript program: save the state_dict of the network in it'
    if 'data.pkl' in names:
        return ''
    numpy = bool(names) and all(name.endswith('.npy') for name in names)
    return 'an archive of NumPy arrays' if numpy else 'a zip archive of other things'


def read_json(path: Path, most_bytes: int = 1 << 20) -> Any:
    """Return what a JSON file holds; raise ValueError, or OSError."""
    with path.open('rb') as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f'it is larger than {most_bytes} bytes')
    return parse_json(content.decode('utf-8-sig'))


def parse_json(text: str) -> Any:
    """Return what a JSON text says; raise ValueError."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError('it is nested too deeply') from error
