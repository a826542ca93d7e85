"""
Runs targets for as many executions as wanted, each in a process of its own.

Guided by coverage where `atheris` is installed (PyPI), otherwise by seeded mutation alone.
"""

import argparse
from importlib.util import find_spec
import json
from pathlib import Path
import subprocess
import sys

from fuzz.run import all_targets, run_target

OUT = Path(__file__).parents[2] / 'out' / 'fuzz'


def main() -> int:
    """Run the targets that were named, or all; return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog='python -m fuzz', description=__doc__)
    parser.add_argument('targets', nargs='*', metavar='TARGET', help='default: all')
    parser.add_argument('--runs', type=int, default=100_000, help='executions of each target')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--engine', choices=('atheris', 'mutation'),
                        default='atheris' if find_spec('atheris') else 'mutation')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there')
    parser.add_argument('--out', type=Path, default=OUT, help='folder for inputs that were found')
    parser.add_argument('--list', action='store_true', help='name the targets and end')
    parser.add_argument('--here', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        return run_here(options)
    known = all_targets()
    if options.list:
        print('\n'.join(known))
        return 0
    unknown = [name for name in options.targets if name not in known]
    if unknown:
        parser.error(f'no target {", ".join(unknown)}; there are {", ".join(known)}')
    results = [run_apart(name, options) for name in options.targets or known]
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + '\n')
    return int(any(result['findings'] for result in results))


def run_apart(name: str, options: argparse.Namespace) -> dict:
    """Run a target in a process of its own, so that its memory is its own and a crash is told."""
    options.out.mkdir(parents=True, exist_ok=True)
    figures = options.out / f'{name}.json'
    figures.unlink(missing_ok=True)
    code = subprocess.run(
        [sys.executable, '-m', 'fuzz', '--here', name, '--runs', str(options.runs), '--seed',
         str(options.seed), '--engine', options.engine, '--out', str(options.out)]).returncode
    try:
        result = json.loads(figures.read_text())
    except OSError:
        result = {'target': name, 'runs': None, 'findings': [{'error': f'died, exit {code}'}]}
    print(f'{name}: {result}', flush=True)
    return result


def run_here(options: argparse.Namespace) -> int:
    """Run one target in this process."""
    name = options.targets[0]
    if options.engine == 'atheris':
        import atheris

        with atheris.instrument_imports(include=['xsvggt_ros']):
            target = all_targets()[name]
    else:
        target = all_targets()[name]
    run_target(target, options)
    return 0


if __name__ == '__main__':
    sys.exit(main())
