"""Between the engine's results, tensors on a device, and a trajectory's numbers on the host."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xsvggt_ros.engine.frame_result import expected_error, FrameResult
from xsvggt_ros.model.error_table import ErrorTable
from xsvggt_ros.trajectory.camera_tracker import NetworkFrame
from xsvggt_ros.trajectory.projection import inverse


@dataclass(frozen=True)
class DepthError:
    """
    Returns the share [h, w] by which depths are expected to be off, when it is asked for.

    The state of a run that is interrupted holds it.
    """

    confidence: Tensor   # [h, w]
    errors: ErrorTable

    def __call__(self) -> np.ndarray:
        """Return it; waits for the device."""
        return expected_error(self.confidence, self.errors).cpu().numpy()


def network_frame(result: FrameResult, model_from_source: Tensor) -> NetworkFrame:
    """Return what the network says of a frame; waits for the device."""
    errors = result.depth_errors
    return NetworkFrame(
        result.depth.cpu().numpy(), result.depth_confidence.cpu().numpy(),
        inverse(result.camera_from_world.double().cpu().numpy()),
        result.intrinsics.double().cpu().numpy(), model_from_source.numpy(),
        None if errors is None else DepthError(result.depth_confidence, errors))


def tensor_like(values: np.ndarray, result: FrameResult) -> Tensor:
    """Return numbers in the precision of a result's depth, on its device."""
    return torch.from_numpy(values).to(result.depth)
