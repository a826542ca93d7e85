"""From frames' results to a packed cloud: chosen, filtered and laid out on the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xsvggt_ros.engine.stream_engine import FrameResult
from xsvggt_ros.geometry.se3 import transform_points, unproject_depth

COLUMNS = ('x', 'y', 'z', 'rgb', 'confidence')  # of a packed cloud, 4 bytes each
SOURCES = ('depth', 'points')


@dataclass(frozen=True)
class CloudOptions:
    """
    Which points of a frame make its cloud.

    source: 'depth' unprojects the depth map, 'points' takes the point head's map.
    stride: every n-th pixel in both directions.
    confidence_percentile: share of the frame's points, 0..100, that is dropped as least sure.
    max_error: points whose depth is expected to be off by a larger share are dropped; 0 keeps
        all, and so does a checkpoint that does not say what its confidences mean.
    max_range: points farther from the camera are dropped, in the stream's unit; 0 keeps all.
    organized: what is dropped keeps its place, with NaN as x, y and z.
    """

    source: str = 'depth'
    stride: int = 1
    confidence_percentile: float = 0.0
    max_error: float = 0.0
    max_range: float = 0.0
    organized: bool = False


def pack_cloud(result: FrameResult, options: CloudOptions) -> Tensor:
    """
    Return a frame's cloud on the CPU, without room at its end; see `lay_out_cloud`.

    [N, 5], or [rows, columns, 5] if it is organised.
    """
    rows, count = lay_out_cloud([result], [torch.eye(4)], options)
    return rows.cpu() if options.organized else rows[:int(count)].cpu()


@torch.inference_mode()
def lay_out_cloud(
    results: Sequence[FrameResult], reference_from_camera: Sequence[Tensor],
    options: CloudOptions,
) -> tuple[Tensor, Tensor]:
    """
    Return the cloud of frames taken together in one buffer, and how many points it has.

    Both are on the results' device, which is not waited for: the buffer [N, 5], fp32, has a row
    for every pixel, and those beyond the count mean nothing. So it has the same shape with every
    frame, as memory that is allocated once must have.

    Points are in the first frame's optical frame; reference_from_camera, [4, 4] each, brings them
    there, and the first is not used. Columns are `COLUMNS`; rgb holds the bits 0x00RRGGBB, as PCL
    and RViz expect them. An organised cloud, of one frame, is [ceil(H / stride),
    ceil(W / stride), 5], as the pixels are. The source 'points' needs results that have them:
    `StreamEngine.want_points`.
    """
    parts = [_rows(result, options) for result in results]
    for (rows, _), transform in zip(parts[1:], reference_from_camera[1:]):
        rows[:, :3] = transform_points(transform.to(rows), rows[:, :3])
    rows, chosen = (torch.cat(some) if len(results) > 1 else some[0] for some in zip(*parts))
    count = chosen.sum()
    if options.organized:
        rows[:, :3].masked_fill_(~chosen[:, None], torch.nan)
        height, width = results[0].depth[::options.stride, ::options.stride].shape
        return rows.view(height, width, len(COLUMNS)), count
    # All that is dropped goes into one row more.
    place = torch.where(chosen, chosen.cumsum(0) - 1, len(rows))
    buffer = rows.new_empty(len(rows) + 1, len(COLUMNS))
    return buffer.index_copy_(0, place, rows)[:-1], count


def _rows(result: FrameResult, options: CloudOptions) -> tuple[Tensor, Tensor]:
    """Return all pixels [N, 5] in their own camera's frame, and which are chosen, bool [N]."""
    if options.source == 'points':
        if result.points is None or result.points_confidence is None:
            raise ValueError("the results have no points: take the source 'depth'")
        points = transform_points(result.camera_from_world, result.points)
        confidence = result.points_confidence
    else:
        points = unproject_depth(result.depth, result.intrinsics)
        confidence = result.depth_confidence
    step = options.stride
    points = points[::step, ::step].reshape(-1, 3)
    confidence = confidence[::step, ::step].reshape(-1)
    red, green, blue = result.image[::step, ::step].reshape(-1, 3).int().unbind(-1)
    rgb = ((red << 16) | (green << 8) | blue).view(torch.float32)
    rows = torch.cat([points, rgb[:, None], confidence[:, None]], dim=1)
    chosen = _chosen(points, confidence, options)
    if options.max_error > 0 and result.depth_errors is not None:
        least = result.depth_errors.least_confidence(options.max_error)
        chosen &= result.depth_confidence[::step, ::step].reshape(-1) >= least
    return rows, chosen


def _chosen(points: Tensor, confidence: Tensor, options: CloudOptions) -> Tensor:
    keep = torch.isfinite(points).all(dim=1) & torch.isfinite(confidence)
    if options.confidence_percentile > 0:
        share = options.confidence_percentile / 100
        least = _least_on_host if confidence.device.type == 'cpu' else _least_on_device
        keep &= confidence >= least(confidence, keep, share)  # of equals all stay
    if options.max_range > 0:
        keep &= points.norm(dim=1) <= options.max_range
    return keep


def _least_on_host(confidence: Tensor, known: Tensor, share: float) -> Tensor | float:
    """Return the least confidence to keep when a share of those known is dropped."""
    # kthvalue, not quantile: that one refuses more than 16 million elements
    confidence = confidence[known]
    rank = int(share * confidence.numel())
    return confidence.kthvalue(rank + 1).values if rank > 0 else -torch.inf


def _least_on_device(confidence: Tensor, known: Tensor, share: float) -> Tensor:
    """Return the same without waiting for the device; sorting takes a CPU six times as long."""
    ordered = torch.where(known, confidence, torch.inf).sort().values
    rank = (share * known.sum().double()).long().clamp_max(len(ordered) - 1)
    return ordered.gather(0, rank[None])
