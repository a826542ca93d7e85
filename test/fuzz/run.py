"""One target, many executions: engines, limits and what is found."""

import argparse
from collections.abc import Callable
import contextlib
import hashlib
import importlib
from importlib.util import find_spec
import json
import logging
from pathlib import Path
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings

from fuzz.mutation import LONGEST, mutate
from fuzz.target import Target

MODULES = ('recordings', 'pictures', 'files', 'weights')
ROS_MODULES = ('images', 'cameras', 'messages')
PATIENCE = 20.0  # seconds of processor time that an execution may take
KEPT = 200  # accepted inputs that the engine without coverage remembers besides the seeds


def all_targets() -> dict[str, Target]:
    """Return the targets by their names; without ROS those of files only."""
    names = (*MODULES, *(ROS_MODULES if find_spec('rclpy') else ()))
    modules = [importlib.import_module(f'fuzz.{name}') for name in names]
    return {target.name: target for module in modules for target in module.TARGETS}


class HangError(BaseException):
    """An execution that takes too long."""


@contextlib.contextmanager
def memory_limit(size: int):
    """Let the process take no more than `size` bytes of address space beyond what it has."""
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


class Watch:
    """Executes a target and notes what comes out of it that should not."""

    def __init__(self, target: Target, out: Path) -> None:
        """Begin with nothing found."""
        self.target = target
        self.runs = self.accepted = 0
        self.findings: dict[str, dict] = {}
        self.slowest = 0.0
        self._out = out

    def execute(self, data: bytes) -> bool:
        """Run one input and note what it raises; return whether the reader accepted it."""
        self.runs += 1
        accepted = False
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)
        try:
            accepted = self.target.run(data)
        except (Exception, HangError) as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._note(error, data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        self.accepted += accepted
        self.slowest = max(self.slowest, time.process_time() - start)
        return accepted

    def _note(self, error: BaseException, data: bytes) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if 'xsvggt_ros' in frame.filename] or frames
        place = f'{Path(own[-1].filename).name}:{own[-1].lineno}'
        kind = f'{type(error).__name__} at {place}'
        finding = self.findings.setdefault(kind, {'error': kind, 'count': 0, 'text': ''})
        finding['count'] += 1
        if finding['count'] == 1:
            finding['text'] = str(error)[:300]
            name = f'{self.target.name}-{hashlib.sha1(kind.encode()).hexdigest()[:8]}'
            (self._out / name).write_bytes(data)
            print(f'{self.target.name}: {kind}: {str(error)[:200]} ({name})', flush=True)


def run_target(target: Target, options: argparse.Namespace) -> None:
    """Run a target in this process and write the figures to a file of its name."""
    quieten()
    watch = Watch(target, options.out)
    seeds = target.seeds()
    for seed in seeds:  # what is loaded on first use is not the input's fault
        watch.execute(seed)
    before = peak()
    start, began = time.monotonic(), time.process_time()

    def finish() -> None:
        figures = {
            'target': target.name, 'engine': options.engine, 'seed': options.seed,
            'runs': watch.runs, 'accepted': watch.accepted,
            'seconds': round(time.monotonic() - start, 1),
            'cpu_seconds': round(time.process_time() - began, 1),
            'slowest_ms': round(1e3 * watch.slowest, 1), 'memory_limit_mb': target.memory >> 20,
            'peak_memory_mb': peak() >> 20, 'peak_growth_mb': (peak() - before) >> 20,
            'findings': list(watch.findings.values())}
        (options.out / f'{target.name}.json').write_text(json.dumps(figures))

    engine = {'atheris': run_guided, 'mutation': run_mutations}[options.engine]
    with memory_limit(target.memory):
        engine(watch, seeds, options, finish)


def run_mutations(watch: Watch, seeds: list[bytes], options: argparse.Namespace,
                  finish: Callable[[], None]) -> None:
    """Mutate the seeds, and what was made of them, by a seeded generator."""
    rng = random.Random(options.seed)
    pool = list(seeds)
    while watch.runs < options.runs:
        data = mutate(rng.choice(pool), rng, watch.target.tokens, seeds)
        if watch.execute(data) and rng.random() < 0.2:  # what is refused leads nowhere new
            if len(pool) < len(seeds) + KEPT:
                pool.append(data)
            else:
                pool[rng.randrange(len(seeds), len(pool))] = data
    finish()


def run_guided(watch: Watch, seeds: list[bytes], options: argparse.Namespace,
               finish: Callable[[], None]) -> None:
    """Have libFuzzer look for inputs that reach new code; half of its steps are our mutator's."""
    import atheris

    def step(data: bytes, most: int, seed: int) -> bytes:
        if seed % 2:
            return atheris.Mutate(data, most)
        return mutate(data, random.Random(seed), watch.target.tokens, seeds)[:most]

    def execute(data: bytes) -> None:
        watch.execute(data)
        if watch.runs == options.runs:
            finish()

    with tempfile.TemporaryDirectory() as folder:
        for index, seed in enumerate(seeds):
            Path(folder, str(index)).write_bytes(seed)
        atheris.Setup(
            [sys.argv[0], folder, f'-runs={options.runs}', f'-seed={options.seed + 1}',
             f'-max_len={LONGEST}', '-rss_limit_mb=0', '-timeout=3600', '-verbosity=0',
             f'-artifact_prefix={options.out}/', '-print_final_stats=0'],
            execute, custom_mutator=step)
        atheris.Fuzz()


def quieten() -> None:
    """Let nothing be printed for each input, and have a hang end with an error."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter('ignore')

    def hang(*_: object) -> None:
        raise HangError(f'more than {PATIENCE} s of processor time')

    signal.signal(signal.SIGPROF, hang)


def peak() -> int:
    """Return the most memory that the process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
