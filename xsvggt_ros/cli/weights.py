"""List the weights that can be loaded, and fetch those of others; their licence comes first."""

import argparse
import os
from pathlib import Path
import sys

from xsvggt_ros.console.errors import ToolError
from xsvggt_ros.console.processes import interrupt_on_signals, INTERRUPTED
from xsvggt_ros.model.public_weights import ALL, fetched_file, PublicWeights

ENDPOINT = 'https://huggingface.co'
EPILOG = """\
example: xsvggt weights streamvggt, then checkpoint:=streamvggt or --checkpoint streamvggt

Without a name the weights are listed. HF_ENDPOINT names another server, HF_TOKEN who you are;
XSVGGT_WEIGHTS or XDG_CACHE_HOME the folder. Without a network: fetch the file elsewhere, and
give it with --from FILE.

exit codes: 0 done, 1 failed, 2 wrong arguments, 130 after Ctrl-C (the same command goes on)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument('name', nargs='?', choices=tuple(ALL), help='which to fetch')
    parser.add_argument('--accept-licence', action='store_true',
                        help='you have read the terms and accept them; without it you are asked')
    parser.add_argument('--from', dest='file', type=Path, metavar='FILE',
                        help='take the published file from here instead of fetching it')
    parser.add_argument('--keep', action='store_true', help='keep the file that was fetched, too')
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(options: argparse.Namespace) -> int:
    """List or fetch weights; return the exit code."""
    interrupt_on_signals()
    try:
        if options.name is None:
            print('\n'.join(_listed()))
        else:
            _get(ALL[options.name], options)
    except KeyboardInterrupt:
        print('\ninterrupted: the same command goes on where this one ended', flush=True)
        return INTERRUPTED
    except ToolError as error:
        print(f'xsvggt weights: {error}', file=sys.stderr)
        return 1
    return 0


def _listed() -> list[str]:
    """Return what can be loaded, in lines."""
    lines = ['small            comes with the package, Apache-2.0; trained in synthetic rooms']
    for weights in ALL.values():
        there = fetched_file(weights.name)
        state = f'here: {there}' if there.is_file() else f'not here ({weights.size})'
        lines += [f'{weights.name:15}  {state}',
                  f'{"":15}  {weights.repository} on Hugging Face, {weights.licence}: '
                  f'{weights.terms}']
        if weights.note:
            lines.append(f'{"":15}  {weights.note}')
    return lines


def _get(weights: PublicWeights, options: argparse.Namespace) -> None:
    """Fetch and convert weights; raises ToolError."""
    target = fetched_file(weights.name)
    if target.is_file():
        print(f'{weights.name} is here already: {target}')
        return
    _ask(weights, options.accept_licence)
    source = options.file or _fetch(weights, target.parent)
    _convert(source, target, weights)
    if options.file is None and not options.keep:
        source.unlink(missing_ok=True)
    print(f'{target}\nuse it with checkpoint:={weights.name} or --checkpoint {weights.name}')


def _ask(weights: PublicWeights, is_accepted: bool) -> None:
    """Show the licence, and raise ToolError unless it is accepted."""
    print(f'{weights.repository}: {weights.licence}; {weights.terms}.')
    print(f'The terms: {ENDPOINT}/{weights.repository}')
    if weights.note:
        print(f'Note: {weights.note}.')
    if is_accepted:
        return
    if not sys.stdin.isatty():
        raise ToolError('read the terms; --accept-licence says that you accept them')
    if input("Type 'yes' if you have read and accept them: ").strip().lower() != 'yes':
        raise ToolError('the terms were not accepted: nothing is fetched')


def _fetch(weights: PublicWeights, folder: Path) -> Path:
    """Return the file as it is published, fetched; raises ToolError."""
    from xsvggt_ros.console.download import describe, download, DownloadError
    from xsvggt_ros.console.progress import ProgressBar

    endpoint = os.environ.get('HF_ENDPOINT', ENDPOINT).rstrip('/')
    url = f'{endpoint}/{weights.repository}/resolve/main/{weights.file}'
    token = os.environ.get('HF_TOKEN')
    file = folder / f'{weights.name}.{weights.file}'
    if file.is_file():
        return file
    try:
        remote = describe(url, token)
        total = None if remote.size is None else remote.size // 10 ** 6
        if remote.sha256 is None:
            print('the server gives no hash: the size alone is checked', flush=True)
        bar = ProgressBar(f'{weights.file}, MB', total)
        download(remote, file, token, lambda done: bar.update(done // 10 ** 6))
        bar.close(file.stat().st_size // 10 ** 6)
    except DownloadError as error:
        raise ToolError(f'{error}. Or fetch {url} with a browser or on another machine, and run '
                        f'xsvggt weights {weights.name} --from FILE') from error
    except OSError as error:
        raise ToolError(f'{folder}: cannot be written: {error}') from error
    return file


def _convert(source: Path, target: Path, weights: PublicWeights) -> None:
    """Write the weights as bfloat16, with the network's shape; raises ToolError."""
    import torch

    from xsvggt_ros.model.checkpoint import CheckpointError, load_model, save_checkpoint

    print(f'converting {source} to bfloat16', flush=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        model = load_model(str(source), dtype=torch.bfloat16).model.to(torch.bfloat16)
        save_checkpoint(model, target, {
            'source': f'{weights.repository}/{weights.file}', 'licence': weights.licence})
    except (CheckpointError, OSError, RuntimeError, MemoryError) as error:
        raise ToolError(f'{source}: {str(error) or type(error).__name__}') from error
