"""
Faults inside of the node's process: what can be made to fail, and how. Loads nothing but Python.

`POINTS` names functions of the node by module and name; `install` puts a thin shell around each,
which does nothing until it is armed. A name that no longer exists raises, and a test calls
`install` on all of them, so that the table follows when the node changes.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
import errno
from functools import wraps
from importlib import import_module
import threading
from typing import Any

# What is patched: module, and name in it
POINTS = {
    'decode': ('xsvggt_ros.node.frame_processor', 'decode_set'),
    'prepare': ('xsvggt_ros.node.frame_processor', 'FrameProcessor._select_cameras'),
    'step': ('xsvggt_ros.engine.stream_engine', 'StreamEngine.step'),
    'network': ('xsvggt_ros.model.streamvggt', 'StreamVGGT.step'),
    'first frame': ('xsvggt_ros.model.streamvggt', 'StreamVGGT.first_frame'),
    'attention': ('xsvggt_ros.kv_cache.cache', 'KVCache.attend'),
    'camera head': ('xsvggt_ros.model.camera_head', 'CameraHead.forward'),
    'depth head': ('xsvggt_ros.model.dpt_head', 'DPTHead.forward'),
    'scale': ('xsvggt_ros.node.metric_scale', 'MetricScale.update'),
    'cloud': ('xsvggt_ros.node.outputs.frame_outputs', 'lay_out_cloud'),
    'messages': ('xsvggt_ros.node.outputs.stream_outputs', 'frame_outputs'),
    'odometry': ('xsvggt_ros.node.messages', 'odometry'),
    'transforms': ('xsvggt_ros.node.messages', 'transform'),
    'commit': ('xsvggt_ros.kv_cache.cache', 'KVCache.end_step'),
    'finish': ('xsvggt_ros.engine.stream_engine', 'StreamEngine.finish_frame'),
    'statistics': ('xsvggt_ros.engine.stream_engine', 'StreamEngine.pending_stats'),
    'cache status': ('xsvggt_ros.node.outputs.stream_outputs', 'cache_message'),
    'status': ('xsvggt_ros.node.status.stream_status', 'fill_report'),
    'map': ('xsvggt_ros.mapping.point_map', 'PointMap.add'),
    'map points': ('xsvggt_ros.mapping.point_map', 'PointMap.points'),
    'error handler': ('xsvggt_ros.node.pipeline', 'Pipeline.on_error'),
    'diagnostics': ('xsvggt_ros.node.supervisor', 'build_statuses'),
    'engine reset': ('xsvggt_ros.engine.stream_engine', 'StreamEngine.reset'),
    'begin': ('xsvggt_ros.node.pipeline', 'Pipeline.begin'),
    'load': ('xsvggt_ros.node.lifecycle', 'load_engine'),
    'publishers': ('xsvggt_ros.node.lifecycle', 'Publishers'),
    'write cloud': ('xsvggt_ros.mapping.map_files', '_write_ply'),
    'write way': ('xsvggt_ros.mapping.map_files', '_write_tum'),
    'name files': ('xsvggt_ros.mapping.map_files', '_take_names'),
}

# Those that every frame of a stream passes, in order
FRAME_POINTS = ('decode', 'prepare', 'step', 'network', 'attention', 'camera head', 'depth head',
                'scale', 'odometry', 'transforms', 'cloud', 'messages', 'commit', 'finish',
                'statistics', 'cache status', 'status', 'map')


@dataclass
class Armed:
    """A fault that waits for its function to be called."""

    effect: str
    left: int                        # calls that it is to spoil
    fired: Callable[[], None]        # is called at each
    released: threading.Event        # ends a hang


class Patches:
    """The shells around the functions, and what they are to do."""

    def __init__(self) -> None:
        """Begin with nothing armed."""
        self._armed: dict[str, Armed] = {}
        self._lock = threading.Lock()

    def install(self) -> None:
        """Put a shell around each function of `POINTS`; raises if one does not exist."""
        for point in POINTS:
            owner, name = locate(point)
            setattr(owner, name, self.shell(point, getattr(owner, name)))

    def arm(self, point: str, effect: str, times: int, fired: Callable[[], None]) -> None:
        """Have the next calls of a point end as `spoil` says; raises KeyError for another."""
        if point not in POINTS or effect not in EFFECTS:
            raise KeyError(f'{point}: {effect}')
        with self._lock:
            self._armed[point] = Armed(effect, times, fired, threading.Event())

    def release(self) -> None:
        """End what hangs, and forget what is armed."""
        with self._lock:
            armed, self._armed = self._armed, {}
        for one in armed.values():
            one.released.set()

    def shell(self, point: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does what the original does, until the point is armed."""
        @wraps(original, updated=())
        def shell(*args: Any, **settings: Any) -> Any:
            armed = self._take(point) if point in self._armed else None
            if armed is None:
                return original(*args, **settings)
            armed.fired()
            return spoil(armed, lambda: original(*args, **settings))

        return shell

    def _take(self, point: str) -> Armed | None:
        with self._lock:
            armed = self._armed.get(point)
            if armed is None or armed.left == 0:
                return None
            armed.left -= 1  # it stays: a hang has to be found to be released
            return armed


def locate(point: str) -> tuple[Any, str]:
    """Return where a point is, the module or class and the name in it; raises if it is gone."""
    module, path = POINTS[point]
    *parents, name = path.split('.')
    owner = import_module(module)
    for parent in parents:
        owner = getattr(owner, parent)
    getattr(owner, name)
    return owner, name


def spoil(armed: Armed, call: Callable[[], Any]) -> Any:
    """Do to one call of a function what was armed, and return what it returns."""
    effect = EFFECTS[armed.effect]
    if armed.effect == 'hang':
        armed.released.wait()
        return call()
    if isinstance(effect, str):  # of a result's fields
        return poisoned(call(), effect)
    if armed.effect == 'late exception':
        call()
    raise effect()


def _out_of_memory() -> Exception:
    import torch
    return torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')


# An exception, or what `poisoned` does
EFFECTS: dict[str, Callable[[], BaseException] | str] = {
    'exception': lambda: RuntimeError('an injected fault'),
    'late exception': lambda: RuntimeError('an injected fault, after the work was done'),
    'value error': lambda: ValueError('an injected fault'),
    'memory error': MemoryError,
    'out of memory': _out_of_memory,
    'exit': lambda: SystemExit(3),
    'generator exit': GeneratorExit,
    'disk full': lambda: OSError(errno.ENOSPC, 'No space left on device'),
    'hang': lambda: RuntimeError('released'),
    'nan': '*: nan',
    'nan depth': 'depth: nan', 'infinite depth': 'depth: inf',
    'nan confidence': 'depth_confidence: nan', 'nan pose': 'pose_encoding: nan',
    'zero rotation': 'pose_encoding: zero turn', 'huge position': 'pose_encoding: far',
    'nan field of view': 'pose_encoding: nan view',
}


def poisoned(result: Any, how: str) -> Any:
    """Return a tensor, or a dataclass of tensors, with some of it made unusable, as a copy."""
    name, _, what = how.partition(': ')
    if is_dataclass(result) and not isinstance(result, type):
        changed = {field.name: _spoilt(getattr(result, field.name), what)
                   for field in fields(result) if name in ('*', field.name)}
        if not changed:
            raise AttributeError(f'{type(result).__name__} has no {name}')
        return replace(result, **changed)
    if isinstance(result, tuple):
        return tuple(_spoilt(one, what) for one in result)
    return _spoilt(result, what)


def _spoilt(tensor: Any, what: str) -> Any:
    if not hasattr(tensor, 'is_floating_point') or not tensor.is_floating_point():
        return tensor
    if what in ('nan', 'inf'):
        flat = tensor.clone().flatten()
        flat[flat.numel() // 2] = float(what)  # one of all is enough
        return flat.view(tensor.shape)
    tensor = tensor.clone()
    part = {'zero turn': (slice(3, 7), 0.0), 'far': (slice(0, 3), 1e30),
            'nan view': (slice(7, 9), float('nan'))}[what]
    tensor[..., part[0]] = part[1]
    return tensor
