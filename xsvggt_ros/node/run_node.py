"""The node's process: ROS, signals and the executor."""

import signal
import threading
import time

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import install_signal_handlers, SignalHandlerOptions

from xsvggt_ros.node.lifecycle import XsvggtNode
from xsvggt_ros.node.worker import ANYTHING, PAUSE


def spin(node: XsvggtNode, executor: SingleThreadedExecutor, ending: list[int]) -> None:
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
    node = XsvggtNode()
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
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        install_signal_handlers()
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
