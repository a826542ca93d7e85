"""
The way a frame takes: image message in, published reconstruction out.

`on_image` runs in the executor's thread and only stores what came; `process`, `reset` and
`on_error` run in the worker's thread, which owns the engine.
"""

from collections import deque
from collections.abc import Mapping, Sequence
import time

import numpy as np
import rclpy
from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
import torch

from xsvggt_ros.engine.camera_model import CameraModel
from xsvggt_ros.engine.scale import Scale
from xsvggt_ros.engine.stream_engine import FrameError, FrameResult
from xsvggt_ros.msg import StreamStatus
from xsvggt_ros.node.camera_calibration import CameraCalibration
from xsvggt_ros.node.camera_sets import CameraImage, CameraSets
from xsvggt_ros.node.deadline import Deadline
from xsvggt_ros.node.diagnostics import GpuMemory
from xsvggt_ros.node.frame_outputs import cloud_of, frame_outputs, points_in
from xsvggt_ros.node.frames import LostError, world_from_optical
from xsvggt_ros.node.image_codec import decode_compressed, decode_image, ImageError
from xsvggt_ros.node.loading import is_out_of_memory, LoadedEngine
from xsvggt_ros.node.map_output import MapOutput
from xsvggt_ros.node.messages import nanoseconds
from xsvggt_ros.node.metric_scale import MetricScale
from xsvggt_ros.node.parameters import Value
from xsvggt_ros.node.pose_outputs import PoseOutputs
from xsvggt_ros.node.publishers import Publishers
from xsvggt_ros.node.rate_limit import RateLimit
from xsvggt_ros.node.rig import RigGeometry, seen_transforms
from xsvggt_ros.node.status_messages import cache_message, fill_report
from xsvggt_ros.node.stream_clock import OutOfOrderError, StreamClock
from xsvggt_ros.node.stream_statistics import FaultLog, FrameReport, Latency, RateMeter
from xsvggt_ros.node.tf_listener import TfListener
from xsvggt_ros.node.worker import LatestMailbox

LATENCIES = 200  # frames over which latency statistics are taken

# The images that enter the stream together, the reference camera's first, and when they were there
ImageSet = tuple[Sequence[CameraImage], float]


class Pipeline:
    """One stream from its images to its topics, with its counters."""

    def __init__(
        self, loaded: LoadedEngine, publishers: Publishers, faults: FaultLog,
        logger: RcutilsLogger, values: Mapping[str, Value],
        calibrations: Sequence[CameraCalibration], topics: Sequence[str],
        rig: RigGeometry | None, tf: TfListener,
    ) -> None:
        """
        Take the engine over; `values` may be replaced at any time by a changed copy.

        topics: of the images, one a camera; rig: where these cameras are, None for one camera; tf:
        what other nodes publish.
        """
        self.loaded = loaded
        self.values = values
        self.calibrations = calibrations
        self.mailbox = LatestMailbox()
        self.image_meter, self.out_meter = RateMeter(), RateMeter()
        self.latencies: deque[float] = deque(maxlen=LATENCIES)
        self.report: FrameReport | None = None
        self.budget_warning: str | None = None
        self.image_description = ''
        self.processed = 0
        self.rejected = 0
        self.resets = 0
        self.last_reset = ''  # why
        self.deadline = Deadline()
        self._late = 0  # images skipped for the deadline, by the worker's thread
        self._passed_over = 0  # images skipped for input.max_rate, by the executor's thread
        self._input_rate, self._cloud_rate = RateLimit(), RateLimit()
        self.busy_since: float | None = None
        self.enabled = True  # False: images are ignored
        self.topics = topics
        self.sets: CameraSets | None = None  # of a rig
        self._rig = rig
        self._in_work = 0  # images
        self._last_header = Header()
        self._clock = StreamClock()
        self.scale = MetricScale(logger)
        self._poses = PoseOutputs(publishers, faults, tf, values['path.max_poses'])
        self.map = MapOutput(publishers, faults, loaded.device, loaded.description, values)
        self._engine = loaded.engine
        self._publishers = publishers
        self._faults = faults
        self._logger = logger

    # The executor's thread -----------------------------------------------------------------------

    def on_image(self, message: Image | CompressedImage, camera: int = 0) -> None:
        """Keep an image for the worker, a rig's with those of its set; the newest set waits."""
        self.image_meter.tick()
        if not self.enabled:
            return
        now, stamp_ns = time.monotonic(), nanoseconds(message.header)
        images = ((CameraImage(0, stamp_ns, message),) if self.sets is None
                  else self.sets.add(camera, stamp_ns, message, now))
        if images is None:
            return
        if self._input_rate.is_due(images[0].stamp_ns, now, self.values['input.max_rate']):
            self.mailbox.put((images, now), len(images))
        else:
            self._passed_over += len(images)

    def on_camera_info(self, message: CameraInfo, camera: int = 0) -> None:
        """Remember a camera's calibration."""
        self.calibrations[camera].on_message(message)
        if self._rig is not None:
            self._rig.on_camera_info(message)

    # The worker's thread -------------------------------------------------------------------------

    def begin(self, mailbox: LatestMailbox) -> None:
        """Begin a new stream with all counters at zero; before the worker gets any work."""
        self.mailbox = mailbox
        self.enabled = True
        values = self.values
        self.sets = None if self._rig is None else CameraSets(
            self.topics, values['input.sync_slop'], values['input.camera_timeout'],
            time.monotonic())
        self.processed = self.rejected = self.resets = 0
        self._late = self._passed_over = 0
        self._input_rate.forget()
        self.deadline = Deadline()
        self._engine.limit_tokens(None)
        self._engine.reset()
        self._forget()
        self._poses.forget()
        self.last_reset = ''

    def reset(self) -> None:
        """Forget the stream; the next image begins a new one where the camera was last."""
        self._reset('asked for')
        self._logger.info('stream reset: the next image begins a new one')

    @property
    def received(self) -> int:
        """Return how many images have come, without those that wait for the rest of their set."""
        return (self.mailbox.received + self._passed_over
                + (self.sets.dropped if self.sets else 0))

    @property
    def dropped(self) -> int:
        """Return how many images were replaced by newer ones, or found no set."""
        return self.mailbox.dropped + (self.sets.dropped if self.sets else 0)

    @property
    def skipped(self) -> int:
        """Return how many images were left out for input.max_rate or deadline_ms."""
        return self._passed_over + self._late

    def camera_faults(self) -> list[tuple[int, str]]:
        """Return which cameras of a rig are missing, and why."""
        return self.sets.missing(time.monotonic()) if self.sets and self.enabled else []

    def cameras_description(self) -> str:
        """Return how many cameras a rig has, and where their places are known from."""
        if self._rig is None:
            return ''
        places = f'as predicted: {self._rig.fault}' if self._rig.fault else 'by TF once metric'
        return f'{len(self.topics)}, places {places}'

    def scale_fault(self) -> str:
        """Return why there is no scale yet, or none that is kept up; empty if all is well."""
        mode, known = self.values['scale.mode'], self.scale.current is not None
        fault = self.scale.fault
        if mode == 'baseline' and self._rig.fault:
            fault = self._rig.fault
        if not fault or self.report is None:
            return ''
        what = 'the scale is not kept up' if known else 'lengths are not in metres yet'
        return f'{what} (scale.mode {mode}): {fault}'

    def process(self, item: ImageSet) -> None:
        """Reconstruct the images that belong together and publish what came out."""
        images, arrival = item
        self.busy_since, self._in_work = arrival, len(images)
        try:
            self._process(images, arrival)
        finally:
            self.busy_since = None

    def on_error(self, error: Exception) -> None:
        """Count the images that could not be processed, and say why; the stream goes on."""
        if not rclpy.ok():
            return  # the process is ending, and what was to be published has nowhere to go
        self.rejected += self._in_work
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
        if isinstance(error, LostError) and self.values['reset.on_lost']:
            self._reset('the predicted pose was not finite')
            self._logger.warning(
                f'stream reset: {self.last_reset}; the next image begins a new one')
        elif self.processed and self._engine.frames == 0:
            self._logger.error('the network failed half-way; the next image begins a new stream')

    def _process(self, images: Sequence[CameraImage], arrival: float) -> None:
        for calibration in self.calibrations:
            calibration.wait()
        start = time.monotonic()
        if self.deadline.is_too_late(start - arrival, self.values['deadline_ms']):
            self._late += len(images)
            return
        headers = [image.content.header for image in images]
        header, stamp_ns = headers[0], images[0].stamp_ns
        self._watch_time(stamp_ns)
        pixels = self._decode(images)
        decoded = time.monotonic()
        self._engine.want_points(self.values['cloud.source'] == 'points')
        try:
            self._engine.prepare(*pixels[0].shape[:2])  # refuses what does not suit the stream
            cameras = self._cameras(images, *pixels[0].shape[:2])
            known = self.scale.current
            results = self._measured(
                [self._engine.step(*one, self._is_keyframe(len(images)))
                 for one in zip(pixels, cameras)], headers, stamp_ns, cameras[0])
            result = results[0]
            place = world_from_optical(result.camera_from_world)  # waits for the device
        except FrameError as error:
            raise FrameError(f'{error}, with the service ~/reset') from error
        self._clock.advance(stamp_ns)
        computed = time.monotonic()
        transforms = self._transforms(results, headers)
        cloud_is_due = self._cloud_rate.is_due(stamp_ns, arrival, self.values['cloud.max_rate'])
        outputs = frame_outputs(
            self._publishers, header, results, transforms, self.values, cloud_is_due)
        packed = time.monotonic()
        if result.frame_index == 0:
            self._poses.begin_stream()
        centre = self._rescale(known)
        pose = self._poses.publish(header, place, self.values)
        for publisher, content in outputs:
            publisher.publish(content)
        published = time.monotonic()
        self._engine.finish_frame()
        upload = sum(one.upload_seconds for one in results)
        latency = Latency(
            total=published - arrival, decode=decoded - start, upload=upload,
            inference=computed - decoded - upload, pack=packed - computed,
            publish=published - packed)
        self.processed += len(images)
        points = points_in(outputs)
        if not cloud_is_due and self.report is not None:
            points = self.report.points  # those of the last cloud
        self._account(header, result, latency, points)
        self._engine.limit_tokens(self.deadline.update(
            published - start, self.values['deadline_ms'], self.report.cache))
        self._publish_status(header)
        # Last, because nobody waits for it.
        if pose is not None:
            scale = self.scale.current
            self.map.add(header, lambda: cloud_of(outputs, results, transforms, self.values),
                         pose, scale.metres if scale else None, self.values, centre)
        self.map.publish_if_due(self.values)

    def _is_keyframe(self, cameras: int) -> bool:
        """Return whether the images of this set are to be remembered."""
        return self._engine.frames // cameras % self.values['input.keyframe_stride'] == 0

    def _decode(self, images: Sequence[CameraImage]) -> list[np.ndarray]:
        """Return the pixels of all images; raise ImageError unless all are of one size."""
        decoded = []
        for image in images:
            message, topic = image.content, self.topics[image.camera]
            try:
                pixels = (decode_compressed(message) if isinstance(message, CompressedImage)
                          else decode_image(message))
            except ImageError as error:
                raise ImageError(f'{topic}: {error}' if self.sets else str(error)) from error
            if decoded and pixels.shape != decoded[0].shape:
                sizes = [f'{shape[1]}x{shape[0]}' for shape in (pixels.shape, decoded[0].shape)]
                raise ImageError(
                    f'{topic} sends {sizes[0]}, but {self.topics[0]} {sizes[1]}: all cameras of a '
                    'rig must have one size; resize in the driver, or leave it out of '
                    'image_topics')
            decoded.append(pixels)
        kind = getattr(images[0].content, 'encoding', None) or images[0].content.format
        self.image_description = f'{kind} {decoded[0].shape[1]}x{decoded[0].shape[0]}'
        return decoded

    def _measured(
        self, results: Sequence[FrameResult], headers: Sequence[Header], stamp_ns: int,
        camera: CameraModel | None,
    ) -> list[FrameResult]:
        """Return the results in metres, as soon as the scale is known."""
        positions = None
        if self.values['scale.mode'] == 'baseline' and len(results) > 1:
            positions = self._rig.positions(headers)
        return self.scale.apply(
            results, stamp_ns, self.values, self._engine.resize, positions, camera)

    def _rescale(self, known: Scale | None) -> np.ndarray | None:
        """Let the poses follow a new scale; return about which point [3] all is scaled."""
        scale = self.scale.current
        if scale == known:
            return None
        return self._poses.rescale(scale.metres / (known.metres if known else 1.0))

    def _transforms(
        self, results: Sequence[FrameResult], headers: Sequence[Header],
    ) -> list[np.ndarray]:
        """Return reference_from_camera [4, 4] of each image, in the unit of the results."""
        if len(results) == 1:
            return [np.eye(4)]
        # What TF says is in metres, and of use only when the results are.
        known = self._rig.transforms(headers) if self.scale.current is not None else None
        return known if known is not None else seen_transforms(results)

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

    def _cameras(
        self, images: Sequence[CameraImage], height: int, width: int,
    ) -> list[CameraModel | None]:
        """Return the images' calibrated cameras; begin a new stream if one is another now."""
        cameras, reasons, faults = [], [], []
        for image in images:
            calibration = self.calibrations[image.camera]
            described = calibration.description
            cameras.append(calibration.camera(image.content.header.frame_id, width, height))
            if calibration.description != described:
                self._logger.info(f'calibration: {calibration.description}')
            faults.append(calibration.fault)
            reasons.append(calibration.restart_reason())
        if any(faults):
            self._faults.report('camera_info', '; '.join(filter(None, faults)))
        else:
            self._faults.clear('camera_info')
        if any(reasons) and self._engine.frames:
            self._restart('; '.join(filter(None, reasons)))
        return cameras

    def _account(
        self, header: Header, result: FrameResult, latency: Latency, points: int,
    ) -> None:
        to_source = torch.linalg.inv(self._engine.resize.model_from_source())
        intrinsics = to_source @ result.predicted_intrinsics.to('cpu', torch.float64)
        self.report = FrameReport(
            latency=latency, cache=self._engine.cache_stats(),
            confidence_mean=result.mean_confidence(), points=points,
            predicted_fx=intrinsics[0, 0].item(), predicted_fy=intrinsics[1, 1].item())
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
            frames_processed=self.processed,
            frames_dropped=self.dropped, frames_rejected=self.rejected,
            frames_skipped=self.skipped,
            frames_received=self.received,  # last: images come meanwhile, and it is never less
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
        self._reset(reason)
        self._logger.warning(f'stream reset: {reason}; this image begins a new one')

    def _reset(self, reason: str) -> None:
        self._engine.reset()
        self.last_reset = reason
        self.resets += 1
        self._forget()

    def _forget(self) -> None:
        self.report = None
        self._clock.forget()
        self._poses.begin_stream()
        self._cloud_rate.forget()
        self.map.forget(self.values)
        self.scale.forget()
        self.deadline.forget()
        self.latencies.clear()
        for kind in ('image', 'frame'):
            self._faults.clear(kind)

    def _release_memory(self) -> None:
        if self.loaded.device.type == 'cuda':
            torch.cuda.empty_cache()
