"""
The way a frame takes: image message in, published reconstruction out.

`on_image` runs in the executor's thread and only stores what came; `process`, `reset` and
`on_error` run in the worker's thread, which owns the engine.
"""

from collections import deque
from collections.abc import Mapping
import time

import rclpy
from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
import torch

from xsvggt_ros.engine.camera_model import CameraModel
from xsvggt_ros.engine.stream_engine import FrameError, FrameResult
from xsvggt_ros.msg import StreamStatus
from xsvggt_ros.node.camera_calibration import CameraCalibration
from xsvggt_ros.node.diagnostics import GpuMemory
from xsvggt_ros.node.frame_outputs import frame_outputs, points_in
from xsvggt_ros.node.frames import odom_from_optical
from xsvggt_ros.node.image_codec import decode_compressed, decode_image, ImageError
from xsvggt_ros.node.loading import is_out_of_memory, LoadedEngine
from xsvggt_ros.node.messages import nanoseconds
from xsvggt_ros.node.metric_scale import MetricScale
from xsvggt_ros.node.parameters import Value
from xsvggt_ros.node.pose_outputs import PoseOutputs
from xsvggt_ros.node.publishers import Publishers
from xsvggt_ros.node.status_messages import cache_message, fill_report
from xsvggt_ros.node.stream_clock import OutOfOrderError, StreamClock
from xsvggt_ros.node.stream_statistics import FaultLog, FrameReport, Latency, RateMeter
from xsvggt_ros.node.worker import LatestMailbox

LATENCIES = 200  # frames over which latency statistics are taken


class Pipeline:
    """One stream from its images to its topics, with its counters."""

    def __init__(
        self, loaded: LoadedEngine, publishers: Publishers, faults: FaultLog,
        logger: RcutilsLogger, values: Mapping[str, Value], calibration: CameraCalibration,
    ) -> None:
        """Take the engine over; `values` may be replaced at any time by a changed copy."""
        self.loaded = loaded
        self.values = values
        self.calibration = calibration
        self.mailbox = LatestMailbox()
        self.image_meter, self.out_meter = RateMeter(), RateMeter()
        self.latencies: deque[float] = deque(maxlen=LATENCIES)
        self.report: FrameReport | None = None
        self.budget_warning: str | None = None
        self.image_description = ''
        self.processed = 0
        self.rejected = 0
        self.resets = 0
        self.busy_since: float | None = None
        self.enabled = True  # False: images are ignored
        self._last_header = Header()
        self._clock = StreamClock()
        self.scale = MetricScale(logger)
        self._poses = PoseOutputs(publishers, faults, values['path.max_poses'])
        self._engine = loaded.engine
        self._publishers = publishers
        self._faults = faults
        self._logger = logger

    # The executor's thread -----------------------------------------------------------------------

    def on_image(self, message: Image | CompressedImage) -> None:
        """Keep an image for the worker; one still waiting is dropped."""
        self.image_meter.tick()
        if self.enabled:
            self.mailbox.put((message, time.monotonic()))

    # The worker's thread -------------------------------------------------------------------------

    def begin(self, mailbox: LatestMailbox) -> None:
        """Begin a new stream with all counters at zero; before the worker gets any work."""
        self.mailbox = mailbox
        self.enabled = True
        self.processed = self.rejected = self.resets = 0
        self._engine.reset()
        self._forget()

    def reset(self) -> None:
        """Forget the stream; the next image defines a new odometry origin."""
        self._reset()
        self._logger.info('stream reset: the next image defines a new odometry origin')

    def process(self, item: tuple[Image | CompressedImage, float]) -> None:
        """Reconstruct one image and publish what came out."""
        message, arrival = item
        self.busy_since = arrival
        try:
            self._process(message, arrival)
        finally:
            self.busy_since = None

    def on_error(self, error: Exception) -> None:
        """Count an image that could not be processed, and say why; the stream goes on."""
        if not rclpy.ok():
            return  # the process is ending, and what was to be published has nowhere to go
        self.rejected += 1
        if isinstance(error, (ImageError, FrameError, OutOfOrderError)):
            self._faults.report('image', f'image refused: {error}')
        elif is_out_of_memory(error):
            self._release_memory()
            self._faults.report(
                'frame', f'{self.loaded.device_name} is out of memory; lower model.image_size or '
                'cache.max_tokens, or end other programs that use it')
        else:
            self._faults.report(
                'frame', f'image could not be processed: {type(error).__name__}: {error}')
        if self.processed and self._engine.frames == 0:
            self._logger.error('the network failed half-way; the next image begins a new stream')

    def _process(self, message: Image | CompressedImage, arrival: float) -> None:
        self.calibration.wait()
        start = time.monotonic()
        stamp_ns = nanoseconds(message.header)
        self._watch_time(stamp_ns)
        if isinstance(message, CompressedImage):
            pixels, kind = decode_compressed(message), message.format
        else:
            pixels, kind = decode_image(message), message.encoding
        self.image_description = f'{kind} {pixels.shape[1]}x{pixels.shape[0]}'
        decoded = time.monotonic()
        try:
            self._engine.prepare(*pixels.shape[:2])  # refuses what does not suit the stream
            camera = self._camera(message.header.frame_id, *pixels.shape[:2])
            known = self.scale.current
            result = self.scale.apply(
                self._engine.step(pixels, camera), stamp_ns, self.values)
            if self.scale.current != known:
                self._poses.forget()  # what is on the path has another scale
            pose = odom_from_optical(result.camera_from_world)  # waits for the device
        except FrameError as error:
            raise FrameError(f'{error}, with the service ~/reset') from error
        self._clock.advance(stamp_ns)
        computed = time.monotonic()
        outputs = frame_outputs(self._publishers, message.header, result, self.values)
        packed = time.monotonic()
        self._poses.publish(message.header, pose, self.values)
        for publisher, content in outputs:
            publisher.publish(content)
        published = time.monotonic()
        self._engine.finish_frame()
        latency = Latency(
            total=published - arrival, decode=decoded - start, upload=result.upload_seconds,
            inference=computed - decoded - result.upload_seconds, pack=packed - computed,
            publish=published - packed)
        self._account(message.header, result, latency, points_in(outputs))
        self._publish_status(message.header)

    def _watch_time(self, stamp_ns: int) -> None:
        """Begin a new stream if the stamps say so; raise OutOfOrderError."""
        values = self.values
        reason = self._clock.restart_reason(
            stamp_ns, values['reset.on_time_jump'], values['reset.on_gap'])
        if reason is not None:
            self._restart(reason)
        stuck = self._clock.stuck_message(stamp_ns)
        if stuck is not None:
            self._faults.report('stamp', stuck)
        else:
            self._faults.clear('stamp')

    def _camera(self, frame_id: str, height: int, width: int) -> CameraModel | None:
        """Return the images' calibrated camera; begin a new stream if it is another one."""
        calibration, described = self.calibration, self.calibration.description
        camera = calibration.camera(frame_id, width, height)
        if calibration.description != described:
            self._logger.info(f'calibration: {calibration.description}')
        if calibration.fault is not None:
            self._faults.report('camera_info', calibration.fault)
        else:
            self._faults.clear('camera_info')
        reason = calibration.restart_reason()
        if reason is not None and self._engine.frames:
            self._restart(reason)
        return camera

    def _account(
        self, header: Header, result: FrameResult, latency: Latency, points: int,
    ) -> None:
        to_source = torch.linalg.inv(self._engine.resize.model_from_source())
        intrinsics = to_source @ result.predicted_intrinsics.to('cpu', torch.float64)
        self.report = FrameReport(
            latency=latency, cache=self._engine.cache_stats(),
            confidence_mean=result.mean_confidence(), points=points,
            predicted_fx=intrinsics[0, 0].item(), predicted_fy=intrinsics[1, 1].item())
        self.processed += 1
        self._last_header = header
        self.out_meter.tick()
        self.latencies.append(latency.total)
        self._faults.clear('image')
        self._faults.clear('frame')
        if result.frame_index == 0:
            self._begin_stream()

    def _begin_stream(self) -> None:
        resize = self._engine.resize
        self._logger.info(
            f'stream begins: images {resize.source_width}x{resize.source_height}, network '
            f'{resize.width}x{resize.height}; cache: {self._engine.budget_description()}')
        self.budget_warning = self._engine.budget_warning()
        if self.budget_warning:
            self._logger.warning(self.budget_warning)

    def _publish_status(self, header: Header) -> None:
        gpu = GpuMemory.read(self.loaded.device)
        self._publishers.cache_status.publish(cache_message(header, self.report.cache, gpu))
        self._publishers.status.publish(
            self._status_message(header, StreamStatus.TRACKING))

    def publish_idle_status(self, silence: float) -> None:
        """Say on ~/status that nothing is tracked, if so; silence: seconds without an image."""
        if not self.enabled:
            state = StreamStatus.PAUSED
        elif self.report is None:
            state = StreamStatus.DEGRADED if self._is_disturbed() else StreamStatus.WAITING
        elif silence > self.values['diagnostics.image_timeout']:
            state = StreamStatus.WAITING
        elif self._is_disturbed():
            state = StreamStatus.DEGRADED
        else:
            return
        self._publishers.status.publish(self._status_message(self._last_header, state))

    def _is_disturbed(self) -> bool:
        return any(self._faults.get(kind) is not None for kind in ('image', 'frame'))

    def _status_message(self, header: Header, state: int) -> StreamStatus:
        message = StreamStatus(
            header=header, state=state, model=self.loaded.description,
            random_weights=self.loaded.random_weights,
            frames_received=self.mailbox.received, frames_processed=self.processed,
            frames_dropped=self.mailbox.dropped, frames_rejected=self.rejected,
            rate_in=self.image_meter.rate(), rate_out=self.out_meter.rate(),
            reset_count=self.resets)
        scale = self.scale.current
        message.metric = scale is not None
        message.scale = scale.metres if scale else 1.0
        message.scale_uncertainty = scale.uncertainty if scale else 0.0
        if self.report is not None:
            fill_report(message, self.report, list(self.latencies))
        return message

    def _restart(self, reason: str) -> None:
        self._reset()
        self._logger.warning(
            f'stream reset: {reason}; this image defines a new odometry origin')

    def _reset(self) -> None:
        self._engine.reset()
        self.resets += 1
        self._forget()

    def _forget(self) -> None:
        self.report = None
        self._clock.forget()
        self._poses.forget()
        self.scale.forget()
        self.latencies.clear()
        for kind in ('image', 'frame'):
            self._faults.clear(kind)

    def _release_memory(self) -> None:
        if self.loaded.device.type == 'cuda':
            torch.cuda.empty_cache()
