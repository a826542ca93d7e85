"""Which recordings a batch has, and in which folder each has its results."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import glob
import json
import os
from pathlib import Path
from typing import Any

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.recordings.image_folder import SUFFIXES as IMAGES
from xsvggt_ros.recordings.inputs.bag import is_bag, is_one_bag
from xsvggt_ros.recordings.report import REPORT_FILE

VIDEOS = ('.mp4', '.mov', '.mkv', '.avi', '.webm', '.m4v', '.mpg', '.mpeg', '.ts', '.wmv', '.flv')
FAILED, PARTIAL = '.failed.json', '.partial'


@dataclass(frozen=True)
class Task:
    """A recording, by its absolute path, and the folder of its results."""

    source: Path
    out: Path

    @property
    def failure(self) -> Path:
        """Return the file that says why it failed, if it did."""
        return self.out.parent / f'{self.out.name}{FAILED}'

    @property
    def partial(self) -> Path:
        """Return where it is written until it is complete; no two processes have one."""
        return self.out.parent / f'.{self.out.name}.{os.getpid()}{PARTIAL}'


def find_recordings(patterns: Sequence[str]) -> list[Path]:
    """
    Return the recordings that patterns name, each once, in order; raises ToolError.

    A pattern is a glob (** too), a recording, a folder tree with recordings, or a text file with
    one of these a line (a manifest).
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        some = list(_matching(pattern))
        if not some:
            raise ToolError(f"'{pattern}': no recording there (bags, videos, folders of images)")
        found.update(dict.fromkeys(some))
    return list(found)


def make_tasks(recordings: Sequence[Path], folder: Path) -> list[Task]:
    """Return a task for each recording, with names that tell them apart."""
    parts = [Path(os.path.abspath(path)) for path in recordings]
    common = Path(os.path.commonpath([path.parent for path in parts])) if parts else Path()
    names = ['__'.join(path.relative_to(common).parts) for path in parts]
    short = [_without_suffix(name) for name in names]
    times = Counter(short)
    return [Task(path, folder / (name if times[brief] > 1 else brief))
            for path, name, brief in zip(parts, names, short)]


def completed(task: Task, exports: Sequence[str]) -> dict[str, Any] | None:
    """Return the report of a task that is done, with all files and exports; None if it is not."""
    try:
        report = json.loads((task.out / REPORT_FILE).read_text('utf-8'))
        written = report['exports']
        files = [name for export in written.values() for name in export['files']]
        good = (report['complete'] is True and report['input'] == str(task.source)
                and set(exports) <= set(written)
                and all((task.out / name).exists() for name in files))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return report if good else None


def failure_of(task: Task) -> str | None:
    """Return why a task failed in an earlier run; None if it did not."""
    try:
        return str(json.loads(task.failure.read_text('utf-8'))['reason'])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _matching(pattern: str) -> Iterator[Path]:
    names = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
    for name in names:
        path = Path(name)
        if is_recording(path):
            yield path
        elif path.is_dir():
            yield from _within(path)
        elif path.suffix.lower() in ('.txt', '.lst'):
            yield from _of_manifest(path)


def _of_manifest(path: Path) -> Iterator[Path]:
    """Yield the recordings that a text file names, relative to its folder."""
    try:
        lines = path.read_text('utf-8').splitlines()
    except (OSError, ValueError) as error:
        raise ToolError(f'{path}: cannot be read as a manifest: {error}') from error
    for number, line in enumerate(lines, 1):
        words = line.strip()
        if not words or words.startswith('#'):
            continue
        some = [found for found in _matching(str(path.parent / words))
                if found.suffix.lower() not in ('.txt', '.lst')]
        if not some:
            raise ToolError(f"{path}, line {number}: '{words}' is no recording")
        yield from some


def is_recording(path: Path) -> bool:
    """Return whether a path is a bag, a video or a folder of images, without reading much."""
    if path.is_dir():
        return is_one_bag(path) or _has_images(path) or _has_images(path / 'data')
    return path.is_file() and (path.suffix.lower() in VIDEOS or is_bag(path))


def _within(folder: Path) -> Iterator[Path]:
    """Yield the recordings of a tree; what is in one of them is not looked at."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith('.'):
            continue
        if is_recording(entry):
            yield entry
        elif entry.is_dir() and not entry.is_symlink():
            yield from _within(entry)


def _has_images(folder: Path) -> bool:
    try:
        return any(entry.suffix.lower() in IMAGES for entry in folder.iterdir())
    except OSError:
        return False


def _without_suffix(name: str) -> str:
    stem, dot, ending = name.removesuffix('.zstd').rpartition('.')
    known = {suffix.removeprefix('.') for suffix in (*VIDEOS, '.mcap', '.db3', '.bag')}
    return stem if dot and stem and ending.lower() in known else name
