"""The processes of a batch as tasks of Ray: on this machine, or on those of a cluster."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
import os
from pathlib import Path
import threading
from typing import Any

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.optional import need
from xsvggt_ros.recordings.batch.executors import NOT_BEGUN, start_process

_STORE_BYTES = 80 * 2 ** 20   # of Ray's object store, the least that it takes: nothing is in it


@dataclass(frozen=True)
class TaskNeeds:
    """
    What one recording takes of a machine: processors and GPUs.

    gpus: 0, 1, or None for one where there is one.
    """

    cpus: int = 1
    gpus: int | None = None


class RayTasks:
    """
    Tasks of Ray, one a recording, each with a process of its own.

    Ray decides where they run by what they need. Only the batch renames results: what a task has
    written when a machine is lost stays under its temporary name, and the recording has failed.
    """

    def __init__(self, needs: TaskNeeds, workers: int, address: str | None = None) -> None:
        """
        Join the cluster at `address`, or start Ray on this machine for `workers` tasks.

        Raises ToolError without Ray, or if the cluster cannot be reached or lacks what is needed.
        """
        self._ray = need('ray', 'xsvggt batch on Ray', 'ray', 'batch')
        os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')   # it asks a server otherwise
        # Without GPUs for a task Ray would hide them; `--device cpu` says that already.
        os.environ.setdefault('RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO', '0')
        quiet: dict[str, Any] = {'log_to_driver': False, 'logging_level': 'ERROR'}
        try:
            if address is not None:
                self._ray.init(address=address, **quiet)
            else:
                self._ray.init(num_cpus=workers * needs.cpus, include_dashboard=False,
                               object_store_memory=_STORE_BYTES, **quiet)
        except Exception as error:   # ConnectionError, RuntimeError, ValueError, of gRPC
            words = ' '.join(str(error).split())[:300] or type(error).__name__
            raise ToolError(f'Ray cannot be started: {words}' if address is None else
                            f'--address {address}: no Ray cluster there that can be joined: '
                            f'{words}') from error
        gpus = self._checked_gpus(needs, address)
        # Not again by itself if a machine is lost: the task may still be writing there.
        self._task = self._ray.remote(num_cpus=needs.cpus, num_gpus=gpus,
                                      max_retries=0)(run_here)
        self._refs: set[Any] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def _checked_gpus(self, needs: TaskNeeds, address: str | None) -> int:
        """Return the GPUs of a task; raises ToolError if there is no room for any task."""
        there = self._ray.cluster_resources()
        gpus = int(there.get('GPU', 0) >= 1) if needs.gpus is None else needs.gpus
        for name, wanted in (('CPU', needs.cpus), ('GPU', gpus)):
            if wanted > there.get(name, 0):
                self._ray.shutdown()
                where = 'this machine' if address is None else f'the cluster at {address}'
                raise ToolError(f'a recording needs {wanted} {name}, but {where} has '
                                f'{there.get(name, 0):g}: choose --device and --threads')
        return gpus

    def run(self, arguments: Sequence[str], log: Path) -> int:
        """Run a task; return its process's exit code."""
        with self._lock:
            if self._stopped:
                return NOT_BEGUN
            ref = self._task.remote(list(arguments), str(log), os.getcwd())
            self._refs.add(ref)
        try:
            return int(self._ray.get(ref))
        except self._ray.exceptions.RayError as error:
            words = str(error).strip().splitlines() or [type(error).__name__]
            with suppress(OSError), open(log, 'a', encoding='utf-8') as file:
                file.write(f'xsvggt batch: Ray lost the task: {words[0]}\n')
            return NOT_BEGUN
        finally:
            with self._lock:
                self._refs.discard(ref)

    def stop(self) -> None:
        """End the tasks that run, and leave Ray; nothing is begun any more."""
        with self._lock:
            self._stopped = True
            refs = list(self._refs)
        for ref in refs:
            with suppress(Exception):   # it has ended meanwhile
                self._ray.cancel(ref, force=True)
        self._ray.shutdown()


def run_here(arguments: list[str], log: str, folder: str) -> int:
    """
    Run `xsvggt reconstruct` where Ray has put the task; its process ends with the task's.

    folder: where the batch was started, from which paths count if it is here, too.
    """
    with open(log, 'wb') as output:
        return start_process(arguments, output, folder if os.path.isdir(folder) else None).wait()
