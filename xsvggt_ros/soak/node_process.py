"""The node in a process of its own: start, signals, faults inside it, and what the system says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import json
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from xsvggt_ros.soak.injected_node import OPTION

SHARED = Path('/dev/shm')
_POLL = 0.002  # seconds


@dataclass(frozen=True)
class Usage:
    """What the system says of a process."""

    resident: int     # bytes of its own, without files, which the system takes back as it likes
    peak: int         # bytes of all kinds, the most there ever were
    shared: int       # bytes of the middleware's shared memory that were touched; bounded by it
    descriptors: int
    threads: int


def floor(usages: Sequence[Usage]) -> Usage:
    """Return the least of each number: what comes and goes with an image or a map is left out."""
    return Usage(*(min(values) for values in zip(*(vars(usage).values() for usage in usages))))


class NodeProcess:
    """One process of the node, and the line to what can be broken in it."""

    def __init__(
        self, log: Path, arguments: list[str], injectable: bool = True,
    ) -> None:
        """Start it with these arguments, its output in `log`; injectable: see `arm`."""
        self.log = log
        module = 'xsvggt_ros.soak.injected_node' if injectable else 'xsvggt_ros.node.stream_node'
        command = [sys.executable, '-u', '-m', module]
        self._control, theirs = socket.socketpair()
        if injectable:
            command += [OPTION, str(theirs.fileno())]
        with open(log, 'wb') as output:
            self._process = subprocess.Popen(
                [*command, *arguments], stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
                pass_fds=(theirs.fileno(),) if injectable else ())
        theirs.close()
        self.begun = time.monotonic()
        self._said: dict[int, list[str]] = {}
        self._orders = 0
        if injectable:
            threading.Thread(target=self._listen, daemon=True).start()

    # State ---------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """Return the process's number."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def usage(self) -> Usage:
        """Return what it uses; all zero once it has ended."""
        folder = Path(f'/proc/{self.pid}')
        try:
            lines = (folder / 'status').read_text(encoding='ascii').splitlines()
            kilobytes = {line.partition(':')[0]: line.split()[1] for line in lines
                         if line.startswith(('Rss', 'VmHWM'))}
            resident, peak, shared = (1024 * int(kilobytes.get(name, 0))
                                      for name in ('RssAnon', 'VmHWM', 'RssShmem'))
            return Usage(resident, peak, shared, len(os.listdir(folder / 'fd')),
                         len(os.listdir(folder / 'task')))
        except OSError:
            return Usage(0, 0, 0, 0, 0)

    def doing(self) -> str:
        """Return what its main thread is doing, in words: where a hang may be looked for."""
        folder = Path(f'/proc/{self.pid}')
        try:
            state = (folder / 'stat').read_text(encoding='ascii').rpartition(')')[2].split()
            seconds = (int(state[11]) + int(state[12])) / os.sysconf('SC_CLK_TCK')
            where = (folder / 'wchan').read_text(encoding='ascii').strip('0') or 'running'
        except OSError:
            return 'the process has ended'
        return (f'process {self.pid}, {time.monotonic() - self.begun:.0f} s old, {seconds:.0f} s '
                f'of CPU, state {state[0]}, in {where}')

    def output(self, begin: int = 0) -> str:
        """Return what it wrote, from this byte on."""
        with open(self.log, 'rb') as file:
            file.seek(begin)
            return file.read().decode('utf-8', errors='replace')

    def shared_files(self) -> set[Path]:
        """Return the files in shared memory that it has mapped."""
        return mapped_files(self.pid)

    # What is done to it --------------------------------------------------------------------------

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.exit_code is None:
            self._process.send_signal(number)

    def wait(self, patience: float) -> int | None:
        """Return the exit code; None if it still runs after so many seconds."""
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it and all that it started, at once, and let go of it."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._control.close()

    # Faults inside -------------------------------------------------------------------------------

    def arm(self, point: str, effect: str, times: int = 1) -> int:
        """Have a function of the node fail at its next calls; see `patches`. Return a number."""
        self._orders += 1
        number = self._orders
        self._said[number] = []
        self._order({'arm': point, 'effect': effect, 'times': times, 'id': number})
        return number

    def fired(self, number: int) -> int:
        """Return how many calls were spoilt; raises LookupError if it was refused."""
        said = list(self._said[number])
        if 'refused' in said:
            raise LookupError('the node knows no such fault')
        return said.count('fired')

    def is_armed(self, number: int) -> bool:
        """Return whether the node knows of it."""
        return bool(self._said[number])

    def trim(self, patience: float) -> None:
        """Have it give free memory back to the system, if it can so soon."""
        self._orders += 1
        number = self._orders
        self._said[number] = []
        self._order({'trim': number})
        deadline = time.monotonic() + patience
        while not self._said[number] and self.exit_code is None and time.monotonic() < deadline:
            time.sleep(_POLL)

    def release(self) -> None:
        """End what hangs, and forget what is armed."""
        self._order({'release': True})

    def _order(self, content: Mapping[str, Any]) -> None:
        try:
            self._control.sendall(json.dumps(content).encode() + b'\n')
        except OSError:  # it has ended, which others find out
            pass

    def _listen(self) -> None:
        try:
            with self._control.makefile('r') as lines:
                for line in lines:
                    content = json.loads(line)
                    for word in ('armed', 'fired', 'refused', 'trimmed'):
                        if word in content:
                            self._said[content[word]].append(word)
        except (OSError, ValueError):  # it was killed in the middle of a word
            pass


def mapped_files(pid: int | str) -> set[Path]:
    """Return the files in shared memory that a process has mapped."""
    try:
        lines = Path(f'/proc/{pid}/maps').read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    names = (line.split(maxsplit=5)[5] for line in lines if f' {SHARED}/' in line)
    return {Path(name.removesuffix(' (deleted)')) for name in names}


def remove_leftovers(files: set[Path]) -> int:
    """Delete those of these shared files that no process uses any more; return how many."""
    used = set()
    for process in Path('/proc').glob('[0-9]*'):
        used |= mapped_files(process.name)
    removed = 0
    for file in files - used:
        for one in (file, file.with_name(file.name + '_el')):  # Fast DDS locks it beside
            if one.exists():
                one.unlink(missing_ok=True)
                removed += 1
    return removed
