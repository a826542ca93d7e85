"""What goes out of one stream after the other, and what is remembered for that."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
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
from xsvggt_ros.node.frames import Pose
from xsvggt_ros.node.inputs.tf_listener import TfListener
from xsvggt_ros.node.loading import LoadedEngine
from xsvggt_ros.node.outputs.frame_outputs import cloud_of, frame_outputs, without_gaps
from xsvggt_ros.node.outputs.map_output import MapOutput
from xsvggt_ros.node.outputs.pose_outputs import PoseOutputs
from xsvggt_ros.node.outputs.publishers import Publishers
from xsvggt_ros.node.parameters import Value
from xsvggt_ros.node.status.diagnostics import GpuMemory
from xsvggt_ros.node.status.status_messages import cache_message
from xsvggt_ros.node.status.stream_statistics import (
    FaultLog,
    FrameReport,
    Latency,
    RateMeter,
    Ticket,
)

LATENCIES = 200  # frames over which latency statistics are taken


@dataclass(frozen=True)
class Moments:
    """When the parts of an image's way were over, in seconds of the steady clock."""

    arrival: float
    start: float     # of the work on it
    decoded: float
    computed: float  # its pose was known
    copying: float   # what is to be published was on its way to the host
    upload: float    # seconds, not a moment


@dataclass(frozen=True)
class Reconstruction:
    """Images that went through the network together, and all that their publication needs."""

    header: Header  # of the reference camera's
    ticket: Ticket
    begins: bool  # a stream
    world_from_camera: np.ndarray  # [4, 4]
    scale: Scale | None  # in which lengths are; None: the network's own
    resize: Resize
    host: PendingCopy
    topics: Sequence[str]  # that it is wanted on
    cloud_is_due: bool
    values: Mapping[str, Value]
    moments: Moments


class StreamOutputs:
    """
    Publishes what was reconstructed, first what others wait for.

    `publish` and then `account` are called for each set of images, by the thread that publishes;
    all else, while nothing is being published, by the worker's. Anybody may read the attributes.
    """

    def __init__(
        self, loaded: LoadedEngine, publishers: Publishers, faults: FaultLog, tf: TfListener,
        values: Mapping[str, Value],
        make_status: Callable[[Header, int, Scale | None], StreamStatus],
    ) -> None:
        """Begin without a stream. make_status: of the images with this header, now."""
        self.processed = 0  # images
        self.report: FrameReport | None = None  # of the newest
        self.latencies: deque[float] = deque(maxlen=LATENCIES)
        self.out_meter = RateMeter()
        self.last_header = Header()
        self.map = MapOutput(publishers, faults, loaded.device, loaded.description, values)
        self._poses = PoseOutputs(publishers, faults, tf, values['path.max_poses'])
        self._device = loaded.device
        self._publishers = publishers
        self._faults = faults
        self._make_status = make_status
        self._metres = 1.0  # in the unit of what was published
        self._pose: Pose | None = None  # what `publish` found out, for `account`
        self._centre: np.ndarray | None = None
        self._published = 0.0
        self._packing = self._publishing = 0.0  # seconds
        self._taken: float | None = None

    def begin(self) -> None:
        """Begin with all counters at zero, at the origin."""
        self.processed = 0
        self._poses.forget()

    def forget(self, values: Mapping[str, Value]) -> None:
        """Forget the stream; the next one goes on where the camera was last."""
        self.report = None
        self._taken = None
        self._metres = 1.0
        self._pose = self._centre = None
        self.latencies.clear()
        self._poses.begin_stream()
        self.map.forget(values)

    def take_seconds(self) -> float | None:
        """Return what the newest images took from `Moments.start` on; None if that was asked."""
        seconds, self._taken = self._taken, None
        return seconds

    def publish(self, done: Reconstruction) -> None:
        """Publish pose, clouds and maps."""
        begin = time.monotonic()
        size = done.resize.height, done.resize.width
        outputs = frame_outputs(self._publishers, done.header, done.host, size, done.topics)
        packed = time.monotonic()
        if done.begins:
            self._poses.begin_stream()
        centre = self._follow_unit(done.scale)
        if centre is not None:
            self._centre = centre  # the map needs it even if this image comes to nothing
        self._pose = self._poses.publish(done.header, done.world_from_camera, done.values)
        for publisher, content in outputs:
            publisher.publish(content)
        self._published = time.monotonic()
        self.processed += done.ticket.take()
        self._packing = packed - begin + done.moments.copying - done.moments.computed
        self._publishing = self._published - packed

    def account(self, done: Reconstruction, cache: PendingStats, health: PendingCopy) -> None:
        """Publish how the stream is doing; then, because nobody waits for it, fill the map."""
        moments = done.moments
        latency = Latency(
            total=self._published - moments.arrival, decode=moments.decoded - moments.start,
            upload=moments.upload, inference=moments.computed - moments.decoded - moments.upload,
            pack=self._packing, publish=self._publishing)
        points = int(done.host['cloud_size']) if 'points' in done.topics else 0
        if not done.cloud_is_due and self.report is not None:
            points = self.report.points  # those of the last cloud
        to_source = torch.linalg.inv(done.resize.model_from_source())
        intrinsics = to_source @ done.host['predicted_intrinsics'].double()
        self.report = FrameReport(
            latency=latency, cache=cache.complete(health['health']), points=points,
            confidence_mean=done.host['mean_confidence'].item(),
            predicted_fx=intrinsics[0, 0].item(), predicted_fy=intrinsics[1, 1].item())
        self.last_header = done.header
        self.out_meter.tick()
        self.latencies.append(latency.total)
        self._taken = self._published - moments.start
        self._faults.clear('image')
        self._faults.clear('frame')
        self._publish_status(done)
        self._fill_map(done)

    def _follow_unit(self, scale: Scale | None) -> np.ndarray | None:
        """Let the poses follow a new scale; return about which point [3] all is scaled."""
        metres = scale.metres if scale else 1.0
        if metres == self._metres:
            return None
        factor, self._metres = metres / self._metres, metres
        return self._poses.rescale(factor)

    def _publish_status(self, done: Reconstruction) -> None:
        gpu = GpuMemory.read(self._device)
        self._publishers.cache_status.publish(
            cache_message(done.header, self.report.cache, gpu))
        self._publishers.status.publish(
            self._make_status(done.header, StreamStatus.TRACKING, done.scale))

    def _fill_map(self, done: Reconstruction) -> None:
        if self._pose is not None:
            self.map.add(
                done.header, lambda: without_gaps(cloud_of(done.host)), self._pose,
                done.scale.metres if done.scale else None, done.values, self._centre)
            self._centre = None
        self.map.publish_if_due(done.values)
