"""
Parts of `gpu_check.py`, each in a process of its own: `gpu_parts.py PART --json FILE`.

What was measured goes to FILE, written anew as it grows; the last line that is printed says what
was wrong. Exit code: 0 done, 1 failed, 2 no CUDA device, 3 could not be tried.
"""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
NO_DEVICE, SKIPPED = 2, 3
AT_THE_END = 40.0         # seconds kept for a training step to end, and for saving


class Failed(Exception):
    """What a part was looking for is not as it should be; all that was measured is written."""


class CannotTry(Exception):
    """What a part needs is not there."""


def write(file: Path, content: Any) -> None:
    """Write results; what was there stays until the new ones are whole."""
    unfinished = file.with_suffix('.part')
    unfinished.write_text(json.dumps(content) + '\n', encoding='utf-8')
    os.replace(unfinished, file)


# Device ------------------------------------------------------------------------------------------


def device_part(options: argparse.Namespace) -> int:
    """Say what the machine is."""
    from xsvggt_ros.bench.frame_bench import hardware

    wanted = torch.device(options.device)
    there = wanted.type != 'cuda' or torch.cuda.is_available()
    content = hardware(wanted if there else torch.device('cpu')) | {
        'triton': _version('triton'), 'cudnn': torch.backends.cudnn.version()}
    if there and wanted.type == 'cuda':
        about = torch.cuda.get_device_properties(wanted)
        content |= {'capability': f'{about.major}.{about.minor}',
                    'memory_bytes': about.total_memory,
                    'multiprocessors': about.multi_processor_count,
                    'bf16': torch.cuda.is_bf16_supported()}
    write(options.json, content)
    if not there:
        print(f'torch {torch.__version__} sees no CUDA device')
        return NO_DEVICE
    return 0


def _version(module: str) -> str | None:
    return getattr(__import__(module), '__version__', None) if find_spec(module) else None


# Tests -------------------------------------------------------------------------------------------


class Recorder:
    """A plugin of pytest that writes down each test's outcome as soon as it is known."""

    def __init__(self, file: Path) -> None:
        """Start with no tests."""
        self._file = file
        self.passed = 0
        self.failed: list[dict[str, str]] = []
        self.skipped: list[dict[str, str]] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take note of one phase of a test."""
        if report.passed:
            self.passed += report.when == 'call'
        else:
            kind = self.failed if report.failed else self.skipped
            kind.append({'test': report.nodeid, 'reason': _reason(report)})
        self._write()

    def pytest_collectreport(self, report: Any) -> None:
        """Take note of a file that cannot be read, or is skipped as a whole."""
        if not report.passed:
            kind = self.failed if report.failed else self.skipped
            kind.append({'test': report.nodeid, 'reason': _reason(report)})
            self._write()

    def _write(self) -> None:
        write(self._file, {'passed': self.passed, 'failed': self.failed,
                           'skipped': self.skipped})


def _reason(report: Any) -> str:
    """Return in a line why a test failed or was skipped."""
    found = report.longrepr
    if isinstance(found, tuple):
        return found[2]
    crash = getattr(found, 'reprcrash', None)
    return (crash.message if crash is not None else str(found)).strip().split('\n')[0][:300]


def tests_part(options: argparse.Namespace) -> int:
    """Run tests."""
    if find_spec('pytest') is None:
        raise CannotTry('pytest is not installed')
    import pytest

    recorder = Recorder(options.json)
    code = pytest.main(['-v', '--tb=short', '-p', 'no:cacheprovider', '--rootdir', str(ROOT),
                        *(str(ROOT / file) for file in options.files)], plugins=[recorder])
    if recorder.failed:
        first = recorder.failed[0]
        raise Failed(f'{len(recorder.failed)} of {recorder.passed + len(recorder.failed)} tests '
                     f'failed, the first: {first["test"]}: {first["reason"]}')
    if not recorder.passed:
        raise CannotTry(recorder.skipped[0]['reason'] if recorder.skipped
                        else f'no test has run ({code!r})')
    return 0


# Numbers and times -------------------------------------------------------------------------------


def golden_part(options: argparse.Namespace) -> int:
    """Compare the network on the device with golden data and with the CPU in fp32."""
    import golden_data
    import gpu_numerics

    rows: list[dict[str, Any]] = []
    for case, mode in gpu_numerics.golden_modes(options.cases or golden_data.CASES):
        rows.append(gpu_numerics.compare_with_cpu(case, mode, torch.device(options.device)))
        write(options.json, {'tolerance': '1e-4 * (1 + |golden|)', 'cases': rows})
    wrong = [f'{row["case"]} {row["mode"]}' for row in rows
             if not (row['excess_over_golden'] < 1 and row['kept_as_on_cpu'])]
    if wrong:
        raise Failed('not within the tolerance of the golden data, or other tokens kept than on '
                     f'the CPU: {", ".join(wrong)}')
    return 0


def kernels_part(options: argparse.Namespace) -> int:
    """Compare each Triton kernel with what PyTorch does in its place, and time both."""
    import gpu_numerics

    from xsvggt_ros.kernels.availability import why_not

    device = torch.device(options.device)
    reason = why_not(device, gpu_numerics.HEAD_DIM)
    if reason is not None:
        raise CannotTry(reason)
    rows: list[dict[str, Any]] = []
    for row in gpu_numerics.compare_kernels(device, options.tiny):
        rows.append(row)
        write(options.json, {'error': 'relative RMS', 'kernels': rows})
    wrong = [f'{row["kernel"]} ({row["image"]}, {row["dtype"]}): {row["error"]:.2g}'
             for row in rows if not row['equal']]
    if wrong:
        raise Failed(f'kernels are not what PyTorch does: {", ".join(wrong)}')
    return 0


# Training ----------------------------------------------------------------------------------------


def training_part(options: argparse.Namespace) -> int:
    """Train for the time there is, on from a state if one is given, and say how quick that is."""
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='gpu_training_') as work:
        folder = Path(work)
        before = take_state(options.training, folder) if options.training else {}
        command = training_command(options, folder, before)
        print(' '.join(command), flush=True)
        begin = time.monotonic()
        code = run_until(command, options.seconds - AT_THE_END)
        took = time.monotonic() - begin
        after = _curves(folder)
        for name in ('wide_state.pt', 'wide.safetensors', 'wide_curves.json'):
            if (folder / name).exists():
                shutil.copyfile(folder / name, options.out / name)
        content = training_results(before, after, took)
        write(options.json, content)
    if code != 0:
        raise Failed(f'training ended with code {code}; what it said is above')
    if not content['steps']:
        raise Failed('no training step was done in the time there was')
    return 0


def take_state(given: Path, folder: Path) -> dict[str, Any]:
    """
    Copy what training goes on from, and return its curves so far.

    Rooms to train in are rendered anew: a GPU uses others, and far more, at the same step.
    """
    if not (given / 'wide_state.pt').exists():
        raise Failed(f'--training {given}: there is no wide_state.pt in it')
    for name in ('wide_state.pt', 'wide_curves.json', 'rooms/textures.npz'):
        if (given / name).exists():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(given / name, folder / name)
    if (given / 'validation').is_dir():
        shutil.copytree(given / 'validation', folder / 'validation')
    return _curves(folder)


def training_command(
    options: argparse.Namespace, folder: Path, before: dict[str, Any],
) -> list[str]:
    """
    Return the command: the plan of the state, or a short one of its own for the time there is.

    A plan is kept as it is, so that the rates are those of its step; it is stopped before its end.
    """
    command = [sys.executable, '-m', 'training.train_wide', '--device', options.device,
               '--out', str(folder)]
    if options.textures is not None:
        command += ['--textures', str(options.textures)]
    plan = before.get('plan')
    if plan is None:
        return [*command, '--minutes', f'{max(options.seconds - AT_THE_END, 1) / 60:.2f}']
    ends = ('--minutes', plan['minutes']) if plan['minutes'] else ('--steps', plan['steps'])
    return [*command, *map(str, (*ends, '--seed', plan['seed'], '--slots', plan['slots'], '--rate',
                                 plan['learning_rate'] / 6e-4))]


def run_until(command: Sequence[str], seconds: float) -> int:
    """Run a program, have it stop and save after so many seconds; return its exit code."""
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()   # SIGINT is ignored by what a shell runs in the background
        return process.wait()


def training_results(
    before: dict[str, Any], after: dict[str, Any], seconds: float,
) -> dict[str, Any]:
    """Return steps and frames of this run, how quick it was, and the newest errors."""
    steps = after.get('steps', 0) - before.get('steps', 0)
    curves = after.get('curves', [])
    trained = 3600 * (after.get('hours', 0) - before.get('hours', 0))
    frames = steps * after.get('plan', {}).get('frames_per_step', 0)
    return {'steps_before': before.get('steps', 0), 'steps': steps, 'frames': frames,
            'seconds': round(seconds, 1), 'seconds_of_steps': round(trained),
            'frames_a_second': round(frames / trained, 1) if trained > 0 else None,
            'first_errors': curves[0] if curves else None,
            'newest_errors': curves[-1] if curves else None}


def _curves(folder: Path) -> dict[str, Any]:
    """Return what training has written about itself, nothing if it has not."""
    file = folder / 'wide_curves.json'
    return json.loads(file.read_text(encoding='ascii')) if file.exists() else {}


PARTS = {'device': device_part, 'tests': tests_part, 'golden': golden_part,
         'kernels': kernels_part, 'training': training_part}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one part; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    choices = parser.add_subparsers(dest='part', required=True)
    parts = {name: choices.add_parser(name, help=run.__doc__) for name, run in PARTS.items()}
    for part in parts.values():
        part.add_argument('--json', type=Path, required=True)
        part.add_argument('--device', default='cuda')
    parts['tests'].add_argument('files', nargs='+')
    parts['golden'].add_argument('--cases', nargs='+')
    parts['kernels'].add_argument('--tiny', action='store_true')
    parts['training'].add_argument('--seconds', type=float, required=True)
    for name in ('out', 'textures', 'training'):
        parts['training'].add_argument(f'--{name}', type=Path, required=name == 'out')
    options = parser.parse_args(arguments)
    sys.path[:0] = [str(ROOT), str(ROOT / 'test'), str(ROOT / 'ci')]
    try:
        return PARTS[options.part](options)
    except Failed as error:
        print(error)
        return 1
    except CannotTry as error:
        print(error)
        return SKIPPED


if __name__ == '__main__':
    sys.exit(main())
