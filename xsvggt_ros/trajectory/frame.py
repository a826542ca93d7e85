"""One frame, as the odometry takes it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xsvggt_ros.trajectory.relative_odometry import View


@dataclass(frozen=True)
class Frame:
    """
    One frame for the odometry.

    grey: uint8 [H, W], of a pinhole camera. depth, confidence: the network's, [h, w], NaN and 0
    where nothing is known. world_from_camera: its pose, [4, 4]. depth_from_image: [3, 3], from
    pixel coordinates of `grey` to those of `depth`. depth_error: returns the share [h, w] by which
    depth is expected to be off, which is asked for where it makes a keyframe; None: confidences
    only compare with each other. view: for an odometry from elsewhere; None: that does not know
    where the camera is on its body.
    """

    grey: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray
    world_from_camera: np.ndarray
    depth_from_image: np.ndarray
    depth_error: Callable[[], np.ndarray] | None = None
    view: View | None = None
