"""What a network says of a clip, and how far that is from the truth."""

import torch

from training.clips import Clips
from xsvggt_ros.geometry.metrics import depth_errors, position_errors, rotation_error
from xsvggt_ros.geometry.se3 import invert_transform, pose_encoding_to_camera
from xsvggt_ros.model.causal import ClipPrediction, predict_clips
from xsvggt_ros.model.streamvggt import StreamVGGT


def predict(model: StreamVGGT, clips: Clips, device: torch.device, dense: int) -> ClipPrediction:
    """Return what a network says of clips, dense maps of every `dense`-th frame."""
    with torch.autocast(device.type, torch.bfloat16):
        return predict_clips(model, clips.images.to(device),
                             range(0, clips.images.shape[1], dense))


def errors(clips: Clips, predicted: ClipPrediction, dense: int) -> tuple[dict[str, float], float]:
    """Return the errors along the first clip, and the scale of its depth."""
    camera_from_world, _ = pose_encoding_to_camera(
        predicted.poses[-1, 0].cpu().double(), *clips.depth.shape[-2:])
    estimate = invert_transform(camera_from_world).numpy()
    truth = invert_transform(clips.camera_from_first[0].double()).numpy()
    depth = clips.depth[0, ::dense].numpy()
    abs_rel, delta, scale = depth_errors(predicted.depth[0].cpu().numpy(), depth, depth > 0)
    return {'depth_abs_rel': abs_rel, 'depth_delta_1_25': delta,
            'ate_ratio': position_errors(estimate[:, :3, 3], truth[:, :3, 3])[1],
            'rotation_deg': rotation_error(estimate[:, :3, :3], truth[:, :3, :3])}, scale
