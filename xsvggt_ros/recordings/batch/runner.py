"""Runs the tasks of a batch in processes of their own, some at a time."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
import fcntl
import json
import os
from pathlib import Path
import re
import shutil
import time
from typing import Any

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.processes import deferred_interrupts
from xsvggt_ros.console.progress import ProgressBar
from xsvggt_ros.recordings.batch.executors import Executor
from xsvggt_ros.recordings.batch.plan import completed, failure_of, PARTIAL, Task
from xsvggt_ros.recordings.report import REPORT_FILE

LOG_FILE, LOCK_FILE = 'reconstruct.log', '.batch.lock'
INTERRUPTED = 'interrupted'   # the reason of what Ctrl-C has ended
EARLIER = ' (earlier; --retry tries again)'   # ends the reason of what failed in another run
_LOOK_PERIOD = 0.2   # seconds between looks at whether Ctrl-C came
_OF_PROCESS = re.compile(r'\..+\.(\d+)' + re.escape(PARTIAL))


@dataclass(frozen=True)
class Outcome:
    """How a task ended: 'done', 'skipped' (it was done before), 'failed', or 'left' on Ctrl-C."""

    task: Task
    state: str
    reason: str = ''
    report: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what the batch's report says of it."""
        report = self.report or {}
        errors, against = report.get('errors') or {}, report.get('against_odometry')
        return {'input': str(self.task.source), 'out': str(self.task.out), 'state': self.state,
                'reason': self.reason, 'frames': report.get('frames', 0),
                'seconds': report.get('seconds', 0.0),
                'metric': (report.get('scale') or {}).get('metric', False),
                'length': report.get('length'), 'poses_from': report.get('poses_from', {}),
                'ate': errors.get('ate'), 'drift': (against or {}).get('ate'),
                'skipped_images': report.get('skipped', [])}


class BatchRunner:
    """Runs `xsvggt reconstruct` for each task; what is complete gets its name by renaming."""

    def __init__(self, executor: Executor, arguments: Sequence[str], exports: Sequence[str],
                 retry: bool) -> None:
        """
        Remember what each process is given beside its input, and where it runs.

        retry: tasks that failed in an earlier run are tried again.
        """
        self._executor = executor
        self._arguments, self._exports, self._retry = list(arguments), exports, retry
        self._stopped = False
        self._ended: dict[Task, Outcome] = {}
        self._futures: dict[Task, Future[Outcome]] = {}

    def run(self, tasks: Sequence[Task], workers: int) -> list[Outcome]:
        """Run the tasks that are not done; return the outcomes of all, in their order."""
        waiting: list[Task] = []
        for task in tasks:
            outcome = self._earlier(task)
            if outcome is None:
                waiting.append(task)
            else:
                self._ended[task] = outcome
        bar = ProgressBar('batch', len(tasks))
        with ThreadPoolExecutor(workers) as pool:
            try:
                with deferred_interrupts():   # a thread whose start is interrupted goes on alone
                    self._futures |= {task: pool.submit(self._one, task) for task in waiting}
                for future in _as_they_end(self._futures.values()):
                    outcome = future.result()
                    self._ended[outcome.task] = outcome
                    bar.note(_told(outcome))
                    bar.update(len(self._ended), _counted(self._ended))
            except BaseException:
                self._stop()
                raise
        bar.close(len(self._ended), _counted(self._ended))
        return self.outcomes(tasks)

    def outcomes(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Return the outcomes of tasks, of a run that Ctrl-C has ended, too."""
        return [self._ended.get(task) or self._left(task) for task in tasks]

    def _left(self, task: Task) -> Outcome:
        future = self._futures.get(task)
        if future is None or future.cancelled():
            return Outcome(task, 'left', 'not begun')
        if future.done() and future.exception() is None:   # and nobody has asked for it
            return future.result()
        return Outcome(task, 'left', INTERRUPTED)

    def _stop(self) -> None:
        self._stopped = True
        for future in self._futures.values():
            future.cancel()
        self._executor.stop()

    def _earlier(self, task: Task) -> Outcome | None:
        """Return what is known of a task that need not be run."""
        report = completed(task, self._exports)
        if report is not None:
            return Outcome(task, 'skipped', 'done before', report)
        reason = failure_of(task)
        if reason is not None and not self._retry:
            return Outcome(task, 'failed', reason + EARLIER)
        return None

    def _one(self, task: Task) -> Outcome:
        """Run one task in a process; its log is in its folder."""
        partial = task.partial
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            code, reason = self._reconstruct(task, partial)
            if code == 0:
                report = json.loads((partial / REPORT_FILE).read_text('utf-8'))
                _take_name(partial, task.out)
                task.failure.unlink(missing_ok=True)
                return Outcome(task, 'done', '', report)
        except (OSError, ValueError) as error:
            reason = f'{type(error).__name__}: {error}'
        if self._stopped:
            shutil.rmtree(partial, ignore_errors=True)
            return Outcome(task, 'left', INTERRUPTED)
        return self._failed(task, partial, reason)

    @staticmethod
    def _failed(task: Task, partial: Path, reason: str) -> Outcome:
        """Note why a task failed, so that later runs know; its log stays beside the note."""
        note = {'input': str(task.source), 'reason': reason}
        with suppress(OSError):
            log = partial / LOG_FILE
            if log.exists():
                os.replace(log, _log_of(task))
            task.failure.write_text(json.dumps(note, indent=2) + '\n', encoding='utf-8')
        shutil.rmtree(partial, ignore_errors=True)
        return Outcome(task, 'failed', reason)

    def _reconstruct(self, task: Task, folder: Path) -> tuple[int, str]:
        """Run the process; return its exit code, and the last thing that it said."""
        log = folder / LOG_FILE
        code = self._executor.run(
            [str(task.source), '--out', str(folder.absolute()), *self._arguments], log.absolute())
        lines = log.read_text('utf-8', 'replace').strip().splitlines() if log.exists() else []
        said = next((line for line in reversed(lines) if line.startswith('xsvggt ')), '')
        if not said:
            said = lines[-1] if lines else ''
        words = f'ended by signal {-code}' if code < 0 else f'exit code {code}'
        return code, re.sub(r'^xsvggt \w+: ', '', said) or words


def _as_they_end(futures: Iterable[Future]) -> Iterator[Future]:
    """
    Yield futures as they end; Ctrl-C is heard meanwhile.

    The kernel may hand a signal to any thread, and Python acts on it in the main one only: one
    that waits without an end would hear of it when a recording is done.
    """
    left = set(futures)
    while left:
        ended, left = wait(left, _LOOK_PERIOD, FIRST_COMPLETED)
        yield from ended


@contextmanager
def batch_folder(folder: Path) -> Iterator[None]:
    """Keep a folder for one batch at a time; raises ToolError. Removes what killed ones left."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK_FILE, 'wb')  # noqa: SIM115 is open as long as the batch
    except OSError as error:
        raise ToolError(f'--out {folder}: cannot be written: {error}') from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ToolError(f'--out {folder}: another batch is at work there') from error
        except OSError:   # a file system without locks
            pass
        for entry in folder.iterdir():
            if _OF_PROCESS.fullmatch(entry.name) and entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
        yield


def _take_name(partial: Path, out: Path) -> None:
    """Rename a complete folder; what was there before, complete or not, goes."""
    old = out.parent / f'.{out.name}.{os.getpid()}.old{PARTIAL}'
    if out.exists():
        os.replace(out, old)
    os.replace(partial, out)
    shutil.rmtree(old, ignore_errors=True)


def _told(outcome: Outcome) -> str:
    name = outcome.task.out.name
    if outcome.state != 'done' or outcome.report is None:
        return f'{name}: {outcome.state}: {outcome.reason}'
    return f"{name}: {outcome.report['frames']} frames in {outcome.report['seconds']:.1f} s"


def _counted(outcomes: dict[Task, Outcome]) -> str:
    states = [outcome.state for outcome in outcomes.values()]
    return ', '.join(f'{states.count(state)} {state}' for state in ('done', 'skipped', 'failed')
                     if states.count(state))


def hints(outcomes: Sequence[Outcome]) -> list[str]:
    """Return lines on why tasks failed, which a table has no room for; none if none failed."""
    failed = [outcome for outcome in outcomes if outcome.state == 'failed']
    earlier = sum(outcome.reason.endswith(EARLIER) for outcome in failed)
    return [f'all that {outcome.task.out.name} said: {_log_of(outcome.task)}'
            for outcome in failed if _log_of(outcome.task).exists()] + [
        f'{earlier} failed in an earlier run and not tried now: --retry tries again'
        for _ in range(earlier > 0)]


def _log_of(task: Task) -> Path:
    """Return where the log of a task that failed is kept."""
    return task.failure.with_suffix('.log')


def summary(outcomes: Sequence[Outcome], started: float) -> dict[str, Any]:
    """Return the batch's report; started: by the monotonic clock."""
    entries = [outcome.as_json() for outcome in outcomes]
    states = [entry['state'] for entry in entries]
    return {'recordings': entries, 'done': states.count('done'),
            'skipped': states.count('skipped'), 'failed': states.count('failed'),
            'left': states.count('left'),
            'frames': sum(entry['frames'] for entry in entries),
            'seconds': round(time.monotonic() - started, 3)}
