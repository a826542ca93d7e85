"""From the maps of a small image to those of the large one that it was made of."""

from dataclasses import replace

from torch import Tensor
from torch.nn.functional import interpolate

from xsvggt_ros.model.network import FramePrediction

# Interpolated depth that is off the nearest by more lies between two things, where nothing is: in
# true depth of rooms at half the width it leaves 0.03 % of the pixels in the air instead of 2 %.
EDGE = 0.05


def upsample(prediction: FramePrediction, height: int, width: int) -> FramePrediction:
    """
    Return a prediction with maps [height, width], of the same field of view.

    Inverse depth is interpolated, as planes have it linear, and points with it; at the edges of
    things the nearest pixel counts.
    """
    size = height, width
    nearest = _resample(prediction.depth, size, 'nearest-exact')
    depth = _resample(prediction.depth.reciprocal(), size, 'bilinear').reciprocal()
    edge = (depth - nearest).abs() > EDGE * nearest
    points, points_confidence = prediction.points, prediction.points_confidence
    if points is not None and points_confidence is not None:
        planes = points.movedim(-1, 0)
        points = _resample(planes, size, 'nearest-exact').where(
            edge, _resample(planes, size, 'bilinear')).movedim(0, -1).contiguous()
        points_confidence = _resample(points_confidence, size, 'bilinear')
    return replace(
        prediction, depth=nearest.where(edge, depth),
        depth_confidence=_resample(prediction.depth_confidence, size, 'bilinear'), points=points,
        points_confidence=points_confidence)


def _resample(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Return x [h, w] or [n, h, w] at another size; pixels are squares, not points."""
    aligned = {'align_corners': False} if mode == 'bilinear' else {}
    planes = x.reshape(1, -1, *x.shape[-2:])
    return interpolate(planes, size, mode=mode, **aligned).reshape(*x.shape[:-2], *size)
