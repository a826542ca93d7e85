"""Where the processes of a batch run: on this machine, some at a time."""

from collections.abc import Sequence
from pathlib import Path
import subprocess
import sys
import threading
from typing import IO, Protocol

_MODULE = 'xsvggt_ros.cli.batch_process'   # ends when its input closes: with the batch
NOT_BEGUN = 1   # exit code of what was stopped before it began


class Executor(Protocol):
    """Runs `xsvggt reconstruct` with some arguments, wherever there is room for it."""

    def run(self, arguments: Sequence[str], log: Path) -> int:
        """Return the exit code when it has ended, below 0 for a signal; called by many threads."""

    def stop(self) -> None:
        """End what runs, and begin nothing more."""


class LocalProcesses:
    """Processes of this machine; as many at a time as threads ask for one."""

    def __init__(self) -> None:
        """Begin with none."""
        self._processes: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, arguments: Sequence[str], log: Path) -> int:
        """Run a process with its output in `log`; return its exit code."""
        with open(log, 'wb') as output:
            with self._lock:
                if self._stopped:
                    return NOT_BEGUN
                process = start_process(arguments, output)
                self._processes.add(process)
            try:
                return process.wait()
            finally:
                with self._lock:
                    self._processes.discard(process)

    def stop(self) -> None:
        """Kill the processes that run, and start no other."""
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.kill()


def start_process(arguments: Sequence[str], output: IO[bytes],
                  folder: str | None = None) -> subprocess.Popen:
    """Start `xsvggt reconstruct` in a folder; it ends when this process does, however that is."""
    command = [sys.executable, '-u', '-m', _MODULE, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, cwd=folder,
                            stderr=subprocess.STDOUT, start_new_session=True)
