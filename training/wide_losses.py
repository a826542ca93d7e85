"""
What training in the wide world minimises: nothing of it knows how large the world is.

Of each clip one factor is taken out, which brings its predicted depths to the true ones; points
and translations are compared after the same factor and in units of the first frame's mean depth.
A weak pull towards metres remains. Depths and points are Laplace-distributed about the truth, with
the confidence as the inverse of their spread, so that it can be read as an error.
"""

from functools import reduce

import torch
from torch import Tensor

from training.clips import Clips
from training.losses import true_points
from xsvggt_ros.geometry.se3 import invert_transform, quaternion_to_matrix
from xsvggt_ros.model.causal import ClipPrediction

SPREAD = 0.3      # relative error that a confidence of 1 stands for; of c it is SPREAD / c
_ITERATION = 0.7   # weight of an iteration of the camera head over the next one's
_LEAST_W = 0.05    # of a predicted quaternion, up to half a turn from the first frame
_SCALES = (1, 2, 4)   # pixels over which gradients of depth are compared
WEIGHTS = {'depth': 1.0, 'edges': 0.5, 'points': 0.3, 'metric': 0.1, 'translation': 1.0,
           'rotation': 3.0, 'moved': 1.0, 'turned': 4.0, 'field_of_view': 1.0, 'matches': 0.5,
           'motion': 0.5}


def wide_losses(predicted: ClipPrediction, clips: Clips,
                dense_frames: list[int]) -> dict[str, Tensor]:
    """Return the terms, by the names in `WEIGHTS`, of a prediction of `clips`."""
    truth = clips.depth[:, dense_frames]
    error = predicted.depth.log() - truth.log()
    factor = error.mean(dim=(1, 2, 3))
    error = error - factor[:, None, None, None]
    unit = clips.depth[:, 0].mean(dim=(1, 2))
    points = predicted.points / factor.exp()[:, None, None, None, None]
    off = (points - true_points(clips, dense_frames)).norm(dim=-1) / unit[:, None, None, None]
    return {'depth': likelihood(error.abs(), predicted.depth_confidence),
            'edges': _edges(error),
            'points': likelihood(off, predicted.points_confidence),
            'metric': factor.abs().mean(),
            **_pose_losses(predicted.poses, clips, unit * factor.detach().exp(), unit)}


def wide_total(terms: dict[str, Tensor]) -> Tensor:
    """Return the weighted sum."""
    return reduce(torch.add, [WEIGHTS[name] * term for name, term in terms.items()])


def likelihood(error: Tensor, confidence: Tensor) -> Tensor:
    """
    Return the mean negative logarithm of the likelihood of errors, but for a constant.

    Laplace of spread SPREAD / confidence; in units of SPREAD, so that errors count as themselves
    where the confidence is 1.
    """
    return (confidence * error - SPREAD * confidence.log()).mean()


def _edges(error: Tensor) -> Tensor:
    """Return how much gradients of log depth [B, K, H, W] are off, at several scales."""
    total = error.new_zeros(())
    for step in _SCALES:
        part = error[..., ::step, ::step]
        total = total + part.diff(dim=-1).abs().mean() + part.diff(dim=-2).abs().mean()
    return total / len(_SCALES)


def _pose_losses(poses: Tensor, clips: Clips, predicted_unit: Tensor,
                 unit: Tensor) -> dict[str, Tensor]:
    """Return the terms of poses [4, B, S, 9]: of each frame, and between pairs of frames."""
    truth = clips.camera_from_first
    weights = _ITERATION ** torch.arange(len(poses) - 1, -1, -1, device=poses.device)
    weights = weights / weights.sum()

    def mean(error: Tensor) -> Tensor:     # [4, B, S, ...]
        return (weights * error.flatten(1).mean(dim=1)).sum()

    turn, true_turn = quaternion_to_matrix(poses[..., 3:7]), truth[..., :3, :3]
    place = poses[..., :3] / predicted_unit[:, None, None]
    true_place = truth[..., :3, 3] / unit[:, None, None]
    # Of a quaternion's two signs the one with w > 0: between them the network would pass zero,
    # and an average of weights that say either may turn anywhere.
    norm = (poses[..., 3:7].norm(dim=-1) - 1).abs() + (_LEAST_W - poses[..., 6]).clamp_min(0)
    terms = {'translation': mean((place - true_place).abs()),
             'rotation': mean((turn - true_turn).abs()) + 0.1 * mean(norm),
             'field_of_view': mean((poses[..., 7:] - clips.fields_of_view).abs())}
    steps, turns = [], []
    frames = truth.shape[1]
    for apart in {1, max(1, frames // 3)} if frames > 1 else ():
        made = _between(turn, place, apart)
        true = _between(true_turn, true_place, apart)
        turns.append(mean((made[0] - true[0]).abs()))
        steps.append(mean((made[1] - true[1]).abs()))
    zero = poses.new_zeros(())
    terms['moved'] = sum(steps, zero) / max(len(steps), 1)
    terms['turned'] = sum(turns, zero) / max(len(turns), 1)
    return terms


def _between(turn: Tensor, place: Tensor, apart: int) -> tuple[Tensor, Tensor]:
    """Return the motion from each camera to the one `apart` frames later: later_from_earlier."""
    early_turn, late_turn = turn[..., :-apart, :, :], turn[..., apart:, :, :]
    between = late_turn @ early_turn.transpose(-1, -2)
    moved = place[..., apart:, :] - (between @ place[..., :-apart, :, None]).squeeze(-1)
    return between, moved


def first_camera(world_from_camera: Tensor) -> Tensor:
    """Return camera_from_first [B, S, 4, 4] of poses [B, S, 4, 4], computed in double."""
    pose = world_from_camera.double()
    return (invert_transform(pose) @ pose[:, :1]).float()
