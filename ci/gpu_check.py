#!/usr/bin/env python3
"""
Check and measure the package on a machine with a CUDA GPU, in a few minutes.

    python ci/gpu_check.py --out DIR [--minutes M] [--textures DIR] [--training DIR]

Needs a checkout of the repository and a Python that has what the package needs; ROS is not
needed. Part after part runs in a process of its own with a time limit of its own, and
DIR/gpu_check.json is written anew after each, so that nothing is lost when one fails or time runs
out; what the parts print is in DIR/gpu_check.log. Exit code: 0 if all parts are done (or skipped
for a reason that is given), 1 if one failed or time ran out, 2 if there is no CUDA device.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.util import find_spec
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MINUTES = 12.0
NO_DEVICE, SKIPPED = 2, 3    # exit codes of parts; other ones but 0: failed
GRACE = 5.0                  # seconds that a part gets to end once it was told to
LEAST_TRAINING = 120.0       # seconds that training is begun with
TRAINING_NEEDS = ('numba', 'embreex', 'PIL')
JSON_FILE, SECONDS_LEFT = '{json}', '{seconds}'    # in a part's command
WAITING, DONE, FAILED, SKIP, LATE = 'waiting', 'done', 'failed', 'skipped', 'out of time'


@dataclass(frozen=True)
class Part:
    """
    One thing to run.

    command: arguments of a program that ends with 0 if all is well, and with `SKIPPED` if it could
        not be tried; it writes what it measured to `JSON_FILE`, best again and again, and its last
        line says what was wrong. `SECONDS_LEFT` becomes the seconds that it has.
    limit: seconds it may take, `least`: that must be left for it to begin.
    skip: why it is not run at all. vital: without it nothing else has a sense.
    """

    name: str
    command: Sequence[str]
    limit: float
    least: float = 5.0
    skip: str | None = None
    vital: bool = False


class Check:
    """Runs parts in their order and keeps the report up to date."""

    def __init__(
        self, out: Path, parts: Sequence[Part], seconds: float, about: dict[str, Any],
        environment: dict[str, str] | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the folder; about: what the report begins with."""
        self._out, self._parts, self._clock = out, parts, clock
        self._environment = environment
        self._end = clock() + seconds
        self._rows: list[dict[str, Any]] = [
            {'name': part.name, 'state': WAITING, 'reason': None, 'seconds': None,
             'command': ['python' if word == sys.executable else word for word in part.command],
             'results': None} for part in parts]
        self._about = about
        out.mkdir(parents=True, exist_ok=True)
        (out / 'gpu_check.log').write_bytes(b'')

    def run(self) -> int:
        """Run all parts; return the exit code."""
        self._write()
        stop = None    # why nothing more is begun
        code = 0
        for part, row in zip(self._parts, self._rows):
            if part.skip or stop:
                row.update(state=SKIP, reason=part.skip or stop)
            else:
                try:
                    ended = self._run(part, row)
                except KeyboardInterrupt:
                    row.update(state=FAILED, reason='interrupted')
                    ended, stop = 1, 'interrupted'
                if row['state'] in (FAILED, LATE):
                    code = code or 1
                    if part.vital:
                        stop = f'{part.name}: {row["reason"]}'
                        code = NO_DEVICE if ended == NO_DEVICE else code
            self._write()
            _tell(row)
        self._write(code)
        return code

    def _run(self, part: Part, row: dict[str, Any]) -> int | None:
        """Run one part, fill its row, and return its exit code, None if it had none."""
        begin = self._clock()
        seconds = min(part.limit, self._end - begin)
        if seconds < part.least:
            row.update(state=LATE, reason='not begun: too little time was left')
            return None
        print(f'{part.name}: at most {seconds:.0f} s ...', flush=True)
        with tempfile.TemporaryDirectory(prefix='gpu_check_') as folder:
            results = Path(folder) / 'results.json'
            words = {JSON_FILE: str(results), SECONDS_LEFT: f'{seconds - 2 * GRACE:.0f}'}
            command = [words.get(word, word) for word in part.command]
            log = self._out / 'gpu_check.log'
            with log.open('ab') as file:
                file.write(f'\n==== {part.name}: {" ".join(command)}\n'.encode())
                file.flush()
                before = file.tell()
                try:
                    ended = self._wait(command, file, begin + seconds)
                finally:
                    row.update(seconds=round(self._clock() - begin, 2), results=_read(results))
            said = log.read_bytes()[before:].decode(errors='replace')
        if ended is None:
            row.update(state=LATE, reason=f'stopped after {seconds:.0f} s')
        elif ended == 0:
            row.update(state=DONE)
        else:
            row.update(state=SKIP if ended == SKIPPED else FAILED,
                       reason=_last_line(said) or f'ended with code {ended}')
        return ended

    def _wait(self, command: Sequence[str], log: Any, until: float) -> int | None:
        """Return a program's exit code, or None if it had to be stopped."""
        with subprocess.Popen(command, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL,
                              stdout=log, stderr=log, start_new_session=True) as process:
            try:
                while process.poll() is None:
                    if self._clock() >= until:
                        return None
                    time.sleep(0.05)
                return process.returncode
            finally:
                _end(process)

    def _write(self, code: int | None = None) -> None:
        """Write the report; the file is whole at any time."""
        first = self._rows[0]['results'] or {} if self._rows else {}
        report = {**self._about, 'device': first.get('device'), 'exit_code': code,
                  'versions': {name: first.get(name)
                               for name in ('driver', 'cuda', 'torch', 'triton', 'python')},
                  'parts': self._rows}
        unfinished = self._out / 'gpu_check.part'
        unfinished.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
        os.replace(unfinished, self._out / 'gpu_check.json')


def _end(process: subprocess.Popen) -> None:
    """Have a program and all that it has begun end."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):    # all have ended
            break
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            pass


def _read(file: Path) -> Any:
    """Return what a part has written, None if that is nothing or not whole."""
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ''


def _tell(row: dict[str, Any]) -> None:
    took = f' in {row["seconds"]:.0f} s' if row['seconds'] is not None else ''
    reason = f': {row["reason"]}' if row['reason'] else ''
    print(f'{row["name"]}: {row["state"]}{took}{reason}', flush=True)


# What is run -------------------------------------------------------------------------------------


def own_part(name: str, *arguments: str) -> list[str]:
    """Return the command of a part of `gpu_parts.py`."""
    return [sys.executable, 'ci/gpu_parts.py', name, '--json', JSON_FILE,
            *arguments]


def bench(
    size: str, image: str, quantization: str, frames: int, tokens: int, limit: float,
    device: str = 'cuda', graphs: str = 'on', kernels: str = 'portable',
) -> Part:
    """Return a run of `xsvggt bench`."""
    name = f'bench_{size}_{image}_{quantization}'
    name += '_eager' if device == 'cuda' and graphs == 'off' else ''
    name += '_triton' if kernels == 'triton' else ''
    command = [sys.executable, '-m', 'xsvggt_ros.cli.bench', '--size', size, '--image', image,
               '--quantization', quantization, '--frames', str(frames),
               '--max-tokens', str(tokens), '--device', device, '--graphs', graphs,
               '--kernels', kernels, '--json', JSON_FILE]
    return Part(name, command, limit)


def plan_for_cuda(out: Path, textures: Path | None, training: Path | None) -> list[Part]:
    """Return all parts, the most wanted first."""
    cuda = ('--device', 'cuda')
    sizes = (('small', '112x84', 300, 2048, 60.0), ('full', '224x168', 100, 2048, 75.0),
             ('full', '518x392', 60, 3123, 90.0))
    return [
        Part('device', own_part('device', *cuda), 60.0, vital=True),
        Part('cuda_tests', own_part('tests', 'test/gpu/test_cuda.py'), 120.0),
        Part('golden', own_part('golden', *cuda), 90.0),
        Part('kernel_tests', own_part('tests', 'test/unit/kernels/test_kernels.py'), 150.0),
        Part('kernels', own_part('kernels', *cuda), 90.0),
        *(bench(size, image, quantization, frames, tokens, limit)
          for size, image, frames, tokens, limit in sizes for quantization in ('int4', 'none')),
        bench('full', '518x392', 'none', 30, 3123, 60.0, graphs='off'),
        bench('full', '518x392', 'int4', 60, 3123, 60.0, kernels='triton'),
        Part('training', training_command(out, textures, training), 3600.0, LEAST_TRAINING,
             skip=why_no_training())]


def plan_for_dry_run() -> list[Part]:
    """Return the same plan in sizes for a CPU, where Triton interprets its kernels."""
    cpu = ('--device', 'cpu')
    needs = 'needs a CUDA device'
    interprets = None if find_spec('triton') else 'triton is not installed'
    return [
        Part('device', own_part('device', *cpu), 120.0, vital=True),
        Part('cuda_tests', own_part('tests', 'test/gpu/test_cuda.py'), 120.0),
        Part('golden', own_part('golden', *cpu, '--cases', 'tiny_h1'), 120.0),
        Part('kernel_tests', (), 0.0, skip=needs),
        Part('kernels', own_part('kernels', *cpu, '--tiny'), 120.0, skip=interprets),
        *(bench('small', '56x42', quantization, 6, 100, 120.0, 'cpu', 'off')
          for quantization in ('int4', 'none')),
        Part('training', (), 0.0, skip=needs)]


def training_command(out: Path, textures: Path | None, training: Path | None) -> list[str]:
    """Return what trains until time runs out."""
    given = [word for name, folder in (('--textures', textures), ('--training', training))
             if folder is not None for word in (name, str(folder.resolve()))]
    return own_part('training', '--device', 'cuda', '--seconds', SECONDS_LEFT, '--out',
                    str((out / 'training').resolve()), *given)


def why_no_training() -> str | None:
    """Return what is missing for training, None if nothing is."""
    missing = [name for name in TRAINING_NEEDS if find_spec(name) is None]
    return f'not installed: {", ".join(missing)}' if missing else None


def environment(device: str) -> dict[str, str]:
    """Return the environment of all parts."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH'))))
    return {**os.environ, 'PYTHONPATH': path, 'PYTHONUNBUFFERED': '1',
            'TRITON_INTERPRET': '0' if device == 'cuda' else '1'}


def commit() -> str | None:
    """Return the commit that is checked out, None outside of git."""
    try:
        return subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=ROOT, capture_output=True,
                              text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n\n')[0])
    add = parser.add_argument
    add('--out', type=Path, required=True, metavar='DIR', help='where report and log go')
    add('--minutes', type=float, default=MINUTES, metavar='M',
        help=f'for all parts together; training gets what is left (default: {MINUTES:g})')
    add('--textures', type=Path, metavar='DIR',
        help='photographs of surfaces to train with (without: procedural textures)')
    add('--training', type=Path, metavar='DIR',
        help='what `python -m training.train_wide --out DIR` has left, to train on from; it '
             'stays as it is (without: from the beginning)')
    add('--dry-run', action='store_true',
        help='the same in tiny sizes on a CPU, without what needs a GPU')
    options = parser.parse_args(arguments)
    for name in ('textures', 'training'):
        folder = getattr(options, name)
        if folder is not None and not folder.is_dir():
            parser.error(f'--{name} {folder}: there is no such folder')
    if not options.minutes > 0:
        parser.error(f'--minutes {options.minutes:g}: more than 0 are needed')
    signal.signal(signal.SIGTERM, signal.default_int_handler)    # as Ctrl-C: write what there is
    parts = plan_for_dry_run() if options.dry_run else plan_for_cuda(
        options.out, options.textures, options.training)
    about = {'begun': datetime.now(timezone.utc).isoformat(timespec='seconds'),
             'commit': commit(), 'dry_run': options.dry_run, 'minutes': options.minutes}
    check = Check(options.out, parts, 60 * options.minutes, about,
                  environment('cpu' if options.dry_run else 'cuda'))
    code = check.run()
    print(f'written: {options.out / "gpu_check.json"}')
    return code


if __name__ == '__main__':
    sys.exit(main())
