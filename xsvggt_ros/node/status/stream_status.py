"""The two messages that say how the stream is doing: ~/status and ~/cache_status."""

from collections.abc import Sequence

from rclpy.time import Time
from std_msgs.msg import Header

from xsvggt_ros.engine.stream_engine import CacheStats
from xsvggt_ros.mapping.scale import Scale
from xsvggt_ros.msg import CacheStatus, StreamStatus
from xsvggt_ros.node.inputs.image_intake import ImageIntake
from xsvggt_ros.node.loading import LoadedEngine
from xsvggt_ros.node.message_fields import fill
from xsvggt_ros.node.opening import Opening
from xsvggt_ros.node.outputs.publishers import Publishers
from xsvggt_ros.node.status.fault_log import FaultLog
from xsvggt_ros.node.status.snapshot import GpuMemory
from xsvggt_ros.node.status.stream_statistics import (
    FrameReport,
    metres_of,
    percentiles,
    StreamStatistics,
)
from xsvggt_ros.node.tracked_pose import TrackedPose


class StatusPublisher:
    """Publishes ~/status; any thread may."""

    def __init__(
        self, publishers: Publishers, loaded: LoadedEngine, intake: ImageIntake,
        statistics: StreamStatistics, faults: FaultLog, opening: Opening,
    ) -> None:
        """Read counters from the parts, and ``faults`` for the state."""
        self._publisher = publishers.status
        self._loaded = loaded
        self._intake = intake
        self._statistics = statistics
        self._faults = faults
        self._opening = opening

    def publish(self, state: int, scale: Scale | None) -> None:
        """Publish a state, under the header of the newest image that was processed."""
        intake, statistics, report = self._intake, self._statistics, self._statistics.report
        frames, collected = self._loaded.engine.frames, self._opening.collected
        metres = metres_of(scale, report)
        message = fill(
            StreamStatus(), header=statistics.last_header, state=state,
            model=self._loaded.description, random_weights=self._loaded.random_weights,
            frames_processed=statistics.processed, frames_dropped=intake.dropped,
            frames_rejected=statistics.rejected + intake.refused,
            frames_skipped=intake.skipped + statistics.late + statistics.unused,
            frames_collected=collected, frames_to_collect=self._opening.wanted(frames),
            frames_received=intake.received,  # last: images arrive meanwhile, it is never less
            rate_in=intake.meter.rate(), rate_out=statistics.out_meter.rate(),
            reset_count=statistics.resets, metric=metres is not None,
            scale=1.0 if metres is None else metres,
            scale_uncertainty=scale.uncertainty if scale else 0.0)
        if report is not None:
            fill_report(message, report, list(statistics.latencies))
        self._publisher.publish(message)

    def publish_idle(self, scale: Scale | None, is_silent: bool, is_stuck: bool) -> None:
        """
        Publish the state if nothing is tracked.

        is_silent: no image for longer than diagnostics.image_timeout; is_stuck: the image being
        processed takes much too long.
        """
        is_disturbed = any(self._faults.get(kind) is not None for kind in ('image', 'frame'))
        if is_stuck:
            state = StreamStatus.DEGRADED
        elif not self._intake.enabled:
            state = StreamStatus.PAUSED
        elif self._statistics.report is None:
            state = StreamStatus.DEGRADED if is_disturbed else self._waiting(is_silent)
        elif is_silent:
            state = StreamStatus.WAITING
        elif is_disturbed:
            state = StreamStatus.DEGRADED
        else:
            return
        self.publish(state, scale)

    def _waiting(self, is_silent: bool) -> int:
        """Return the state before anything was reconstructed."""
        begins = self._opening.collected and not is_silent
        return StreamStatus.WARMING_UP if begins else StreamStatus.WAITING


def fill_report(message: StreamStatus, report: FrameReport, latencies: Sequence[float]) -> None:
    """Fill in what is known of the last frame and of the times of the last ones."""
    parts = {f'latency_{name}': seconds for name, seconds in vars(report.latency).items()}
    median, p95, p99 = percentiles(latencies)
    fill(message, **parts, latency_p50=median, latency_p95=p95, latency_p99=p99,
         confidence_mean=report.confidence_mean, depth_error=report.depth_error,
         points_published=report.points)
    fill_trajectory(message, report.tracked)


def fill_trajectory(message: StreamStatus, tracked: TrackedPose | None) -> None:
    """Fill in where a frame's pose comes from; tracked: None if the network gave it."""
    if tracked is None:
        fill(message, pose_source='network')
        return
    fill(message, pose_source=tracked.source, pose_inliers=tracked.inliers,
         reprojection_error=tracked.error)
    if tracked.loops is not None:
        report = tracked.loops.report
        fill(message, keyframes=len(tracked.loops.keyframes), loops_closed=report.found,
             loops_refused=sum(report.refused.values()),
             drift_corrected=report.moved * tracked.loops.map_frame.metres,
             drift_corrected_angle=report.turned)
    if tracked.loops is not None and tracked.loops.localization is not None:
        localization = tracked.loops.localization
        since = localization.since_ns
        fill(message, localizing=True, localized=since is not None,
             localized_since=Time(nanoseconds=since or 0).to_msg(),
             localization_confirmations=localization.confirmations)


def cache_message(header: Header, cache: CacheStats, gpu: GpuMemory) -> CacheStatus:
    """Return the message of a cache's statistics."""
    health = cache.health
    assert health is not None  # there has been a frame
    return fill(
        CacheStatus(), header=header, frame_index=cache.frames - 1,
        layers=len(cache.tokens_per_layer), tokens_per_frame=cache.tokens_per_frame,
        tokens_used=max(cache.tokens_per_layer, default=0), tokens_budget=cache.budget or 0,
        tokens_limit=cache.limit or 0,
        occupancy=cache.occupancy, tokens_evicted=cache.evicted_this_frame,
        tokens_evicted_total=cache.evicted_total,
        tokens_first=round(health.first_tokens), tokens_history=round(health.history_tokens),
        tokens_newest=round(health.newest_tokens), frames_represented=health.steps,
        attention_kept=health.attention_kept, bytes_used=cache.bytes_used,
        bytes_budget=cache.bytes_reserved, gpu_bytes_allocated=gpu.allocated,
        gpu_bytes_reserved=gpu.reserved, gpu_bytes_free=gpu.free, gpu_bytes_total=gpu.total)
