"""Entry point of the node: quiet from the first moment Ctrl-C can be pressed."""

import gc
import os
import signal
import sys


def main(args: list[str] | None = None) -> None:
    """Run the node until it is told to stop."""
    # torch and rclpy take seconds to import, and Ctrl-C must end that as quietly as the rest. An
    # exception would not do: a half imported extension turns it into an ImportError.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    # What is imported stays: a tenth of the time until the first pose would be spent on looking
    # through it for garbage.
    gc.disable()
    from xsvggt_ros.node.run_node import run

    try:
        finished = run(args)
    except KeyboardInterrupt:  # pressed again, before it began to end; its threads may be at work
        finished = False
    # Pressed again while the interpreter ends, Ctrl-C would be an exception in what torch does
    # then, or kill the process: CPython lets go of handlers, but not of this. SIGTERM stays.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    # CPython ends a process by SIGINT if a KeyboardInterrupt ever left code that exec() was given
    # as a text, which libraries do, though it was caught further up. Another text clears that.
    exec('')
    if not finished:
        # The network is in the middle of a frame that takes seconds, and nothing can wait for it.
        _leave()


def _leave(*_: object) -> None:
    """End the process at once, with code 0, and run no more Python code; also a signal handler."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == '__main__':
    main()
