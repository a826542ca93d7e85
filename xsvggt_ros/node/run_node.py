"""The node's process: ROS, signals and the executor."""

import gc
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import install_signal_handlers, SignalHandlerOptions

from xsvggt_ros.node.deferred_imports import deferred_registrations
from xsvggt_ros.node.worker import ANYTHING, PAUSE

if TYPE_CHECKING:
    from xsvggt_ros.node.lifecycle import XsvggtNode

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def spin(node: 'XsvggtNode', executor: SingleThreadedExecutor, ending: list[int]) -> None:
    """Call callbacks until the end; one that fails is reported, and the others go on."""
    while True:
        try:
            executor.spin()
            return
        except ExternalShutdownException:
            return
        except ANYTHING as error:
            if ending or not rclpy.ok():
                raise
            node.report_callback(error)
            time.sleep(PAUSE)


class _EarlyNode:
    """
    A node while torch is imported, which takes most of the time until the first pose.

    The middleware finds other processes meanwhile, which can take it half a second: it begins with
    the first node of a process. Within this, Ctrl-C and SIGTERM end the process at once, but for
    the middleware's shared memory, which would outlive it. They are blocked after a good end,
    until whoever goes on can take them.
    """

    def __enter__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._node = Node(f'_xsvggt_{os.getpid()}', use_global_arguments=False,
                          enable_rosout=False, start_parameter_services=False)
        for number in SIGNALS:
            signal.signal(number, self._leave)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _leave(self, *_: object) -> None:
        self._node.destroy_node()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    def __exit__(self, kind: type | None, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._node.destroy_node()
        if kind is not None:    # there is no node to go on with
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _make_node() -> 'XsvggtNode':
    """Return the node, with signals blocked."""
    with _EarlyNode():
        with deferred_registrations():
            from xsvggt_ros.node.lifecycle import XsvggtNode

        # What was imported stays; `stream_node` has stopped the search for garbage.
        gc.freeze()
        gc.enable()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        return XsvggtNode()


def run(args: list[str] | None = None) -> bool:
    """
    Run the node until Ctrl-C or shutdown; return False if its worker is still busy then.

    SystemExit, with code 1: ROS cannot be started, or the node cannot and is not to wait for
    another try.
    """
    # A context that a signal shut down would make the node's constructor fail, so rclpy handles
    # signals only when the node stands.
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # a log level that does not exist, a parameter file without one
        raise SystemExit(f'cannot start ROS 2: {error}') from None
    started = True
    node = _make_node()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    ending: list[int] = []
    stopping = threading.Event()

    def end(number: int, frame: object) -> None:
        ending.append(number)
        if not stopping.is_set():
            raise KeyboardInterrupt

    try:
        # rclpy's handlers call these after their own work: both signals end the executor.
        for number in SIGNALS:
            signal.signal(number, end)
        install_signal_handlers()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        started = node.start()
        if started:
            spin(node, executor, ending)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        # In the middle of taking a message, C++ makes a RuntimeError of the interruption.
        if not ending:
            raise
    # This takes STOP_TIMEOUT at most. Cut short by another Ctrl-C, it would leave the interpreter
    # to end beside a worker that computes, which makes it abort.
    stopping.set()
    finished = node.stop()
    # Beside a worker that computes, too: shared memory would outlive the process.
    node.destroy_node()
    if rclpy.ok():
        rclpy.shutdown()
    if not started:
        raise SystemExit(1)
    return finished
