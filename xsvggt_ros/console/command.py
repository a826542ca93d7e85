"""How a command ends: quietly on Ctrl-C, in one line where the user can put something right."""

import argparse
from collections.abc import Callable
import sys

from xsvggt_ros.console.errors import ChoiceError, ToolError
from xsvggt_ros.console.processes import interrupt_on_signals, INTERRUPTED


def run_command(name: str, work: Callable[[], int | None], interrupted: int = INTERRUPTED,
                words: str = '') -> int:
    """
    Run a command and return its exit code: what `work` returns, 0 for None.

    Slow imports belong into `work`: it begins when the handlers of signals stand. interrupted: the
    code after Ctrl-C, and what is said then. ChoiceError ends with 2, ToolError with 1.
    """
    interrupt_on_signals()
    try:
        return work() or 0
    except KeyboardInterrupt:
        if words:
            print(words, file=sys.stderr)
        return interrupted
    except (ChoiceError, ToolError) as error:
        print(f'xsvggt {name}: {error}', file=sys.stderr)
        return 2 if isinstance(error, ChoiceError) else 1


def run_module(name: str, about: str | None, add_arguments: Callable[..., None],
               run: Callable[[argparse.Namespace], int],
               arguments: list[str] | None = None) -> int:
    """Run a command's module alone, as `xsvggt NAME` does; return the exit code."""
    parser = argparse.ArgumentParser(prog=f'xsvggt {name}', description=about)
    add_arguments(parser)
    return run(parser.parse_args(arguments))
