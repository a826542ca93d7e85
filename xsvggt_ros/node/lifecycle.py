"""The node's life: parameters and transitions."""

from collections.abc import Callable
from functools import partial
import gc
import time
import traceback

from rcl_interfaces.msg import SetParametersResult
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from rclpy.subscription import Subscription

from xsvggt_ros.kernels import native
from xsvggt_ros.model.checkpoint import SHIPPED
from xsvggt_ros.node import runtime
from xsvggt_ros.node.deferred_imports import run_deferred
from xsvggt_ros.node.inputs.rig import RigGeometry
from xsvggt_ros.node.inputs.tf_listener import TfListener
from xsvggt_ros.node.loading import load_engine, LoadedEngine, saved_landmarks, StartError
from xsvggt_ros.node.outputs.publishers import Publishers
from xsvggt_ros.node.parameters import (
    BY_NAME,
    check_change,
    declare_parameters,
    unknown_parameters,
)
from xsvggt_ros.node.pipeline import Pipeline
from xsvggt_ros.node.runtime import RefusedError, Runtime
from xsvggt_ros.node.services import Services
from xsvggt_ros.node.settings import read_settings, Settings
from xsvggt_ros.node.status.fault_log import FaultLog
from xsvggt_ros.node.subscriptions import InputTopics, subscribe
from xsvggt_ros.node.supervisor import Supervisor
from xsvggt_ros.node.worker import ANYTHING, Worker, WorkerSlot

STOP_TIMEOUT = 1.2  # seconds the end of the process waits for the frame in progress


class XsvggtNode(LifecycleNode):
    """
    A camera stream in; point clouds, TF, odometry and diagnostics out.

    Nothing here touches the network: the worker's thread owns it, and the executor only fills
    its mailbox.
    """

    def __init__(self) -> None:
        """Declare parameters and start diagnostics; `start` does the rest."""
        super().__init__('xsvggt')
        # Not the bound method: rclpy allows one severity for each place that calls a logger.
        self.faults = FaultLog(lambda text: self.get_logger().error(text))
        self._parameter_faults = declare_parameters(self)
        for message in unknown_parameters(self):
            self.get_logger().warning(message)
        self.current = Runtime(read_settings(self), WorkerSlot(
            while_waiting=lambda: self.supervisor.report_if_due()))
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self.inputs: list[Subscription] = []
        self._goes_on = False    # from configuring to activating at once
        self._announce: Callable[[], None] | None = None   # what is yet to be said of the network
        self.supervisor = Supervisor(self, self.current, self.faults)
        Services(self, self.current)

    @property
    def settings(self) -> Settings:
        """Return the present values of the parameters."""
        return self.current.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self.current.settings = settings
        if self.current.pipeline is not None:
            self.current.pipeline.settings = settings

    def start(self) -> bool:
        """
        Configure and activate, if the parameter autostart says so.

        Return False if that failed and the process is to end then (exit_on_failure).
        """
        if not self.settings.start.autostart:
            return True
        # The first line of the log takes rclpy longer than the network takes for an image: it is
        # written when images can come.
        self._goes_on = True
        started = self.trigger_configure() == TransitionCallbackReturn.SUCCESS
        self._goes_on = False
        started = started and self.trigger_activate() == TransitionCallbackReturn.SUCCESS
        self._announce_model()
        return started or not self.settings.start.exit_on_failure

    def stop(self) -> bool:
        """End the worker; return False if it is busy for longer than anyone would wait."""
        finished = self.current.worker.stop(STOP_TIMEOUT)
        if not finished and self.current.pipeline is not None:
            self.current.pipeline.abandon()   # what it comes to has nobody to take it
        return finished

    def destroy_node(self) -> None:
        """Destroy the node, and what rclpy leaves of it."""
        super().destroy_node()
        # The lifecycle's state machine holds the node in the middleware, and so 40 MB of shared
        # memory, which outlive the process.
        machine = getattr(self, '_state_machine', None)
        if machine is not None:
            machine.destroy_when_not_in_use()
        # What a node that was never cleaned up has frozen may be collected, for others to come.
        gc.unfreeze()

    def report_callback(self, error: BaseException) -> None:
        """Report what a callback has raised; the node goes on."""
        name = type(error).__name__
        self.faults.report('callback', f'a callback failed; {name}: {error}', key=name,
                           details=''.join(traceback.format_exception(error)).rstrip())

    # Transitions ---------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network and create the publishers; FAILURE, with the reason, if that fails."""
        try:
            self._configure()
        except (StartError, RefusedError, ValueError) as error:
            self.faults.report('start', f'cannot start: {error}')
        except ANYTHING as error:  # the node must live, and be able to say what it was
            self.faults.report('start', f'cannot start: {type(error).__name__}: {error}')
        else:
            return TransitionCallbackReturn.SUCCESS
        self._release()
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """
        Begin a new stream: subscribe to the camera and start the worker.

        FAILURE while an image of the last activation is in progress, or without a subscription:
        the node stays inactive. ERROR if the network cannot begin: the node lets go of it, see
        `on_error`.
        """
        return self._make('activate', partial(self._activate, state))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """
        Unsubscribe and let the frame in progress be the last.

        SUCCESS even if that takes longer than anybody would wait: nothing of it is published, and
        the node refuses to be activated or cleaned up until it is done.
        """
        return self._make('deactivate', partial(self._deactivate, state))

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the network and the publishers; FAILURE while an image is in progress."""
        return self._make('clean up', self._clean_up)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop whatever runs."""
        self._tear_down(STOP_TIMEOUT)
        self.current.state = 'finalized'
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of all there is, after a transition that failed: configuring begins anew."""
        self._tear_down(runtime.SERVICE_TIMEOUT)
        self.current.state = 'unconfigured'
        return TransitionCallbackReturn.SUCCESS

    def _make(self, what: str, transition: Callable[[], None]) -> TransitionCallbackReturn:
        """Make a transition; what goes wrong is reported, since rclpy keeps it to itself."""
        try:
            transition()
        except RefusedError as error:
            self.faults.report('start', f'cannot {what}: {error}')
            return TransitionCallbackReturn.FAILURE
        except ANYTHING as error:
            self.faults.report(
                'start', f'cannot {what}: {type(error).__name__}: {error}. The node is '
                'unconfigured now; configure and activate it again (ros2 lifecycle set)',
                details=''.join(traceback.format_exception(error)).rstrip())
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        current = self.current
        if self._parameter_faults:
            # Once: after this the wrong values are gone, and configuring again uses the others.
            faults, self._parameter_faults = self._parameter_faults, []
            raise RefusedError(
                '; '.join(faults) + (
                    '' if self.settings.start.exit_on_failure else '. The node stays '
                    'unconfigured; correct it and start again, or configure it now with the '
                    'defaults'))
        current.require_free_worker()
        self.settings = settings = read_settings(self)
        settings.check()
        landmarks = saved_landmarks(settings)
        topics = current.topics = InputTopics(self, settings)
        calibrations = topics.calibrations()
        load = partial(load_engine, settings.model, settings.cache, settings.input.tracking_size,
                       self._log_graphs)
        try:
            loaded = load()
        except StartError:
            raise
        except Exception:
            if not run_deferred():   # what was left out of torch might be missing
                raise
            loaded = load()
        publishers = current.publishers = Publishers(self)
        tf = current.tf = TfListener(self)
        rig = RigGeometry(tf) if len(topics.images) > 1 else None
        current.pipeline = Pipeline(
            loaded, publishers, self.faults, self.get_logger(), settings, calibrations,
            topics.images, rig, tf, landmarks)
        self.faults.clear('start')
        self._announce = partial(_log_model, loaded, settings, self.get_logger())
        if not self._goes_on:
            self._announce_model()
        # What is there now stays: all threads stand still while it is searched for garbage.
        gc.collect()
        gc.freeze()
        current.state = 'inactive'

    def _announce_model(self) -> None:
        """Say in the log what was loaded, once."""
        announce, self._announce = self._announce, None
        if announce is not None:
            announce()

    def _log_graphs(self, line: str) -> None:
        self.get_logger().info(line)

    def _activate(self, state: LifecycleState) -> None:
        current = self.current
        current.require_free_worker()
        pipeline, topics = current.pipeline, current.topics
        assert pipeline is not None and topics is not None  # it was configured
        try:
            subscribe(self, topics, pipeline, self.settings, self.inputs)
        except Exception as error:  # a QoS override that does not exist, for example
            self._unsubscribe()
            raise RefusedError(
                f'no subscription to images is possible: {type(error).__name__}: {error}'
            ) from error
        worker = current.worker.current = Worker(
            pipeline.process, pipeline.on_error, pipeline.end, pipeline.on_crash)
        pipeline.begin(worker.mailbox)
        _require(super().on_activate(state))
        self.faults.clear('start')
        current.active_since = time.monotonic()
        current.state = 'active'
        self._announce_model()
        self.get_logger().info('waiting for images on ' + ', '.join(topics.images))

    def _deactivate(self, state: LifecycleState) -> None:
        self._unsubscribe()
        if not self.current.worker.stop(runtime.SERVICE_TIMEOUT):
            self.get_logger().warning(
                f'deactivated, but {self.current.in_progress()}: nothing of it is published, and '
                'the node can be activated again, or cleaned up, when it is done')
        _require(super().on_deactivate(state))
        self.current.state = 'inactive'

    def _clean_up(self) -> None:
        self.current.require_free_worker()
        self.faults.clear('start')
        self._release()
        self.current.state = 'unconfigured'

    def _tear_down(self, patience: float) -> None:
        """Let go of everything, whatever is wrong with it."""
        stop = partial(self.current.worker.stop, patience)
        for step in (self._unsubscribe, stop, self._release):
            try:
                step()
            except ANYTHING as error:
                self.faults.report(
                    'teardown', f'while the node released everything: {type(error).__name__}: '
                    f'{error}')

    def _unsubscribe(self) -> None:
        subscriptions, self.inputs = self.inputs, []
        self.current.active_since = None
        for subscription in subscriptions:
            self.destroy_subscription(subscription)

    def _release(self) -> None:
        """Free the network and the publishers."""
        current = self.current
        publishers, pipeline, tf = current.publishers, current.pipeline, current.tf
        current.publishers = current.pipeline = current.tf = current.topics = None
        self._announce = None
        try:
            if pipeline is not None:
                pipeline.abandon()
            if publishers is not None:
                publishers.destroy()
            if tf is not None:
                tf.destroy()
        finally:
            del publishers, pipeline, tf
            gc.unfreeze()
            gc.collect()  # the network may have reference cycles, and its memory is wanted

    def _on_set_parameters(self, changes: list[RosParameter]) -> SetParametersResult:
        # Each publisher declares some for its quality of service: nothing here depends on those.
        changes = [change for change in changes if change.name in BY_NAME]
        if not changes:
            return SetParametersResult(successful=True)
        configured = self.current.pipeline is not None
        result = check_change(changes, configured)
        if not result.successful:
            return result
        settings = self.settings.changed({change.name: change.value for change in changes})
        if configured:    # else configuring checks them, when all are set
            try:
                settings.check()
            except ValueError as error:
                return SetParametersResult(successful=False, reason=str(error))
        self.settings = settings
        return result


def _require(result: TransitionCallbackReturn) -> None:
    """Raise RuntimeError unless a part of a transition succeeded."""
    if result != TransitionCallbackReturn.SUCCESS:
        raise RuntimeError(f'a publisher answered {result.name}')


def _log_model(loaded: LoadedEngine, settings: Settings, logger: RcutilsLogger) -> None:
    warn = logger.warning
    logger.info(f'{loaded.description} on {loaded.device}')
    if settings.model.checkpoint in SHIPPED:
        warn('these weights were trained in synthetic rooms only and are modest in real ones; '
             'for more set model.checkpoint to other weights (README, Weights)')
    kernels = native.why_missing() if loaded.device.type == 'cpu' else None
    if kernels is not None:
        warn(kernels)
    if len(settings.input.image_topics) > 1 and settings.trajectory.mode != 'network':
        warn("several cameras (image_topics): poses are the network's own, without loops and "
             f'estimated covariance; trajectory.mode {settings.trajectory.mode} is for one '
             'camera. Set it to network to say that this is what you want')
    if settings.map.localize_in and not settings.pose.publish_map_tf:
        warn('the stream looks for itself in map.localize_in, but TF will not have it: set '
             f"publish_map_tf to true for the transform from '{settings.pose.map_frame}'")
    if settings.pose.robot_odom_frame and not settings.pose.publish_map_tf:
        warn(f"nothing corrects '{settings.pose.robot_odom_frame}' (robot_odom_frame): set "
             f"publish_map_tf to true for the transform from '{settings.pose.map_frame}'")
    if loaded.random_weights:
        warn('random weights: the published geometry is meaningless; set '
             'model.checkpoint to a trained checkpoint')
    if settings.input.tracking_size and settings.input.keyframe_stride == 1:
        warn('input.tracking_size has no effect while every image is remembered: set '
             'input.keyframe_stride to 2 or more')
