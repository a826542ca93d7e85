"""The file of a map's keyframes: safetensors, bounded, every number checked when it is read."""

import json
import os
from pathlib import Path
import secrets
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from xsvggt_ros.trajectory.keyframe import GRID, Keyframe
from xsvggt_ros.trajectory.landmark_map import LandmarkMap
from xsvggt_ros.trajectory.matching import Features
from xsvggt_ros.trajectory.projection import project

ENDING = '.landmarks.safetensors'
FORMAT, VERSION = 'xsvggt landmarks', 1
MOST_BYTES = 2 ** 26
MOST_KEYFRAMES, MOST_FEATURES = 4096, 2 ** 20
_LARGEST = 1e6           # of a length
_WIDEST = 2 ** 15        # pixels of an image
_CELLS = GRID[::-1]
# Of each array: type and shape, whose K are keyframes and N landmarks, one keyframe's after the
# other's; least and greatest number; whether some may be NaN.
_ARRAYS: dict[str, tuple[str, tuple[Any, ...], float, float, bool]] = {
    'poses': ('F64', ('K', 3, 4), -_LARGEST, _LARGEST, False),
    'cameras': ('F64', ('K', 3, 3), -_LARGEST, _LARGEST, False),
    'sizes': ('I32', ('K', 2), 1, _WIDEST, False),
    'counts': ('I32', ('K',), 1, MOST_FEATURES, False),
    'thumbnails': ('F32', ('K', *_CELLS), -1.001, 1.001, False),
    'depths': ('F32', ('K', *_CELLS), 0.0, _LARGEST, True),
    'descriptors': ('U8', ('N', 32), 0, 255, False),
    'points': ('F32', ('N', 3), -_LARGEST, _LARGEST, False),
    'variances': ('F32', ('N',), 0.0, 100.0, False),
}
_TYPES = {'F64': np.float64, 'F32': np.float32, 'I32': np.int32, 'U8': np.uint8}


class LandmarkFileError(ValueError):
    """A file of landmarks cannot be read; the message names it, and says what to do."""


def to_bytes(landmarks: LandmarkMap) -> bytes:
    """Return the content of a file; raises ValueError for a map without keyframes."""
    keyframes = landmarks.keyframes
    if not keyframes:
        raise ValueError('there are no keyframes with landmarks')
    arrays = {
        'poses': landmarks.poses[:, :3], 'cameras': [keyframe.camera for keyframe in keyframes],
        'sizes': [keyframe.size for keyframe in keyframes],
        'counts': [len(keyframe.points) for keyframe in keyframes],
        'thumbnails': [keyframe.thumbnail for keyframe in keyframes],
        'depths': [keyframe.depth for keyframe in keyframes],
        'descriptors': np.concatenate([keyframe.features.descriptors for keyframe in keyframes]),
        'points': np.concatenate([keyframe.points for keyframe in keyframes]),
        'variances': np.concatenate([keyframe.variance for keyframe in keyframes]),
    }
    typed = {name: np.ascontiguousarray(values, _TYPES[_ARRAYS[name][0]])
             for name, values in arrays.items()}
    return save(typed, {'format': FORMAT, 'version': str(VERSION),
                        'metric': 'yes' if landmarks.is_metric else 'no'})


def write_landmarks(path: Path, landmarks: LandmarkMap) -> None:
    """Write a file, or replace it, whole or not at all; raises OSError, ValueError as above."""
    content = to_bytes(landmarks)
    part = path.with_name(f'{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part')
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_landmarks(path: Path) -> LandmarkMap:
    """Return the map in a file; raises LandmarkFileError for one that is damaged or too large."""
    path = path.absolute()
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise LandmarkFileError(f'{path} is not a file: name {_beside(path)}')
        if size > MOST_BYTES:
            raise LandmarkFileError(f'{path} has {size} bytes, a file of landmarks at most '
                                    f'{MOST_BYTES}: name {_beside(path)}')
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, LandmarkFileError):
            raise
        reason = getattr(error, 'strerror', None) or error
        raise LandmarkFileError(f'{path} cannot be read: {reason}') from error
    try:
        return _map_of(content)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError,
            RecursionError) as error:
        if isinstance(error, SafetensorError) and path.suffix != '.safetensors':
            raise LandmarkFileError(f'{path} is no file of landmarks: name '
                                    f'{_beside(path)}') from error
        words = ' '.join(str(error).split())[:160] or type(error).__name__
        raise LandmarkFileError(f'{path} is damaged, or no file of landmarks: {words}; save the '
                                'map again, or name another file') from error


def _beside(path: Path) -> str:
    """Return which file is meant where a map's cloud or its folder was named, if it is there."""
    names = (path / f'map{ENDING}', path.with_name(path.stem + ENDING))
    return next((f'{name}, which is there' for name in names if name.is_file()),
                f'the {ENDING} file of a map')


def _map_of(content: bytes) -> LandmarkMap:
    """Return the map in a file's content; raises all kinds of errors if it is damaged."""
    arrays = load(content)   # checks all lengths against the content's
    header = json.loads(content[8:8 + int.from_bytes(content[:8], 'little')])
    notes = header.get('__metadata__') or {}
    if notes.get('format') != FORMAT:
        raise ValueError('it says nothing of landmarks')
    if notes.get('version') != str(VERSION):
        raise ValueError(f"it is of version {str(notes.get('version'))[:20]}, this program reads "
                         f'version {VERSION}')
    if set(arrays) != set(_ARRAYS):
        raise ValueError('it lacks arrays, or has others')
    keyframes, features = len(arrays['counts']), len(arrays['points'])
    if not 1 <= keyframes <= MOST_KEYFRAMES or not 1 <= features <= MOST_FEATURES:
        raise ValueError(f'it has {keyframes} keyframes and {features} landmarks')
    for name, values in arrays.items():
        _check(name, values, keyframes, features)
    ends = np.cumsum(arrays['counts'], dtype=np.int64)
    if ends[-1] != features:
        raise ValueError('its keyframes have more or fewer landmarks than there are')
    poses = np.tile(np.eye(4), (keyframes, 1, 1))
    poses[:, :3] = arrays['poses']
    _check_geometry(poses, arrays['cameras'], arrays['points'])
    found = [_keyframe(number, arrays, int(end - count), int(end))
             for number, (end, count) in enumerate(zip(ends, arrays['counts']))]
    return LandmarkMap(tuple(found), poses, notes.get('metric') == 'yes')


def _check(name: str, values: np.ndarray, keyframes: int, features: int) -> None:
    """Raise ValueError unless an array is what it has to be."""
    kind, shape, least, most, may_be_unknown = _ARRAYS[name]
    wanted = tuple({'K': keyframes, 'N': features}.get(side, side) for side in shape)
    if values.dtype != _TYPES[kind] or values.shape != wanted:
        raise ValueError(f"'{name}' is {values.dtype} {list(values.shape)}, not "
                         f'{np.dtype(_TYPES[kind])} {list(wanted)}')
    known = values[~np.isnan(values)] if may_be_unknown else values
    if not ((known >= least) & (known <= most)).all():
        raise ValueError(f"numbers in '{name}' are out of their range")


def _check_geometry(poses: np.ndarray, cameras: np.ndarray, points: np.ndarray) -> None:
    """Raise ValueError unless poses are rigid, cameras pinhole, and points in front of them."""
    turns = poses[:, :3, :3]
    if not np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3), atol=1e-4) or not (
            np.linalg.det(turns) > 0).all():
        raise ValueError("'poses' are no poses")
    form = np.ones((3, 3), bool)
    form[(0, 0, 1, 1), (0, 2, 1, 2)] = False
    if not (cameras[:, (0, 1), (0, 1)] > 1).all() or not (
            cameras[:, form] == np.eye(3)[form]).all():
        raise ValueError("'cameras' are no pinhole cameras")
    if not (points[:, 2] > 0).all():
        raise ValueError("'points' are behind their cameras")


def _keyframe(number: int, arrays: dict[str, np.ndarray], begin: int, end: int) -> Keyframe:
    """Return a keyframe, with the landmarks from `begin` to `end`."""
    points, camera = arrays['points'][begin:end].astype(np.float64), arrays['cameras'][number]
    features = Features(number, project(points, camera).astype(np.float32),
                        arrays['descriptors'][begin:end], np.arange(begin, end))
    width, height = arrays['sizes'][number].tolist()
    return Keyframe(number, features, points, arrays['variances'][begin:end].astype(np.float64),
                    arrays['thumbnails'][number], arrays['depths'][number], camera,
                    (width, height), False)
