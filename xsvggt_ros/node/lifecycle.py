"""The node's life: parameters, transitions, topics and services. Frames are `pipeline`'s work."""

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from functools import partial
import gc
import signal
import statistics
import time
import traceback
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import SetParametersResult
import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import install_signal_handlers, SignalHandlerOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from xsvggt_ros.kernels import native
from xsvggt_ros.model.checkpoint import SHIPPED
from xsvggt_ros.node.inputs.camera_calibration import CameraCalibration
from xsvggt_ros.node.inputs.hint_topic import HINTS, HintTopic
from xsvggt_ros.node.inputs.rig import RigGeometry
from xsvggt_ros.node.inputs.tf_listener import TfListener
from xsvggt_ros.node.loading import load_engine, LoadedEngine, StartError
from xsvggt_ros.node.outputs.map_output import MapError
from xsvggt_ros.node.outputs.publishers import Publishers
from xsvggt_ros.node.parameters import (
    check_change,
    check_together,
    declare_parameters,
    listed,
    read_parameters,
    unknown_parameters,
)
from xsvggt_ros.node.pipeline import Pipeline
from xsvggt_ros.node.status.diagnostics import (
    build_statuses,
    clock_time,
    GpuMemory,
    hanging_message,
    no_image_message,
    process_memory,
    Snapshot,
)
from xsvggt_ros.node.status.stream_statistics import FaultLog
from xsvggt_ros.node.worker import PAUSE, Work, Worker

DIAGNOSTICS_PERIOD = 1.0  # seconds
IMAGE_DEPTH = 5  # images that the middleware may hold for a busy executor
SERVICE_TIMEOUT = 1.0  # seconds a service or a transition waits for the image in work
WAIT_PERIOD = 0.1  # seconds between two looks whether the image in work is done
STOP_TIMEOUT = 1.2  # seconds the end of the process waits for the frame in work
USUAL = 3  # times the usual latency: nothing that is quicker hangs
# What the code of a callback or of a transition may raise, with or without sense. Signals end the
# process by KeyboardInterrupt, which is none of these.
ANYTHING = (Exception, SystemExit, GeneratorExit)


class RefusedError(RuntimeError):
    """A transition that cannot be made now; says why, and nothing has changed."""


class _Turn:
    """Awaited, it lets the executor do what else there is to do."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class XsvggtNode(LifecycleNode):
    """
    A camera stream in; point clouds, TF, odometry and diagnostics out.

    Nothing here touches the network: the worker's thread owns it, and the executor only fills
    its mailbox.
    """

    def __init__(self) -> None:
        """Declare parameters and start diagnostics; `start` does the rest."""
        super().__init__('xsvggt')
        # Not the bound methods: rclpy allows one severity for each place that calls a logger.
        self._faults = FaultLog(lambda text: self.get_logger().error(text))
        self._silence = FaultLog(  # the cause is outside of this node
            lambda text: self.get_logger().warning(text))
        self._silence_told = False
        self._senders_told = False
        self._parameter_faults = declare_parameters(self)
        for message in unknown_parameters(self):
            self.get_logger().warning(message)
        self._values = read_parameters(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._state = 'unconfigured'
        self._outputs: Publishers | None = None
        self._pipeline: Pipeline | None = None
        self._tf: TfListener | None = None
        self._worker: Worker | None = None
        self._retired: Worker | None = None  # was told to end, and has not yet
        self._inputs: list[Subscription] = []
        self._active_since: float | None = None
        self._topics: list[str] = []  # of the images, while configured
        self._told = -DIAGNOSTICS_PERIOD  # when diagnostics were published last
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # A steady clock: with use_sim_time and no /clock, ROS time stands still.
        self._timer = self.create_timer(
            DIAGNOSTICS_PERIOD, self._on_timer,
            clock=Clock(clock_type=ClockType.STEADY_TIME))
        # These wait for the image in work, and all else goes on meanwhile.
        waiting = ReentrantCallbackGroup()
        self.create_service(Trigger, '~/reset', self._on_reset, callback_group=waiting)
        self.create_service(Trigger, '~/save_map', self._on_save_map, callback_group=waiting)
        self.create_service(SetBool, '~/enable', self._on_enable)

    def start(self) -> bool:
        """
        Configure and activate, if the parameter autostart says so.

        Return False if that failed and the process is to end then (exit_on_failure).
        """
        if not self._values['autostart']:
            return True
        started = (self.trigger_configure() == TransitionCallbackReturn.SUCCESS
                   and self.trigger_activate() == TransitionCallbackReturn.SUCCESS)
        return started or not self._values['exit_on_failure']

    def stop(self) -> bool:
        """End the worker; return False if it is busy for longer than anyone would wait."""
        return self._stop_worker(STOP_TIMEOUT)

    def destroy_node(self) -> None:
        """Destroy the node, and what rclpy leaves of it."""
        super().destroy_node()
        # The lifecycle's state machine holds the node in the middleware, and so 70 MB of shared
        # memory, which outlive the process.
        machine = getattr(self, '_state_machine', None)
        if machine is not None:
            machine.destroy_when_not_in_use()

    def report_callback(self, error: BaseException) -> None:
        """Say what a callback has raised; the node goes on."""
        name = type(error).__name__
        self._faults.report('callback', f'a callback failed; {name}: {error}', key=name,
                            details=''.join(traceback.format_exception(error)).rstrip())

    # Transitions ---------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network and create the publishers; FAILURE, with the reason, if that fails."""
        try:
            self._configure()
        except (StartError, RefusedError, ValueError) as error:
            self._faults.report('start', f'cannot start: {error}')
        except ANYTHING as error:  # the node must live, and be able to say what it was
            self._faults.report('start', f'cannot start: {type(error).__name__}: {error}')
        else:
            return TransitionCallbackReturn.SUCCESS
        self._release()
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """
        Begin a new stream: subscribe to the camera and start the worker.

        FAILURE while an image of the last time is in work, or without a subscription: the node
        stays inactive. ERROR if the network cannot begin: the node lets go of it, see `on_error`.
        """
        return self._make('activate', self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """
        Unsubscribe and let the frame in work be the last.

        SUCCESS even if that takes longer than anybody would wait: nothing of it is published, and
        the node refuses to be activated or cleaned up until it is done.
        """
        return self._make('deactivate', self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the network and the publishers; FAILURE while an image is in work."""
        return self._make('clean up', self._clean_up)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop whatever runs."""
        self._tear_down(STOP_TIMEOUT)
        self._state = 'finalized'
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of all there is, after a transition that failed: configuring begins anew."""
        self._tear_down(SERVICE_TIMEOUT)
        self._state = 'unconfigured'
        return TransitionCallbackReturn.SUCCESS

    def _make(self, what: str, transition: Callable[[], None]) -> TransitionCallbackReturn:
        """Make a transition; what goes wrong is said, since rclpy keeps it to itself."""
        try:
            transition()
        except RefusedError as error:
            self._faults.report('start', f'cannot {what}: {error}')
            return TransitionCallbackReturn.FAILURE
        except ANYTHING as error:
            self._faults.report(
                'start', f'cannot {what}: {type(error).__name__}: {error}. The node is '
                'unconfigured now; configure and activate it again (ros2 lifecycle set)',
                details=''.join(traceback.format_exception(error)).rstrip())
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        if self._parameter_faults:
            # Once: after this the wrong values are gone, and configuring again uses the others.
            faults, self._parameter_faults = self._parameter_faults, []
            raise RefusedError(
                '; '.join(faults) + (
                    '' if self._values['exit_on_failure'] else '. The node stays unconfigured; '
                    'correct it and start again, or configure it now with the defaults'))
        self._await_retired()
        self._values = read_parameters(self)
        check_together(self._values)
        self._topics = self._image_topics()
        calibrations = self._calibrations()
        loaded = load_engine(self._values, self.get_logger().info)
        self._outputs = Publishers(self)
        self._tf = TfListener(self)
        rig = RigGeometry(self._tf) if len(self._topics) > 1 else None
        self._pipeline = Pipeline(
            loaded, self._outputs, self._faults, self.get_logger(), self._values,
            calibrations, self._topics, rig, self._tf)
        self._faults.clear('start')
        self._tell_model(loaded)
        # What is there now stays: all threads stand still while it is searched for garbage.
        gc.collect()
        gc.freeze()
        self._state = 'inactive'

    def _tell_model(self, loaded: LoadedEngine) -> None:
        self.get_logger().info(f'{loaded.description} on {loaded.device}')
        if self._values['model.checkpoint'] in SHIPPED:
            self.get_logger().warning(
                'these weights know synthetic rooms only; for a real camera give '
                'model.checkpoint others (README, Weights)')
        kernels = native.why_missing() if loaded.device.type == 'cpu' else None
        if kernels is not None:
            self.get_logger().warning(kernels)
        if loaded.random_weights:
            self.get_logger().warning(
                'random weights: what is published means nothing as geometry; give '
                'model.checkpoint a trained checkpoint')
        if self._values['input.tracking_size'] and self._values['input.keyframe_stride'] == 1:
            self.get_logger().warning(
                'input.tracking_size has no effect while every image is remembered: set '
                'input.keyframe_stride to 2 or more')

    def _activate(self) -> None:
        self._await_retired()
        try:
            self._subscribe()
        except Exception as error:  # a QoS override that does not exist, for example
            self._unsubscribe()
            raise RefusedError(
                f'no subscription to images is possible: {type(error).__name__}: {error}'
            ) from error
        pipeline = self._pipeline
        self._worker = Worker(
            pipeline.process, pipeline.on_error, pipeline.end, pipeline.on_crash)
        pipeline.begin(self._worker.mailbox)
        _require(super().on_activate(None))
        self._faults.clear('start')
        self._active_since = time.monotonic()
        self._state = 'active'
        self.get_logger().info('waiting for images on ' + ', '.join(self._topics))

    def _deactivate(self) -> None:
        self._unsubscribe()
        if not self._stop_worker(SERVICE_TIMEOUT):
            self.get_logger().warning(
                f'deactivated, but {self._in_work()}: nothing of it is published, and the node '
                'can be activated again, or cleaned up, when it is done')
        _require(super().on_deactivate(None))
        self._state = 'inactive'

    def _clean_up(self) -> None:
        self._await_retired()
        self._faults.clear('start')
        self._release()
        self._state = 'unconfigured'

    def _tear_down(self, patience: float) -> None:
        """Let go of everything, whatever is wrong with it."""
        for step in (self._unsubscribe, partial(self._stop_worker, patience), self._release):
            try:
                step()
            except ANYTHING as error:
                self._faults.report(
                    'teardown', f'while the node let go of all: {type(error).__name__}: {error}')

    def _stop_worker(self, patience: float) -> bool:
        """Tell the worker to end; return whether it has, in so many seconds."""
        if self._worker is not None:
            self._worker, self._retired = None, self._worker
        return self._has_ended(patience)

    def _await_retired(self) -> None:
        """Refuse to go on while an image of the last time is in work: it has the engine."""
        if not self._has_ended(SERVICE_TIMEOUT):
            raise RefusedError(
                f'{self._in_work()}; try again when it is done, or end the process if it never is')

    def _has_ended(self, patience: float) -> bool:
        """Wait for the worker that was told to end; diagnostics go on."""
        end = time.monotonic() + patience
        while self._retired is not None:
            left = end - time.monotonic()
            if self._retired.stop(min(max(0.0, left), WAIT_PERIOD)):
                self._retired = None
            elif left <= 0:
                return False
            elif time.monotonic() - self._told > DIAGNOSTICS_PERIOD and rclpy.ok():
                self._on_timer()
        return True

    def _work(self) -> Work | None:
        """Return what is in work, by this or by the last worker."""
        worker = self._worker or self._retired
        return None if worker is None else worker.work

    def _in_work(self) -> str:
        work = self._work()
        if work is None:
            return 'nothing is in work any more'
        return f'{work.what} has been in work since {clock_time(work.seconds)}'

    def _release(self) -> None:
        """Free the network and the publishers."""
        outputs, pipeline, tf = self._outputs, self._pipeline, self._tf
        self._outputs = self._pipeline = self._tf = None
        self._topics = []
        try:
            if pipeline is not None:
                pipeline.abandon()
            if outputs is not None:
                outputs.destroy()
            if tf is not None:
                tf.destroy()
        finally:
            del outputs, pipeline, tf
            gc.unfreeze()
            gc.collect()  # the network may be in circles, and its memory is wanted

    # Topics --------------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        reliability = (ReliabilityPolicy.RELIABLE
                       if self._values['input.reliability'] == 'reliable'
                       else ReliabilityPolicy.BEST_EFFORT)
        overrides = QoSOverridingOptions.with_default_policies()
        # The mailbox keeps the newest image only. A depth of 1 would do so in the middleware, but
        # without counting what is lost (4 of 95 images on two busy cores).
        images = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=IMAGE_DEPTH, reliability=reliability)
        info = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        compressed = self._values['image_transport'] == 'compressed'
        kind = CompressedImage if compressed else Image
        for camera, (topic, info_topic) in enumerate(
                zip(self._topics, self._info_topics())):
            self._inputs += [
                self.create_subscription(
                    kind, topic, partial(self._on_image, camera), images,
                    qos_overriding_options=overrides),
                self.create_subscription(
                    CameraInfo, info_topic, partial(self._pipeline.on_camera_info, camera=camera),
                    info, qos_overriding_options=overrides)]
        if self._values['scale.mode'] in HINTS:
            self._pipeline.scale.listen(HintTopic(self, self._values['scale.mode']))
        if self._values['scale.mode'] == 'depth':
            depths = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=IMAGE_DEPTH,
                                reliability=ReliabilityPolicy.BEST_EFFORT)
            self._inputs.append(self.create_subscription(
                Image, 'depth_hint', self._pipeline.scale.on_depth, depths,
                qos_overriding_options=overrides))
        if self._values['scale.mode'] == 'odometry':
            hints = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10,
                               reliability=ReliabilityPolicy.BEST_EFFORT)
            self._inputs.append(self.create_subscription(
                Odometry, 'odom_hint', self._pipeline.scale.on_odometry, hints,
                qos_overriding_options=overrides))

    def _on_image(
        self, camera: int, message: Image | CompressedImage, info: Mapping[str, Any],
    ) -> None:
        sender = info.get('publisher_gid')  # not every rclpy tells
        self._pipeline.on_image(message, camera, bytes(sender['data']) if sender else None)

    def _calibrations(self) -> list[CameraCalibration]:
        """Return what is to be known of each camera's lens."""
        values = self._values
        topics = [self.resolve_topic_name(name) for name in self._info_topics()]
        return [
            CameraCalibration(topic, image_topic, values['use_camera_info'], values['rectify'],
                              lambda topic=topic: self.count_publishers(topic) > 0)
            for topic, image_topic in zip(topics, self._topics)]

    def _unsubscribe(self) -> None:
        inputs, self._inputs = self._inputs, []
        self._active_since = None
        for subscription in inputs:
            self.destroy_subscription(subscription)

    def _image_topics(self) -> list[str]:
        """Return the full names; as with image_transport, remapping `image` moves both."""
        suffix = '/compressed' if self._values['image_transport'] == 'compressed' else ''
        names = listed(self._values['image_topics']) or ['image']
        return [self.resolve_topic_name(name) + suffix for name in names]

    def _info_topics(self) -> list[str]:
        """Return where the calibrations come from: beside each image of a rig."""
        names = listed(self._values['image_topics'])
        beside = [''.join(name.rpartition('/')[:2]) + 'camera_info' for name in names]
        return beside or ['camera_info']

    def _image_publishers(self) -> tuple[str, list[str]]:
        if not self._topics:
            return '', []  # not configured
        topic = self._topics[0]
        compressed = self._values['image_transport'] == 'compressed'
        wanted = 'sensor_msgs/msg/CompressedImage' if compressed else 'sensor_msgs/msg/Image'
        found = []
        for info in self.get_publishers_info_by_topic(topic):
            reliability = info.qos_profile.reliability
            words = f'{info.node_name} ({info.topic_type}, {reliability.name.lower()})'
            if info.topic_type != wanted:
                words += f', which is not {wanted}: see image_transport'
            elif (reliability == ReliabilityPolicy.BEST_EFFORT
                  and self._values['input.reliability'] == 'reliable'):
                words += (', which no reliable subscription receives: set '
                          'input.reliability:=best_effort')
            found.append(words)
        return topic, found

    # Services and parameters ---------------------------------------------------------------------

    async def _on_reset(
        self, request: Trigger.Request, response: Trigger.Response,
    ) -> Trigger.Response:
        worker = self._worker
        if worker is None:
            response.success, response.message = False, 'the node is not active'
            return response
        future = worker.mailbox.put_command(self._pipeline.reset)
        try:
            if await self._is_done(future):
                future.result()
                response.message = (
                    'stream reset: the next image begins a new one, where the camera was last')
            else:
                response.message = (
                    f'the reset follows when the work in hand is done: {self._in_work()}')
            response.success = True
        except ANYTHING as error:  # whatever it is, the caller must hear of it
            response.success = False
            response.message = f'reset failed: {type(error).__name__}: {error}'
        return response

    async def _on_save_map(
        self, request: Trigger.Request, response: Trigger.Response,
    ) -> Trigger.Response:
        worker, pipeline = self._worker, self._pipeline
        response.success = False
        if pipeline is None:
            response.message = 'the node is not configured'
            return response
        try:
            if worker is None:
                self._await_retired()
                response.message = pipeline.save_map()  # nobody else touches the map
                response.success = True
                return response
            future = worker.mailbox.put_command(pipeline.save_map_aloud)
            if await self._is_done(future):
                response.message = future.result()
                response.success = True
            else:
                response.message = (
                    'not saved yet: the map will be saved when the work in hand is done, and the '
                    f'log will tell the files; {self._in_work()}')
        except (MapError, RefusedError) as error:
            response.message = str(error)
        except ANYTHING as error:  # whatever it is, the caller must hear of it
            response.message = f'the map was not saved: {type(error).__name__}: {error}'
        return response

    async def _is_done(self, future: Future) -> bool:
        """Wait a while for a command of the worker; the executor goes on."""
        end = time.monotonic() + SERVICE_TIMEOUT
        # Nothing else would wake the executor up.
        alarm = self.create_timer(
            WAIT_PERIOD, lambda: None, clock=Clock(clock_type=ClockType.STEADY_TIME))
        future.add_done_callback(self._wake)
        try:
            while not future.done() and time.monotonic() < end:
                await _Turn()
        finally:
            self.destroy_timer(alarm)
        return future.done()

    def _wake(self, future: Future) -> None:
        executor = self.executor
        if executor is not None and rclpy.ok():
            executor.wake()

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if self._worker is None:
            response.success, response.message = False, 'the node is not active'
            return response
        self._pipeline.enabled = request.data
        response.success = True
        response.message = ('images are processed; the stream goes on' if request.data
                            else 'paused: images are ignored, the stream is kept')
        self.get_logger().info(response.message)
        return response

    def _on_set_parameters(self, changes: list[RosParameter]) -> SetParametersResult:
        result = check_change(changes, configured=self._pipeline is not None)
        if result.successful:
            values = {change.name: change.value for change in changes}
            self._values = self._values | {k: v for k, v in values.items() if k in self._values}
            if self._pipeline is not None:
                self._pipeline.values = self._values
        return result

    # Diagnostics ---------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        self._told = time.monotonic()
        try:
            self._publish_diagnostics()
        except ANYTHING as error:  # diagnostics must not be what ends the node
            if rclpy.ok():
                self._faults.report('diagnostics', f'diagnostics failed: {error!r}')

    def _publish_diagnostics(self) -> None:
        snapshot = self._snapshot()
        self._tell_silence(snapshot)
        hangs = self._tell_hanging()
        if self._state == 'active':
            self._pipeline.publish_idle_status(snapshot.silence, hangs)
            self._tell_missing_cameras(snapshot)
            self._tell_senders(snapshot)
            self._publish_waiting_map()
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        name = self.get_fully_qualified_name().lstrip('/')  # two nodes must not share theirs
        message.status = build_statuses(snapshot, name)
        self._diagnostics.publish(message)

    def _tell_silence(self, snapshot: Snapshot) -> None:
        """Say that no images come, more and more seldom, and when they come again."""
        if snapshot.paused or not snapshot.active_for:
            return
        if snapshot.silence > snapshot.image_timeout:
            self._silence_told |= self._silence.report(
                'silence', no_image_message(snapshot),
                key=f'{snapshot.images_came} {snapshot.publishers}')
        elif self._silence_told and snapshot.images_came:
            self._silence_told = False
            self.get_logger().info(f'images arrive on {snapshot.topic}')

    def _patience(self) -> float:
        """Return for how many seconds a thing may be in work before it is said to hang."""
        patience = self._values['diagnostics.frame_timeout']
        latencies = [] if self._pipeline is None else list(self._pipeline.outputs.latencies)
        return max(patience, USUAL * statistics.median(latencies)) if latencies else patience

    def _tell_hanging(self) -> bool:
        """Say that something is in work for much too long, and when that is over."""
        work = self._work()
        if work is not None and work.seconds > self._patience():
            self._faults.report(
                'hang', hanging_message(work.what, work.seconds), key=str(work.since))
            return True
        if self._faults.get('hang') is not None:
            self._faults.clear('hang')
            self.get_logger().info('what hung is done')
        return False

    def _tell_missing_cameras(self, snapshot: Snapshot) -> None:
        faults = snapshot.camera_faults
        if faults:
            self._faults.report(
                'rig', '; '.join(text for _, text in faults),
                key=str([camera for camera, _ in faults]))
        elif self._faults.get('rig') is not None:
            self._faults.clear('rig')
            self.get_logger().info('all cameras of the rig are there')

    def _tell_senders(self, snapshot: Snapshot) -> None:
        """Say once that several cameras publish where one should, and when that is over."""
        faults = snapshot.sender_faults
        if faults and not self._senders_told:
            self.get_logger().warning('; '.join(faults))
        elif self._senders_told and not faults:
            self.get_logger().info('images come from one camera again')
        self._senders_told = bool(faults)

    def _sender_faults(self) -> list[str]:
        """Return on which topics images come from several cameras, with who publishes them."""
        texts = []
        for camera, fault in self._pipeline.sender_faults():
            topic = self._image_topics()[camera]
            names = sorted({f"{info.node_namespace.rstrip('/')}/{info.node_name}"
                            for info in self.get_publishers_info_by_topic(topic)})
            texts.append(
                f'images on {topic} are not those of one camera: {fault}. Published by '
                f'{", ".join(names) or "nobody any more"}; give each camera a topic and a '
                'frame_id of its own')
        return texts

    def _publish_waiting_map(self) -> None:
        """Have the map published to those who came after the newest image."""
        worker, pipeline = self._worker, self._pipeline
        if pipeline.busy_since is None and pipeline.outputs.map.is_due(self._values):
            worker.mailbox.put_command(pipeline.publish_waiting_map)

    def _snapshot(self) -> Snapshot:
        topic, publishers = self._image_publishers()
        active_for = time.monotonic() - self._active_since if self._active_since else 0.0
        work = self._work()
        common = {
            'state': self._state, 'topic': topic, 'publishers': publishers,
            'image_timeout': self._values['diagnostics.image_timeout'],
            'active_for': active_for, 'start_fault': self._faults.get('start'),
            'image_fault': self._faults.get('image'), 'frame_fault': self._faults.get('frame'),
            'worker_fault': self._faults.last('worker'),
            'callback_fault': self._faults.last('callback'),
            'last_failure': self._faults.last('frame'),
            'tf_fault': self._faults.get('tf') or self._faults.get('base'),
            'stamp_fault': self._faults.get('stamp'), 'map_fault': self._faults.get('map'),
            'camera_info_fault': self._faults.get('camera_info'),
            'tf_refused': self._tf.refusals() if self._tf is not None else (),
            'process_bytes': process_memory(), 'patience': self._patience(),
            'busy_for': 0.0 if work is None else work.seconds,
            'busy_with': '' if work is None else work.what}
        pipeline = self._pipeline
        if pipeline is None:
            return Snapshot(**common)
        loaded, outputs = pipeline.loaded, pipeline.outputs
        return Snapshot(
            **common, paused=not pipeline.enabled, image_age=pipeline.image_meter.age(),
            image_rate=pipeline.image_meter.rate(),
            info_rate=pipeline.calibrations[0].meter.rate(),
            image_description=pipeline.image_description,
            calibration=pipeline.calibration_description(),
            calibrated_focal=pipeline.calibrations[0].focal, received=pipeline.received,
            processed=outputs.processed, dropped=pipeline.dropped,
            rejected=pipeline.rejected + pipeline.refused,
            skipped=pipeline.skipped, deadline_fault=pipeline.deadline.fault,
            jump_fault=pipeline.jumps.get('jump'), sender_faults=self._sender_faults(),
            camera_faults=pipeline.camera_faults(), scale_fault=pipeline.scale_fault(),
            scale_hint=pipeline.scale.hint_description(),
            cameras=pipeline.cameras_description(), resets=pipeline.resets,
            last_reset=pipeline.last_reset, scale=pipeline.scale.current,
            rate_out=outputs.out_meter.rate(), latencies=list(outputs.latencies),
            report=outputs.report, budget_warning=pipeline.budget_warning,
            map=outputs.map.report, model=loaded.description,
            random_weights=loaded.random_weights, device=loaded.device_name,
            acceleration=loaded.engine.acceleration(),
            gpu=GpuMemory.read(loaded.device))


def _require(result: TransitionCallbackReturn) -> None:
    """Raise RuntimeError unless a part of a transition succeeded."""
    if result != TransitionCallbackReturn.SUCCESS:
        raise RuntimeError(f'a publisher answered {result.name}')


def _spin(node: XsvggtNode, executor: SingleThreadedExecutor, ending: list[int]) -> None:
    """Have callbacks called until the end; one that fails is told, and the others go on."""
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
    ending = []

    def end(number: int, frame: object) -> None:
        ending.append(number)
        raise KeyboardInterrupt

    try:
        # rclpy's handlers call these after their own work: both signals end the executor.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        install_signal_handlers()
        started = node.start()
        if started:
            _spin(node, executor, ending)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        # In the middle of taking a message, C++ makes a RuntimeError of the interruption.
        if not ending:
            raise
    finished = node.stop()
    if finished:
        node.destroy_node()
    if rclpy.ok():
        rclpy.shutdown()
    if not started:
        raise SystemExit(1)
    return finished
