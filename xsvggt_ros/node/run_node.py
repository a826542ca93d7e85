"""The node's process: ROS, signals and the executor."""

from collections.abc import Callable
import gc
import os
import signal
import sys
import threading
import time
from typing import Any, TYPE_CHECKING

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import install_signal_handlers, SignalHandlerOptions

from xsvggt_ros.node.deferred_imports import deferred_registrations
from xsvggt_ros.node.worker import ANYTHING, PAUSE

if TYPE_CHECKING:
    from xsvggt_ros.node.lifecycle import XsvggtNode


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
    the first node of a process. Ctrl-C and SIGTERM end the process at once while this is there,
    but for the middleware's shared memory, which would outlive it; while nodes are made they are
    only noted.
    """

    def __enter__(self) -> '_EarlyNode':
        self.signals: list[int] = []   # that came while they were noted
        self.note_signals()
        self._node = Node(
            f'_xsvggt_{os.getpid()}', use_global_arguments=False, enable_rosout=False,
            start_parameter_services=False,
            parameter_overrides=[Parameter('start_type_description_service', value=False)])
        _handle_signals(self._leave)
        if self.signals:
            self._leave()
        return self

    def note_signals(self) -> None:
        """End nothing from now on."""
        _handle_signals(lambda number, frame: self.signals.append(number))

    def _leave(self, *_: object) -> None:
        self._node.destroy_node()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    def __exit__(self, *_: object) -> None:
        self._node.destroy_node()


def _handle_signals(handler: Callable[[int, Any], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _make_node() -> 'tuple[XsvggtNode, list[int]]':
    """Return the node, and the signals that came while it was made, and are noted still."""
    with _EarlyNode() as early:
        with deferred_registrations():
            from xsvggt_ros.node.lifecycle import XsvggtNode

        # What was imported stays; `stream_node` has stopped the search for garbage.
        gc.freeze()
        gc.enable()
        early.note_signals()
        return XsvggtNode(), early.signals


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
    node, signals = _make_node()
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
        _handle_signals(end)
        install_signal_handlers()
        if signals:
            raise KeyboardInterrupt
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
