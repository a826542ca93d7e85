"""What is published of one frame after the other, and what is remembered for that."""

from collections.abc import Sequence
from dataclasses import dataclass
import time

import numpy as np
from std_msgs.msg import Header
import torch

from xsvggt_ros.engine.host_copy import PendingCopy
from xsvggt_ros.engine.stream_engine import PendingStats
from xsvggt_ros.images.preprocess import Resize
from xsvggt_ros.mapping.scale import Scale
from xsvggt_ros.msg import StreamStatus
from xsvggt_ros.node.deadline import Deadline
from xsvggt_ros.node.frames import Pose
from xsvggt_ros.node.inputs.tf_listener import TfListener
from xsvggt_ros.node.loading import LoadedEngine
from xsvggt_ros.node.outputs.frame_outputs import (
    cloud_fault,
    cloud_of,
    frame_outputs,
    without_gaps,
)
from xsvggt_ros.node.outputs.map_output import MapOutput, Moves
from xsvggt_ros.node.outputs.occupancy_output import OccupancyOutput
from xsvggt_ros.node.outputs.pose_outputs import PoseOutputs
from xsvggt_ros.node.outputs.publishers import Publishers
from xsvggt_ros.node.settings import MapSettings, Settings
from xsvggt_ros.node.status.fault_log import FaultLog
from xsvggt_ros.node.status.snapshot import GpuMemory
from xsvggt_ros.node.status.stream_statistics import (
    FrameReport,
    Latency,
    StreamStatistics,
    Ticket,
)
from xsvggt_ros.node.status.stream_status import cache_message, StatusPublisher
from xsvggt_ros.node.tracked_pose import LoopState, TrackedPose
from xsvggt_ros.trajectory.map_frame import MapFrame


@dataclass(frozen=True)
class FrameTimestamps:
    """When the stages of a frame were over, in seconds of the steady clock."""

    start: float      # of processing
    decoded: float
    computed: float   # its pose was known
    located: float    # that had been handed over to be published
    copying: float    # the copy to the host had been started
    upload: float     # seconds, not a time

    def after_computing(self, begin: float, end: float) -> float:
        """Return the seconds from ``begin`` to ``end`` in which the network was not at work."""
        return max(0.0, end - max(begin, self.computed))


@dataclass(frozen=True)
class Location:
    """Where images are that went through the network together, and what tells others of it."""

    header: Header  # of the reference camera's
    ticket: Ticket
    begins: bool  # a stream
    world_from_camera: np.ndarray  # [4, 4]
    tracked: TrackedPose | None  # how that came about; None: it is the network's own
    scale: Scale | None  # in which lengths are; None: the network's own
    settings: Settings
    arrival: float  # of the last one, in seconds of the steady clock

    @property
    def is_metric(self) -> bool:
        """Return whether lengths are metres, by the scale or by a saved map."""
        loops = None if self.tracked is None else self.tracked.loops
        return self.scale is not None or (loops is not None and loops.map_metres is not None)


@dataclass(frozen=True)
class Reconstruction(Location):
    """The same images, and all else that their publication needs."""

    resize: Resize
    host: PendingCopy
    topics: Sequence[str]  # that it is wanted on
    cloud_is_due: bool
    timestamps: FrameTimestamps


class StreamOutputs:
    """
    Publishes what was reconstructed, first what others wait for.

    `locate`, then `publish` and `account` are called for each set of images, by the thread that
    publishes; all else, while nothing is being published, by the worker's.
    """

    def __init__(
        self, loaded: LoadedEngine, publishers: Publishers, faults: FaultLog, tf: TfListener,
        settings: Settings, statistics: StreamStatistics, status: StatusPublisher,
        deadline: Deadline,
    ) -> None:
        """Begin without a stream; counts in ``statistics``, and tells ``deadline`` the times."""
        self.map = MapOutput(publishers, faults, loaded.device, loaded.description,
                             settings.map, settings.pose.odom_frame,
                             loaded.depth_errors)
        self._occupancy = OccupancyOutput(publishers, faults, settings.pose.odom_frame)
        self._poses = PoseOutputs(publishers, faults, tf, settings.path.max_poses)
        self._device = loaded.device
        self._publishers = publishers
        self._faults = faults
        self._statistics = statistics
        self._status = status
        self._deadline = deadline
        self._metres = 1.0  # in the unit of what was published
        self._pose: Pose | None = None  # what `locate` found out, for `account`
        self._centre: np.ndarray | None = None
        self._map_frame = MapFrame.none()   # of the newest image
        self._followed = MapFrame.none()    # that the map has followed
        self._loops: LoopState | None = None   # of the newest image
        self._locating = self._located = self._published = 0.0
        self._packing = self._publishing = 0.0  # seconds

    def begin(self) -> None:
        """Begin at the origin."""
        self._poses.forget()

    def forget(self) -> None:
        """Forget the stream; the next one goes on where the camera was last."""
        self._statistics.forget_stream()
        self._metres = 1.0
        self._pose = self._centre = None
        self._map_frame = self._followed = MapFrame.none()
        self._loops = None
        self._poses.begin_stream()
        self.map.forget()
        self._occupancy.forget()

    def locate(self, frame: Location) -> None:
        """Publish where the images are."""
        self._locating = time.monotonic()
        if frame.begins:
            self._poses.begin_stream()
        centre = self._follow_unit(frame.scale)
        if centre is not None:
            self._centre = centre  # the map needs it even if this image comes to nothing
        self._pose = self._poses.publish(
            frame.header, frame.world_from_camera, frame.settings.pose, frame.tracked,
            is_metric=frame.is_metric)
        self._located = time.monotonic()

    def publish(self, frame: Reconstruction) -> None:
        """Publish clouds and maps."""
        begin, times = time.monotonic(), frame.timestamps
        size = frame.resize.height, frame.resize.width
        outputs = frame_outputs(self._publishers, frame.header, frame.host, size, frame.topics)
        packed = time.monotonic()
        for publisher, content in outputs:
            publisher.publish(content)
        self._published = time.monotonic()
        images = frame.ticket.take()
        self._statistics.processed += images
        self._statistics.out_meter.tick(images)
        # Of what the worker did meanwhile only what was waited for.
        self._packing = packed - begin + max(
            0.0, times.copying - max(times.located, self._located))
        # A pose that was out before the network had seen the image cost nobody any time.
        self._publishing = (times.after_computing(self._locating, self._located)
                            + self._published - packed)

    def account(self, frame: Reconstruction, cache: PendingStats, health: PendingCopy) -> None:
        """Publish how the stream is doing; then, because nobody waits for it, fill the map."""
        statistics = self._statistics
        report = self._report(frame, cache, health)
        statistics.report = report
        statistics.last_header = frame.header
        statistics.latencies.append(report.latency.total)
        if self._pose is not None:
            statistics.odometry_latencies.append(self._poses.published - frame.arrival)
        self._deadline.update(self._published - frame.timestamps.start,
                              frame.settings.input.deadline_ms, report.cache)
        self._faults.clear('image')
        self._faults.clear('frame')
        self._publishers.cache_status.publish(
            cache_message(frame.header, report.cache, GpuMemory.read(self._device)))
        self._status.publish(StreamStatus.TRACKING, frame.scale)
        self._fill_map(frame)

    def _report(
        self, frame: Reconstruction, cache: PendingStats, health: PendingCopy,
    ) -> FrameReport:
        times, before = frame.timestamps, self._statistics.report
        latency = Latency(
            total=self._published - frame.arrival, decode=times.decoded - times.start,
            upload=times.upload, inference=times.computed - times.decoded - times.upload,
            pack=self._packing, publish=self._publishing)
        points = int(frame.host['cloud_size']) if 'points' in frame.topics else 0
        if not frame.cloud_is_due and before is not None:
            points = before.points  # those of the last cloud
        to_source = torch.linalg.inv(frame.resize.model_from_source())
        intrinsics = to_source @ frame.host['predicted_intrinsics'].double()
        return FrameReport(
            latency=latency, cache=cache.complete(health['health']), points=points,
            confidence_mean=frame.host['mean_confidence'].item(),
            depth_error=frame.host['typical_error'].item(),
            predicted_fx=intrinsics[0, 0].item(), predicted_fy=intrinsics[1, 1].item(),
            tracked=frame.tracked, cloud_fault=cloud_fault(frame.host, frame.settings.cloud),
            correction=self._poses.correction if frame.settings.pose.robot_odom_frame else None)

    def _follow_unit(self, scale: Scale | None) -> np.ndarray | None:
        """Let the poses follow a new scale; return about which point [3] all is scaled."""
        metres = scale.metres if scale else 1.0
        if metres == self._metres:
            return None
        factor, self._metres = metres / self._metres, metres
        return self._poses.rescale(factor)

    def save_map(self, settings: MapSettings) -> str:
        """Write the map and what a later stream is found by in it; raises MapError."""
        loops, report = self._loops, self._statistics.report
        fault = '' if report is None else report.cloud_fault
        if loops is None:
            return self.map.save(settings, why_empty=fault)
        is_metric = self.map.is_metric or loops.map_metres is not None
        return self.map.save(settings, is_metric, lambda: self._poses.landmarks(loops, is_metric),
                             fault)

    def map_is_due(self, settings: Settings) -> bool:
        """Return whether somebody waits for a newer map or grid; from any thread."""
        return self.map.is_due(settings.map) or self._occupancy.is_due(settings.occupancy)

    def publish_maps(self, settings: Settings) -> None:
        """Publish the map and the occupancy grid if somebody waits for them."""
        self.map.publish_if_due(settings.map)
        self._occupancy.publish_if_due(settings.occupancy)

    def _fill_map(self, frame: Reconstruction) -> None:
        settings = frame.settings.map
        if self._pose is not None:
            metres = frame.scale.metres if frame.scale else None
            loops = None if frame.tracked is None else frame.tracked.loops
            self._loops = loops
            if not self.map.is_behind:
                self._followed = self._map_frame
            placement, moves, newest = 0, None, None
            if loops:
                placement, moves = loops.placement, self._moves(self._followed, loops)
                newest, self._map_frame = self._moves(self._map_frame, loops), loops.map_frame
            self.map.add(
                frame.header, lambda: without_gaps(cloud_of(frame.host)), self._pose, metres,
                settings, self._centre, placement, moves)
            self._occupancy.follow(metres, self._centre, newest)
            if 'cloud' in frame.host:   # it is not without a map and subscribers
                self._occupancy.add(frame.header, without_gaps(cloud_of(frame.host)), self._pose,
                                    placement)
            self._centre = None
        self.publish_maps(frame.settings)

    def _moves(self, before: MapFrame, loops: LoopState) -> Moves | None:
        """Return how to follow loops that were closed since `before`; None if none was."""
        if before.corrections is loops.map_frame.corrections:
            return None
        return self._poses.moves(before, loops.map_frame)
