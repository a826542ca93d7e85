"""The services ~/reset, ~/save_map and ~/enable."""

from collections.abc import Generator
from concurrent.futures import Future
import time

import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from std_srvs.srv import SetBool, Trigger

from xsvggt_ros.node import runtime
from xsvggt_ros.node.outputs.map_output import MapError
from xsvggt_ros.node.runtime import RefusedError, Runtime
from xsvggt_ros.node.worker import ANYTHING, WAIT_PERIOD


class _Turn:
    """Awaited, it lets the executor do what else there is to do."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Services:
    """Answers within `runtime.SERVICE_TIMEOUT`, however long the image in progress takes."""

    def __init__(self, node: LifecycleNode, current: Runtime) -> None:
        """Create the services on a node."""
        self._node = node
        self._current = current
        # These wait for the image in progress, and all else goes on meanwhile.
        waiting = ReentrantCallbackGroup()
        node.create_service(Trigger, '~/reset', self._on_reset, callback_group=waiting)
        node.create_service(Trigger, '~/save_map', self._on_save_map, callback_group=waiting)
        node.create_service(SetBool, '~/enable', self._on_enable)

    async def _on_reset(
        self, request: Trigger.Request, response: Trigger.Response,
    ) -> Trigger.Response:
        worker, pipeline = self._current.worker.current, self._current.pipeline
        if worker is None or pipeline is None:
            response.success, response.message = False, 'the node is not active'
            return response
        future = worker.mailbox.put_command(pipeline.reset)
        try:
            if await self._is_done(future):
                future.result()
                response.message = (
                    'stream reset: the next image begins a new one, where the camera was last')
            else:
                response.message = ('the reset follows when the current work is done: '
                                    f'{self._current.in_progress()}')
            response.success = True
        except ANYTHING as error:  # whatever it is, the caller must hear of it
            response.success = False
            response.message = f'reset failed: {type(error).__name__}: {error}'
        return response

    async def _on_save_map(
        self, request: Trigger.Request, response: Trigger.Response,
    ) -> Trigger.Response:
        response.success = False
        try:
            response.success, response.message = await self._save_map()
        except (MapError, RefusedError) as error:
            response.message = str(error)
        except ANYTHING as error:  # whatever it is, the caller must hear of it
            response.message = f'the map was not saved: {type(error).__name__}: {error}'
        return response

    async def _save_map(self) -> tuple[bool, str]:
        """Return whether the map is saved, and what to answer."""
        worker, pipeline = self._current.worker.current, self._current.pipeline
        if pipeline is None:
            return False, 'the node is not configured'
        if worker is None:
            self._current.require_free_worker()
            return True, pipeline.save_map()  # nobody else touches the map
        future = worker.mailbox.put_command(pipeline.save_map_and_log)
        if await self._is_done(future):
            return True, future.result()
        return False, (
            'not saved yet: the map will be saved when the current work is done, and the log will '
            f'name the files; {self._current.in_progress()}')

    async def _is_done(self, future: Future) -> bool:
        """Wait a while for a command of the worker; the executor goes on."""
        end = time.monotonic() + runtime.SERVICE_TIMEOUT
        # Nothing else would wake the executor up.
        alarm = self._node.create_timer(
            WAIT_PERIOD, lambda: None, clock=Clock(clock_type=ClockType.STEADY_TIME))
        future.add_done_callback(self._wake)
        try:
            while not future.done() and time.monotonic() < end:
                await _Turn()
        finally:
            self._node.destroy_timer(alarm)
        return future.done()

    def _wake(self, future: Future) -> None:
        executor = self._node.executor
        if executor is not None and rclpy.ok():
            executor.wake()

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        pipeline = self._current.pipeline
        if self._current.worker.current is None or pipeline is None:
            response.success, response.message = False, 'the node is not active'
            return response
        pipeline.intake.enabled = request.data
        response.success = True
        response.message = ('images are processed; the stream goes on' if request.data
                            else 'paused: images are ignored, the stream is kept')
        self._node.get_logger().info(response.message)
        return response
