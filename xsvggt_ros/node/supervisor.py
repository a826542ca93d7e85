"""Once a second: diagnostics, and what of them belongs into the log as well."""

from dataclasses import replace
import statistics
import time

from diagnostic_msgs.msg import DiagnosticArray
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode

from xsvggt_ros.node.pipeline import Pipeline
from xsvggt_ros.node.runtime import Runtime
from xsvggt_ros.node.status.diagnostics import (
    build_statuses,
    hanging_message,
    no_image_message,
    process_memory,
)
from xsvggt_ros.node.status.fault_log import FaultLog
from xsvggt_ros.node.status.lasting_fault import LastingFault
from xsvggt_ros.node.status.snapshot import GpuMemory, Snapshot
from xsvggt_ros.node.status.tracking_status import lasting_warnings
from xsvggt_ros.node.worker import ANYTHING

PERIOD = 1.0  # seconds
# Warnings of the stream that the log has, too, and what it says when they are over:
# MapLocalization logs by itself that a stream is localised.
LASTING = {'localization': '', 'odometry': "the robot's odometry is corrected",
           'depth': 'the network knows the scene again', 'cloud': 'clouds have points again'}
USUAL = 3  # times the usual latency: nothing that is quicker is stuck


class Supervisor:
    """Watches the node from the executor's thread, and publishes what it sees."""

    def __init__(self, node: LifecycleNode, current: Runtime, faults: FaultLog) -> None:
        """Start to publish diagnostics, in whatever state the node is."""
        self._node = node
        self._current = current
        self._faults = faults
        # The cause is outside of this node. Not the bound method: rclpy allows one severity for
        # each place that calls a logger.
        self.silence = FaultLog(lambda text: node.get_logger().warning(text))
        self._silence_reported = False
        self._senders_reported = False
        self._lasting = {
            kind: LastingFault(node.get_logger(), over) for kind, over in LASTING.items()}
        self._last = -PERIOD  # when diagnostics were published
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # A steady clock: with use_sim_time and no /clock, ROS time stands still.
        node.create_timer(
            PERIOD, self.report, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def report_if_due(self) -> None:
        """Publish diagnostics, for who keeps the executor from it for a while."""
        if time.monotonic() - self._last > PERIOD and rclpy.ok():
            self.report()

    def report(self) -> None:
        """Publish diagnostics; what fails is reported the next time."""
        self._last = time.monotonic()
        try:
            self._report()
        except ANYTHING as error:  # diagnostics must not be what ends the node
            if rclpy.ok():
                self._faults.report('diagnostics', f'diagnostics failed: {error!r}')

    def _report(self) -> None:
        snapshot, pipeline = self._snapshot(), self._current.pipeline
        self._check_silence(snapshot)
        is_stuck = self._check_progress()
        if self._current.state == 'active' and pipeline is not None:
            pipeline.status.publish_idle(
                pipeline.scale.current, snapshot.silence > snapshot.image_timeout, is_stuck)
            self._check_cameras(snapshot)
            self._check_senders(snapshot)
            self._check_stream(snapshot)
            self._publish_waiting_map(pipeline)
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        # Two nodes must not share their names.
        name = self._node.get_fully_qualified_name().lstrip('/')
        message.status = build_statuses(snapshot, name)
        self._publisher.publish(message)

    def _check_silence(self, snapshot: Snapshot) -> None:
        """Report that no images arrive, less and less often, and when they arrive again."""
        if snapshot.paused or not snapshot.active_for:
            return
        if snapshot.silence > snapshot.image_timeout:
            self._silence_reported |= self.silence.report(
                'silence', no_image_message(snapshot),
                key=f'{snapshot.images_came} {snapshot.publishers}')
        elif self._silence_reported and snapshot.images_came:
            self._silence_reported = False
            self._node.get_logger().info(f'images arrive on {snapshot.topic}')

    def _patience(self) -> float:
        """Return for how many seconds something may be in progress before it counts as stuck."""
        patience = self._current.settings.diagnostics.frame_timeout
        pipeline = self._current.pipeline
        latencies = list(pipeline.statistics.latencies) if pipeline is not None else []
        return max(patience, USUAL * statistics.median(latencies)) if latencies else patience

    def _check_progress(self) -> bool:
        """Return whether something is stuck; report that, and when it is over."""
        work = self._current.worker.work
        if work is not None and work.seconds > self._patience():
            self._faults.report(
                'hang', hanging_message(work.what, work.seconds), key=str(work.since))
            return True
        if self._faults.get('hang') is not None:
            self._faults.clear('hang')
            self._node.get_logger().info('the operation that was stuck is done')
        return False

    def _check_cameras(self, snapshot: Snapshot) -> None:
        faults = snapshot.camera_faults
        if faults:
            self._faults.report(
                'rig', '; '.join(text for _, text in faults),
                key=str([camera for camera, _ in faults]))
        elif self._faults.get('rig') is not None:
            self._faults.clear('rig')
            self._node.get_logger().info('all cameras of the rig send images again')

    def _check_senders(self, snapshot: Snapshot) -> None:
        """Report once that several cameras publish where one should, and when that is over."""
        faults = snapshot.sender_faults
        if faults and not self._senders_reported:
            self._node.get_logger().warning('; '.join(faults))
        elif self._senders_reported and not faults:
            self._node.get_logger().info('images come from one camera again')
        self._senders_reported = bool(faults)

    def _check_stream(self, snapshot: Snapshot) -> None:
        """Have the log say what is wrong with the stream if it lasts, and when it is over."""
        if snapshot.report is None or snapshot.paused or (
                snapshot.silence > snapshot.image_timeout):
            return     # nothing new is known
        warnings = lasting_warnings(snapshot) | {'cloud': snapshot.report.cloud_fault}
        for kind, lasting in self._lasting.items():
            text = warnings.get(kind, '')
            lasting.update(kind if text else None, text)

    def _publish_waiting_map(self, pipeline: Pipeline) -> None:
        """Have the map published to those who subscribed after the newest image."""
        worker = self._current.worker
        if worker.current is not None and worker.work is None and (
                pipeline.outputs.map_is_due(self._current.settings)):
            worker.current.mailbox.put_command(pipeline.publish_map_if_due)

    # The snapshot --------------------------------------------------------------------------------

    def _snapshot(self) -> Snapshot:
        current, faults, topics = self._current, self._faults, self._current.topics
        work = current.worker.work
        basis = Snapshot(
            state=current.state, topic=topics.images[0] if topics else '',
            publishers=topics.publishers() if topics else [],
            image_timeout=current.settings.diagnostics.image_timeout,
            max_depth_error=current.settings.diagnostics.max_depth_error,
            active_for=time.monotonic() - current.active_since if current.active_since else 0.0,
            start_fault=faults.get('start'), image_fault=faults.get('image'),
            frame_fault=faults.get('frame'), worker_fault=faults.last('worker'),
            callback_fault=faults.last('callback'), last_failure=faults.last('frame'),
            tf_fault=faults.get('tf') or faults.get('base'), stamp_fault=faults.get('stamp'),
            map_fault=faults.get('map'), camera_info_fault=faults.get('camera_info'),
            tf_refused=current.tf.refusals() if current.tf is not None else (),
            process_bytes=process_memory(), patience=self._patience(),
            busy_for=0.0 if work is None else work.seconds,
            busy_with='' if work is None else work.what)
        return basis if current.pipeline is None else self._with_stream(basis, current.pipeline)

    def _with_stream(self, basis: Snapshot, pipeline: Pipeline) -> Snapshot:
        loaded, intake, numbers = pipeline.loaded, pipeline.intake, pipeline.statistics
        rig, lens = pipeline.rig, pipeline.calibrations.reference
        scale_fault = ''
        if numbers.report is not None:
            scale_fault = pipeline.scale.check(
                self._current.settings.scale.mode, rig.fault if rig is not None else '')
        odometry_fault = odometry_came = ''
        if pipeline.odometry is not None:
            odometry_came = pipeline.odometry.description()
            odometry_fault = pipeline.odometry.check() if numbers.report is not None else ''
        return replace(
            basis, paused=not intake.enabled, image_age=intake.meter.age(),
            image_rate=intake.meter.rate(), info_rate=lens.meter.rate(),
            image_description=numbers.image_description,
            calibration=pipeline.calibrations.description(), calibrated_focal=lens.focal,
            received=intake.received, processed=numbers.processed, dropped=intake.dropped,
            rejected=numbers.rejected + intake.refused,
            skipped=intake.skipped + numbers.late + numbers.unused,
            collected=pipeline.stream.opening.collected,
            to_collect=pipeline.stream.opening.wanted(loaded.engine.frames),
            deadline_fault=pipeline.deadline.fault, jump_fault=intake.clock_jumps.get('jump'),
            sender_faults=self._sender_faults(pipeline), camera_faults=intake.camera_faults(),
            scale_fault=scale_fault, scale_hint=pipeline.scale.hint_description(),
            odometry_fault=odometry_fault, odometry=odometry_came,
            cameras=f'{len(intake.topics)}, {rig.description()}' if rig is not None else '',
            resets=numbers.resets, last_reset=numbers.last_reset, scale=pipeline.scale.current,
            rate_out=numbers.out_meter.rate(), latencies=list(numbers.latencies),
            odometry_latencies=list(numbers.odometry_latencies),
            report=numbers.report, budget_warning=pipeline.processor.budget_warning,
            map=pipeline.outputs.map.report, model=loaded.description,
            random_weights=loaded.random_weights, device=loaded.device_name,
            acceleration=loaded.engine.acceleration(), gpu=GpuMemory.read(loaded.device))

    def _sender_faults(self, pipeline: Pipeline) -> list[str]:
        """Return on which topics images come from several cameras, with who publishes them."""
        texts = []
        for camera, fault in pipeline.intake.sender_faults():
            names = (self._current.topics.publishing_nodes(camera)
                     if self._current.topics is not None else [])
            topic = pipeline.intake.topics[camera]
            texts.append(
                f'images on {topic} come from more than one camera: {fault}. Published by '
                f'{", ".join(names) or "nobody any more"}; give each camera a topic and a '
                'frame_id of its own')
        return texts
