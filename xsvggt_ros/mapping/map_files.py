"""What a stream leaves on disk: map as PLY, trajectory as TUM, and the readers. Numpy only."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal, localcontext
import fcntl
from functools import partial
from itertools import count
import os
from pathlib import Path
import re
import secrets
import socket
import time
from typing import BinaryIO

import numpy as np
from numpy.lib.recfunctions import repack_fields

from xsvggt_ros.mapping.trajectory import StampedPose

CLOUD_DTYPE = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('red', 'u1'), ('green', 'u1'),
                        ('blue', 'u1'), ('confidence', '<f4')])

_PLY_TYPES = {'float': '<f4', 'float32': '<f4', 'double': '<f8', 'float64': '<f8',
              'uchar': 'u1', 'uint8': 'u1', 'char': 'i1', 'int8': 'i1', 'ushort': '<u2',
              'uint16': '<u2', 'short': '<i2', 'int16': '<i2', 'uint': '<u4', 'uint32': '<u4',
              'int': '<i4', 'int32': '<i4'}
_LONGEST_LINE = 4096  # bytes of a PLY header
_PLY_NAMES = {'<f4': 'float', '|u1': 'uchar'}

_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?', re.ASCII | re.IGNORECASE)
# Times from here on are not seconds but thousandths, millionths, billionths of one. As seconds
# they would lie beyond the year 5000, as what they are taken for they begin in 1973.
_FINER_UNITS = ((10 ** 17, 0), (10 ** 14, 3), (10 ** 11, 6))   # from, digits to nanoseconds

_HOST = re.sub(r'[^A-Za-z0-9-]', '-', socket.gethostname())[:64] or 'host'
_PART = re.compile(r'map_\d{8}_\d{6}\.(?P<host>[A-Za-z0-9-]+)\.(?P<pid>\d+)\.[0-9a-f]{8}'
                   r'\.(ply|tum|[a-z]+\.safetensors)\.part', re.ASCII)


# A map with its trajectory -----------------------------------------------------------------------

def save_map(
    folder: Path, cloud: np.ndarray, poses: Iterable[StampedPose], comment: str = '',
    others: Mapping[str, bytes] | None = None,
) -> tuple[Path, ...]:
    """
    Write a cloud [N] and a trajectory as map_DATE_TIME.ply and .tum, new names; return the files.

    others: contents of files beside them, by the ends of their names.
    The folder is made if it is missing. Nothing is overwritten, whoever else saves there. Files
    have their names only once they are complete: whatever is raised removes what was written, and
    what the end of the process leaves is called .part, names host and process, and is removed by
    the next save on this host. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_dead_parts(folder)
    date = time.strftime('map_%Y%m%d_%H%M%S')
    own = f'{date}.{_HOST}.{os.getpid()}.{secrets.token_hex(4)}'
    writers: dict[str, Callable[[BinaryIO], object]] = {
        '.ply': lambda file: _write_ply(file, cloud, comment),
        '.tum': lambda file: _write_tum(file, poses)}
    for ending, content in (others or {}).items():
        writers[ending] = partial(_write_bytes, content)
    parts = {ending: folder / f'{own}{ending}.part' for ending in writers}
    try:
        for part, write in zip(parts.values(), writers.values()):
            with open(part, 'xb') as file:
                _lock(file)
                write(file)
        return _take_names(folder, date, parts)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def _take_names(folder: Path, date: str, parts: dict[str, Path]) -> tuple[Path, ...]:
    """Give complete files, by the ends of their names, the first names that nobody has."""
    for number in count(1):
        name = date if number == 1 else f'{date}_{number}'
        taken: list[Path] = []
        try:
            for ending, part in parts.items():
                file = folder / (name + ending)
                _move_to_new(part, file)
                taken.append(file)
            return tuple(taken)
        except BaseException as error:
            # What has a name goes back: the next name is for all of them, or there is no map.
            for part, file in zip(parts.values(), taken):
                os.replace(file, part)
            if not isinstance(error, FileExistsError):
                raise
    raise AssertionError   # count() has no end


def _move_to_new(part: Path, file: Path) -> None:
    """Rename a file; raises FileExistsError if the name is taken, by whatever and whenever."""
    try:
        os.link(part, file)
    except FileExistsError:
        raise
    except OSError:
        # No hard links: FAT, some network drives. Two may not make the same file there either.
        open(file, 'xb').close()
        os.replace(part, file)
    else:
        part.unlink()


def _write_bytes(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _lock(file: BinaryIO) -> bool:
    """Lock a file as long as it is open; return whether it is ours alone, or cannot be locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:   # a file system without locks
        pass
    return True


def _remove_dead_parts(folder: Path) -> None:
    """Remove what processes of this host that ended in the middle of `save_map` left there."""
    for part in folder.glob('map_*.part'):
        name = _PART.fullmatch(part.name)
        if name is None or name['host'] != _HOST or _is_alive(int(name['pid'])):
            continue
        try:
            # A container may have our host's name but other processes: its lock tells.
            with open(part, 'rb') as file:
                if _lock(file):
                    part.unlink(missing_ok=True)
        except OSError:   # somebody else's: not worth failing for
            pass


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):   # another user's
        pass
    return True


# Text --------------------------------------------------------------------------------------------

def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """
    Yield number and words of the lines of a text file, but for comments (#) and empty ones.

    It may have any line ends, and begin with a byte order mark. Raises OSError, and ValueError
    for what is not UTF-8.
    """
    for number, line in enumerate(Path(path).read_text('utf-8-sig').splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith('#'):
            yield number, words


def format_stamp(stamp_ns: int) -> str:
    """Return nanoseconds as seconds with nine decimals, exactly (no float on the way)."""
    seconds, rest = divmod(abs(stamp_ns), 10 ** 9)
    return f'{"-" if stamp_ns < 0 else ""}{seconds}.{rest:09d}'


def parse_stamp(text: str) -> int:
    """
    Return the nanoseconds of a time, exactly: a decimal number of seconds, also as 1.305e+09.

    What is too large to be seconds is taken as milli-, micro- or nanoseconds. Raises ValueError
    for what is no number, and for times that are beyond 64 bits of nanoseconds.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"'{text[:40]}' is not a time in seconds")
    with localcontext() as context:
        context.prec = 60
        try:
            value = Decimal(text)
            if value.adjusted() > 18:
                raise ValueError(f"'{text[:40]}' is not a time: it is too large")
            shift = next((digits for least, digits in _FINER_UNITS if abs(value) >= least), 9)
            stamp_ns = int(value.scaleb(shift))
        except ArithmeticError as error:   # exponents beyond all bounds
            raise ValueError(f"'{text[:40]}' is not a time in seconds") from error
    if abs(stamp_ns) >= 2 ** 63:
        raise ValueError(f"'{text[:40]}' is not a time: it is too large")
    return stamp_ns


# Trajectory: TUM ---------------------------------------------------------------------------------

def write_tum(path: Path, poses: Iterable[StampedPose]) -> None:
    """Write one line `timestamp tx ty tz qx qy qz qw` per pose."""
    with open(path, 'wb') as file:
        _write_tum(file, poses)


def _write_tum(file: BinaryIO, poses: Iterable[StampedPose]) -> None:
    file.write(b'# timestamp tx ty tz qx qy qz qw\n')
    for pose in poses:
        numbers = ' '.join(f'{value:.9g}' for value in (*pose.position, *pose.quaternion))
        file.write(f'{format_stamp(pose.stamp_ns)} {numbers}\n'.encode('ascii'))


def read_tum(path: Path) -> list[StampedPose]:
    """
    Return the poses of a TUM trajectory file; raises ValueError that names file and line.

    The first pose of Open3D's files stands on the comment's line, behind '<qw>'.
    """
    rows = list(read_rows(path))
    comment, _, glued = Path(path).read_text('utf-8-sig').partition('\n')[0].rpartition('<qw>')
    if comment.startswith('#') and len(glued.split()) == 8:
        rows.insert(0, (1, glued.split()))
    poses = []
    for line, (stamp, *rest) in rows:
        try:
            if len(rest) != 7:
                raise ValueError(f'a pose has 8 numbers, but this line {len(rest) + 1}')
            x, y, z, qx, qy, qz, qw = (float(value) for value in rest)
            poses.append(StampedPose(parse_stamp(stamp), (x, y, z), (qx, qy, qz, qw)))
        except ValueError as error:
            raise ValueError(f'{path}, line {line}: {error}') from error
    return poses


# Clouds ------------------------------------------------------------------------------------------

def make_cloud(points: np.ndarray, colours: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Return a cloud [N] of `CLOUD_DTYPE` from points [N, 3], colours [N, 3] up to 255 and [N]."""
    cloud = np.empty(len(points), CLOUD_DTYPE)
    for column, name in enumerate(('x', 'y', 'z')):
        cloud[name] = points[:, column]
    for column, name in enumerate(('red', 'green', 'blue')):
        cloud[name] = colours[:, column]
    cloud['confidence'] = confidence
    return cloud


def cloud_from_packed(packed: np.ndarray) -> np.ndarray:
    """Return a packed cloud [N, 5] float32 (see `point_cloud`) as `CLOUD_DTYPE` [N]."""
    bits = np.ascontiguousarray(packed[:, 3]).view(np.uint32)
    colours = np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], axis=-1)
    return make_cloud(packed[:, :3], colours, packed[:, 4])


def pack(cloud: np.ndarray) -> np.ndarray:
    """Return a cloud [N] of `CLOUD_DTYPE` as a packed one, [N, 5] float32."""
    red, green, blue = (cloud[name].astype(np.uint32) for name in ('red', 'green', 'blue'))
    rgb = (red << 16 | green << 8 | blue).view(np.float32)
    return np.stack([cloud['x'], cloud['y'], cloud['z'], rgb, cloud['confidence']], axis=-1)


def write_ply(path: Path, cloud: np.ndarray, comment: str = '') -> None:
    r"""
    Write a structured cloud [N] as binary little-endian PLY with one property per field.

    The confidence is there twice, as `quality` too, which programs know. Points that are not
    finite are left out. A PLY header is ASCII: other letters of the comment are escaped as in
    Python (\xfc).
    """
    with open(path, 'wb') as file:
        _write_ply(file, cloud, comment)


def _write_ply(file: BinaryIO, cloud: np.ndarray, comment: str) -> None:
    cloud = _for_readers(cloud)
    lines = ['ply', 'format binary_little_endian 1.0']
    if comment:
        lines.append('comment ' + ''.join(c if c.isprintable() else ' ' for c in comment))
    lines.append(f'element vertex {len(cloud)}')
    for name in cloud.dtype.names:
        lines.append(f'property {_PLY_NAMES[cloud.dtype[name].str]} {name}')
    lines.append('end_header\n')
    file.write('\n'.join(lines).encode('ascii', 'backslashreplace'))
    file.write(np.ascontiguousarray(cloud).view(np.uint8).data)


def _for_readers(cloud: np.ndarray) -> np.ndarray:
    """Return the cloud's finite points, with the confidence under the name `quality` too."""
    finite = np.isfinite(cloud['x']) & np.isfinite(cloud['y']) & np.isfinite(cloud['z'])
    names = cloud.dtype.names
    if 'confidence' not in names or 'quality' in names:
        return cloud if finite.all() else cloud[finite]
    # MeshLab and point-cloud-utils misread a file that has `confidence` alone.
    at = names.index('confidence')
    fields = [(name, cloud.dtype[name].str) for name in names]
    fields.insert(at, ('quality', cloud.dtype['confidence'].str))
    result = np.empty(int(finite.sum()), fields)
    for name, _ in fields:
        result[name] = cloud['confidence' if name == 'quality' else name][finite]
    return result


def read_ply(path: Path) -> np.ndarray:
    """
    Return the vertices of a binary little-endian PLY as a structured array [N].

    A confidence that is there as `quality` too is given once.

    Raises ValueError for another file, or one that is cut off; OSError.
    """
    with open(path, 'rb') as file:
        try:
            count, dtype = _read_ply_header(file)
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error
        there = (os.fstat(file.fileno()).st_size - file.tell()) // dtype.itemsize
        if there < count:
            raise ValueError(f'{path}: cut off after {there} of {count} points')
        points = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    names = [name for name in dtype.names or () if name != 'quality']
    return repack_fields(points[names]) if 'confidence' in names else points


def _read_ply_header(file: BinaryIO) -> tuple[int, np.dtype]:
    """Return the number of vertices and what one consists of; raise ValueError."""
    if file.readline(_LONGEST_LINE).strip() != b'ply':
        raise ValueError('not a PLY file')
    count, properties, binary, elements = 0, [], False, []
    while True:
        line = file.readline(_LONGEST_LINE)
        if not line.endswith(b'\n'):
            raise ValueError('the PLY header has no end')
        # Comments are in any encoding.
        match line.decode('ascii', 'replace').split():
            case ['format', name, _]:
                binary = name == 'binary_little_endian'
            case ['element', name, number]:
                elements.append(name)
                if name == 'vertex':
                    count = _ply_count(number)
            case ['property', kind, name] if elements[-1:] == ['vertex']:
                if kind not in _PLY_TYPES:
                    raise ValueError(f"a property of the unknown type '{kind[:40]}'")
                properties.append((name, _PLY_TYPES[kind]))
            case ['property', *_] if elements[-1:] == ['vertex']:
                raise ValueError('a vertex with a list; only single numbers are read')
            case ['end_header']:
                break
    if not binary:
        raise ValueError('only binary little-endian PLY is read')
    if not properties or elements[0] != 'vertex':
        raise ValueError('the first element must be vertex, with properties')
    return count, np.dtype(properties)  # ValueError for two of one name


def _ply_count(text: str) -> int:
    """Return the number of vertices that a header names."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ValueError(f"'{text[:40]}' is no number of vertices")
    return int(text)
