"""From a frame's result to a packed cloud: chosen, filtered and laid out on the device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from xsvggt_ros.engine.stream_engine import FrameResult
from xsvggt_ros.geometry import transform_points, unproject_depth

COLUMNS = ('x', 'y', 'z', 'rgb', 'confidence')  # of a packed cloud, 4 bytes each
SOURCES = ('depth', 'points')


@dataclass(frozen=True)
class CloudOptions:
    """
    Which points of a frame make its cloud.

    source: 'depth' unprojects the depth map, 'points' takes the point head's map.
    stride: every n-th pixel in both directions.
    confidence_percentile: share of the frame's points, 0..100, that is dropped as least sure.
    max_range: points farther from the camera are dropped, in the stream's unit; 0 keeps all.
    organized: what is dropped keeps its place, with NaN as x, y and z.
    """

    source: str = 'depth'
    stride: int = 1
    confidence_percentile: float = 0.0
    max_range: float = 0.0
    organized: bool = False


@torch.inference_mode()
def pack_cloud(result: FrameResult, options: CloudOptions) -> Tensor:
    """
    Return the cloud [N, 5] fp32 in the camera's optical frame, on the CPU, one row a point.

    The source 'points' needs a result that has them: `StreamEngine.want_points`. Columns are
    `COLUMNS`; rgb holds the bits 0x00RRGGBB, as PCL and RViz expect them. An organised cloud is
    [ceil(H / stride), ceil(W / stride), 5], as the pixels are.
    """
    if options.source == 'points':
        points = transform_points(result.camera_from_world, result.points)
        confidence = result.points_confidence
    else:
        points = unproject_depth(result.depth, result.intrinsics)
        confidence = result.depth_confidence
    step = options.stride
    points = points[::step, ::step]
    rows, columns = points.shape[:2]
    points = points.reshape(-1, 3)
    confidence = confidence[::step, ::step].reshape(-1)
    red, green, blue = result.image[::step, ::step].reshape(-1, 3).int().unbind(-1)
    rgb = ((red << 16) | (green << 8) | blue).view(torch.float32)
    packed = torch.cat([points, rgb[:, None], confidence[:, None]], dim=1)
    chosen = _chosen(points, confidence, options)
    if options.organized:
        packed[:, :3].masked_fill_(~chosen[:, None], torch.nan)
        return packed.view(rows, columns, len(COLUMNS)).cpu()
    return packed[chosen].cpu()


def _chosen(points: Tensor, confidence: Tensor, options: CloudOptions) -> Tensor:
    keep = torch.isfinite(points).all(dim=1) & torch.isfinite(confidence)
    if options.confidence_percentile > 0:
        # kthvalue, not quantile: that one refuses more than 16 million elements
        known = confidence[keep]
        rank = int(options.confidence_percentile / 100 * known.numel())
        if rank > 0:
            keep &= confidence >= known.kthvalue(rank + 1).values  # of equals all stay
    if options.max_range > 0:
        keep &= points.norm(dim=1) <= options.max_range
    return keep
