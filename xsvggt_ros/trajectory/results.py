"""Between the engine's results, tensors on a device, and a trajectory's numbers on the host."""

import numpy as np
import torch
from torch import Tensor

from xsvggt_ros.engine.frame_result import FrameResult
from xsvggt_ros.geometry.se3 import invert_transform
from xsvggt_ros.trajectory.camera_tracker import NetworkFrame


def network_frame(result: FrameResult, model_from_source: Tensor) -> NetworkFrame:
    """Return what the network says of a frame; waits for the device."""
    def error() -> np.ndarray:
        errors = result.depth_error()
        assert errors is not None   # as was asked for
        return errors.cpu().numpy()

    return NetworkFrame(
        result.depth.cpu().numpy(), result.depth_confidence.cpu().numpy(),
        invert_transform(result.camera_from_world.double().cpu()).numpy(),
        result.intrinsics.double().cpu().numpy(), model_from_source.numpy(),
        None if result.depth_errors is None else error)


def tensor_like(values: np.ndarray, result: FrameResult) -> Tensor:
    """Return numbers in the precision of a result's depth, on its device."""
    return torch.from_numpy(values).to(result.depth)
