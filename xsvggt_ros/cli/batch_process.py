"""The process of one recording of a batch: `xsvggt reconstruct`, ending when the batch does."""

import os
import sys
import threading

from xsvggt_ros.console.processes import leave


def _end_with_parent() -> None:
    """Wait until the batch is gone, however it ended: its end of our input closes."""
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> int:
    """Run `xsvggt reconstruct` with this process's arguments; return its exit code."""
    threading.Thread(target=_end_with_parent, name='end with the batch', daemon=True).start()
    from xsvggt_ros.cli.main import main as run  # not before we are watched
    return run(['reconstruct', *sys.argv[1:]])


if __name__ == '__main__':
    leave(main())
