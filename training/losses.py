"""
What training minimises, after VGGT (Wang et al., CVPR 2025) and StreamVGGT.

Depth and points are weighted by their own confidence; poses are in the first camera's frame.
Other than there, lengths are metres: the floor of the rooms tells how large they are.
"""

from functools import reduce

import torch
from torch import Tensor

from training.clips import Clips
from xsvggt_ros.geometry.se3 import (
    invert_transform,
    pose_encoding_to_camera,
    quaternion_to_matrix,
    unproject_depth,
)
from xsvggt_ros.model.causal import ClipPrediction

_CONFIDENCE = 0.1     # reward of the logarithm of a confidence
_ROOM_CENTRE = (3.8, 3.05, 1.25)   # metres, about the middle of the rooms
_ITERATION = 0.7      # weight of an iteration of the camera head over the next one's
WEIGHTS = {'depth': 1.0, 'edges': 0.5, 'points': 0.3, 'translation': 1.0, 'rotation': 2.0,
           'field_of_view': 1.0, 'room': 0.5}


def losses(predicted: ClipPrediction, clips: Clips, dense_frames: list[int],
           room: Tensor) -> dict[str, Tensor]:
    """
    Return the terms, by the names in `WEIGHTS`, of a prediction of `clips`.

    `room` [B, S, 12] is what a helper that is not shipped reads from a camera token in the middle
    of the network: position and axes of the camera in the room. Rooms look alike from their own
    corners, so this is easy to learn, and where the poses relative to the first camera start.
    """
    depth = clips.depth[:, dense_frames]
    error = predicted.depth.log() - depth.log()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    points = true_points(clips, dense_frames)
    off = (predicted.points - points).norm(dim=-1) / depth.mean(dim=(-1, -2), keepdim=True)
    return {'depth': _confident(error.abs(), predicted.depth_confidence),
            'edges': edges,
            'points': _confident(off, predicted.points_confidence),
            'room': _room_loss(room, clips.room_from_camera),
            **_pose_losses(predicted.poses, clips)}


def total(terms: dict[str, Tensor]) -> Tensor:
    """Return the weighted sum."""
    weighted = [WEIGHTS[name] * term for name, term in terms.items()]
    return reduce(torch.add, weighted)


def true_intrinsics(clips: Clips) -> Tensor:
    """Return the intrinsics [B, S, 3, 3] of all frames, in pixels."""
    encoding = torch.zeros(*clips.depth.shape[:2], 9).to(clips.depth)
    encoding[..., 7:] = clips.fields_of_view
    return pose_encoding_to_camera(encoding, *clips.depth.shape[-2:])[1]


def true_points(clips: Clips, frames: list[int]) -> Tensor:
    """Return the points [B, K, H, W, 3] of `frames` in the first camera's frame."""
    depth = clips.depth[:, frames]
    intrinsics = true_intrinsics(clips)[:, frames]
    local = torch.stack([unproject_depth(one, k) for one, k in
                         zip(depth.flatten(0, 1), intrinsics.flatten(0, 1))])
    first_from_camera = invert_transform(clips.camera_from_first[:, frames]).flatten(0, 1)
    points = torch.einsum('nij,nhwj->nhwi', first_from_camera[:, :3, :3], local)
    points = points + first_from_camera[:, None, None, :3, 3]
    return points.unflatten(0, depth.shape[:2])


def _room_loss(predicted: Tensor, room_from_camera: Tensor) -> Tensor:
    """Return the error of position and axes [B, S, 12]."""
    position = room_from_camera[..., :3, 3] - torch.tensor(_ROOM_CENTRE).to(predicted)
    axes = room_from_camera[..., :3, :3].flatten(-2)
    return ((predicted[..., :3] - position).abs().mean()
            + 2 * (predicted[..., 3:] - axes).abs().mean())


def _confident(error: Tensor, confidence: Tensor) -> Tensor:
    """Return the mean error, weighted by confidences (1 and more), which cost nothing if low."""
    return (confidence * error - _CONFIDENCE * confidence.log()).mean()


def _pose_losses(poses: Tensor, clips: Clips) -> dict[str, Tensor]:
    """Return the terms of poses [4, B, S, 9]; rotations are compared as matrices."""
    truth = clips.camera_from_first
    weights = _ITERATION ** torch.arange(len(poses) - 1, -1, -1, device=poses.device)
    weights = weights / weights.sum()
    rotation = (quaternion_to_matrix(poses[..., 3:7]) - truth[..., :3, :3]).abs().mean(
        dim=(1, 2, 3, 4))
    unit = (poses[..., 3:7].norm(dim=-1) - 1).abs().mean(dim=(1, 2))
    translation = (poses[..., :3] - truth[..., :3, 3]).abs().mean(dim=(1, 2, 3))
    field = (poses[..., 7:] - clips.fields_of_view).abs().mean(dim=(1, 2, 3))
    return {'translation': (weights * translation).sum(),
            'rotation': (weights * (rotation + 0.1 * unit)).sum(),
            'field_of_view': (weights * field).sum()}
