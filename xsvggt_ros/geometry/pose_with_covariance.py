"""Where a body is at a time, as an odometry says it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PoseWithCovariance:
    """
    A pose with its time and covariance, in metres.

    parent_from_body: [4, 4]. covariance: [6, 6] as its sender gave it, position then rotation
    about the parent's axes (geometry_msgs/PoseWithCovariance); unknown numbers may be anything.
    """

    stamp_ns: int
    parent_from_body: np.ndarray
    covariance: np.ndarray
