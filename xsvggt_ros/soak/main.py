"""What `xsvggt soak` does, once it is known that ROS is there."""

import argparse
from dataclasses import replace
import os
from pathlib import Path
import textwrap

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.measurement import check_writable, write_json
from xsvggt_ros.soak.endurance import run_endurance
from xsvggt_ros.soak.faults import KINDS
from xsvggt_ros.soak.kinds import FaultKind
from xsvggt_ros.soak.report import text_table
from xsvggt_ros.soak.run import run_script
from xsvggt_ros.soak.script import LONG, write_script


def soak(options: argparse.Namespace) -> int:
    """Run what the options say; return the exit code."""
    kinds = chosen(options.only)
    if options.list:
        for kind in kinds:
            print(f'{kind.name}  ({kind.group}, setup {kind.setup})')
            print(textwrap.indent(f'{kind.summary}\nThe node {kind.expected}.', '    '))
        return 0
    check_writable(options.json)
    if options.logs is not None:
        options.logs.mkdir(parents=True, exist_ok=True)
    if options.frames is not None:
        return endure(options)
    count = None if options.short else options.injections or LONG
    steps = write_script(kinds, options.seed, count)
    print(f'{len(steps)} injections of {len(kinds)} kinds, seed {options.seed}', flush=True)
    report = run_script(
        steps, options.seed, 'short' if options.short else 'long', options.patience,
        options.parameter, lambda words: print(words, flush=True), options.logs)
    content = replace(report, machine=machine()).to_json()
    print(f'\n{text_table(content)}', flush=True)
    if options.json is not None:
        write_json(options.json, content)
    complete = len(report.injections) == len(steps)
    return (0 if report.fine else 1) if complete else 130


def endure(options: argparse.Namespace) -> int:
    """Run so many images through the node; return the exit code."""
    result = run_endurance(options.frames, options.patience, options.parameter,
                           lambda words: print(words, flush=True), options.logs)
    content = result.to_json() | {'machine': machine()}
    print('\n'.join(result.words()), flush=True)
    if options.json is not None:
        write_json(options.json, content)
    return (0 if result.fine else 1) if result.is_complete else 130


def chosen(words: str | None) -> list[FaultKind]:
    """Return the kinds whose name or group has these words; raises ToolError if none has."""
    kinds = [kind for kind in KINDS.values()
             if words is None or words in kind.name or words == kind.group]
    if not kinds:
        raise ToolError(f'--only {words}: no kind of fault is called that; see --list')
    return kinds


def machine() -> str:
    """Return the processor and its cores, and how busy they are, in words."""
    name = next((line.partition(':')[2].strip() for line in Path('/proc/cpuinfo').read_text(
        encoding='utf-8').splitlines() if line.startswith('model name')), 'unknown processor')
    return (f'{name}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}')
