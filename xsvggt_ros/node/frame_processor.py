"""One set of images, from the mailbox to the publishing thread."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
import time

import numpy as np
from rclpy.impl.rcutils_logger import RcutilsLogger

from xsvggt_ros.engine.frame_result import FrameResult
from xsvggt_ros.engine.host_copy import HostCopy
from xsvggt_ros.geometry.camera_model import CameraModel
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.mapping.scale import Scale
from xsvggt_ros.msg import StreamStatus
from xsvggt_ros.node.frames import world_from_optical
from xsvggt_ros.node.inputs.calibrations import Calibrations
from xsvggt_ros.node.inputs.camera_sets import CameraImage
from xsvggt_ros.node.inputs.image_codec import decode_set, describe_image
from xsvggt_ros.node.inputs.image_intake import ImageSet
from xsvggt_ros.node.inputs.rig import RigGeometry, set_transforms
from xsvggt_ros.node.loading import LoadedEngine
from xsvggt_ros.node.opening import DecodedSet
from xsvggt_ros.node.outputs.frame_outputs import host_makers, wanted_topics
from xsvggt_ros.node.outputs.publishers import Publishers
from xsvggt_ros.node.outputs.stream_outputs import (
    FrameTimestamps,
    Location,
    Reconstruction,
    StreamOutputs,
)
from xsvggt_ros.node.settings import ResetSettings, Settings
from xsvggt_ros.node.status.fault_log import FaultLog
from xsvggt_ros.node.status.rejections import Rejections
from xsvggt_ros.node.status.stream_statistics import StreamStatistics, Ticket
from xsvggt_ros.node.status.stream_status import StatusPublisher
from xsvggt_ros.node.stream import Stream
from xsvggt_ros.node.tracked_pose import TrackedPose


class FrameProcessor:
    """
    Reconstructs images in the worker's thread, and hands them over to be published.

    Once a pose is known the publishing thread has it; this one goes on: it makes the rest, commits
    the frame to the cache, decodes the next image and has the network begin with it.
    """

    def __init__(
        self, loaded: LoadedEngine, stream: Stream, calibrations: Calibrations,
        topics: Sequence[str], rig: RigGeometry | None, publishers: Publishers,
        outputs: StreamOutputs, statistics: StreamStatistics, rejections: Rejections,
        faults: FaultLog, logger: RcutilsLogger, status: StatusPublisher,
    ) -> None:
        """Take over the engine. topics: of the images, one a camera; rig: None for one camera."""
        self.budget_warning: str | None = None
        self._engine = loaded.engine
        self._stream = stream
        self._calibrations = calibrations
        self._topics = topics
        self._rig = rig
        self._publishers = publishers
        self._outputs = outputs
        self._statistics = statistics
        self._rejections = rejections
        self._faults = faults
        self._logger = logger
        self._status = status
        self._copies = HostCopy.of(loaded.device)
        self._prepared_for: tuple[int, int] | None = None  # height, width

    def process(self, item: ImageSet, ticket: Ticket, settings: Settings) -> None:
        """Reconstruct the images that belong together and have them published."""
        images, stream = item.images, self._stream
        self._calibrations.wait()
        start = time.monotonic()
        if stream.deadline.is_too_late(start - item.arrival, settings.input.deadline_ms):
            self._statistics.late += ticket.take()
            return
        self._check_clock(images[0], settings.reset)
        pixels = decode_set(
            [(self._topics[image.camera], image.content) for image in images],
            is_rig=self._rig is not None)
        self._statistics.image_description = describe_image(images[0].content, pixels[0])
        one = DecodedSet(item, pixels, ticket, start, time.monotonic())
        with stream.counting_failures():
            self._check_end(len(images), settings)
            one = replace(one, cameras=self._select_cameras(images, *pixels[0].shape[:2]))
        if not stream.opening.wanted(self._engine.frames):
            located = self._begin_trajectory(one, settings)
            try:
                predicted, = self._predict([one], settings)
            finally:
                stream.trajectory.settle()   # before anything is published after it, or undone
            self._publish(one, *predicted, settings, located)
            return
        stream.clock.advance(images[0].stamp_ns, images[0].era)
        begin = stream.opening.add(one)
        if begin:
            self._open(begin, settings)
        else:
            self._status.publish(StreamStatus.WARMING_UP, None)

    def _open(self, sets: Sequence[DecodedSet], settings: Settings) -> None:
        """Reconstruct the images that begin a stream, and publish each set of them."""
        begun, last = time.monotonic(), sets[-1]
        waiting = list(sets)
        try:
            predicted = self._predict(sets, settings)
            share = (time.monotonic() - begun) / len(sets)
            for one, (results, pose) in zip(sets, predicted):
                try:
                    self._publish(one.predicted(time.monotonic(), share), results, pose, settings)
                except Exception as error:
                    if one is last:
                        raise
                    self._rejections.reject(one.ticket, error)   # the stream has it; others follow
                waiting.remove(one)
        finally:
            for one in waiting:
                if one is not last:   # which is counted by who gets the error
                    self._statistics.reject(one.ticket)

    def _begin_trajectory(self, one: DecodedSet, settings: Settings) -> list[Location]:
        """
        Have an image located beside the network, if poses are tracked.

        Returns a list into which that puts where it is, once it is published: where no length
        waits for the network's results, a pose that the image alone tells goes out before them.
        """
        trajectory, image, located = self._stream.trajectory, one.images[0], list[Location]()
        if not trajectory.is_on:
            return located

        def publish(camera_from_world: np.ndarray, tracked: TrackedPose) -> None:
            location = self._location(one, camera_from_world, tracked, settings)
            self._submit(one, location)
            located.append(location)

        trajectory.begin(
            one.pixels[0], one.cameras[0], image.stamp_ns, image.content.header.frame_id,
            publish if settings.scale.mode == 'none' else None)
        return located

    def _submit(self, one: DecodedSet, location: Location) -> None:
        """Have it published where images are."""
        image = one.images[0]
        self._stream.clock.advance(image.stamp_ns, image.era)
        self._stream.publishing.submit(
            partial(self._outputs.locate, location), partial(self._rejections.reject, one.ticket))

    def _publish(
        self, one: DecodedSet, results: list[FrameResult], camera_from_world: np.ndarray,
        settings: Settings, early: Sequence[Location] = (),
    ) -> None:
        """Locate images and have that published, then all else; commit them to the cache."""
        stream, images = self._stream, one.images
        results, scale, location = self._locate(one, results, camera_from_world, settings)
        computed = time.monotonic()
        if early:
            location = early[0]
        else:
            self._submit(one, location)
        located = time.monotonic()
        if stream.trajectory.is_on:   # what follows would have Python's lock in between
            stream.publishing.join()
        results = self._complete(results, scale, settings)
        times = FrameTimestamps(
            start=one.start, decoded=one.decoded, computed=computed, located=located,
            copying=located, upload=sum(r.upload_seconds for r in results))
        frame = self._start_host_copy(images, results, location, times)
        stream.publishing.then(partial(self._outputs.publish, frame))
        self._engine.finish_frame()
        if frame.begins:
            self._log_beginning()
        cache = self._engine.pending_stats().after(results[-1].frame_index + 1)
        numbers = cache.health
        assert numbers is not None  # there has been a frame
        health = self._copies.start({'health': lambda: numbers})
        stream.publishing.then(partial(self._outputs.account, frame, cache, health))

    @property
    def _resize(self) -> Resize:
        resize = self._engine.resize
        assert resize is not None  # there has been a frame
        return resize

    def _check_clock(self, image: CameraImage, settings: ResetSettings) -> None:
        """Begin a new stream if the stamps say so; raise OutOfOrderError."""
        clock = self._stream.clock
        reason = clock.restart_reason(
            image.stamp_ns, settings.on_time_jump, settings.on_gap, image.era)
        if reason is not None:
            self._stream.restart(reason)
        stuck = clock.stuck_message(image.stamp_ns)
        if stuck is not None:
            self._faults.report('stamp', stuck)
        else:
            self._faults.clear('stamp')

    def _predict(
        self, sets: Sequence[DecodedSet], settings: Settings,
    ) -> list[tuple[list[FrameResult], np.ndarray]]:
        """Return the network's results of each set, and camera_from_world [4, 4] of its first."""
        engine, first = self._engine, sets[0]
        engine.want_points(settings.cloud.source == 'points')
        engine.limit_tokens(self._stream.deadline.limit)
        with self._stream.counting_failures():
            if len(sets) > 1:
                results = engine.begin([image for one in sets for image in one.pixels],
                                       [camera for one in sets for camera in one.cameras])
            else:
                is_keyframe = engine.config.is_keyframe(
                    engine.frames, settings.input.keyframe_stride, len(first.images))
                results = [
                    engine.step(image, camera, is_keyframe, joins=index > 0)
                    for index, (image, camera) in enumerate(zip(first.pixels, first.cameras))]
            # Here the device is waited for: an image that is taken sooner would only age.
            poses = engine.accept(results)
        cameras = len(first.images)
        return [(results[start:start + cameras], poses[start])
                for start in range(0, len(results), cameras)]

    def _locate(
        self, one: DecodedSet, results: list[FrameResult], camera_from_world: np.ndarray,
        settings: Settings,
    ) -> tuple[list[FrameResult], Scale | None, Location]:
        """Return the results, what is yet to be multiplied with them, and where they are."""
        stream, images = self._stream, one.images
        tracked: TrackedPose | None = None
        with stream.counting_failures():
            if stream.trajectory.is_on:
                followed, tracked = stream.trajectory.track(
                    one.pixels[0], one.cameras[0], results[0], self._resize, images[0].stamp_ns,
                    stream.scale.metres_of(settings.scale.mode),
                    images[0].content.header.frame_id)
                if settings.scale.mode == 'depth':   # it is compared, before a pose is metric
                    followed = stream.trajectory.complete(followed)
                results = [followed]
                camera_from_world = followed.camera_from_world.double().cpu().numpy()
        scale = self._find_scale(results, images, one.cameras[0], settings)
        if scale is not None:
            camera_from_world[:3, 3] *= scale.metres
            tracked = tracked and tracked.scaled(scale.metres)
        return results, scale, self._location(
            one, camera_from_world, tracked, settings, begins=results[0].frame_index == 0)

    def _location(
        self, one: DecodedSet, camera_from_world: np.ndarray, tracked: TrackedPose | None,
        settings: Settings, begins: bool = False,
    ) -> Location:
        return Location(
            header=one.images[0].content.header, ticket=one.ticket, begins=begins,
            world_from_camera=world_from_optical(camera_from_world), tracked=tracked,
            scale=self._stream.scale.current, settings=settings, arrival=one.item.arrival)

    def _complete(
        self, results: list[FrameResult], scale: Scale | None, settings: Settings,
    ) -> list[FrameResult]:
        """Return results with all that their pose need not wait for: depth, lengths in metres."""
        stream = self._stream
        with stream.counting_failures():
            if stream.trajectory.is_on and settings.scale.mode != 'depth':
                results = [stream.trajectory.complete(results[0])]
        stream.failures = 0
        return results if scale is None else [one.scaled(scale.metres) for one in results]

    def _check_end(self, images: int, settings: Settings) -> None:
        """Begin a new stream if the network cannot remember so many more images in this one."""
        engine, stride = self._engine, settings.input.keyframe_stride
        is_keyframe = engine.config.is_keyframe(engine.frames, stride, images)
        reason = engine.exhausted(images) if is_keyframe else None
        if reason is not None:
            self._stream.restart(f'{reason} (input.keyframe_stride is {stride}; a larger one '
                                 'makes streams last longer)')

    def _select_cameras(
        self, images: Sequence[CameraImage], height: int, width: int,
    ) -> list[CameraModel | None]:
        """Return the images' calibrated cameras; begin a new stream if one is another now."""
        opening = self._stream.opening
        opening.check(height, width)
        if not self._engine.frames or (height, width) != self._prepared_for:
            self._engine.prepare(height, width)  # refuses what does not suit the stream
            self._prepared_for = height, width
        cameras, reason = self._calibrations.select(images, height, width)
        if reason and (self._engine.frames or opening.collected):
            self._stream.restart(reason)
        return cameras

    def _find_scale(
        self, results: Sequence[FrameResult], images: Sequence[CameraImage],
        camera: CameraModel | None, settings: Settings,
    ) -> Scale | None:
        """Return what makes the results metric, as soon as it is known."""
        positions = None
        if settings.scale.mode == 'baseline' and self._rig is not None and len(results) > 1:
            positions = self._rig.positions([image.content.header for image in images])
        return self._stream.scale.update(
            results, images[0].stamp_ns, settings.scale, self._resize, positions, camera,
            images[0].content.header.frame_id)

    def _start_host_copy(
        self, images: Sequence[CameraImage], results: Sequence[FrameResult],
        location: Location, timestamps: FrameTimestamps,
    ) -> Reconstruction:
        """Start to copy to the host what is to be published beside where the images are."""
        headers, settings = [image.content.header for image in images], location.settings
        cloud_is_due = self._stream.cloud_rate.is_due(
            images[0].stamp_ns, location.arrival, settings.cloud.max_rate)
        topics = wanted_topics(self._publishers, cloud_is_due)
        # What TF says is in metres, and of use only when the results are.
        transforms = set_transforms(self._rig, results, headers, location.scale is not None)
        host = self._copies.start(host_makers(
            results, transforms, settings.cloud, topics,
            settings.map.enable or self._publishers.occupancy.get_subscription_count() > 0))
        return Reconstruction(
            **vars(location), resize=self._resize, host=host, topics=topics,
            cloud_is_due=cloud_is_due, timestamps=replace(timestamps, copying=time.monotonic()))

    def _log_beginning(self) -> None:
        resize = self._resize
        self._logger.info(
            f'stream begins: images {resize.source_width}x{resize.source_height}, network '
            f'{resize.width}x{resize.height}; cache: {self._engine.budget_description()}')
        self.budget_warning = self._engine.budget_warning()
        if self.budget_warning:
            self._logger.warning(self.budget_warning)
