"""Starting, watching and ending the processes of a demo, and how a tool ends on Ctrl-C."""

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time
from typing import NoReturn

INTERRUPTED = 130     # exit code of what Ctrl-C ended, as shells have it

_POLL_PERIOD = 0.02   # seconds
_ALARM_PERIOD = 0.2   # seconds


class OutOfTime(BaseException):
    """What was to be done takes longer than it may; nothing but `time_limit`'s caller stops it."""


def interrupt_on_signals() -> None:
    """
    Let SIGINT, SIGTERM and a closed terminal raise KeyboardInterrupt.

    SIGINT is ignored in what a shell starts in its background; a handler of our own undoes that,
    and children then start with the default again.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:     # nohup
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def ignore_signals() -> None:
    """Let no further Ctrl-C disturb the end; children started before are not affected."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """
    Keep a Ctrl-C until the end of the block; for the main thread.

    A process whose start is interrupted half-way would be left behind: nobody has its number yet.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    kept: list[int] = []
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, lambda received, frame: kept.append(received))
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])
        if kept:
            signal.raise_signal(kept[0])


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in what takes longer; for the main thread."""
    def stop(*unused: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    # Again and again: what is raised while an object is destroyed goes unheard.
    signal.setitimer(signal.ITIMER_REAL, seconds, _ALARM_PERIOD)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def leave(code: int) -> NoReturn:
    """
    End this process with an exit code, whatever threads are still at work.

    The interpreter ends daemons as they come out of a library; in the middle of C++ that aborts
    the process, and in that of a matrix product it may never end.
    """
    if any(thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


class ChildProcess:
    """
    A Python module in a process and session of its own, its output in a log file.

    In its own session it does not see the terminal's Ctrl-C: whoever started it decides when it
    ends, so that nothing is interrupted twice.
    """

    def __init__(self, name: str, module: str, arguments: list[str], log: Path) -> None:
        """Start `python -m module arguments...`, writing stdout and stderr to `log`."""
        self.name = name
        self.log = log
        self._peak = 0
        self._memory = 0
        command = [sys.executable, '-u', '-m', module, *arguments]
        with open(log, 'wb') as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True)

    @property
    def exit_code(self) -> int | None:
        """Return the exit code, None while the process runs."""
        return self._process.poll()

    def tail(self, lines: int = 12) -> str:
        """Return the last lines that the process wrote."""
        text = self.log.read_text(encoding='utf-8', errors='replace')
        return '\n'.join(text.rstrip().splitlines()[-lines:])

    def resident_bytes(self) -> int:
        """Return the memory that the process holds now; its last known value after its end."""
        try:
            status = Path(f'/proc/{self._process.pid}/status').read_text(encoding='ascii')
        except OSError:   # ended, or not Linux
            return self._memory
        for line in status.splitlines():
            if line.startswith('VmRSS:'):
                self._memory = int(line.split()[1]) * 1024
                self._peak = max(self._peak, self._memory)
        return self._memory

    def cpu_seconds(self) -> float:
        """Return the processor time that the process has used; 0 once it has ended."""
        try:
            text = Path(f'/proc/{self._process.pid}/stat').read_text(encoding='ascii')
        except OSError:   # ended, or not Linux
            return 0.0
        user, system = text.rpartition(')')[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')

    @property
    def peak_bytes(self) -> int:
        """Return the most that `resident_bytes` has seen."""
        return self._peak

    def interrupt(self) -> None:
        """Send SIGINT, if the process still runs."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End the process and all that it started, at once."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()


def end_all(children: list[ChildProcess], patience: float) -> list[ChildProcess]:
    """Interrupt `children`, wait up to `patience` seconds, kill what is left; return those."""
    for child in children:
        child.interrupt()
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and any(c.exit_code is None for c in children):
        time.sleep(_POLL_PERIOD)
    stubborn = [child for child in children if child.exit_code is None]
    for child in stubborn:
        child.kill()
    return stubborn
