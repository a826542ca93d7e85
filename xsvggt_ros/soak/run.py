"""A whole run of faults."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
import tempfile
import time

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.processes import ignore_signals
from xsvggt_ros.soak.faults import KINDS
from xsvggt_ros.soak.harness import Harness
from xsvggt_ros.soak.kinds import Crash, Failure, SETUPS
from xsvggt_ros.soak.node_process import floor, NodeProcess, remove_leftovers, Usage
from xsvggt_ros.soak.report import Injection, Life, Report
from xsvggt_ros.soak.script import Step
from xsvggt_ros.soak.trial import run_trial

PATIENCE = 10.0  # seconds that a process has to give free memory back
WARM_UP = 250    # images until caches, map, way and buffers are what they will be
LOOKS = 12   # after so many faults each, at the beginning and the end, memory is compared


class Lives:
    """Watches what each process of the node uses."""

    def __init__(self) -> None:
        """Begin without a process."""
        self.done: list[Life] = []
        self._pid = 0
        self._usages: list[Usage] = []
        self._begin = 0  # images when the process was seen first

    def look(self, node: NodeProcess, images: int) -> int:
        """
        Look at the process of now, after a fault; return the bytes that it has in use.

        images: how many there have been in all; what was seen before a process was warm does not
        count.
        """
        if node.pid != self._pid:
            self.finish()
            self._pid, self._begin = node.pid, images
        node.trim(PATIENCE)
        usage = node.usage()
        if images - self._begin >= WARM_UP:
            self._usages.append(usage)
        return usage.resident

    def finish(self) -> None:
        """Note what the process used that has ended, if it lived through enough faults."""
        usages, self._usages = self._usages, []
        if len(usages) >= 2 * LOOKS:
            begin, end = floor(usages[:LOOKS]), floor(usages[-LOOKS:])
            self.done.append(Life(len(usages), *zip(vars(begin).values(), vars(end).values())))


def run_script(
    steps: list[Step], seed: int, form: str, patience: float, parameters: list[str],
    say: Callable[[str], None], keep: Path | None = None,
) -> Report:
    """
    Inject the faults of a script and return what came of them; Ctrl-C ends it earlier.

    keep: a folder for the node's logs, which are deleted otherwise.
    """
    begin = time.monotonic()
    injections: list[Injection] = []
    with tempfile.TemporaryDirectory(prefix='xsvggt_soak_') as folder:
        harness = Harness(keep or Path(folder), patience, parameters)
        lives = Lives()
        try:
            say('starting the node')
            harness.camera.start(SETUPS['camera'])
            harness.start()
            for number, step in enumerate(steps, 1):
                one = run_trial(harness, step)
                resident = lives.look(harness.node, harness.camera.shots)
                injections.append(replace(one, resident=resident))
                say(line(number, len(steps), one))
        except KeyboardInterrupt:
            ignore_signals()
            say(f'interrupted after {len(injections)} of {len(steps)} injections')
        except (Failure, Crash) as failure:
            output = '' if harness.running is None else harness.node.output()[-1000:]
            raise ToolError(f'the node cannot be started: {failure}\n{output}') from failure
        finally:
            lives.finish()
            harness.close()
            leftovers = remove_leftovers(harness.shared)
    return Report(
        seed=seed, form=form, seconds=time.monotonic() - begin, machine='', injections=injections,
        expected={name: kind.expected for name, kind in KINDS.items()},
        groups={name: kind.group for name, kind in KINDS.items()}, lives=lives.done,
        leftovers=leftovers)


def line(number: int, count: int, one: Injection) -> str:
    """Return what is said of an injection while a run goes on."""
    recovery = '-' if one.recovery_s is None else f'{one.recovery_s:.2f} s'
    words = f'[{number}/{count}] {one.name}: {one.outcome}, {recovery}'
    return f'{words}  ({one.trouble})' if one.trouble else words
