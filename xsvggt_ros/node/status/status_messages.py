"""The two messages that say how the stream is doing."""

from collections.abc import Sequence

from std_msgs.msg import Header

from xsvggt_ros.engine.stream_engine import CacheStats
from xsvggt_ros.msg import CacheStatus, StreamStatus
from xsvggt_ros.node.message_fields import fill
from xsvggt_ros.node.status.diagnostics import GpuMemory
from xsvggt_ros.node.status.stream_statistics import FrameReport, percentiles


def fill_report(message: StreamStatus, report: FrameReport, latencies: Sequence[float]) -> None:
    """Fill in what is known of the last frame and of the times of the last ones."""
    parts = {f'latency_{name}': seconds for name, seconds in vars(report.latency).items()}
    median, most, nearly_all = percentiles(latencies)
    fill(message, **parts, latency_p50=median, latency_p95=most, latency_p99=nearly_all,
         confidence_mean=report.confidence_mean, points_published=report.points)


def cache_message(header: Header, cache: CacheStats, gpu: GpuMemory) -> CacheStatus:
    """Return the message of a cache's statistics."""
    return fill(
        CacheStatus(), header=header, frame_index=cache.frames - 1,
        layers=len(cache.tokens_per_layer), tokens_per_frame=cache.tokens_per_frame,
        tokens_used=max(cache.tokens_per_layer, default=0), tokens_budget=cache.budget or 0,
        tokens_limit=cache.limit or 0,
        occupancy=cache.occupancy, tokens_evicted=cache.evicted_this_frame,
        tokens_evicted_total=cache.evicted_total,
        tokens_first=round(cache.health.first_tokens),
        tokens_history=round(cache.health.history_tokens),
        tokens_newest=round(cache.health.newest_tokens),
        frames_represented=cache.health.steps, attention_kept=cache.health.attention_kept,
        bytes_used=cache.bytes_used,
        bytes_budget=cache.bytes_reserved, gpu_bytes_allocated=gpu.allocated,
        gpu_bytes_reserved=gpu.reserved, gpu_bytes_free=gpu.free, gpu_bytes_total=gpu.total)
