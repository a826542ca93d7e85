"""The state of a run that was interrupted: written beside its results, read to go on with it."""

import os
from pathlib import Path
import pickle
from types import SimpleNamespace
from typing import Any

import torch

from xsvggt_ros.console.errors import ToolError

STATE_FILE = '.resume.pt'
VERSION = 8

# Whose classes a state may hold: what a run remembers, and nothing that starts processes.
_OWN = tuple(f'xsvggt_ros.{room}' for room in (
    'engine.', 'geometry.', 'images.', 'kv_cache.', 'mapping.', 'trajectory.', 'model.error_table',
    'recordings.base_frame', 'recordings.exports.', 'recordings.tracked_frames',
    'recordings.recording_scale', 'recordings.outputs', 'recordings.pipeline',
    'recordings.recording'))
# What it may hold beside them.
_ALLOWED = {
    'builtins': {'set', 'frozenset', 'complex', 'slice', 'range', 'bytes', 'bytearray'},
    'collections': {'OrderedDict', 'deque', 'Counter', 'defaultdict'},
    'pathlib': {'PosixPath', 'Path', 'PurePosixPath'},
    '_codecs': {'encode'},
    'torch._utils': {'_rebuild_tensor_v2', '_rebuild_parameter', '_rebuild_tensor'},
    'torch': {'device', 'dtype', 'Size', 'FloatStorage', 'LongStorage', 'ByteStorage',
              'IntStorage', 'BoolStorage', 'HalfStorage', 'BFloat16Storage', 'DoubleStorage',
              'CharStorage', 'ShortStorage', 'Generator'},
    'torch.storage': {'UntypedStorage', 'TypedStorage'},
    'torch.serialization': {'_get_layout'},
    'numpy': {'ndarray', 'dtype'},
    'numpy.random._pickle': {'__generator_ctor', '__bit_generator_ctor'},
    'numpy.random._pcg64': {'PCG64'},
}
_NUMPY = {'_reconstruct', 'scalar', '_frombuffer'}   # in numpy._core or numpy.core


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        own = module.startswith(_OWN) and '.' not in name
        numpy = module in ('numpy._core.multiarray', 'numpy.core.multiarray',
                           'numpy._core.numeric', 'numpy.core.numeric') and name in _NUMPY
        if own or numpy or name in _ALLOWED.get(module, ()):
            found = super().find_class(module, name)
            if not own or isinstance(found, type):
                return found
        if module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"it holds '{module}.{name}', which no state has")


_PICKLE = SimpleNamespace(Unpickler=_Unpickler, load=lambda file, **how: _Unpickler(
    file, **how).load(), __name__='pickle')


def save_state(folder: Path, settings: dict[str, Any], state: dict[str, Any]) -> None:
    """Write the state of a run in place of an earlier one, whole or not at all; raises OSError."""
    part = folder / f'{STATE_FILE}.part'
    try:
        torch.save({'version': VERSION, 'settings': settings, 'state': state}, part,
                   pickle_protocol=5)
        os.replace(part, folder / STATE_FILE)
    except (RuntimeError, TypeError, ValueError, pickle.PicklingError) as error:
        # Of torch for a full disk; or a fault of ours, which must not end the run.
        raise OSError(str(error)) from error
    finally:
        part.unlink(missing_ok=True)


def load_state(folder: Path, settings: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the state of a run with the same settings; raises ToolError."""
    path = folder / STATE_FILE
    if not path.exists():
        raise ToolError(f'--resume: {folder} has no run that was interrupted ({STATE_FILE}); '
                        'leave --resume out to begin one')
    try:
        with torch.inference_mode():
            content = torch.load(path, map_location=device, weights_only=False,
                                 pickle_module=_PICKLE)
        if content['version'] != VERSION:
            raise ValueError(f"it is of version {content['version']}, not {VERSION}")
        there, state = content['settings'], content['state']
    except Exception as error:   # of pickle and torch, for damaged bytes
        words = ' '.join(str(error).split())[:200] or type(error).__name__
        raise ToolError(f'--resume: {path} cannot be read: {words}; leave --resume out to begin '
                        'anew') from error
    changed = [f'{_option(name)} was {there.get(name)}, now {value}'
               for name, value in settings.items() if there.get(name) != value]
    if changed:
        raise ToolError(f'--resume: the run was begun with other options: {"; ".join(changed)}')
    return state


def _option(name: str) -> str:
    """Return how an option is called on the command line."""
    return 'INPUT' if name == 'input' else f'--{name.replace("_", "-")}'


def forget_state(folder: Path) -> None:
    """Remove the state of a run that is complete."""
    (folder / STATE_FILE).unlink(missing_ok=True)
