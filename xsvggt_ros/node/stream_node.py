"""Entry point of the node: quiet from the first moment Ctrl-C can be pressed."""

import os
import signal
import sys


def main(args: list[str] | None = None) -> None:
    """Run the node until it is told to stop."""
    # Until rclpy has its own handler; afterwards both signals end the executor.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # torch takes seconds to import, and Ctrl-C must end that as quietly as the rest.
        from xsvggt_ros.node.lifecycle import run

        finished = run(args)
    except KeyboardInterrupt:
        finished = True
    if not finished:
        # The network is in the middle of a frame that takes seconds, and nothing can wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == '__main__':
    main()
