"""What a target is, and a place for the files that it writes."""

import atexit
from collections.abc import Callable
from dataclasses import dataclass
import functools
from pathlib import Path
import shutil
import tempfile

MEGABYTE = 2 ** 20


@dataclass(frozen=True)
class Target:
    """
    A reader under test.

    run: returns whether the reader accepts an input, and raises for a finding. seeds: valid inputs
    to begin with. tokens: pieces that mean something to the reader. memory: bytes of address space
    that no execution may take beyond what the process has.
    """

    name: str
    run: Callable[[bytes], bool]
    seeds: Callable[[], list[bytes]]
    tokens: tuple[bytes, ...] = ()
    memory: int = 256 * MEGABYTE


@functools.cache
def scratch() -> Path:
    """Return a folder in memory where there is one; it is removed when the process ends."""
    memory = Path('/dev/shm')
    folder = Path(tempfile.mkdtemp(prefix='fuzz_', dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def file_with(name: str, data: bytes) -> Path:
    """Return a file in the scratch folder with this content."""
    path = scratch() / name
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path
