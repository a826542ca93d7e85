"""
The way a frame takes: image message in, published reconstruction out.

Three threads, each with a state of its own:

- The executor's stores what comes (`on_image`, `on_camera_info`), and only reads the rest.
- The worker's owns the engine and all that is decided before an image is published: clock, scale,
  calibrations, rates, deadline. Once a pose is on the host it hands the image over and goes on:
  it commits the frame to the cache, decodes the next image and has the network begin with it.
- The publishing one (`publishing`) owns `outputs`, but only while it publishes an image. It gets
  what was decided as a `Reconstruction`, which nobody changes any more.

The worker's thread calls `_settle` before it hands over the next image and before anything else
that touches `outputs`: reset, commands, the end. So image follows image, one command comes after
all images before it, and the buffers that the next image is copied to are no longer read. What
publishing found out, how long an image took, is the worker's to act on after that.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
import threading
import time
import traceback

import numpy as np
import rclpy
from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
import torch

from xsvggt_ros.engine.frame_result import FrameResult, ResultError
from xsvggt_ros.engine.host_copy import HostCopy
from xsvggt_ros.engine.stream_engine import FrameError
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.mapping.scale import Scale
from xsvggt_ros.msg import StreamStatus
from xsvggt_ros.node.deadline import Deadline
from xsvggt_ros.node.frames import frame_name, world_from_optical
from xsvggt_ros.node.inputs.camera_calibration import CameraCalibration
from xsvggt_ros.node.inputs.camera_sets import CameraImage, CameraSets
from xsvggt_ros.node.inputs.hint_topic import HintFault
from xsvggt_ros.node.inputs.image_codec import decode_set, describe_image, ImageError
from xsvggt_ros.node.inputs.rig import RigGeometry, seen_transforms
from xsvggt_ros.node.inputs.sender_watch import SenderWatch
from xsvggt_ros.node.inputs.stream_clock import OutOfOrderError, StreamClock
from xsvggt_ros.node.inputs.tf_listener import TfListener
from xsvggt_ros.node.loading import is_out_of_memory, LoadedEngine
from xsvggt_ros.node.message_fields import fill
from xsvggt_ros.node.messages import nanoseconds
from xsvggt_ros.node.metric_scale import MetricScale
from xsvggt_ros.node.outputs.frame_outputs import host_makers, wanted_topics
from xsvggt_ros.node.outputs.publishers import Publishers
from xsvggt_ros.node.outputs.publishing import Publishing
from xsvggt_ros.node.outputs.rate_limit import RateLimit
from xsvggt_ros.node.outputs.stream_outputs import Moments, Reconstruction, StreamOutputs
from xsvggt_ros.node.parameters import Value
from xsvggt_ros.node.status.status_messages import fill_report
from xsvggt_ros.node.status.stream_statistics import FaultLog, RateMeter, Ticket
from xsvggt_ros.node.worker import LatestMailbox

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
        self.image_meter = RateMeter()
        self.budget_warning: str | None = None
        self.image_description = ''
        self.resets = 0
        self.last_reset = ''  # why
        self.deadline = Deadline()
        self.rejected = 0
        self._counting = threading.Lock()  # two threads reject
        self._late = 0  # images skipped for the deadline, by the worker's thread
        self.refused = 0  # images whose stamps are not the stream's, by the executor's thread
        self._passed_over = 0  # images skipped for input.max_rate, by the executor's thread
        self._input_rate, self._cloud_rate = RateLimit(), RateLimit()
        self.busy_since: float | None = None
        self.enabled = True  # False: images are ignored
        self.topics = topics
        self.senders = [SenderWatch() for _ in topics]
        self.sets: CameraSets | None = None  # of a rig
        self._rig = rig
        self._ticket = Ticket(0)  # of the images in work
        self._unsound = ''  # why something must be set right before the next image
        self._unforgotten = False  # whether a stream has ended and not all of it is forgotten
        self._failures = 0  # images in a row of which the network made nothing
        self._abandoned = False
        self._clock = StreamClock()
        self.scale = MetricScale(logger)
        self.outputs = StreamOutputs(
            loaded, publishers, faults, tf, values, self._status_message)
        self._copies = HostCopy.of(loaded.device)
        # On a CPU the network has all cores already: publishing beside it costs it more than that
        # time (docs/latency.md).
        self.overlaps = loaded.device.type == 'cuda'
        self._publishing = Publishing(overlaps=False)
        self._engine = loaded.engine
        self._publishers = publishers
        self._faults = faults
        self.jumps = FaultLog(lambda text: logger.warning(text))  # the cause is outside
        self._logger = logger

    # The executor's thread -----------------------------------------------------------------------

    def on_image(
        self, message: Image | CompressedImage, camera: int = 0, publisher: Hashable = None,
    ) -> None:
        """
        Keep an image for the worker, a rig's with those of its set; the newest set waits.

        publisher: who has sent it, None if the middleware does not say.
        """
        self.image_meter.tick()
        if not self.enabled:
            return
        message.header.frame_id = frame_name(message.header.frame_id)
        now, stamp_ns = time.monotonic(), nanoseconds(message.header)
        sender = self.senders[camera]
        # The stream goes by the reference's clock; what does not fit to it finds no set.
        follows_jumps = camera == 0 and self.values['reset.on_time_jump']
        refusal = sender.admit(stamp_ns, now, message.header.frame_id, publisher, follows_jumps,
                               self._engine.frames)
        if refusal is not None:
            self.refused += 1
            if not sender.fault(now):  # else that is said, once, and explains this too
                self.jumps.report('jump', f'image refused: {refusal}', key='jump')
            return
        images = ((CameraImage(0, stamp_ns, message, sender.era),) if self.sets is None
                  else self.sets.add(camera, stamp_ns, message, now, sender.era))
        if images is None:
            return
        if self._input_rate.is_due(images[0].stamp_ns, now, self.values['input.max_rate']):
            self.mailbox.put((images, now), len(images))
        else:
            self._passed_over += len(images)

    def on_camera_info(self, message: CameraInfo, camera: int = 0) -> None:
        """Remember a camera's calibration."""
        message.header.frame_id = frame_name(message.header.frame_id)
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
        self._faults.clear('camera_info')  # until an image shows that it is still there
        self.jumps.clear('jump')
        self.rejected = self.resets = 0
        self._ticket, self._unsound = Ticket(0), ''
        self._late = self._passed_over = self.refused = 0
        self.senders = [SenderWatch() for _ in self.topics]
        self._input_rate.forget()
        self.deadline = Deadline()
        self._engine.limit_tokens(None)
        self._engine.reset()
        self._forget()
        self.outputs.begin()
        self.last_reset = ''
        self._publishing = Publishing(self.overlaps)

    def end(self) -> None:
        """Let the image that is being published be the last; by the worker, when it ends."""
        self._publishing.close()

    def reset(self) -> None:
        """Forget the stream; the next image begins a new one where the camera was last."""
        for sender in self.senders:
            sender.forget()
        self._reset('asked for')
        self._logger.info('stream reset: the next image begins a new one')

    def save_map(self) -> str:
        """Write the map of all images so far as files; raises MapError."""
        self._settle()
        saved = self.outputs.map.save(self.values)
        self._logger.info(f'saved {saved}')
        return saved

    def save_map_aloud(self) -> str:
        """Do the same for somebody who may not wait for it: the log has what went wrong, too."""
        try:
            return self.save_map()
        except Exception as error:
            self._logger.error(f'the map was not saved: {error}')
            raise

    def abandon(self) -> None:
        """Be silent from now on: the node has let go of all this, an image in work or not."""
        self._abandoned = True

    def publish_waiting_map(self) -> None:
        """Publish the map if somebody waits for it."""
        self._settle()
        self.outputs.map.publish_if_due(self.values)

    @property
    def received(self) -> int:
        """Return how many images have come, without those that wait for the rest of their set."""
        return (self.mailbox.received + self._passed_over + self.refused
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

    def sender_faults(self) -> list[tuple[int, str]]:
        """Return of which cameras the images come from where they should not, and how."""
        now = time.monotonic()
        faults = [(camera, sender.fault(now)) for camera, sender in enumerate(self.senders)]
        return [(camera, fault) for camera, fault in faults if fault]

    def cameras_description(self) -> str:
        """Return how many cameras a rig has, and where their places are known from."""
        if self._rig is None:
            return ''
        places = f'as predicted: {self._rig.fault}' if self._rig.fault else 'by TF once metric'
        return f'{len(self.topics)}, places {places}'

    def calibration_description(self) -> str:
        """Return what is made of camera_info, of each camera of a rig."""
        words = [calibration.description for calibration in self.calibrations]
        if len(words) == 1:
            return words[0]
        return '; '.join(f'{topic}: {text}' for topic, text in zip(self.topics, words))

    def scale_fault(self) -> str:
        """
        Return why there is no scale yet, or none that is kept up; empty if all is well.

        What lasts gets into the log, too.
        """
        mode, known = self.values['scale.mode'], self.scale.current is not None
        fault = self.scale.hint_fault()
        if mode == 'baseline' and self._rig.fault:
            fault = HintFault('rig', self._rig.fault)
        what = 'the scale is not kept up' if known else 'lengths are not in metres yet'
        told = f'{what} (scale.mode {mode}): {fault.text}' if fault is not None else ''
        if self.outputs.report is None:
            return ''
        self.scale.tell(fault, told)
        return told

    def process(self, item: ImageSet) -> None:
        """Reconstruct the images that belong together and publish what came out."""
        images, arrival = item
        self._ticket = Ticket(len(images))
        self.busy_since = arrival
        try:
            self._make_sound()
            self._process(images, arrival)
        finally:
            self.busy_since = None

    def on_error(self, error: Exception) -> None:
        """Count the images that could not be processed, and say why; the stream goes on."""
        if self._is_over():
            return
        self._settle()
        self._undo_frame()
        self._reject(self._ticket, error)
        lost = isinstance(error, ResultError) and error.lost
        most = self.values['reset.on_failures']
        if lost and self.values['reset.on_lost']:
            self._begin_after(f'the network is lost: {error}')
        elif most and self._failures >= most:
            self._begin_after(f'the network made nothing of {most} images in a row, of the last '
                              f'because {error}')

    def on_crash(self, error: BaseException) -> None:
        """Say what would have ended the worker's thread; the next image finds all set right."""
        if self._is_over():
            return
        name = type(error).__name__
        self._count_rejected(self._ticket)
        self._unsound = f'the worker failed ({name})'
        self._faults.report(
            'worker', f'the worker failed and was started again; {name}: {error}', key=name,
            details=''.join(traceback.format_exception(error)).rstrip())
        self._publishers.status.publish(self._status_message(
            self.outputs.last_header, StreamStatus.DEGRADED, self.scale.current))

    def _is_over(self) -> bool:
        """Return whether what is to be said has nowhere to go: the process ends, for example."""
        return self._abandoned or not rclpy.ok()

    def _make_sound(self) -> None:
        """Set right what an error has left half-done; the stream is kept if that is possible."""
        if self._unsound:
            self._settle()
            self._undo_frame()
            self._unsound = ''
        if self._unforgotten:
            self._forget()

    def _undo_frame(self) -> None:
        """Have the engine forget images in work, of which nobody will hear."""
        try:
            self._engine.discard_frame()
        finally:
            if self._engine.frames == 0 and self.outputs.report is not None:
                self._end_stream('an image that failed could not be undone')
                self._faults.report(
                    'reset', f'stream reset: {self.last_reset}; the next image begins a new one',
                    key='reset')

    def _on_unpublished(self, ticket: Ticket, error: BaseException) -> None:
        """Do so for images that could not be published; in the thread that publishes."""
        if not self._is_over():
            self._reject(ticket, error)

    def _count_rejected(self, ticket: Ticket) -> int:
        images = ticket.take()
        with self._counting:
            self.rejected += images
        return images

    def _reject(self, ticket: Ticket, error: BaseException) -> None:
        images = self._count_rejected(ticket)
        if isinstance(error, (ImageError, FrameError, OutOfOrderError)):
            self._faults.report('image', f'image refused: {error}')
        elif is_out_of_memory(error):
            self._release_memory()
            self._faults.report(
                'frame', f'{self.loaded.device_name} is out of memory; lower model.image_size or '
                'cache.max_tokens, or end other programs that use it')
        elif isinstance(error, ResultError):
            self._faults.report(
                'frame', f'image refused, the stream is as it was before it: {error}',
                key=error.what)
        elif images:
            self._faults.report(
                'frame', f'image could not be processed: {type(error).__name__}: {error}')
        else:
            self._faults.report(
                'frame', 'an image was published, but what follows that failed: '
                f'{type(error).__name__}: {error}')

    def _process(self, images: Sequence[CameraImage], arrival: float) -> None:
        for calibration in self.calibrations:
            calibration.wait()
        start = time.monotonic()
        if self._publishing.is_settled:
            self._learn()
        if self.deadline.is_too_late(start - arrival, self.values['deadline_ms']):
            self._late += self._ticket.take()
            return
        self._watch_time(images[0].stamp_ns, images[0].era)
        pixels = decode_set(
            [(self.topics[image.camera], image.content) for image in images],
            is_rig=self.sets is not None)
        self.image_description = describe_image(images[0].content, pixels[0])
        decoded = time.monotonic()
        results, place = self._reconstruct(images, pixels)
        self._clock.advance(images[0].stamp_ns, images[0].era)
        computed = time.monotonic()
        done = self._on_its_way(images, results, place, Moments(
            arrival=arrival, start=start, decoded=decoded, computed=computed, copying=computed,
            upload=sum(one.upload_seconds for one in results)))
        self._settle()
        on_error = partial(self._on_unpublished, self._ticket)
        self._publishing.begin(partial(self.outputs.publish, done), on_error)
        self._engine.finish_frame()
        if done.begins:
            self._tell_beginning()
        cache = self._engine.pending_stats()
        health = self._copies.start({'health': lambda: cache.health})
        self._publishing.go_on(partial(self.outputs.account, done, cache, health))

    def _reconstruct(
        self, images: Sequence[CameraImage], pixels: Sequence[np.ndarray],
    ) -> tuple[list[FrameResult], np.ndarray]:
        """Return the results, in metres if possible, and the first camera's place [4, 4]."""
        size = pixels[0].shape[:2]
        self._engine.want_points(self.values['cloud.source'] == 'points')
        try:
            self._engine.prepare(*size)  # refuses what does not suit the stream
            cameras = self._cameras(images, *size)
            results = [
                self._engine.step(*one, self._is_keyframe(len(images)), joins=index > 0)
                for index, one in enumerate(zip(pixels, cameras))]
            # Here the device is waited for: an image that is taken sooner would only age.
            place = self._engine.accept(results)[0]
        except FrameError as error:
            raise FrameError(f'{error}, with the service ~/reset') from error
        except Exception:
            self._failures += 1
            raise
        self._failures = 0
        measured = self._measured(results, images, cameras[0])
        if measured[0] is not results[0]:
            place[:3, 3] *= self.scale.current.metres
        return measured, world_from_optical(place)

    def _on_its_way(
        self, images: Sequence[CameraImage], results: Sequence[FrameResult], place: np.ndarray,
        moments: Moments,
    ) -> Reconstruction:
        """Begin to copy to the host what is to be published."""
        values = self.values
        headers = [image.content.header for image in images]
        cloud_is_due = self._cloud_rate.is_due(
            images[0].stamp_ns, moments.arrival, values['cloud.max_rate'])
        topics = wanted_topics(self._publishers, cloud_is_due)
        host = self._copies.start(host_makers(
            results, self._transforms(results, headers), values, topics))
        return Reconstruction(
            header=headers[0], ticket=self._ticket, begins=results[0].frame_index == 0,
            world_from_camera=place, scale=self.scale.current, resize=self._engine.resize,
            host=host, topics=topics, cloud_is_due=cloud_is_due, values=values,
            moments=replace(moments, copying=time.monotonic()))

    def _settle(self) -> None:
        """Wait until the image before is published, and learn from it."""
        self._publishing.settle()
        self._learn()

    def _learn(self) -> None:
        """Have the deadline judge how long the image took that was published last."""
        seconds = self.outputs.take_seconds()
        if seconds is not None:
            self._engine.limit_tokens(self.deadline.update(
                seconds, self.values['deadline_ms'], self.outputs.report.cache))

    def _is_keyframe(self, cameras: int) -> bool:
        """Return whether the images of this set are to be remembered."""
        return self._engine.frames // cameras % self.values['input.keyframe_stride'] == 0

    def _measured(
        self, results: Sequence[FrameResult], images: Sequence[CameraImage],
        camera: CameraModel | None,
    ) -> list[FrameResult]:
        """Return the results in metres, as soon as the scale is known."""
        positions = None
        if self.values['scale.mode'] == 'baseline' and len(results) > 1:
            positions = self._rig.positions([image.content.header for image in images])
        return self.scale.apply(
            results, images[0].stamp_ns, self.values, self._engine.resize, positions, camera,
            images[0].content.header.frame_id)

    def _transforms(
        self, results: Sequence[FrameResult], headers: Sequence[Header],
    ) -> list[np.ndarray]:
        """Return reference_from_camera [4, 4] of each image, in the unit of the results."""
        if len(results) == 1:
            return [np.eye(4)]
        # What TF says is in metres, and of use only when the results are.
        known = self._rig.transforms(headers) if self.scale.current is not None else None
        return known if known is not None else seen_transforms(results)

    def _watch_time(self, stamp_ns: int, era: int) -> None:
        """Begin a new stream if the stamps say so; raise OutOfOrderError."""
        values = self.values
        reason = self._clock.restart_reason(
            stamp_ns, values['reset.on_time_jump'], values['reset.on_gap'], era)
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
            cameras.append(calibration.camera(
                image.content.header.frame_id, width, height, image.stamp_ns))
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

    def _tell_beginning(self) -> None:
        resize = self._engine.resize
        self._logger.info(
            f'stream begins: images {resize.source_width}x{resize.source_height}, network '
            f'{resize.width}x{resize.height}; cache: {self._engine.budget_description()}')
        self.budget_warning = self._engine.budget_warning()
        if self.budget_warning:
            self._logger.warning(self.budget_warning)

    def publish_idle_status(self, silence: float, hangs: bool = False) -> None:
        """
        Say on ~/status that nothing is tracked, if so.

        silence: seconds without an image; hangs: whether an image takes much too long.
        """
        if hangs:
            state = StreamStatus.DEGRADED
        elif not self.enabled:
            state = StreamStatus.PAUSED
        elif self.outputs.report is None:
            state = StreamStatus.DEGRADED if self._is_disturbed() else StreamStatus.WAITING
        elif silence > self.values['diagnostics.image_timeout']:
            state = StreamStatus.WAITING
        elif self._is_disturbed():
            state = StreamStatus.DEGRADED
        else:
            return
        self._publishers.status.publish(
            self._status_message(self.outputs.last_header, state, self.scale.current))

    def _is_disturbed(self) -> bool:
        return any(self._faults.get(kind) is not None for kind in ('image', 'frame'))

    def _status_message(
        self, header: Header, state: int, scale: Scale | None,
    ) -> StreamStatus:
        outputs = self.outputs
        message = fill(
            StreamStatus(), header=header, state=state, model=self.loaded.description,
            random_weights=self.loaded.random_weights,
            frames_processed=outputs.processed,
            frames_dropped=self.dropped, frames_rejected=self.rejected + self.refused,
            frames_skipped=self.skipped,
            frames_received=self.received,  # last: images come meanwhile, and it is never less
            rate_in=self.image_meter.rate(), rate_out=outputs.out_meter.rate(),
            reset_count=self.resets, metric=scale is not None,
            scale=scale.metres if scale else 1.0,
            scale_uncertainty=scale.uncertainty if scale else 0.0)
        if outputs.report is not None:
            fill_report(message, outputs.report, list(outputs.latencies))
        return message

    def _restart(self, reason: str) -> None:
        self._reset(reason)
        self._logger.warning(f'stream reset: {reason}; this image begins a new one')

    def _begin_after(self, reason: str) -> None:
        self._reset(reason)
        self._faults.report(
            'reset', f'stream reset: {reason}; the next image begins a new one', key='reset')

    def _reset(self, reason: str) -> None:
        self._settle()
        try:
            self._engine.reset()
        finally:
            if self._engine.frames == 0:  # it has failed, and the stream is gone all the same
                self._end_stream(reason)

    def _end_stream(self, reason: str) -> None:
        """Count the end of a stream that the engine has forgotten, and forget the rest."""
        self.last_reset = reason
        self.resets += 1
        self._forget()

    def _forget(self) -> None:
        self._unforgotten = True
        self._failures = 0
        self._clock.forget()
        self._cloud_rate.forget()
        self.scale.forget()
        self.deadline.forget()
        self.outputs.forget(self.values)
        for kind in ('image', 'frame'):
            self._faults.clear(kind)
        self._unforgotten = False

    def _release_memory(self) -> None:
        if self.loaded.device.type == 'cuda':
            torch.cuda.empty_cache()
