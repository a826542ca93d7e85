"""
Writes what a soak has measured into a page: `python -m xsvggt_ros.soak.docs PAGE FILE...`.

Each FILE is what `xsvggt soak --json` wrote, of faults or of many images. The tables of the page
lie between marks, and nobody types a number.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from xsvggt_ros.node.parameter_docs import insert
from xsvggt_ros.soak.report import LATE

FAULTS, FRAMES = 'soak of faults', 'soak of images'
_MIB = 2 ** 20


def page_with(page: str, contents: list[dict[str, Any]]) -> str:
    """Return a page's text with the tables of these results in place of the old ones."""
    for content in contents:
        if 'faults' in content:
            page = insert(page, FAULTS, f'{fault_summary(content)}\n\n{fault_table(content)}')
        else:
            page = insert(page, FRAMES, frame_table(content))
    return page


def fault_summary(content: dict[str, Any]) -> str:
    """Return the totals of a run of faults, in sentences."""
    text = (
        f'{content["injections"]} injections of {len(content["faults"])} kinds in '
        f'{content["seconds"] / 60:.0f} minutes (seed {content["seed"]}; {content["machine"]}): '
        f'{content["crashes"]} crashes, {content["hangs"]} hangs, {content["non_finite"]} times a '
        f'message that was not finite, {content["lost"]} times a map or a count lost or mixed, '
        f'{content["wrong"]} times something else than expected, {content["silent"]} times '
        f'silence where diagnostics should have spoken. Recovery from the end of a fault to the '
        f'next tracked image: median {_seconds(content["recovery_median_s"])} s, worst '
        f'{_seconds(content["recovery_worst_s"])} s, {content["late"]} times above {LATE:.0f} s. '
        f'The slowest answer of a service, and of a process that was told to end: '
        f'{_seconds(content["answer_worst_s"])} s.')
    for life in content['lives']:
        (begin, end), descriptors, threads = (
            life['resident'], life['descriptors'], life['threads'])
        text += (
            f' A process that lived through {life["injections"]} injections went from '
            f'{begin / _MIB:.0f} to {end / _MIB:.0f} MiB, from {descriptors[0]} to '
            f'{descriptors[1]} descriptors and from {threads[0]} to {threads[1]} threads.')
    return text


def fault_table(content: dict[str, Any]) -> str:
    """Return a line for each kind of fault, group after group, as Markdown."""
    rows = ['| group | fault | count | outcome | recovery: median (worst) | the node |',
            '|---|---|---:|---|---:|---|']
    for one in sorted(content['faults'], key=lambda fault: (fault['group'], fault['name'])):
        recovery = f'{_seconds(one["recovery_s"])} ({_seconds(one["recovery_worst_s"])}) s'
        cells = (one['group'], one['name'], str(one['count']), one['outcome'], recovery,
                 one['expected'])
        rows.append(f'| {" | ".join(cells)} |')
    return '\n'.join(rows) + '\n'


def frame_table(content: dict[str, Any]) -> str:
    """Return what a run of many images has measured, as Markdown."""
    first, last = content['latency_first'], content['latency_last']
    rows = {
        'images': f'{content["frames"]} in {content["seconds"] / 60:.0f} minutes, '
                  f'{content["frames"] / content["seconds"]:.1f} a second',
        f'memory after {content["warm_up"]} images': f'{content["memory_drift_bytes"] / _MIB:+.2f}'
                                                     ' MiB to the end',
        'descriptors, threads': f'{_all(content["descriptors"])}, {_all(content["threads"])}',
        'latency p50, p99, the first thousand': f'{1e3 * first[0]:.1f}, {1e3 * first[1]:.1f} ms',
        'latency p50, p99, the last thousand': f'{1e3 * last[0]:.1f}, {1e3 * last[1]:.1f} ms',
        'messages that were not finite; maps or counts lost':
            f'{content["non_finite"]}; {content["lost"]}',
        'machine': content['machine']}
    lines = [f'| {name} | {value} |' for name, value in rows.items()]
    return '\n'.join(['| | |', '|---|---|', *lines]) + '\n'


def _seconds(value: float | None) -> str:
    return 'never' if value is None else f'{value:.2f}'


def _all(values: list[int]) -> str:
    return ' to '.join(str(value) for value in sorted({values[0], values[-1]}))


def main() -> None:
    """Rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('page', type=Path)
    parser.add_argument('results', type=Path, nargs='+')
    options = parser.parse_args()
    contents = [json.loads(file.read_text(encoding='utf-8')) for file in options.results]
    page = options.page.read_text(encoding='utf-8')
    options.page.write_text(page_with(page, contents), encoding='utf-8')


if __name__ == '__main__':
    main()
