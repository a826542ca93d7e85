"""Writes what long runs have measured: `python -m fuzz.page OUT` takes the figures from there."""

import json
from pathlib import Path
import sys

from fuzz.__main__ import OUT
from fuzz.run import all_targets

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / 'docs' / 'bench' / 'fuzzing.json'
PAGE = ROOT / 'docs' / 'reliability.md'
BEGIN, END = '<!-- fuzzing: begin -->\n', '<!-- fuzzing: end -->\n'


def table(figures: list[dict]) -> str:
    """Return the figures of targets as a table."""
    lines = ['| target | executions | accepted | CPU s | slowest, ms | memory, MB | findings |',
             '|---|---|---|---|---|---|---|']
    for one in figures:
        lines.append('| {target} | {runs:,} | {accepted:,} | {cpu_seconds:.0f} | {slowest_ms:.0f} '
                     '| {peak_memory_mb} | {count} |'.format(count=len(one['findings']), **one))
    return '\n'.join(lines) + '\n'


def main(folder: Path) -> None:
    """Put the figures that lie in a folder among those that are known, and into the page."""
    known = json.loads(FIGURES.read_text()) if FIGURES.is_file() else []
    by_name = {one['target']: one for one in known}
    for file in sorted(folder.glob('*.json')):
        one = json.loads(file.read_text())
        by_name[one['target']] = one
    figures = [by_name[name] for name in all_targets() if name in by_name]
    FIGURES.write_text(json.dumps(figures, indent=1) + '\n')
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table(figures) + END + rest.partition(END)[2])


if __name__ == '__main__':
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
